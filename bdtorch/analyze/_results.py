"""What several analysers return: equilibria, cycles and trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bdtorch.analyze._collocation import Cycle, Monodromy, multipliers
from bdtorch.analyze.stability import equilibrium_type


@dataclass(frozen=True)
class FixedPoint:
    """An equilibrium."""

    x: Tensor
    """The variables, ``(n,)``."""
    jacobian: Tensor
    """``(n, n)``."""
    eigenvalues: Tensor
    """Complex, ``(n,)``."""
    type: str
    """As `equilibrium_type` names it."""
    stable: bool
    """Whether every eigenvalue has a negative real part."""


@dataclass(frozen=True)
class LimitCycle:
    """An isolated periodic orbit."""

    t: Tensor
    """Times within the period, ``(points,)``."""
    x: Tensor
    """The variables there, ``(points, n)``; the last point is the first."""
    period: float
    multipliers: Tensor
    """Floquet multipliers, complex ``(n,)``; the first is the trivial one, whose distance from 1 shows the accuracy."""
    stable: bool
    """Whether all multipliers but the trivial one lie within the unit circle."""

    @property
    def amplitude(self) -> Tensor:
        """Largest minus smallest value of each variable, ``(n,)``."""
        return self.x.amax(0) - self.x.amin(0)


@dataclass(frozen=True)
class Trajectory:
    """A solution."""

    t: Tensor
    """Times, ``(points,)``."""
    x: Tensor
    """The variables there, ``(points, n)``."""


def tensor(x: object) -> Tensor:
    """A tensor of its own with these numbers."""
    array = np.array(x)
    return torch.from_numpy(array if np.iscomplexobj(array) else array.astype(np.float64))


def fixed_point(x: np.ndarray, jacobian: np.ndarray) -> FixedPoint:
    """`FixedPoint` of arrays."""
    values = np.linalg.eigvals(jacobian).astype(complex)
    kind = equilibrium_type(jacobian)
    return FixedPoint(tensor(x), tensor(jacobian), tensor(values), kind, kind.startswith("stable"))


def limit_cycle(cycle: Cycle, monodromy: Monodromy) -> LimitCycle:
    """`LimitCycle` of what collocation found."""
    unit, values = cycle.profile
    floquet = multipliers(monodromy)
    stable = bool((np.abs(floquet[1:]) < 1.0).all())
    return LimitCycle(tensor(unit * cycle.period), tensor(values), cycle.period, tensor(floquet), stable)
