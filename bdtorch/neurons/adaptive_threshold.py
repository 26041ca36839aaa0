"""The leaky integrate-and-fire neuron whose threshold adapts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.neurons._integrate_fire import IntegrateFire
from bdtorch.ops.random import fold


class ALIF(IntegrateFire):
    r"""Leaky integrate-and-fire with an adaptive threshold and a reset by subtraction, the cell of LSNNs.

    $$\tau \dot v = v_{rest} - v + R\,I(v), \qquad \tau_a \dot a = -a$$
    $$v \ge v_{th} + \beta a:\; v \to v - v_{th},\; a \to a + 1$$

    With a surrogate, ``a`` carries the gradient of the spikes that raised it (the slow path of eligibility). The reset of
    ``v`` carries one with ``reset_gradient``: it damps what grows through recurrent weights, so backpropagation through
    thousands of steps needs it; e-prop by its definition leaves it out.

    Args:
        size: Shape of the population.
        tau: Membrane time constant, ms.
        tau_a: Adaptation time constant, ms.
        beta: What one spike adds to the threshold, mV; 0 for neurons that do not adapt.
        v_rest: Resting potential, mV.
        v_th: Threshold above rest without adaptation, and what a spike subtracts, mV.
        r: Membrane resistance; multiplies the drive.
        v_init: Initial potential, mV; default ``v_rest``.
        a_init: Initial adaptation, in spikes.
        reset_gradient: Whether the reset of ``v`` is differentiated.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `IntegrateFire`.

    Source: Bellec, Salaj, Subramoney, Legenstein & Maass (2018), arXiv:1803.09574; Bellec et al. (2020),
        doi:10.1038/s41467-020-17236-y.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""
        a: Tensor
        """Adaptation, the low-passed number of spikes."""

    def __init__(
        self,
        size: Size,
        *,
        tau: Value | Initialiser = 20.0,
        tau_a: Value | Initialiser = 200.0,
        beta: Value | Initialiser = 0.1,
        v_rest: Value | Initialiser = 0.0,
        v_th: Value | Initialiser = 1.0,
        r: Value | Initialiser = 1.0,
        v_init: Value | Initialiser | None = None,
        a_init: Value | Initialiser = 0.0,
        reset_gradient: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("tau", tau, positive=True)
        self.declare("tau_a", tau_a, positive=True)
        self.declare("beta", beta)
        self.declare("v_rest", v_rest)
        self.declare("v_th", v_th, positive=True)
        self.declare("r", r)
        self.declare_initial("v_init", v_init)
        self.declare_initial("a_init", a_init)
        if reset_gradient and self.surrogate is None:
            raise ValueError("`ALIF(reset_gradient=True)`: expected a surrogate, got None")
        self.reset_gradient = reset_gradient

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        v_init = self.v_rest if self.v_init is None else self.v_init
        return self.State(
            v=self.fill(batch_shape, v_init, seed=seed), a=self.fill(batch_shape, self.a_init, seed=fold(seed, "a"))
        )

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, a = state
        return self.State(v=(self.v_rest - v + self.r * Drive.of(inputs).at(v)) / self.tau, a=-a / self.tau_a)

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(v=(self.r * Drive.of(inputs).slope - 1.0) / self.tau, a=-1.0 / self.tau_a)

    def threshold(self, state: State) -> Tensor:
        return state.v - (self.v_rest + self.v_th) - self.beta * state.a

    def reset(self, state: State, spike: Tensor) -> State:
        return state._replace(v=torch.where(spike, state.v - self.v_th, state.v))

    def emit(self, before: State, after: State, allowed: Tensor | None = None) -> tuple[State, Tensor]:
        state, spike = super().emit(before, after, allowed)
        if self.reset_gradient:
            state = state._replace(v=after.v - self.v_th * spike)
        return state._replace(a=state.a + spike.to(self.dtype)), spike
