"""Plasticity of inhibitory synapses."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.connect import Connectivity
from bdtorch.plasticity._rule import Events, Plasticity, raised


class VogelsSprekeler(Plasticity):
    r"""The symmetric rule that balances excitation by inhibition and drives targets to the rate $\rho_0$:

    $$w \to w + \eta\,(y - \alpha) \;\text{ at } t_{pre}, \qquad w \to w + \eta\,x \;\text{ at } t_{post}, \qquad
      \alpha = 2\,\rho_0\,\tau$$

    with traces $x$ of pre- and $y$ of postsynaptic spikes.

    Args:
        eta: Learning rate, in the unit of the weight.
        rate: Target rate $\rho_0$, Hz.
        tau: Decay of both traces, ms.
        w_min: Lower bound of the weight.
        w_max: Upper bound of the weight.
        **options: ``dtype``, ``device``.

    Raises:
        ValueError: a constant is NaN, ``tau`` is not positive, or bounds are not in order.

    Source: Vogels, Sprekeler, Zenke, Clopath & Gerstner (2011), doi:10.1126/science.1211095.
    """

    class State(NamedTuple):
        x: Tensor
        """Presynaptic trace, without unit."""
        y: Tensor
        """Postsynaptic trace, without unit."""

    def __init__(
        self,
        eta: Value,
        *,
        rate: Value = 3.0,
        tau: Value = 20.0,
        w_min: float = 0.0,
        w_max: float = math.inf,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.declare("eta", eta)
        self.declare("rate", rate)
        self.declare("tau", tau, positive=True)
        self.declare_bounds(w_min, w_max)

    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(x=self.zeros(batch_shape, connect.n_pre), y=self.zeros(batch_shape, connect.n_post))

    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        alpha = 2.0 * self.rate * 1e-3 * self.tau
        weight = connect.on_pre(weight, events.pre, self.eta * (state.y - alpha), **self.bounds)
        x, y = raised(state.x, events.pre), raised(state.y, events.post)
        weight = connect.on_post(weight, events.post, self.eta * x, **self.bounds)
        fade = decay(self.tau, dt)
        return self.State(x=x * fade, y=y * fade), weight
