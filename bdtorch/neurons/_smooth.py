"""What neurons share whose action potentials are part of their equations."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.integrate import Integrator
from bdtorch.neurons._integrate_fire import checked_surrogate, silence, spike_and_reset
from bdtorch.surrogate import Surrogate


class SmoothNeuron(Flow):
    """A flow that spikes where its membrane variable crosses ``v_th`` upwards, and is not reset.

    Args:
        size: Shape of the population.
        v_th: The threshold.
        surrogate: As in `IntegrateFire`; it acts on the membrane variable minus ``v_th`` where that was below threshold
            before the step.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.
    """

    membrane: ClassVar[str] = "v"
    """The state variable that drives act on and that crosses the threshold."""
    held: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, size: Size, *, v_th: Value | Initialiser, surrogate: Surrogate | None = None, **options: Any
    ) -> None:
        super().__init__(size, **options)
        self.declare("v_th", v_th)
        self.surrogate = checked_surrogate(self, surrogate)

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return silence(self, self.surrogate, batch_shape)

    def advance(self, state: State, inputs: Any, t: Tensor, dt: float, integrator: Integrator | None = None) -> State:
        drive = Drive.of(inputs)
        if drive.jump is not None:
            state = state._replace(**{self.membrane: getattr(state, self.membrane) + drive.jump})
        return super().advance(state, drive, t, dt, integrator)

    def emit(self, before: State, after: State, allowed: Tensor | None = None) -> tuple[State, Tensor]:
        """Spikes where the membrane variable crossed ``v_th``; ``allowed`` (boolean) forbids them where it is False."""
        below = getattr(before, self.membrane) < self.v_th
        allowed = below if allowed is None else below & allowed
        distance = getattr(after, self.membrane) - self.v_th
        return spike_and_reset(distance, self.surrogate, allowed, lambda spike: after)
