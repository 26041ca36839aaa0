"""Refractoriness as a wrapper around any spiking neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem, check_number, initial_state, whole_steps
from bdtorch.neurons._integrate_fire import IntegrateFire
from bdtorch.neurons.conductance_based import ConductanceBased


class Refractory(DynamicalSystem):
    """A neuron that cannot spike for ``period`` ms after a spike.

    The period counts whole steps down, so it is exact however long a run is. Integrate-and-fire neurons hold their
    potential meanwhile (their other variables go on); conductance-based neurons go on and only their spikes are barred.
    A neuron that spikes at the end of step k is held through steps k+1 ... k+m, m = round(period / dt).

    Args:
        neuron: The neuron to wrap.
        period: Refractory period, ms; a multiple of the step that it is run with.

    Raises:
        TypeError: ``neuron`` is not a spiking neuron.
        ValueError: ``period`` is negative or not finite; at the first step, where it is no multiple of ``dt``.
    """

    class State(NamedTuple):
        neuron: Any
        countdown: Tensor
        """Steps that remain, int32."""

    def __init__(self, neuron: IntegrateFire | ConductanceBased, period: float) -> None:
        if not isinstance(neuron, (IntegrateFire, ConductanceBased)):
            raise TypeError(f"`Refractory(neuron=...)`: expected a spiking neuron of this package, got {neuron!r}")
        super().__init__(neuron.size, dtype=neuron.dtype, device=neuron.device)
        if period:
            check_number("`Refractory(period=...)`", period, positive=True)
        self.neuron = neuron
        self.period = float(period)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        shape = (*batch_shape, *self.size)
        countdown = torch.zeros(shape, dtype=torch.int32, device=self.device)
        return self.State(neuron=initial_state(self.neuron, batch_shape, seed=seed), countdown=countdown)

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return self.neuron.init_out(batch_shape)

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        steps = whole_steps(self.period, dt, "Refractory(period=...)")
        before, countdown = state
        free = countdown <= 0
        after = self.neuron.advance(before, Drive.of(inputs), t, dt)
        held: dict[str, Any] = {
            name: torch.where(free, getattr(after, name), getattr(before, name)) for name in self.neuron.held
        }
        after, spike = self.neuron.emit(before, after._replace(**held), allowed=free)
        fired = spike if spike.dtype == torch.bool else spike.detach() > 0
        countdown = torch.where(fired, steps, torch.where(free, 0, countdown - 1))
        return self.State(neuron=after, countdown=countdown.to(torch.int32)), spike
