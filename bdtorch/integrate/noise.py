"""How Wiener processes enter a system: which shape the diffusion has, and what it may depend on."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State


@dataclass(frozen=True, eq=False)
class Noise(abc.ABC):
    """The structure of ``g`` in ``dy = f dt + g dW``.

    Attributes:
        correlation: ``(m, m)`` correlation matrix of the Wiener processes of one batch element; None is independent.
        factor: Its lower Cholesky factor.
    """

    correlation: Tensor | None = None
    factor: Tensor | None = field(init=False, repr=False, default=None)

    additive = False
    """Whether ``g`` is a function of time alone."""
    commutative = True
    """Whether the order of two processes' action does not matter, so that no Levy area enters at order 1."""

    def __post_init__(self) -> None:
        if self.correlation is not None:
            object.__setattr__(self, "factor", _cholesky(type(self).__name__, self.correlation))

    @property
    def vector(self) -> bool:
        """Whether leaves of ``g`` have a last axis of processes beyond the axes of the leaves of ``y``."""
        return False

    @abc.abstractmethod
    def width(self, y: State, batch: int) -> int:
        """The number of Wiener processes of each batch element, where ``y`` has ``batch`` leading axes of batch."""

    @abc.abstractmethod
    def _spread(self, values: Tensor, y: State, batch: int) -> State:
        """Hand ``(*batch, width)`` out to the leaves, in shapes that broadcast against those of ``g``."""

    def spread(self, values: Tensor, y: State, batch: int) -> State:
        """Correlate independent values ``(*batch, width)`` and hand them out to the leaves of ``y``."""
        if self.factor is not None:
            values = values @ self.factor.to(values).T
        return self._spread(values, y, batch)

    def apply(self, g: State, w: State) -> State:
        """``g w``, of the shapes of ``y``."""
        if self.vector:
            return tree.map(lambda rows, x: (rows * x).sum(-1), g, w)
        return tree.map(lambda value, x: value * x, g, w)


@dataclass(frozen=True, eq=False)
class Diagonal(Noise):
    """A Wiener process for every element of ``y``; ``g`` is of the shapes of ``y``.

    Methods beyond `EulerMaruyama` take each element of ``g`` to depend on that very element of ``y`` and on time only.

    Args:
        correlation: ``(m, m)``, over the elements of one batch element in the order of their leaves.
    """

    def width(self, y: State, batch: int) -> int:
        return sum(math.prod(leaf.shape[batch:]) for leaf in tree.leaves(y))

    def _spread(self, values: Tensor, y: State, batch: int) -> State:
        flat, spec = tree.flatten(y)
        parts, position = [], 0
        for leaf in flat:
            size = math.prod(leaf.shape[batch:])
            parts.append(values[..., position : position + size].reshape((*values.shape[:-1], *leaf.shape[batch:])))
            position += size
        return tree.unflatten(parts, spec)


@dataclass(frozen=True, eq=False)
class Scalar(Noise):
    """One Wiener process, shared by all elements of a batch element; ``g`` is of the shapes of ``y``."""

    correlation: None = field(init=False, default=None)

    def width(self, y: State, batch: int) -> int:
        return 1

    def _spread(self, values: Tensor, y: State, batch: int) -> State:
        return tree.map(lambda leaf: values.reshape((*values.shape[:-1], *[1] * (leaf.dim() - batch))), y)


@dataclass(frozen=True, eq=False)
class General(Noise):
    """Several Wiener processes, each of which may act on all elements; leaves of ``g`` have a last axis of processes.

    Args:
        processes: How many.
        correlation: ``(processes, processes)``.
        commutative: Whether ``sum_i g_ij d_i g_kl`` is symmetric in the processes j and l, which methods of order 1
            need and which `sdeint` tests at the initial state.
    """

    processes: int = field(default=1, kw_only=True)
    commutative: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_processes(self.processes, type(self).__name__)
        super().__post_init__()
        _check_size(self)

    @property
    def vector(self) -> bool:
        return True

    def width(self, y: State, batch: int) -> int:
        return self.processes

    def _spread(self, values: Tensor, y: State, batch: int) -> State:
        return _rows(values, y, batch)


@dataclass(frozen=True, eq=False)
class Additive(Diagonal):
    """Noise whose ``g`` is a function of time alone: ``g(t, y)`` must not use ``y``.

    Args:
        processes: How many, where leaves of ``g`` have a last axis of processes; None is one for every element of
            ``y``, as in `Diagonal`.
        correlation: ``(m, m)``.
    """

    processes: int | None = field(default=None, kw_only=True)

    additive = True

    def __post_init__(self) -> None:
        if self.processes is not None:
            _check_processes(self.processes, type(self).__name__)
        super().__post_init__()
        if self.processes is not None:
            _check_size(self)

    @property
    def vector(self) -> bool:
        return self.processes is not None

    def width(self, y: State, batch: int) -> int:
        return super().width(y, batch) if self.processes is None else self.processes

    def _spread(self, values: Tensor, y: State, batch: int) -> State:
        return super()._spread(values, y, batch) if self.processes is None else _rows(values, y, batch)


def _rows(values: Tensor, y: State, batch: int) -> State:
    """``(*batch, m)`` with an axis of length 1 for each axis of size."""
    lead, m = values.shape[:-1], values.shape[-1]
    return tree.map(lambda leaf: values.reshape(*lead, *[1] * (leaf.dim() - batch), m), y)


def _check_processes(processes: Any, name: str) -> None:
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ValueError(f"`{name}(processes=...)`: expected a positive integer, got {processes!r}")


def _check_size(noise: General | Additive) -> None:
    if noise.correlation is not None and noise.correlation.shape[0] != noise.processes:
        raise ValueError(
            f"`{type(noise).__name__}(correlation=...)`: expected shape ({noise.processes}, {noise.processes}) for "
            f"processes={noise.processes}, got {tuple(noise.correlation.shape)}"
        )


def _cholesky(name: str, correlation: Any) -> Tensor:
    label = f"`{name}(correlation=...)`"
    if not isinstance(correlation, Tensor) or not correlation.is_floating_point():
        raise TypeError(f"{label}: expected a floating tensor, got {correlation!r}")
    if correlation.dim() != 2 or correlation.shape[0] != correlation.shape[1]:
        raise ValueError(f"{label}: expected a square matrix, got shape {tuple(correlation.shape)}")
    matrix = correlation.detach().to(torch.float64)
    if not bool(((matrix - matrix.T).abs() < 1e-6).all()):
        raise ValueError(f"{label}: expected a symmetric matrix, got entries that differ from their mirror images")
    if not bool(((matrix.diagonal() - 1.0).abs() < 1e-6).all()):
        raise ValueError(f"{label}: expected ones on the diagonal, got {matrix.diagonal().tolist()}")
    smallest = float(torch.linalg.eigvalsh(matrix)[0])
    if not smallest > 1e-12:  # beyond rounding
        raise ValueError(f"{label}: expected a positive definite matrix, got the eigenvalue {smallest:.3g}")
    return torch.linalg.cholesky(correlation.to(torch.float64))
