"""Spike-timing dependent plasticity of pairs of spikes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.connect import Connectivity
from bdtorch.plasticity._rule import Events, Plasticity, raised


class PairSTDP(Plasticity):
    r"""Every pair of a pre- and a postsynaptic spike, with lag $\Delta = t_{post} - t_{pre}$, changes the weight by

    $$\Delta w = A_+\,e^{-\Delta/\tau_+} \;(\Delta \ge 0), \qquad \Delta w = -A_-\,e^{\Delta/\tau_-} \;(\Delta < 0)$$

    and the weight stays within bounds. With soft bounds $A_+$ is multiplied by $w_{max} - w$ and $A_-$ by $w - w_{min}$.

    Args:
        a_plus: Potentiation $A_+$ at lag 0, in the unit of the weight; without unit for soft bounds.
        a_minus: Depression $A_-$ at lag 0, likewise; positive where it depresses.
        tau_plus: Width of the window of potentiation, ms: decay of the presynaptic trace.
        tau_minus: Width of the window of depression, ms: decay of the postsynaptic trace.
        w_min: Lower bound of the weight.
        w_max: Upper bound of the weight.
        soft: Whether bounds are soft.
        nearest: Whether a spike pairs only with the last one of the other side, instead of with all before it.
        **options: ``dtype``, ``device``.

    Raises:
        ValueError: a constant is NaN, a time constant is not positive, or bounds are not in order (or, if soft, finite).

    Source: Song, Miller & Abbott (2000), doi:10.1038/78829; soft bounds: van Rossum, Bi & Turrigiano (2000),
        doi:10.1523/JNEUROSCI.20-23-08812.2000; pairings: Morrison, Diesmann & Gerstner (2008),
        doi:10.1007/s00422-008-0233-1.
    """

    class State(NamedTuple):
        x: Tensor
        """Presynaptic trace, without unit."""
        y: Tensor
        """Postsynaptic trace, without unit."""

    def __init__(
        self,
        a_plus: Value,
        a_minus: Value,
        *,
        tau_plus: Value = 20.0,
        tau_minus: Value = 20.0,
        w_min: float = 0.0,
        w_max: float = math.inf,
        soft: bool = False,
        nearest: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.declare("a_plus", a_plus)
        self.declare("a_minus", a_minus)
        self.declare("tau_plus", tau_plus, positive=True)
        self.declare("tau_minus", tau_minus, positive=True)
        self.declare_bounds(w_min, w_max)
        if soft and not (math.isfinite(w_min) and math.isfinite(w_max)):
            raise ValueError(f"`PairSTDP(soft=True)`: expected finite w_min and w_max, got {w_min} and {w_max}")
        self.soft, self.nearest = soft, nearest

    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(x=self.zeros(batch_shape, connect.n_pre), y=self.zeros(batch_shape, connect.n_post))

    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        fall = -self.a_minus * state.y
        weight = connect.on_pre(weight, events.pre, *self._towards(self.w_min, fall), **self.bounds)
        x = raised(state.x, events.pre, nearest=self.nearest)
        weight = connect.on_post(weight, events.post, *self._towards(self.w_max, self.a_plus * x), **self.bounds)
        y = raised(state.y, events.post, nearest=self.nearest)
        return self.State(x=x * decay(self.tau_plus, dt), y=y * decay(self.tau_minus, dt)), weight

    def _towards(self, bound: float, change: Tensor) -> tuple[Tensor, Tensor | None]:
        """The terms ``a`` and ``b`` of a change, which soft bounds multiply by the distance to the bound."""
        if not self.soft:
            return change, None
        slope = -change if bound == self.w_max else change
        return -bound * slope, slope
