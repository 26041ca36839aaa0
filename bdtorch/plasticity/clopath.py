"""Plasticity that reads the postsynaptic potential."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.connect import Connectivity
from bdtorch.plasticity._rule import Events, Plasticity


class Clopath(Plasticity):
    r"""The voltage-based rule, without homeostasis of $A_{LTD}$:

    $$\dot w = -A_{LTD}\,X\,[\bar u_- - \theta_-]_+ + A_{LTP}\,\bar x\,[u - \theta_+]_+\,[\bar u_+ - \theta_-]_+$$

    $X$ is the train of presynaptic spikes (Dirac pulses), $\bar x$ and $\bar u_\pm$ are low-pass filters of it and of the
    potential $u$, such as $\tau_x \dot{\bar x} = X - \bar x$. The potential at the start of a step holds through it. It
    must rise above $\theta_+$ in a spike for potentiation, as that of an exponential or Hodgkin-Huxley neuron does.

    Args:
        a_ltd: Amplitude of depression, weight / mV.
        a_ltp: Amplitude of potentiation, weight / mV^2.
        theta_minus: Threshold of the filtered potential, mV.
        theta_plus: Threshold of the potential, mV.
        tau_minus: Filter of the potential for depression, ms.
        tau_plus: Filter of the potential for potentiation, ms.
        tau_x: Filter of presynaptic spikes, ms.
        w_min: Lower bound of the weight.
        w_max: Upper bound of the weight.
        **options: ``dtype``, ``device``.

    Raises:
        ValueError: a constant is NaN, a time constant is not positive, or bounds are not in order.

    Source: Clopath, Busing, Vasilaki & Gerstner (2010), doi:10.1038/nn.2479, equation 3, table 1 (visual cortex).
    """

    needs_voltage = True

    class State(NamedTuple):
        x: Tensor
        """Filtered presynaptic spikes, 1/ms."""
        u_minus: Tensor
        """Filtered potential, mV."""
        u_plus: Tensor
        """Filtered potential, mV."""

    def __init__(
        self,
        *,
        a_ltd: Value = 14e-5,
        a_ltp: Value = 8e-5,
        theta_minus: Value = -70.6,
        theta_plus: Value = -45.3,
        tau_minus: Value = 10.0,
        tau_plus: Value = 7.0,
        tau_x: Value = 15.0,
        w_min: float = 0.0,
        w_max: float = math.inf,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        levels = {"a_ltd": a_ltd, "a_ltp": a_ltp, "theta_minus": theta_minus, "theta_plus": theta_plus}
        for name, value in levels.items():
            self.declare(name, value)
        for name, value in {"tau_minus": tau_minus, "tau_plus": tau_plus, "tau_x": tau_x}.items():
            self.declare(name, value, positive=True)
        self.declare_bounds(w_min, w_max)

    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        # A neuron that has long been at the lower threshold: neither filter gives rise to a change.
        low = self.zeros(batch_shape, connect.n_post) + self.theta_minus
        return self.State(x=self.zeros(batch_shape, connect.n_pre), u_minus=low, u_plus=low.clone())

    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        if events.v is None:
            raise ValueError("`Clopath`: expected targets with a potential `v`")
        fall = -self.a_ltd * torch.relu(state.u_minus - self.theta_minus)
        weight = connect.on_pre(weight, events.pre, fall, **self.bounds)
        x = state.x + events.pre.to(state.x.dtype) / self.tau_x
        # Of the three factors only x moves on its own within the step: its integral over dt is exact.
        fade = decay(self.tau_x, dt)
        held = torch.relu(events.v - self.theta_plus) * torch.relu(state.u_plus - self.theta_minus)
        weight = connect.on_post(weight, self.a_ltp * held, self.tau_x * (1.0 - fade) * x, **self.bounds)
        after = self.State(
            x=x * fade,
            u_minus=events.v + (state.u_minus - events.v) * decay(self.tau_minus, dt),
            u_plus=events.v + (state.u_plus - events.v) * decay(self.tau_plus, dt),
        )
        return after, weight
