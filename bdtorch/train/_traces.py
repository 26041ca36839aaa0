"""Eligibility traces over the synapses of a layer, advanced by chunks of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch.connect import CSR, Connectivity, Dense
from bdtorch.ops import csr_outer
from bdtorch.train._eligibility import Pull, Pulled


class Traces(NamedTuple):
    """What e-prop keeps for one weight tensor."""

    vectors: list[Tensor]
    """The derivative of each state variable of the cell by the weight, ``(batch, *pattern)``."""
    filtered: Tensor
    """The eligibility trace, filtered by the readout's leak, ``(batch, *pattern)``."""
    gradient: Tensor
    """The sum over time and batch of learning signal times filtered trace, of the pattern's shape."""
    total: Tensor
    """The sum of the unfiltered trace: what one more unit of every output's sum means for the weight."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which cell and which source an entry of a weight tensor joins.

    Attributes:
        shape: Shape of the weight tensor: ``(sources, cells)``, or ``(synapses,)`` for sparse ones.
        csr: The connectivity of sparse ones.
        mask: Pairs that exist, for dense patterns with gaps.
    """

    shape: tuple[int, ...]
    csr: CSR | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, connect: Connectivity) -> Pattern:
        """The pattern of a layer's connectivity.

        Raises:
            TypeError: It is neither dense nor CSR.
        """
        if isinstance(connect, Dense):
            return cls(connect.weight_shape, mask=connect.mask)
        if isinstance(connect, CSR):
            return cls(connect.weight_shape, csr=connect)
        raise TypeError(f"`EProp(model=...)`: expected dense or CSR connectivity, got {type(connect).__name__}")

    def zeros(self, batch: int, variables: int, like: Tensor) -> Traces:
        """The traces before the first step, in dtype and device of ``like``."""
        each = (batch, *self.shape)
        return Traces(
            [like.new_zeros(each) for _ in range(variables)],
            like.new_zeros(each),
            like.new_zeros(self.shape),
            like.new_zeros(self.shape),
        )

    def _cell(self, value: Tensor) -> Tensor:
        """Values of cells, ``(..., cells)``, at the entries of the pattern."""
        return value.unsqueeze(-2) if self.csr is None else value.index_select(-1, self.csr.indices)

    def advance(self, traces: Traces, x: Tensor, pulled: Pulled, start: Pull.State) -> Traces:
        """Take the traces through a chunk of steps.

        Args:
            traces: At its start.
            x: Outputs of the sources, ``(time, batch, sources)``.
            pulled: How what is followed depends on them, each ``(time, batch, cells)``.
            start: How it depends on the traces at the start, each ``(batch, cells)``.
        """
        old = [*traces.vectors, traces.filtered]
        return Traces(
            [self._traced(old, row, x, g) for row, g in zip(start.vectors, pulled.vectors, strict=True)],
            self._traced(old, start.filtered, x, pulled.filtered),
            traces.gradient + self._mixed(old, start.signal).sum(0) + self._summed(x, pulled.signal),
            traces.total + self._mixed(old, start.total).sum(0) + self._summed(x, pulled.total),
        )

    def _mixed(self, old: list[Tensor], row: list[Tensor]) -> Tensor:
        """Old traces, each times its factor of every cell; a row without the last factor leaves the filtered one out."""
        if not row:
            return torch.zeros_like(old[0])
        mixed = self._cell(row[0]) * old[0]
        for trace, factor in zip(old[1:], row[1:], strict=False):
            mixed.addcmul_(self._cell(factor), trace)
        return mixed

    def _traced(self, old: list[Tensor], row: list[Tensor], x: Tensor, g: Tensor) -> Tensor:
        mixed = self._mixed(old, row)
        if self.csr is None:
            return mixed.baddbmm_(x.permute(1, 2, 0), g.transpose(0, 1))
        indices, indptr = self.csr.indices, self.csr.indptr
        for sample in range(len(mixed)):
            mixed[sample] += csr_outer(x[:, sample], g[:, sample], indices, indptr)
        return mixed

    def _summed(self, x: Tensor, g: Tensor) -> Tensor:
        """The sum over time and batch of source times response."""
        if self.csr is None:
            return x.flatten(0, 1).mT @ g.flatten(0, 1)
        return csr_outer(x, g, self.csr.indices, self.csr.indptr)

    def weight_gradient(self, traces: Traces, extra: Tensor | None) -> Tensor:
        """The gradient of the weight tensor, with ``extra``, ``(cells,)``, as a learning signal of every step."""
        gradient = traces.gradient if extra is None else traces.gradient + self._cell(extra) * traces.total
        return gradient if self.mask is None else gradient * self.mask
