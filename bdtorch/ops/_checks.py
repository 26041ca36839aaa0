"""What the checks of `bdtorch.ops.selftest` are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Check:
    """An operator on arguments, whose result must be that of `expected`, to the bit unless a tolerance is given."""

    name: str
    operator: Callable[..., Tensor]
    arguments: Arguments
    expected: Callable[..., Tensor]
    tolerance: float = 0.0

    def error(self, device: torch.device) -> str | None:
        """What is wrong, or None."""
        moved = [value.to(device) if isinstance(value, Tensor) else value for value in self.arguments]
        try:
            actual, expected = self.operator(*moved).cpu(), self.expected(*self.arguments)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if actual.shape != expected.shape or actual.dtype != expected.dtype:
            return f"{actual.dtype} {tuple(actual.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
        if not self.tolerance:
            unequal = int((actual != expected).sum())
            return f"{unequal} of {actual.numel()} values differ" if unequal else None
        difference = float((actual.double() - expected.double()).abs().max()) if actual.numel() else 0.0
        largest = max(1.0, float(expected.abs().max())) if actual.numel() else 1.0
        within = difference <= self.tolerance * largest
        return None if within else f"largest difference {difference:.3g} among values up to {largest:.3g}"


def csr_of(n_pre: int, n_post: int, density: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices and indptr of a random matrix."""
    connected = torch.rand(n_pre, n_post, generator=generator) < density
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])
    return connected.nonzero()[:, 1].to(torch.int32), indptr


def dense_of(weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    """The matrix in double precision."""
    rows = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff())
    matrix = torch.zeros(len(indptr) - 1, n_post, dtype=torch.float64)
    return matrix.index_put((rows, indices.long()), weights.double(), accumulate=True)


def deterministic(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The operator where torch was asked for deterministic algorithms."""

    def call(*arguments: Any) -> Tensor:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            return operator(*arguments)
        finally:
            torch.use_deterministic_algorithms(before)

    return call
