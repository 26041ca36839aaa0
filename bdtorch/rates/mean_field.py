"""The exact mean field of quadratic integrate-and-fire neurons."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value


class MontbrioPazoRoxin(Flow):
    r"""Rate and mean potential of infinitely many quadratic integrate-and-fire neurons, coupled all to all.

    $$\tau \dot r = \frac{\Delta}{\pi \tau} + 2 r v, \qquad \tau \dot v = v^2 + \bar\eta + J \tau r + I - (\pi \tau r)^2$$

    The output is ``r``.

    Args:
        size: Number (shape) of independent populations.
        tau: Membrane time constant.
        eta: Centre of the Lorentzian distribution of currents.
        delta: Its half width.
        j: Synaptic weight.
        r_init: Initial rate, spikes per unit of time.
        v_init: Initial mean potential.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Montbrio, Pazo & Roxin (2015), doi:10.1103/PhysRevX.5.021028.
    """

    class State(NamedTuple):
        r: Tensor
        """Population rate."""
        v: Tensor
        """Mean membrane potential."""

    def __init__(
        self,
        size: Size,
        *,
        tau: Value | Initialiser = 1.0,
        eta: Value | Initialiser = -5.0,
        delta: Value | Initialiser = 1.0,
        j: Value | Initialiser = 15.0,
        r_init: Value | Initialiser = 0.1,
        v_init: Value | Initialiser = -2.0,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("tau", tau, positive=True)
        self.declare("delta", delta, positive=True)
        self.declare("eta", eta)
        self.declare("j", j)
        self.declare_initial("r_init", r_init)
        self.declare_initial("v_init", v_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(
            r=self.fill(batch_shape, self.r_init, seed=seed), v=self.fill(batch_shape, self.v_init, seed=seed + 1)
        )

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        r, v = state
        current = Drive.of(inputs).at(v) + self.eta
        return self.State(
            r=(self.delta / (math.pi * self.tau) + 2.0 * r * v) / self.tau,
            v=(v * v + current + self.j * self.tau * r - (math.pi * self.tau * r) ** 2) / self.tau,
        )

    def emit(self, before: State, after: State) -> tuple[State, Tensor]:
        return after, after.r
