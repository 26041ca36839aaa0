"""The two-variable model of perceptual decisions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value


class WongWang(Flow):
    r"""Two populations that compete by slow NMDA synapses, whose open fractions $s_1, s_2$ decide.

    $$\dot s_i = -\frac{s_i}{\tau} + (1 - s_i)\,\gamma H(x_i), \qquad H(x) = \frac{a x - b}{1 - e^{-d (a x - b)}}$$
    $$x_{1,2} = J_s s_{1,2} - J_c s_{2,1} + I_0 + J_{ext}\,\mu_0 (1 \pm c) + I_{1,2}$$

    The input is a current (nA) into both populations, or a pair of them, such as noise. The output is the pair of firing
    rates, stacked in a last axis.

    Args:
        size: Number (shape) of independent pairs.
        tau: Decay of NMDA conductance, ms.
        gamma: Saturation of the synapses.
        a: Gain of the rate, Hz/nA.
        b: Its offset, Hz.
        d: Its curvature, s.
        j_self: Coupling of a population with itself, nA.
        j_cross: Inhibition between the two, nA.
        j_ext: Strength of the stimulus, nA/Hz.
        i_0: Background current, nA.
        mu_0: Stimulus at zero coherence, Hz.
        coherence: Of the stimulus, -1 to 1; positive favours the first population.
        s_init: Initial ``s1`` and ``s2``.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Wong & Wang (2006), doi:10.1523/JNEUROSCI.3733-05.2006.
    """

    class State(NamedTuple):
        s1: Tensor
        """Open fraction of the first population's synapses."""
        s2: Tensor
        """Of the second's."""

    def __init__(
        self,
        size: Size,
        *,
        tau: Value | Initialiser = 100.0,
        gamma: Value | Initialiser = 0.641,
        a: Value | Initialiser = 270.0,
        b: Value | Initialiser = 108.0,
        d: Value | Initialiser = 0.154,
        j_self: Value | Initialiser = 0.2609,
        j_cross: Value | Initialiser = 0.0497,
        j_ext: Value | Initialiser = 0.00052,
        i_0: Value | Initialiser = 0.3255,
        mu_0: Value | Initialiser = 30.0,
        coherence: Value | Initialiser = 0.0,
        s_init: Value | Initialiser = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("tau", tau, positive=True)
        self.declare("d", d, positive=True)
        for name, value in (("gamma", gamma), ("a", a), ("b", b), ("i_0", i_0), ("mu_0", mu_0)):
            self.declare(name, value)
        for name, value in (("j_self", j_self), ("j_cross", j_cross), ("j_ext", j_ext), ("coherence", coherence)):
            self.declare(name, value)
        self.declare_initial("s_init", s_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(
            s1=self.fill(batch_shape, self.s_init, seed=seed), s2=self.fill(batch_shape, self.s_init, seed=seed + 1)
        )

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return super().init_out(batch_shape)[..., None].expand(*batch_shape, *self.size, 2).clone()

    def rates(self, state: State, inputs: Any = None) -> tuple[Tensor, Tensor]:
        """The firing rates of both populations, Hz."""
        one, two = inputs if type(inputs) in (tuple, list) else (inputs, inputs)
        stimulus = self.j_ext * self.mu_0
        x1 = self.j_self * state.s1 - self.j_cross * state.s2 + (self.i_0 + stimulus * (1.0 + self.coherence))
        x2 = self.j_self * state.s2 - self.j_cross * state.s1 + (self.i_0 + stimulus * (1.0 - self.coherence))
        return self._rate(x1 + Drive.of(one).at(state.s1)), self._rate(x2 + Drive.of(two).at(state.s2))

    def _rate(self, x: Tensor) -> Tensor:
        y = self.d * (self.a * x - self.b)
        # y / (1 - exp(-y)); near 0 its series, exact to rounding, of which derivatives are good too.
        near = y.abs() < 0.01
        far = torch.where(near, 1.0, y)
        square = y * y
        series = 1.0 + y * 0.5 + square * (1 / 12) * (1.0 - square * (1 / 60))
        return torch.where(near, series, far / -torch.expm1(-far)) / self.d

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        r1, r2 = self.rates(state, inputs)
        return self.State(
            s1=-state.s1 / self.tau + (1.0 - state.s1) * self.gamma * r1 * 1e-3,
            s2=-state.s2 / self.tau + (1.0 - state.s2) * self.gamma * r2 * 1e-3,
        )

    def emit(self, before: State, after: State) -> tuple[State, Tensor]:
        return after, torch.stack(self.rates(after), dim=-1)
