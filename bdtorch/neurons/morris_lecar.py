"""The Morris-Lecar neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.neurons._smooth import SmoothNeuron


class MorrisLecar(SmoothNeuron):
    r"""Calcium spikes of two variables: an instantaneous calcium current, a delayed potassium current.

    $$C \dot v = -g_{Ca} m_\infty(v)(v - E_{Ca}) - g_K w (v - E_K) - g_L (v - E_L) + I_{ext} + I(v)$$
    $$\dot w = \phi\,(w_\infty(v) - w) \cosh\frac{v - v_3}{2 v_4}, \quad
    m_\infty = \tfrac12\left(1 + \tanh\frac{v - v_1}{v_2}\right), \quad
    w_\infty = \tfrac12\left(1 + \tanh\frac{v - v_3}{v_4}\right)$$

    The defaults give spikes through Hopf bifurcations; ``g_ca=4, v3=12, v4=17.4, phi=1/15`` through a saddle-node on an
    invariant circle.

    Args:
        size: Shape of the population.
        c: Capacitance, uF/cm2.
        g_ca: Calcium conductance, mS/cm2.
        g_k: Potassium conductance, mS/cm2.
        g_l: Leak conductance, mS/cm2.
        e_ca: Reversal potential of calcium, mV.
        e_k: Of potassium, mV.
        e_l: Of the leak, mV.
        v1: Half activation of calcium, mV.
        v2: Width of its activation, mV.
        v3: Half activation of potassium, mV.
        v4: Width of its activation, mV.
        phi: Rate of the potassium gate, 1/ms.
        i_ext: Constant current, added to the input, uA/cm2.
        v_th: Potential whose upward crossing counts as a spike, mV.
        v_init: Initial potential, mV.
        w_init: Initial gate; default its steady state.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Morris & Lecar (1981), doi:10.1016/S0006-3495(81)84782-0; parameters of Rinzel & Ermentrout (1998), Analysis of
        neural excitability and oscillations, in Methods in Neuronal Modeling.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""
        w: Tensor
        """Open fraction of the potassium channels."""

    def __init__(
        self,
        size: Size,
        *,
        c: Value | Initialiser = 20.0,
        g_ca: Value | Initialiser = 4.4,
        g_k: Value | Initialiser = 8.0,
        g_l: Value | Initialiser = 2.0,
        e_ca: Value | Initialiser = 120.0,
        e_k: Value | Initialiser = -84.0,
        e_l: Value | Initialiser = -60.0,
        v1: Value | Initialiser = -1.2,
        v2: Value | Initialiser = 18.0,
        v3: Value | Initialiser = 2.0,
        v4: Value | Initialiser = 30.0,
        phi: Value | Initialiser = 0.04,
        i_ext: Value | Initialiser = 0.0,
        v_th: Value | Initialiser = 10.0,
        v_init: Value | Initialiser = -60.0,
        w_init: Value | Initialiser | None = None,
        **options: Any,
    ) -> None:
        super().__init__(size, v_th=v_th, **options)
        for name, value in (("c", c), ("v2", v2), ("v4", v4), ("phi", phi)):
            self.declare(name, value, positive=True)
        for name, value in (("g_ca", g_ca), ("g_k", g_k), ("g_l", g_l), ("e_ca", e_ca), ("e_k", e_k), ("e_l", e_l)):
            self.declare(name, value)
        for name, value in (("v1", v1), ("v3", v3), ("i_ext", i_ext)):
            self.declare(name, value)
        self.declare_initial("v_init", v_init)
        self.declare_initial("w_init", w_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        v = self.fill(batch_shape, self.v_init, seed=seed)
        w = self._open(v) if self.w_init is None else self.fill(batch_shape, self.w_init, seed=seed + 1)
        return self.State(v=v, w=w)

    def _open(self, v: Tensor) -> Tensor:
        return 0.5 * (1.0 + torch.tanh((v - self.v3) / self.v4))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, w = state
        calcium = self.g_ca * 0.5 * (1.0 + torch.tanh((v - self.v1) / self.v2)) * (v - self.e_ca)
        outward = calcium + self.g_k * w * (v - self.e_k) + self.g_l * (v - self.e_l)
        return self.State(
            v=(self.i_ext + Drive.of(inputs).at(v) - outward) / self.c,
            w=self.phi * (self._open(v) - w) * torch.cosh((v - self.v3) / (2.0 * self.v4)),
        )
