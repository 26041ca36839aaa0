"""Synapses with one and two exponentials."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import decay
from bdtorch._types import State, Value
from bdtorch.synapses._synapse import Synapse


class Exponential(Synapse):
    r"""A jump by the weight ``w`` and an exponential decay: $g(t) = w\,e^{-t/\tau}$.

    Args:
        tau: Decay time constant, ms.
        **options: ``dtype``, ``device``.
    """

    class State(NamedTuple):
        g: Tensor
        """In the unit of the weight."""

    def __init__(self, tau: Value, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("tau", tau, positive=True)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(g=self.fill(batch_shape, 0.0))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        g = state.g + inputs
        return self.State(g=g * decay(self.tau, dt)), g


class DualExponential(Synapse):
    r"""A rise and a decay, $g(t) = w\,N\,(e^{-t/\tau_d} - e^{-t/\tau_r})$, where $N$ makes one event peak at ``w``.

    The peak lies at $t^* = \frac{\tau_r \tau_d}{\tau_d - \tau_r} \ln(\tau_d / \tau_r)$.

    Args:
        tau_rise: Rise time constant, ms.
        tau_decay: Decay time constant, ms; larger than ``tau_rise`` everywhere.
        **options: ``dtype``, ``device``.

    Raises:
        ValueError: ``tau_rise`` is not below ``tau_decay`` (for equal ones use `Alpha`).

    Source: Roth & van Rossum (2009), in Computational Modeling Methods for Neuroscientists,
        doi:10.7551/mitpress/9780262013277.003.0007.
    """

    class State(NamedTuple):
        decaying: Tensor
        rising: Tensor

    def __init__(self, tau_rise: Value, tau_decay: Value, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("tau_rise", tau_rise, positive=True)
        self.declare("tau_decay", tau_decay, positive=True)
        if not torch.all(torch.as_tensor(self.tau_rise) < torch.as_tensor(self.tau_decay)):
            raise ValueError(
                f"`DualExponential(tau_rise=...)`: expected values below tau_decay={tau_decay}, got {tau_rise} "
                "(for equal time constants use Alpha)"
            )

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(decaying=self.fill(batch_shape, 0.0), rising=self.fill(batch_shape, 0.0))

    def _scale(self) -> Value:
        rise, fall = self.tau_rise, self.tau_decay
        ratio = fall / rise
        if isinstance(ratio, Tensor):
            return 1.0 / (ratio ** (-rise / (fall - rise)) - ratio ** (-fall / (fall - rise)))
        return 1.0 / (math.pow(ratio, -rise / (fall - rise)) - math.pow(ratio, -fall / (fall - rise)))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        events = inputs * self._scale()
        decaying, rising = state.decaying + events, state.rising + events
        after = self.State(decaying=decaying * decay(self.tau_decay, dt), rising=rising * decay(self.tau_rise, dt))
        return after, decaying - rising
