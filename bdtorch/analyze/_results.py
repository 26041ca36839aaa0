"""What several analysers return: equilibria, cycles and trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bdtorch.analyze._collocation import Cycle, Monodromy, multipliers
from bdtorch.analyze._evaluate import Evaluator
from bdtorch.analyze.stability import located_type

RESOLVED = 1e-5
"""Roots nearer than this part of the window are one."""


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
    """As `equilibrium_type` names it; an eigenvalue is zero where its sign would change within a 1e-5th of the window."""
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


def fixed_point(evaluator: Evaluator, x: np.ndarray, extent: np.ndarray) -> FixedPoint:
    """`FixedPoint` of a root of a field whose variables have the sizes ``extent``."""
    places = np.vstack([x, *(x + sign * RESOLVED * np.diag(extent) for sign in (-1.0, 1.0))])
    slopes = evaluator.jacobian(places)
    jacobian, *beside = np.where(np.isfinite(slopes), slopes, slopes[0]) * extent / extent[:, None]
    kind = located_type(jacobian, np.stack(beside))
    values = np.linalg.eigvals(jacobian).astype(complex)
    return FixedPoint(tensor(x), tensor(slopes[0]), tensor(values), kind, kind.startswith("stable"))


def limit_cycle(cycle: Cycle, monodromy: Monodromy) -> LimitCycle:
    """`LimitCycle` of what collocation found."""
    unit, values = cycle.profile
    floquet = multipliers(monodromy)
    stable = bool((np.abs(floquet[1:]) < 1.0).all())
    return LimitCycle(tensor(unit * cycle.period), tensor(values), cycle.period, tensor(floquet), stable)
