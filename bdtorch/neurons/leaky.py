"""The leaky integrate-and-fire neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._types import Initialiser, Size, Value
from bdtorch.neurons._integrate_fire import IntegrateFire


class LIF(IntegrateFire):
    r"""Leaky integrate-and-fire.

    $$\tau \dot v = v_{rest} - v + R\,I(v), \qquad v \ge v_{th}:\; v \to v_{reset}$$

    Args:
        size: Shape of the population.
        tau: Membrane time constant, ms.
        v_rest: Resting potential, mV.
        v_reset: Potential after a spike, mV.
        v_th: Threshold, mV.
        r: Membrane resistance; multiplies the drive (GOhm for pA, or 1 for a drive in mV).
        v_init: Initial potential, mV: number, tensor or initialiser; default ``v_rest``.
        **options: ``surrogate``, ``integrator``, ``dtype``, ``device`` of `IntegrateFire`.

    Source: Gerstner, Kistler, Naud & Paninski, Neuronal Dynamics (2014), doi:10.1017/CBO9781107447615.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""

    def __init__(
        self,
        size: Size,
        *,
        tau: Value | Initialiser = 10.0,
        v_rest: Value | Initialiser = 0.0,
        v_reset: Value | Initialiser = -5.0,
        v_th: Value | Initialiser = 20.0,
        r: Value | Initialiser = 1.0,
        v_init: Value | Initialiser | None = None,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("tau", tau, positive=True)
        self.declare("v_rest", v_rest)
        self.declare("v_reset", v_reset)
        self.declare("v_th", v_th)
        self.declare("r", r)
        self.declare_initial("v_init", v_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(v=self.fill(batch_shape, self.v_rest if self.v_init is None else self.v_init, seed=seed))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(v=(self.v_rest - state.v + self.r * Drive.of(inputs).at(state.v)) / self.tau)

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(v=(self.r * Drive.of(inputs).slope - 1.0) / self.tau)

    def threshold(self, state: State) -> Tensor:
        return state.v - self.v_th

    def reset(self, state: State, spike: Tensor) -> State:
        return self.State(v=torch.where(spike, self.v_reset, state.v))
