"""Spike-timing dependent plasticity of triplets of spikes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.connect import Connectivity
from bdtorch.plasticity._rule import Events, Plasticity, raised


class TripletSTDP(Plasticity):
    r"""The triplet rule: traces $r_1, r_2$ of presynaptic and $o_1, o_2$ of postsynaptic spikes, and

    $$w \to w - o_1\,[A_2^- + A_3^-\,r_2] \;\text{ at } t_{pre}, \qquad
      w \to w + r_1\,[A_2^+ + A_3^+\,o_2] \;\text{ at } t_{post}$$

    where $r_2$ and $o_2$ are taken just before the spike. The traces decay with $\tau_+, \tau_x, \tau_-, \tau_y$.
    Defaults are the minimal rule with all-to-all interaction, fitted to pyramidal neurons of visual cortex.

    Args:
        a2_plus: Potentiation by pairs, in the unit of the weight.
        a3_plus: Potentiation by triplets with two postsynaptic spikes.
        a2_minus: Depression by pairs.
        a3_minus: Depression by triplets with two presynaptic spikes.
        tau_plus: Decay of $r_1$, ms.
        tau_x: Decay of $r_2$, ms.
        tau_minus: Decay of $o_1$, ms.
        tau_y: Decay of $o_2$, ms.
        w_min: Lower bound of the weight.
        w_max: Upper bound of the weight.
        nearest: Whether every trace remembers only the last spike.
        **options: ``dtype``, ``device``.

    Raises:
        ValueError: a constant is NaN, a time constant is not positive, or bounds are not in order.

    Source: Pfister & Gerstner (2006), doi:10.1523/JNEUROSCI.1425-06.2006, equations 3 and 4, table 4.
    """

    class State(NamedTuple):
        r1: Tensor
        r2: Tensor
        o1: Tensor
        o2: Tensor

    def __init__(
        self,
        *,
        a2_plus: Value = 0.0,
        a3_plus: Value = 6.5e-3,
        a2_minus: Value = 7.1e-3,
        a3_minus: Value = 0.0,
        tau_plus: Value = 16.8,
        tau_x: Value = 101.0,
        tau_minus: Value = 33.7,
        tau_y: Value = 114.0,
        w_min: float = 0.0,
        w_max: float = math.inf,
        nearest: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        amplitudes = {"a2_plus": a2_plus, "a3_plus": a3_plus, "a2_minus": a2_minus, "a3_minus": a3_minus}
        for name, value in amplitudes.items():
            self.declare(name, value)
        for name, value in {"tau_plus": tau_plus, "tau_x": tau_x, "tau_minus": tau_minus, "tau_y": tau_y}.items():
            self.declare(name, value, positive=True)
        self.declare_bounds(w_min, w_max)
        self.nearest = nearest

    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        pre, post = self.zeros(batch_shape, connect.n_pre), self.zeros(batch_shape, connect.n_post)
        return self.State(r1=pre, r2=pre.clone(), o1=post, o2=post.clone())

    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        r1, r2, o1, o2 = state
        fall = events.pre.to(r2.dtype) * (self.a2_minus + self.a3_minus * r2)
        weight = connect.on_pre(weight, fall, -o1, **self.bounds)
        r1, r2 = (raised(r, events.pre, nearest=self.nearest) for r in (r1, r2))
        rise = events.post.to(o2.dtype) * (self.a2_plus + self.a3_plus * o2)
        weight = connect.on_post(weight, rise, r1, **self.bounds)
        o1, o2 = (raised(o, events.post, nearest=self.nearest) for o in (o1, o2))
        after = self.State(
            r1=r1 * decay(self.tau_plus, dt),
            r2=r2 * decay(self.tau_x, dt),
            o1=o1 * decay(self.tau_minus, dt),
            o2=o2 * decay(self.tau_y, dt),
        )
        return after, weight
