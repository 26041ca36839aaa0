"""Stimuli that are functions of time, for ``simulate(inputs=...)``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch._system import check_number
from bdtorch._types import Value


def _check_value(label: str, value: Value) -> None:
    if not isinstance(value, Tensor):
        check_number(f"`{label}`", float(value))
    elif bool(value.isnan().any()):
        raise ValueError(f"`{label}`: expected numbers, got NaN")


def _check_interval(label: str, start: float, stop: float) -> None:
    check_number(f"`{label}(start=...)`", start)
    if not start < stop:
        raise ValueError(f"`{label}(stop=...)`: expected a time after start={start:g} ms, got {stop!r}")


def _like(value: Value, t: Tensor) -> Tensor:
    """The amplitude as a tensor; a float becomes a 0-d float64 one, exact and too weak to promote a state."""
    return value if isinstance(value, Tensor) else torch.full_like(t, value)


@dataclass(frozen=True)
class Step:
    """``amplitude`` while ``start <= t < stop``, else ``baseline``.

    Args:
        amplitude: In the unit of the model's input; a float, or a tensor of one step's shape.
        start: ms.
        stop: ms.
        baseline: Value outside the interval.
    """

    amplitude: Value
    start: float = 0.0
    stop: float = float("inf")
    baseline: float = 0.0

    def __post_init__(self) -> None:
        _check_interval("Step", self.start, self.stop)
        _check_value("Step(amplitude=...)", self.amplitude)
        _check_value("Step(baseline=...)", self.baseline)

    def __call__(self, t: Tensor) -> Tensor:
        on = (t >= self.start) & (t < self.stop)
        return torch.where(on, _like(self.amplitude, t), self.baseline)


@dataclass(frozen=True)
class Ramp:
    """``first`` until ``start``, linear to ``last`` at ``stop``, and ``last`` from there on.

    Args:
        first: Value before ``start``; a float, or a tensor of one step's shape.
        last: Value after ``stop``.
        start: ms.
        stop: ms.
    """

    first: Value
    last: Value
    start: float
    stop: float

    def __post_init__(self) -> None:
        _check_interval("Ramp", self.start, self.stop)
        check_number("`Ramp(stop - start)`", self.stop - self.start, positive=True)  # finite, for a slope
        _check_value("Ramp(first=...)", self.first)
        _check_value("Ramp(last=...)", self.last)

    def __call__(self, t: Tensor) -> Tensor:
        first, last = _like(self.first, t), _like(self.last, t)
        fraction = ((t - self.start) / (self.stop - self.start)).clamp(0.0, 1.0).to(first.dtype)
        return first + (last - first) * fraction
