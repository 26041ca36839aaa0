"""What integrate-and-fire neurons share: integrate, compare with the threshold, reset."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Size, State
from bdtorch.integrate import Integrator
from bdtorch.surrogate import Surrogate


class IntegrateFire(Flow):
    """A flow that spikes where `threshold` is at least 0 and is then `reset`.

    A subclass has a state with a field ``v`` (mV) and implements ``init_state``, ``derivative``, `threshold`, `reset`.
    The output of a step is its spikes, stamped with the end of the step.

    Args:
        size: Shape of the population.
        surrogate: Without one (the default) spikes are boolean and carry no gradient. With one they are 0 or 1 in the
            state's dtype, of the same value, and differentiable.
        integrator: One-step method; default exponential Euler.
        dtype: Floating dtype of the state.
        device: Device of the state.
    """

    held: ClassVar[tuple[str, ...]] = ("v",)
    """The variables that stand still while a neuron is refractory."""

    def __init__(
        self,
        size: Size,
        *,
        surrogate: Surrogate | None = None,
        integrator: Integrator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(size, integrator=integrator, dtype=dtype, device=device)
        self.surrogate = checked_surrogate(self, surrogate)

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return silence(self, self.surrogate, batch_shape)

    @abc.abstractmethod
    def threshold(self, state: State) -> Tensor:
        """The distance above threshold, at least 0 where the neuron spikes."""

    @abc.abstractmethod
    def reset(self, state: State, spike: Tensor) -> State:
        """The state after the spikes ``spike`` (boolean)."""

    def advance(self, state: State, inputs: Any, t: Tensor, dt: float, integrator: Integrator | None = None) -> State:
        drive = Drive.of(inputs)
        if drive.jump is not None:
            state = state._replace(v=state.v + drive.jump)
        return super().advance(state, drive, t, dt, integrator)

    def emit(self, before: State, after: State, allowed: Tensor | None = None) -> tuple[State, Tensor]:
        """Spikes and the reset state; ``allowed`` (boolean) forbids spikes where it is False."""
        return spike_and_reset(self.threshold(after), self.surrogate, allowed, lambda spike: self.reset(after, spike))


def spike_and_reset(
    threshold: Tensor, surrogate: Surrogate | None, allowed: Tensor | None, reset: Any
) -> tuple[State, Tensor]:
    """Shared rule: boolean spikes reset the state; the surrogate's differentiable twin is what leaves the neuron."""
    spike = threshold >= 0
    if allowed is not None:
        spike = spike & allowed
    if surrogate is None:
        return reset(spike), spike
    out = surrogate(threshold)
    return reset(spike), out if allowed is None else out * allowed.to(out.dtype)


def checked_surrogate(system: Flow, surrogate: Any) -> Surrogate | None:
    """``surrogate``, or an error that names the system's argument."""
    if surrogate is not None and not isinstance(surrogate, Surrogate):
        label = f"{type(system).__name__}(surrogate=...)"
        raise TypeError(f"`{label}`: expected an object such as bdtorch.surrogate.Arctan(), got {surrogate!r}")
    return surrogate


def silence(system: Flow, surrogate: Surrogate | None, batch_shape: tuple[int, ...]) -> Tensor:
    """No spikes, of the dtype in which `spike_and_reset` puts them out."""
    dtype = torch.bool if surrogate is None else system.dtype
    return torch.zeros((*batch_shape, *system.size), dtype=dtype, device=system.device)
