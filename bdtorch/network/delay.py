"""A homogeneous delay line."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch._system import Parametrised, check_number, whole_steps
from bdtorch._types import State


class Delay(Parametrised):
    """Hands on what it was given ``duration`` ms ago, and zeros before that.

    Args:
        duration: Delay, ms: at least one step, and a multiple of it.
        dtype: Dtype of float signals.
        device: Device of the line.

    Raises:
        ValueError: ``duration`` is not positive; in `init_state`, where it is shorter than ``dt`` or no multiple of it.
    """

    class State(NamedTuple):
        ring: Tensor
        """The last ``steps`` signals, ``(*batch, steps, n)``."""
        cursor: Tensor
        """The row that holds the oldest one, int64, ``(*batch, 1, 1)``."""

    def __init__(
        self, duration: float, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__((), dtype=dtype, device=device)
        check_number("`Delay(duration=...)`", duration, positive=True)
        self.duration = float(duration)

    def init_state(self, signal: Tensor, *, dt: float | None) -> State:
        """An empty line for signals like ``signal``, ``(*batch, n)``, in steps of ``dt`` ms."""
        if dt is None:
            raise ValueError(
                "`init_state(dt=...)`: expected the step in ms, since a delay's state depends on it, got None"
            )
        if self.duration < dt * (1.0 - 1e-6):
            raise ValueError(f"`Delay(duration=...)`: expected at least dt={dt:g} ms, got {self.duration:g} ms")
        steps = whole_steps(self.duration, dt, "Delay(duration=...)")
        *batch_shape, n = signal.shape
        cursor = torch.zeros((*batch_shape, 1, 1), dtype=torch.int64, device=signal.device)
        return self.State(ring=signal.new_zeros((*batch_shape, steps, n)), cursor=cursor)

    def forward(self, state: State, signal: Tensor, dt: float) -> tuple[State, Tensor]:
        """Push ``signal``, ``(*batch, n)``, and return the new state and the signal of ``duration`` ago."""
        steps = state.ring.shape[-2]
        if steps != round(self.duration / dt):
            raise ValueError(
                f"`step(dt=...)`: the state was made for a delay of {steps} steps, but {self.duration:g} ms "
                f"are {self.duration / dt:g} steps of {dt:g} ms"
            )
        row = state.cursor.expand(*signal.shape[:-1], 1, signal.shape[-1])
        delayed = state.ring.gather(-2, row).squeeze(-2)
        ring = state.ring.scatter(-2, row, signal.unsqueeze(-2))
        return self.State(ring=ring, cursor=torch.remainder(state.cursor + 1, steps)), delayed
