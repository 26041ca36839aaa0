"""The adaptive exponential integrate-and-fire neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, Value
from bdtorch.neurons._integrate_fire import IntegrateFire
from bdtorch.ops.random import fold


class AdEx(IntegrateFire):
    r"""Adaptive exponential integrate-and-fire.

    $$C \dot v = -g_L (v - E_L) + g_L \Delta_T e^{(v - v_T)/\Delta_T} - w + I(v)$$
    $$\tau_w \dot w = a (v - E_L) - w, \qquad v \ge v_{peak}:\; v \to v_{reset},\; w \to w + b$$

    Args:
        size: Shape of the population.
        c: Membrane capacitance, pF.
        g_l: Leak conductance, nS.
        e_l: Leak reversal potential, mV.
        v_t: Rheobase threshold, mV.
        delta_t: Sharpness of the upstroke, mV.
        a: Subthreshold adaptation, nS.
        b: Spike-triggered adaptation, pA.
        tau_w: Adaptation time constant, ms.
        v_reset: Potential after a spike, mV.
        v_peak: Potential at which the upstroke is cut, mV. Within a step that overshoots it, the right-hand sides are
            taken at ``v_peak``, so they stay finite. The higher it lies above ``v_t``, the smaller a step it needs.
        v_init: Initial potential, mV; default ``e_l``.
        w_init: Initial adaptation current, pA.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `IntegrateFire`.

    Source: Brette & Gerstner (2005), doi:10.1152/jn.00686.2005.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""
        w: Tensor
        """Adaptation current, pA."""

    def __init__(
        self,
        size: Size,
        *,
        c: Value | Initialiser = 281.0,
        g_l: Value | Initialiser = 30.0,
        e_l: Value | Initialiser = -70.6,
        v_t: Value | Initialiser = -50.4,
        delta_t: Value | Initialiser = 2.0,
        a: Value | Initialiser = 4.0,
        b: Value | Initialiser = 80.5,
        tau_w: Value | Initialiser = 144.0,
        v_reset: Value | Initialiser = -70.6,
        v_peak: Value | Initialiser = -40.0,
        v_init: Value | Initialiser | None = None,
        w_init: Value | Initialiser = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("c", c, positive=True)
        self.declare("g_l", g_l, positive=True)
        self.declare("e_l", e_l)
        self.declare("v_t", v_t)
        self.declare("delta_t", delta_t, positive=True)
        self.declare("a", a)
        self.declare("b", b)
        self.declare("tau_w", tau_w, positive=True)
        self.declare("v_reset", v_reset)
        self.declare("v_peak", v_peak)
        self.declare_initial("v_init", v_init)
        self.declare_initial("w_init", w_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        v_init = self.e_l if self.v_init is None else self.v_init
        return self.State(
            v=self.fill(batch_shape, v_init, seed=seed), w=self.fill(batch_shape, self.w_init, seed=fold(seed, "w"))
        )

    def _cut(self, v: Tensor) -> Tensor:
        return torch.clamp(v, max=self.v_peak)  # the exponential overflows in the later stages of a step

    def _upstroke(self, v: Tensor) -> Tensor:
        return torch.exp((v - self.v_t) / self.delta_t)

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, w = self._cut(state.v), state.w
        leak = self.g_l * (self.e_l - v + self.delta_t * self._upstroke(v))
        return self.State(v=(leak - w + Drive.of(inputs).at(v)) / self.c, w=(self.a * (v - self.e_l) - w) / self.tau_w)

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        slope = self.g_l * (self._upstroke(self._cut(state.v)) - 1.0) + Drive.of(inputs).slope
        return self.State(v=slope / self.c, w=-1.0 / self.tau_w)

    def threshold(self, state: State) -> Tensor:
        return state.v - self.v_peak

    def reset(self, state: State, spike: Tensor) -> State:
        return self.State(v=torch.where(spike, self.v_reset, state.v), w=torch.where(spike, state.w + self.b, state.w))
