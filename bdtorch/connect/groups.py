"""All to all between groups, with one weight for each pair of groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdtorch._types import Value
from bdtorch.connect.data import Connectivity, as_floats


class Groups(Connectivity):
    r"""Every source reaches every target, by a weight that depends on their groups alone,

    $$y_j = \sum_I W_{I\,J(j)} \sum_{i \in I} x_i,$$

    so that a product costs as much as its vectors are long, and not their product.

    Args:
        sources: Sizes of the groups of sources, in the order in which they lie.
        targets: Sizes of the groups of targets.

    Raises:
        ValueError: A size is not a positive integer, or there are no groups.
    """

    def __init__(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self_sizes = {"sources": tuple(sources), "targets": tuple(targets)}
        for name, sizes in self_sizes.items():
            if not sizes or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
                raise ValueError(f"`Groups({name}=...)`: expected positive integers, got {sizes!r}")
        super().__init__(sum(sources), sum(targets))
        self.sources, self.targets = self_sizes["sources"], self_sizes["targets"]

    @property
    def synapses(self) -> int:
        return self.n_pre * self.n_post

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """One weight for each pair of groups."""
        return (len(self.sources), len(self.targets))

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return _product(as_floats(x, weight), self.sources, self._full(weight), self.targets)

    def transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        return _product(as_floats(x, weight), self.targets, self._full(weight).mT, self.sources)

    def _full(self, weight: Tensor) -> Tensor:
        return weight.expand(self.weight_shape)

    def to_dense(self, weight: Value = 1.0) -> Tensor:
        values = torch.as_tensor(weight).expand(self.weight_shape)
        return _spread(_spread(values, self.targets).mT, self.sources).mT.contiguous()

    def extra_repr(self) -> str:
        return f"{self.sources} -> {self.targets}"


def _product(x: Tensor, sources: tuple[int, ...], weight: Tensor, targets: tuple[int, ...]) -> Tensor:
    totals = torch.cat([part.sum(-1, keepdim=True) for part in x.split(sources, -1)], -1)
    return _spread((totals.unsqueeze(-1) * weight).sum(-2), targets)


def _spread(values: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """One value of the last axis for each group, repeated for every member."""
    parts = [value.expand(*values.shape[:-1], n) for value, n in zip(values.split(1, -1), sizes, strict=True)]
    return torch.cat(parts, -1)
