"""Delay lines: of one duration, of one for each source (whole steps or interpolated, then trainable)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bdtorch._system import Parametrised, check_number
from bdtorch._types import State


class Delay(Parametrised):
    r"""Hands on what it was given ``duration`` ms ago, and zeros before that.

    With ``interpolate`` a duration of $d$ steps may be any number, and the signal between two steps is linear:

    $$y(t) = (1 - f)\,s(t - \lfloor d \rfloor) + f\,s(t - \lfloor d \rfloor - 1), \qquad f = d - \lfloor d \rfloor$$

    so that $y$ has a derivative with respect to $d$, the signal's slope, and a spike arrives in two parts that add to 1.

    Args:
        duration: Delay, ms: at least one step. A float, or a tensor: 0-d, or one for each element of the signal. Without
            ``interpolate`` a multiple of the step. An `nn.Parameter` is trained, which takes ``interpolate``.
        interpolate: Whether durations are continuous. The output is then floating, also for spikes.
        longest: The longest duration that there is room for, ms; default the largest given, and required for an
            `nn.Parameter`. A duration that is trained beyond it, or below one step, makes NaN.
        dtype: Dtype of float signals.
        device: Device of the line.

    Raises:
        ValueError: a duration is not positive, or above ``longest``; in `init_state`, where one is shorter than ``dt`` or
            no multiple of it.
    """

    class State(NamedTuple):
        ring: Tensor
        """The last signals, ``(*batch, slots, n)``."""
        cursor: Tensor
        """The row that holds the oldest one, int64, ``(*batch, 1, 1)``."""

    def __init__(
        self,
        duration: float | Tensor,
        *,
        interpolate: bool = False,
        longest: float | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__((), dtype=dtype, device=device)
        if isinstance(duration, nn.Parameter) and not (interpolate and longest is not None):
            raise ValueError(
                "`Delay(duration=...)`: expected interpolate=True and a longest duration for an nn.Parameter"
            )
        if isinstance(duration, Tensor) and duration.dim() > 1:
            raise ValueError(
                f"`Delay(duration=...)`: expected a 0-d tensor or one value per source, got shape {tuple(duration.shape)}"
            )
        self.declare("duration", duration, positive=True)
        self.interpolate = interpolate
        largest = float(torch.as_tensor(self.duration, dtype=torch.float64).detach().max())
        self.longest = largest if longest is None else float(longest)
        check_number("`Delay(longest=...)`", self.longest, positive=True)
        if largest > self.longest:
            raise ValueError(
                f"`Delay(longest=...)`: expected at least the largest duration, {largest:g} ms, got {longest}"
            )

    def init_state(self, signal: Tensor, *, dt: float | None) -> State:
        """An empty line for signals like ``signal``, ``(*batch, n)``, in steps of ``dt`` ms."""
        if dt is None:
            raise ValueError(
                "`init_state(dt=...)`: expected the step in ms, since a delay's state depends on it, got None"
            )
        *batch_shape, n = signal.shape
        exact = isinstance(self.duration, float)
        durations = torch.as_tensor(self.duration, dtype=torch.float64 if exact else None).detach()
        if durations.dim() and len(durations) != n:
            raise ValueError(f"`Delay(duration=...)`: expected one value or {n}, one per source, got {len(durations)}")
        shortest = float(durations.min())
        if shortest < dt * (1.0 - 1e-6):
            raise ValueError(f"`Delay(duration=...)`: expected at least dt={dt:g} ms, got {shortest:g} ms")
        if not self.interpolate:
            _check_whole(durations, dt)
        cursor = torch.zeros((*batch_shape, 1, 1), dtype=torch.int64, device=signal.device)
        return self.State(ring=signal.new_zeros((*batch_shape, self._slots(dt), n)), cursor=cursor)

    def _slots(self, dt: float) -> int:
        """Signals that are kept: as many as the longest delay has steps, and one more to interpolate to."""
        steps = self.longest / dt
        return math.floor(steps + 1e-6) + 1 if self.interpolate else round(steps)

    def forward(self, state: State, signal: Tensor, dt: float) -> tuple[State, Tensor]:
        """Push ``signal``, ``(*batch, n)``, and return the new state and the signal of ``duration`` ago."""
        slots = state.ring.shape[-2]
        if slots != self._slots(dt):
            raise ValueError(
                f"`step(dt=...)`: the state was made for a delay of {slots - self.interpolate} steps, but "
                f"{self.longest:g} ms are {self.longest / dt:g} steps of {dt:g} ms"
            )
        delayed = self._delayed(state, signal, dt)
        row = state.cursor.expand(*signal.shape[:-1], 1, signal.shape[-1])
        ring = state.ring.scatter(-2, row, signal.unsqueeze(-2))
        return self.State(ring=ring, cursor=torch.remainder(state.cursor + 1, slots)), delayed

    def _delayed(self, state: State, signal: Tensor, dt: float) -> Tensor:
        if not isinstance(self.duration, Tensor) and not self.interpolate:
            return self._at(state, 0, signal)  # the oldest
        steps = torch.as_tensor(self.duration, dtype=self.dtype, device=signal.device) / dt
        if not self.interpolate:
            return self._at(state, -steps.round().to(torch.int64), signal)
        # Rounding must not take a delay of whole steps, or the longest, across a boundary.
        slots = state.ring.shape[-2]
        inside = (steps > 1.0 - 1e-4) & (steps < self.longest / dt + 1e-4)
        whole = torch.floor(steps.detach() + 1e-6).clamp(1, slots - 1)
        near, far = (self._at(state, -whole.to(torch.int64) - k, signal).to(self.dtype) for k in (0, 1))
        return torch.where(inside, near + (steps - whole) * (far - near), torch.nan)

    def _at(self, state: State, rows: Tensor | int, signal: Tensor) -> Tensor:
        """The signal in the row that lies ``rows`` after the oldest one, counted around the ring."""
        row = torch.remainder(state.cursor + rows, state.ring.shape[-2]) if isinstance(rows, Tensor) else state.cursor
        row = row.expand(*signal.shape[:-1], 1, signal.shape[-1])
        return state.ring.gather(-2, row).squeeze(-2)


def _check_whole(durations: Tensor, dt: float) -> None:
    """Reject durations that are no whole numbers of steps, up to the rounding of their dtype."""
    steps = durations.double() / dt
    tolerance = max(1e-6, 4.0 * torch.finfo(durations.dtype).eps)
    off = (steps - steps.round()).abs() > tolerance * steps.clamp(min=1.0)
    if bool(off.any()):
        wrong = float(durations[off][0])
        raise ValueError(f"`Delay(duration=...)`: expected a multiple of dt={dt:g} ms, got {wrong:g} ms")
