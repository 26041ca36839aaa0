"""What an integrator is."""

from __future__ import annotations

import abc
from collections.abc import Callable

from torch import Tensor

from bdtorch._types import State

Derivative = Callable[[State, Tensor], State]
"""``f(y, t) -> dy/dt``, per ms, of the structure of ``y``."""


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
