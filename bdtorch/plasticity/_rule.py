"""What a rule of plasticity is, and the traces that most of them keep."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import Parametrised, check_number
from bdtorch._types import State
from bdtorch.connect import Connectivity


class Events(NamedTuple):
    """What a rule sees of one step: everything that happens at the step's start."""

    pre: Tensor
    """Spikes that arrive, after their delay: boolean, or floats whose nonzeros are events, ``(*batch, n_pre)``."""
    post: Tensor
    """Spikes of the targets, ``(*batch, n_post)``."""
    v: Tensor | None = None
    """Potential of the targets, mV, ``(*batch, n_post)``, for rules with ``needs_voltage``."""
    third: Tensor | float | None = None
    """What the simulation's inputs hold under the projection's name, such as a reward; a number, or ``(*batch,)``."""


class Plasticity(Parametrised, abc.ABC):
    """How weights change. They are part of the state, ``(*batch, *connect.weight_shape)``.

    Within a step the spikes that arrive pass through the weights as they were; then the rule acts on these spikes, and
    then on those of the targets. Spikes at the end of step k are events of step k+1, on both sides; a presynaptic one is
    delayed by the projection's delay. A rule written as those here are, presynaptic events first, thus treats a pair
    that coincides as pre before post with a lag of 0.
    """

    needs_voltage: bool = False
    """Whether `Events.v` is wanted."""

    def __init__(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        super().__init__((), dtype=dtype, device=device)

    @abc.abstractmethod
    def init_state(self, connect: Connectivity, batch_shape: tuple[int, ...] = ()) -> State:
        """The state at t = 0: a ``NamedTuple`` of tensors whose leading axes are ``batch_shape``."""

    @abc.abstractmethod
    def step(
        self, state: State, weight: Tensor, connect: Connectivity, events: Events, t: Tensor, dt: float
    ) -> tuple[State, Tensor]:
        """Act on the events at ``t`` and advance by ``dt`` ms, without writing to the arguments.

        Args:
            state: What `init_state` or the last `step` returned.
            weight: ``(*batch, *connect.weight_shape)``.
            connect: Whose `on_pre` and `on_post` change the weights of active neurons.
            events: Spikes of both sides, and what else the rule asks for.
            t: 0-d float64 tensor, the time at the start of the step.
            dt: The step, ms.

        Returns:
            The new state and the new weights.
        """

    def zeros(self, batch_shape: tuple[int, ...], n: int) -> Tensor:
        """A trace at rest, ``(*batch_shape, n)``."""
        return torch.zeros((*batch_shape, n), dtype=self.dtype, device=self.device)

    def declare_bounds(self, w_min: float, w_max: float) -> None:
        """Set the range of the weights.

        Raises:
            ValueError: they are NaN, or not in order.
        """
        name = type(self).__name__
        for label, bound in (("w_min", w_min), ("w_max", w_max)):
            check_number(f"`{name}({label}=...)`", float(bound))
        if not w_min < w_max:
            raise ValueError(f"`{name}(w_min=..., w_max=...)`: expected w_min < w_max, got {w_min} and {w_max}")
        self.w_min, self.w_max = float(w_min), float(w_max)

    @property
    def bounds(self) -> dict[str, Any]:
        """The range of the weights, as `Connectivity.on_pre` takes it."""
        return {"low": self.w_min, "high": self.w_max}


def raised(trace: Tensor, spikes: Tensor, *, nearest: bool = False) -> Tensor:
    """A trace after events: one more for each, or with ``nearest`` as after a single one."""
    if nearest:
        return torch.where(spikes != 0, 1.0, trace)
    return trace + spikes.to(trace.dtype)
