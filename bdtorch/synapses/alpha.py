"""The alpha synapse."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.synapses._synapse import Synapse


class Alpha(Synapse):
    r"""The alpha function $g(t) = w\,\frac{t}{\tau}\,e^{1 - t/\tau}$, which peaks at ``w`` after ``tau``.

    Args:
        tau: Time to peak, ms.
        **options: ``dtype``, ``device``.

    Source: Rall (1967), doi:10.1152/jn.1967.30.5.1138.
    """

    class State(NamedTuple):
        g: Tensor
        """In the unit of the weight."""
        h: Tensor
        """The driving variable, in the unit of the weight."""

    def __init__(self, tau: Value, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("tau", tau, positive=True)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(g=self.fill(batch_shape, 0.0), h=self.fill(batch_shape, 0.0))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        h = state.h + math.e * inputs
        fade = decay(self.tau, dt)
        return self.State(g=(state.g + (dt / self.tau) * h) * fade, h=h * fade), state.g
