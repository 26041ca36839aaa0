"""A membrane built from channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.channels import Channel
from bdtorch.integrate import Integrator
from bdtorch.neurons._integrate_fire import checked_surrogate, silence, spike_and_reset
from bdtorch.surrogate import Surrogate


class ConductanceBased(Flow):
    r"""A point neuron of any channels: $C \dot v = \sum_k g_k(x_k)(E_k - v) + I(v)$.

    It spikes at the end of a step in which ``v`` crosses ``v_th`` upwards.

    Args:
        size: Shape of the population.
        channels: Channels by name; records find their gates as ``"name.gate"``.
        c: Membrane capacitance, pF for conductances in nS (or uF/cm2 for mS/cm2).
        v_th: Potential whose upward crossing counts as a spike, mV.
        v_init: Initial potential, mV. Gates start at their steady state there.
        surrogate: As in `IntegrateFire`; it acts on ``v - v_th`` where ``v`` was below threshold before the step.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Raises:
        TypeError: a channel is not a `bdtorch.channels.Channel`.
        ValueError: no channel is given.
    """

    class State(NamedTuple):
        v: Tensor
        """Membrane potential, mV."""
        channels: dict[str, Any]
        """The gates of every channel."""

    held: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        size: Size,
        channels: Mapping[str, Channel],
        *,
        c: Value | Initialiser = 1.0,
        v_th: Value | Initialiser = -20.0,
        v_init: Value | Initialiser = -65.0,
        surrogate: Surrogate | None = None,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        if not channels:
            raise ValueError(f"`{type(self).__name__}(channels=...)`: expected at least one channel, got none")
        for name, channel in channels.items():
            if not isinstance(channel, Channel):
                raise TypeError(f"`{type(self).__name__}(channels[{name!r}])`: expected a Channel, got {channel!r}")
        self.channels = nn.ModuleDict(dict(channels))
        self.declare("c", c, positive=True)
        self.declare("v_th", v_th)
        self.declare_initial("v_init", v_init)
        self.surrogate = checked_surrogate(self, surrogate)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        v = self.fill(batch_shape, self.v_init, seed=seed)
        gates = {name: channel.init_state(tuple(v.shape), v=v) for name, channel in self._channels()}
        return self.State(v=v, channels=gates)

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return silence(self, self.surrogate, batch_shape)

    def _channels(self) -> Iterable[tuple[str, Channel]]:
        return self.channels.items()  # type: ignore[return-value]

    def _membrane(self, state: State, inputs: Any) -> Drive:
        drive = Drive.of(inputs)
        for name, channel in self._channels():
            drive = drive.plus(channel.drive(state.channels[name]))
        return drive

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        gates = {name: ch.derivative(state.channels[name], state.v, t) for name, ch in self._channels()}
        return self.State(v=self._membrane(state, inputs).at(state.v) / self.c, channels=gates)

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        gates = {name: ch.linear(state.channels[name], state.v, t) for name, ch in self._channels()}
        return self.State(v=self._membrane(state, inputs).slope / self.c, channels=gates)

    def advance(self, state: State, inputs: Any, t: Tensor, dt: float, integrator: Integrator | None = None) -> State:
        drive = Drive.of(inputs)
        if drive.jump is not None:
            state = state._replace(v=state.v + drive.jump)
        return super().advance(state, drive, t, dt, integrator)

    def emit(self, before: State, after: State, allowed: Tensor | None = None) -> tuple[State, Tensor]:
        """Spikes where ``v`` crossed ``v_th`` upwards; ``allowed`` (boolean) forbids them where it is False."""
        below = before.v < self.v_th
        allowed = below if allowed is None else below & allowed
        return spike_and_reset(after.v - self.v_th, self.surrogate, allowed, lambda spike: after)
