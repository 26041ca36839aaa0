"""What an integrator is, and what an adaptive solver asks of one."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State

Derivative = Callable[[State, Tensor], State]
"""``f(y, t) -> dy/dt``, per ms, of the structure of ``y``."""


class IntegrationError(RuntimeError):
    """An adaptive solver cannot go on; the message says where and why."""


class Integrator(abc.ABC):
    """A one-step method for ``dy/dt = f(y, t)``. Integrators hold no state and compare by value."""

    order: int
    """Global order of convergence in ``dt``."""

    @abc.abstractmethod
    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        """Advance ``y`` from ``t`` to ``t + dt``.

        Args:
            derivative: ``f(y, t)``.
            linear: The slope of each variable's own equation, ``df_i/dy_i``; only exponential methods call it. Its
                leaves may be floats where the slope is constant.
            y: Pytree of floating tensors.
            t: 0-d tensor, ms.
            dt: Step, ms.
        """


class Trial(NamedTuple):
    """A step that an adaptive solver tries.

    Attributes:
        y: Solution at its end, ``(*batch, n)``.
        slope: Derivative there, which begins the next step.
        errors: Estimates of the local error, each ``(*batch, n)``; one for most methods.
        powers: Coefficients of ``theta, theta^2, ...`` in the dense output
            ``y(t + theta h) = y(t) + sum_q powers[q] theta^(q + 1)``; empty where none was asked for.
        sound: Whether the stages could be solved, ``(*batch,)`` bool; None for explicit methods.
    """

    y: Tensor
    slope: Tensor
    errors: tuple[Tensor, ...]
    powers: tuple[Tensor, ...]
    sound: Tensor | None = None


class Adaptive(Integrator):
    """An integrator that estimates its error. A trial is pure and without choices that depend on values."""

    error_order: int
    """Local error estimates shrink as ``h ** error_order``."""

    evaluations: int
    """Evaluations of the derivative per trial, without those of the dense output."""

    dense_evaluations = 0
    """Further ones for the dense output."""

    @abc.abstractmethod
    def trial(self, derivative: Derivative, y: Tensor, slope: Tensor, t: Tensor, h: Tensor, dense: bool) -> Trial:
        """Try a step.

        Args:
            derivative: ``f(y, t)`` on tensors ``(*batch, n)``, with ``t`` of shape ``(*batch,)``.
            y: ``(*batch, n)``.
            slope: ``derivative(y, t)``.
            t: ``(*batch,)`` float64.
            h: Step of each trajectory, ``(*batch,)`` float64.
            dense: Whether to prepare the dense output.
        """


def combine(y: State, dt: float | Tensor, weights: tuple[float, ...], slopes: list[State]) -> State:
    """``y + dt * sum_i weights[i] slopes[i]``."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            scale = weight * dt
            y = tree.map(lambda k, z, scale=scale: z + scale * k, slope, y)
    return y


def hermite(y: Tensor, after: Tensor, h: Tensor, slope: Tensor, slope_after: Tensor) -> tuple[Tensor, ...]:
    """Powers of theta of the cubic that meets values and slopes at both ends of a step."""
    rise, start, end = after - y, h * slope, h * slope_after
    return start, 3.0 * rise - 2.0 * start - end, start + end - 2.0 * rise
