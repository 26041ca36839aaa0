"""Connectivity that is never stored: every row is drawn anew from its seed when one of its neurons is active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from bdtorch._types import Value
from bdtorch.connect.data import CSR, Connectivity
from bdtorch.connect.rules import Rule
from bdtorch.init import Normal, Uniform
from bdtorch.ops.procedural import (
    ProceduralMatrix,
    procedural_counts,
    procedural_event,
    procedural_gather,
    procedural_rows,
)
from bdtorch.ops.random import fold

Distribution: TypeAlias = Uniform | Normal


class Procedural(Connectivity):
    r"""Synapses, and their weights if these are distributed, as a function of a seed.

    $$w_{ij} = \mathrm{weight} \cdot (\mathrm{offset} + \mathrm{scale} \, x_{ij})$$

    for the pairs that are connected, with $x_{ij}$ uniform on [0, 1) or normal. Offset and scale are low and
    high - low, or mean and standard deviation, of the distribution; they are floats, and may be replaced by 0-d tensors
    or parameters in order to train them. Without a distribution, the weight is shared by all synapses.

    Args:
        matrix: Where the synapses are; its draws must be those of `weight`.
        weight: Distribution of the weights, in the unit of the receptor's variable or relative to the weight that
            `forward` gets; None for one weight.

    Raises:
        ValueError: The matrix's draws are not those of the distribution.
    """

    def __init__(self, matrix: ProceduralMatrix, *, weight: Distribution | None = None) -> None:
        super().__init__(matrix.n_pre, matrix.n_post)
        if matrix.draws != _draws_of(weight):
            raise ValueError(
                f"`Procedural(matrix=...)`: expected draws={_draws_of(weight)!r} for weight={weight}, got {matrix.draws!r}"
            )
        self.matrix = matrix
        self.offset: Value = 1.0
        self.scale: Value | None = None
        if isinstance(weight, Uniform):
            self.offset, self.scale = weight.low, weight.high - weight.low
        elif isinstance(weight, Normal):
            self.offset, self.scale = weight.mean, weight.std

    @property
    def synapses(self) -> int:
        if self.matrix.number is not None:
            return self.n_pre * self.matrix.number
        if self._synapses is None:
            self._synapses = int(procedural_counts(torch.arange(self.n_pre), self.matrix).sum())
        return self._synapses

    _synapses: int | None = None  # counting draws every row: once, and only if somebody asks

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``()``: one factor for all synapses, since none of them is stored."""
        return ()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        offset, scale = self._parameters_of(weight)
        return procedural_event(x, offset, scale, self.matrix)

    def transposed(self, x: Tensor, weight: Tensor) -> Tensor:
        offset, scale = self._parameters_of(weight)
        return procedural_gather(x, offset, scale, self.matrix)

    def materialise(self, weight: Value = 1.0) -> tuple[CSR, Tensor]:
        """Store the synapses: the same connectivity as data.

        The product with it is equal to the bit to that of `forward`, on the CPU.

        Args:
            weight: The factor that `forward` gets; its dtype and device are those of the result.

        Returns:
            The connectivity, and its weights: 0-d, or ``(synapses,)`` for a distribution.
        """
        factor = torch.as_tensor(weight)
        factor = factor if factor.is_floating_point() else factor.to(torch.get_default_dtype())
        indptr, targets, draws = procedural_rows(torch.arange(self.n_pre), self.matrix)
        if self.matrix.number is not None:  # a permutation's order; indices of a CSR ascend
            rows = torch.repeat_interleave(torch.arange(self.n_pre), indptr.diff())
            order = torch.argsort(rows * self.n_post + targets)
            targets, draws = targets[order], draws[order]
        csr = CSR(targets, indptr, self.n_post).to(factor.device)
        offset, scale = self._parameters_of(factor)
        return csr, offset if scale is None else offset + scale * draws.to(factor)

    def to_dense(self, weight: Value = 1.0) -> Tensor:
        csr, weights = self.materialise(weight)
        return csr.to_dense(weights)

    def _parameters_of(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        if weight.dim():
            raise ValueError(f"`Procedural.forward(weight=...)`: expected a 0-d tensor, got {tuple(weight.shape)}")
        if self.scale is None:
            return weight * self.offset if isinstance(self.offset, Tensor) else weight, None
        return weight * self.offset, weight * self.scale

    def extra_repr(self) -> str:
        return f"{self.matrix}, offset={self.offset}, scale={self.scale}"


@dataclass(frozen=True)
class ProceduralProbability(Rule):
    """Every ordered pair is connected independently with probability ``p``, as by `FixedProbability`, without storage.

    Time is spent per synapse of an active neuron, memory on none: a million neurons with a thousand inputs each fit
    where their synapses would take 8 GB.

    Args:
        p: Probability, in [0, 1].
        weight: `bdtorch.init.Uniform` or `bdtorch.init.Normal`: each synapse has a weight of its own, times the
            projection's ``weight`` (by default 1). None: all have the projection's.
        autapses: Whether a neuron may reach itself.

    Raises:
        TypeError: ``weight`` is no such distribution.
        ValueError: ``p`` is no probability.
    """

    p: float
    weight: Distribution | None = None
    autapses: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"`ProceduralProbability(p=...)`: expected a probability in [0, 1], got {self.p!r}")
        _expect_distribution("ProceduralProbability", self.weight)

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> Procedural:
        matrix = ProceduralMatrix(
            n_pre,
            n_post,
            fold(seed, "procedural"),
            p=float(self.p),
            draws=_draws_of(self.weight),
            self_offset=None if self.autapses else self_offset,
        )
        return Procedural(matrix, weight=self.weight)


@dataclass(frozen=True)
class ProceduralNumberPre(Rule):
    """Every source makes exactly ``n`` synapses on distinct targets, as by `FixedNumberPre`, without storage.

    Args:
        n: Number of targets of each source.
        weight: As for `ProceduralProbability`.
        autapses: Whether a neuron may reach itself.

    Raises:
        TypeError: ``weight`` is no such distribution.
        ValueError: ``n`` is no non-negative integer, or on `build` exceeds the number of targets.
    """

    n: int
    weight: Distribution | None = None
    autapses: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 0:
            raise ValueError(f"`ProceduralNumberPre(n=...)`: expected a non-negative integer, got {self.n!r}")
        _expect_distribution("ProceduralNumberPre", self.weight)

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> Procedural:
        matrix = ProceduralMatrix(
            n_pre,
            n_post,
            fold(seed, "procedural"),
            number=self.n,
            draws=_draws_of(self.weight),
            self_offset=None if self.autapses else self_offset,
        )
        return Procedural(matrix, weight=self.weight)


def _draws_of(weight: Distribution | None) -> str:
    return "none" if weight is None else "uniform" if isinstance(weight, Uniform) else "normal"


def _expect_distribution(rule: str, weight: object) -> None:
    if weight is not None and not isinstance(weight, (Uniform, Normal)):
        raise TypeError(
            f"`{rule}(weight=...)`: expected bdtorch.init.Uniform, bdtorch.init.Normal or None, got {weight!r}"
        )
