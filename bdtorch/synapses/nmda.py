"""The saturating NMDA synapse."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.synapses._presynaptic import Presynaptic


class NMDA(Presynaptic):
    r"""NMDA receptors of second order, whose open fraction $s$ saturates:

    $$\dot x = -x/\tau_{rise}, \quad \dot s = -s/\tau_{decay} + \alpha\,x\,(1 - s); \qquad
    x \to x + 1 \;\text{ at a spike}$$

    The equation of $s$ is linear in $s$; a step takes its exact solution for the mean of $x$ during the step, so its error
    falls with the third power of ``dt``. The block by magnesium is a matter of the receptor, `MagnesiumBlock`.

    Args:
        tau_rise: $\tau_{rise}$, ms.
        tau_decay: $\tau_{decay}$, ms.
        alpha: $\alpha$, how fast channels open, 1/ms.
        **options: ``dtype``, ``device``.

    Source: Wang (1999), doi:10.1523/JNEUROSCI.19-21-09587.1999; Wang (2002), doi:10.1016/S0896-6273(02)01092-9.
    """

    class State(NamedTuple):
        x: Tensor
        """The driving variable, in spikes."""
        s: Tensor
        """The fraction of open channels, in [0, 1]."""

    def __init__(self, tau_rise: Value = 2.0, tau_decay: Value = 100.0, *, alpha: Value = 0.5, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("tau_rise", tau_rise, positive=True)
        self.declare("tau_decay", tau_decay, positive=True)
        self.declare("alpha", alpha, positive=True)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(x=self.fill(batch_shape, 0.0), s=self.fill(batch_shape, 0.0))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        x = state.x + inputs.to(state.x.dtype)
        fade = decay(self.tau_rise, dt)
        opening = x * (self.alpha * (1.0 - fade) * self.tau_rise / dt)  # with the mean of x during the step, 1/ms
        rate = opening + 1.0 / self.tau_decay
        end = opening / rate
        s = end + (state.s - end) * torch.exp(-dt * rate)
        return self.State(x=x * fade, s=s), state.s
