"""Short-term plasticity: what a source releases depends on its own recent spikes."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import DynamicalSystem, decay
from bdtorch._types import State, Value


class ShortTerm(DynamicalSystem, abc.ABC):
    """An element-wise system from presynaptic spikes to what they release, at the presynaptic side.

    ``step`` takes spikes (boolean, or floats whose nonzeros are events) at the start of a step and returns the factor by
    which the weights are multiplied. It has no size: its state takes the shape ``batch_shape``, whose last axis is the
    presynaptic population.
    """


class TsodyksMarkram(ShortTerm):
    r"""Facilitation and depression: a spike uses the fraction $u$ of the resources $x$,

    $$\dot u = -u/\tau_f, \quad \dot x = (1 - x)/\tau_d; \qquad
    u \to u + U (1 - u), \quad \mathrm{release} = u\,x, \quad x \to x - u\,x \;\text{ at a spike}$$

    The first spike after rest releases $U$; weights are thus absolute efficacies.

    Args:
        use: $U$, the fraction that a spike after rest uses, in [0, 1].
        tau_d: Recovery from depression, ms.
        tau_f: Decay of facilitation, ms; None for none ($u = U$ at every spike).
        **options: ``dtype``, ``device``.

    Raises:
        ValueError: ``use`` is outside [0, 1], or a time constant is not positive.

    Source: Tsodyks, Pawelzik & Markram (1998), doi:10.1162/089976698300017502; Markram, Wang & Tsodyks (1998),
        doi:10.1073/pnas.95.9.5323.
    """

    class State(NamedTuple):
        u: Tensor
        """Utilisation, without unit; 0 at rest."""
        x: Tensor
        """Resources that are there, without unit; 1 at rest."""

    def __init__(self, use: Value, *, tau_d: Value, tau_f: Value | None = None, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("use", use)
        values = torch.as_tensor(self.use)
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(f"`TsodyksMarkram(use=...)`: expected fractions in [0, 1], got {use!r}")
        self.declare("tau_d", tau_d, positive=True)
        if tau_f is None:
            self.tau_f = None
        else:
            self.declare("tau_f", tau_f, positive=True)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(u=self.fill(batch_shape, 0.0), x=self.fill(batch_shape, 1.0))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        spikes = inputs.to(state.x.dtype)
        u = state.u + spikes * (self.use * (1.0 - state.u))
        release = spikes * (u * state.x)
        x = state.x - release
        fade = 0.0 if self.tau_f is None else decay(self.tau_f, dt)
        return self.State(u=u * fade, x=1.0 + (x - 1.0) * decay(self.tau_d, dt)), release
