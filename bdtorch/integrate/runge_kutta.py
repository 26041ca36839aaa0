"""Explicit Runge-Kutta methods: one stepping rule, the methods are data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, Integrator


@dataclass(frozen=True)
class RungeKutta(Integrator):
    r"""An explicit method given by its Butcher tableau.

    $$k_i = f\Big(y + \Delta t \sum_{j<i} a_{ij} k_j,\; t + c_i \Delta t\Big), \qquad y' = y + \Delta t \sum_i b_i k_i$$

    Attributes:
        a: Rows of the strictly lower triangle, the first of them empty.
        b: Weights of the stages; they sum to 1.
        order: Order of convergence.

    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), chapter II,
        doi:10.1007/978-3-540-78862-1.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        slopes: list[State] = []
        for row in self.a:
            stage = _combine(y, dt, row, slopes)
            slopes.append(derivative(stage, t + sum(row) * dt if row else t))
        return _combine(y, dt, self.b, slopes)


def _combine(y: State, dt: float, weights: tuple[float, ...], slopes: list[State]) -> State:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            y = tree.axpy(weight * dt, slope, y)
    return y


def Euler() -> RungeKutta:  # noqa: N802  (reads as the method's name)
    """Forward Euler, order 1."""
    return RungeKutta(a=((),), b=(1.0,), order=1)


def Midpoint() -> RungeKutta:  # noqa: N802
    """The explicit midpoint rule, order 2."""
    return RungeKutta(a=((), (1 / 2,)), b=(0.0, 1.0), order=2)


def Heun() -> RungeKutta:  # noqa: N802
    """Heun's trapezoidal method, order 2."""
    return RungeKutta(a=((), (1.0,)), b=(1 / 2, 1 / 2), order=2)


def RK4() -> RungeKutta:  # noqa: N802
    """The classical method of order 4."""
    return RungeKutta(a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4)
