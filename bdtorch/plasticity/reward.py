"""Plasticity with a third factor: reward."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.connect import Connectivity
from bdtorch.plasticity._rule import Events, Plasticity


class RewardModulatedSTDP(Plasticity):
    r"""Spikes tag synapses by a rule of their timing, and a reward turns the tags $c$ into changes:

    $$\dot c = -c/\tau_c + \mathrm{STDP}, \qquad \dot w = c\,d, \qquad \dot d = -d/\tau_d + r(t)$$

    where STDP stands for the jumps that ``rule`` makes. Reward comes from the simulation's inputs, under the name of the
    projection: what is added to the dopamine $d$ at the start of each step; or, without ``tau_d``, the value of $d$ during
    the step.

    Args:
        rule: A rule such as `PairSTDP`, applied to the tags; give it bounds of plus and minus infinity.
        tau_c: Decay of the tags, ms.
        tau_d: Decay of dopamine, ms; None where the input is its level.
        w_min: Lower bound of the weight.
        w_max: Upper bound of the weight.
        **options: ``dtype``, ``device``.

    Raises:
        TypeError: ``rule`` is no rule of plasticity.
        ValueError: a time constant is not positive, bounds are not in order, or ``rule`` is bounded.

    Source: Izhikevich (2007), doi:10.1093/cercor/bhl152; Florian (2007), doi:10.1162/neco.2007.19.6.1468.
    """

    class State(NamedTuple):
        rule: Any
        c: Tensor
        """Tag of every synapse, in the unit of the weight per unit of dopamine and ms."""
        d: Tensor
        """Dopamine, ``(*batch,)``."""

    def __init__(
        self,
        rule: Plasticity,
        *,
        tau_c: Value = 1000.0,
        tau_d: Value | None = 200.0,
        w_min: float = 0.0,
        w_max: float = math.inf,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not isinstance(rule, Plasticity):
            raise TypeError(f"`RewardModulatedSTDP(rule=...)`: expected a Plasticity object, got {rule!r}")
        low, high = getattr(rule, "w_min", -math.inf), getattr(rule, "w_max", math.inf)
        if (low, high) != (-math.inf, math.inf):
            raise ValueError(
                f"`RewardModulatedSTDP(rule=...)`: expected a rule with w_min=-inf and w_max=inf, since tags of either "
                f"sign have no bounds, got {low} and {high}"
            )
        self.rule = rule
        self.needs_voltage = rule.needs_voltage
        self.declare("tau_c", tau_c, positive=True)
        if tau_d is None:
            self.tau_d = None
        else:
            self.declare("tau_d", tau_d, positive=True)
        self.declare_bounds(w_min, w_max)

    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        c = torch.zeros((*batch_shape, *connect.weight_shape), dtype=self.dtype, device=self.device)
        d = torch.zeros(batch_shape, dtype=self.dtype, device=self.device)
        return self.State(rule=self.rule.init_state(connect, batch_shape), c=c, d=d)

    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        reward = 0.0 if events.third is None else events.third
        inner, c = self.rule.step(state.rule, state.c, connect, events, t, dt)
        d = state.d * 0.0 + reward if self.tau_d is None else state.d + reward
        # Between events c d decays exponentially; its integral over the step is exact.
        rate = 1.0 / self.tau_c + (0.0 if self.tau_d is None else 1.0 / self.tau_d)
        gain = (1.0 - decay(1.0 / rate, dt)) / rate
        level = (d * gain).reshape(*d.shape, *(1 for _ in connect.weight_shape))
        weight = (weight + level * c).clamp(self.w_min, self.w_max)
        after = d if self.tau_d is None else d * decay(self.tau_d, dt)
        return self.State(rule=inner, c=c * decay(self.tau_c, dt), d=after), weight
