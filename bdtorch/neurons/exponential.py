"""The exponential integrate-and-fire neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, Value
from bdtorch.neurons._integrate_fire import IntegrateFire


class ExpIF(IntegrateFire):
    r"""Exponential integrate-and-fire.

    $$\tau \dot v = v_{rest} - v + \Delta_T e^{(v - v_T)/\Delta_T} + R\,I(v), \qquad v \ge v_{th}:\; v \to v_{reset}$$

    Args:
        size: Shape of the population.
        tau: Membrane time constant, ms.
        v_rest: Resting potential, mV.
        v_reset: Potential after a spike, mV.
        v_th: Numerical threshold at which the upstroke is cut, mV. Within a step that overshoots it, the exponential
            is taken at ``v_th``, so it stays finite.
        v_t: Rheobase threshold, mV.
        delta_t: Sharpness of the upstroke, mV.
        r: Membrane resistance; multiplies the drive.
        v_init: Initial potential, mV; default ``v_rest``.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `IntegrateFire`.

    Source: Fourcaud-Trocme et al. (2003), doi:10.1523/JNEUROSCI.23-37-11628.2003.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""

    def __init__(
        self,
        size: Size,
        *,
        tau: Value | Initialiser = 10.0,
        v_rest: Value | Initialiser = -65.0,
        v_reset: Value | Initialiser = -68.0,
        v_th: Value | Initialiser = -30.0,
        v_t: Value | Initialiser = -59.9,
        delta_t: Value | Initialiser = 3.48,
        r: Value | Initialiser = 1.0,
        v_init: Value | Initialiser | None = None,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("tau", tau, positive=True)
        self.declare("v_rest", v_rest)
        self.declare("v_reset", v_reset)
        self.declare("v_th", v_th)
        self.declare("v_t", v_t)
        self.declare("delta_t", delta_t, positive=True)
        self.declare("r", r)
        self.declare_initial("v_init", v_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(v=self.fill(batch_shape, self.v_rest if self.v_init is None else self.v_init, seed=seed))

    def _upstroke(self, v: Tensor) -> Tensor:
        cut = torch.clamp(v, max=self.v_th)  # the exponential overflows in the later stages of a step
        return torch.exp((cut - self.v_t) / self.delta_t)

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        current = self.r * Drive.of(inputs).at(state.v)
        return self.State(v=(self.v_rest - state.v + self.delta_t * self._upstroke(state.v) + current) / self.tau)

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(v=(self._upstroke(state.v) - 1.0 + self.r * Drive.of(inputs).slope) / self.tau)

    def threshold(self, state: State) -> Tensor:
        return state.v - self.v_th

    def reset(self, state: State, spike: Tensor) -> State:
        return self.State(v=torch.where(spike, self.v_reset, state.v))
