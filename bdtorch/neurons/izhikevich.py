"""Izhikevich's quadratic neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, Value
from bdtorch.neurons._integrate_fire import IntegrateFire
from bdtorch.ops.random import fold


class Izhikevich(IntegrateFire):
    r"""Izhikevich's simple model.

    $$\dot v = 0.04 v^2 + 5 v + 140 - u + I(v), \qquad \dot u = a (b v - u), \qquad
    v \ge v_{th}:\; v \to c,\; u \to u + d$$

    Args:
        size: Shape of the population.
        a: Rate of recovery, 1/ms.
        b: Coupling of recovery to ``v``, 1/ms.
        c: Potential after a spike, mV.
        d: Step of ``u`` at a spike, mV/ms.
        v_th: Peak of the spike, mV.
        v_init: Initial potential, mV.
        u_init: Initial recovery, mV/ms; default ``b * v_init``.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `IntegrateFire`.

    Source: Izhikevich (2003), doi:10.1109/TNN.2003.820440.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""
        u: Tensor
        """Recovery, mV/ms."""

    def __init__(
        self,
        size: Size,
        *,
        a: Value | Initialiser = 0.02,
        b: Value | Initialiser = 0.2,
        c: Value | Initialiser = -65.0,
        d: Value | Initialiser = 8.0,
        v_th: Value | Initialiser = 30.0,
        v_init: Value | Initialiser = -65.0,
        u_init: Value | Initialiser | None = None,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("a", a, positive=True)
        self.declare("b", b)
        self.declare("c", c)
        self.declare("d", d)
        self.declare("v_th", v_th)
        self.declare_initial("v_init", v_init)
        self.declare_initial("u_init", u_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        v = self.fill(batch_shape, self.v_init, seed=seed)
        u = (self.b * v).detach() if self.u_init is None else self.fill(batch_shape, self.u_init, seed=fold(seed, "u"))
        return self.State(v=v, u=u)

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, u = state
        return self.State(v=(0.04 * v + 5.0) * v + 140.0 - u + Drive.of(inputs).at(v), u=self.a * (self.b * v - u))

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(v=0.08 * state.v + 5.0 + Drive.of(inputs).slope, u=-self.a)

    def threshold(self, state: State) -> Tensor:
        return state.v - self.v_th

    def reset(self, state: State, spike: Tensor) -> State:
        return self.State(v=torch.where(spike, self.c, state.v), u=torch.where(spike, state.u + self.d, state.u))
