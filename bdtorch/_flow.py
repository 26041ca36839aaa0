"""`Flow`: a system in continuous time, given by its derivative."""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor

from bdtorch._system import DynamicalSystem
from bdtorch._types import Size, State
from bdtorch.integrate import RK4, ExponentialEuler, Integrator, StochasticIntegrator
from bdtorch.integrate._derivatives import own_slopes


class Flow(DynamicalSystem):
    """``dy/dt = derivative(y)``. `step` is written once: integrate, then `emit`. Analysis uses `derivative` directly.

    Args:
        size: Shape of the population.
        integrator: One-step method; default `bdtorch.integrate.ExponentialEuler` for models that give their `linear`
            part, and `bdtorch.integrate.RK4` for others.
        dtype: Floating dtype of the state.
        device: Device of the state.
    """

    def __init__(
        self,
        size: Size = (),
        *,
        integrator: Integrator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(size, dtype=dtype, device=device)
        if integrator is not None and not isinstance(integrator, Integrator):
            raise TypeError(
                f"`{type(self).__name__}(integrator=...)`: expected an object such as bdtorch.integrate.RK4(), "
                f"got {integrator!r}"
                + ("; for noise there is bdtorch.NoisyFlow" if isinstance(integrator, StochasticIntegrator) else "")
            )
        known = type(self).linear is not Flow.linear
        self.integrator = integrator or (ExponentialEuler() if known else RK4())

    @abc.abstractmethod
    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        """``dy/dt`` (per ms), of the structure of ``state``."""

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        """The slope of each variable's own equation, ``df_i/dy_i`` (per ms), which exponential integrators use.

        Models that know it in closed form override this and may return floats for constant slopes. The default
        differentiates `derivative`, taking it to act element by element within each variable.
        """
        return own_slopes(lambda y, s: self.derivative(y, inputs, s), state, t)

    def advance(self, state: State, inputs: Any, t: Tensor, dt: float, integrator: Integrator | None = None) -> State:
        """The continuous part of a step: `derivative` integrated from ``t`` to ``t + dt``, by default by the flow's own
        ``integrator``.
        """
        return (integrator or self.integrator).step(
            lambda y, s: self.derivative(y, inputs, s), lambda y, s: self.linear(y, inputs, s), state, t, dt
        )

    def emit(self, before: State, after: State) -> tuple[State, Any]:
        """The discrete part of a step: the final state and the output. By default the output is the state."""
        return after, after

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        return self.emit(state, self.advance(state, inputs, t, dt))
