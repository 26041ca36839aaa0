"""What the doors of delay and fractional equations share: the checks of other doors under their own names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._equation import blind, check_slope, checked_times, report_nonfinite
from bdtorch.integrate._loop import PythonLoop, Step

_RETRACED = 1 << 14  # steps that are taken again at most, to say where a solution went wrong
_BROKEN = "the solution became {value}; the step may be too long, or the derivative undefined,"
_MULTIPLE = 1e-6  # of a step, by which a time may miss the grid


@contextmanager
def renamed(door: str, **names: str) -> Iterator[None]:
    """Let errors of `odeint`'s and `sdeint`'s checks name this door, and its arguments where they have other names."""
    try:
        yield
    except (TypeError, ValueError, FloatingPointError) as error:
        text = str(error)
        for other in ("odeint", "sdeint", "fdeint"):
            for old, new in names.items():
                text = text.replace(f"`{other}({old}=", f"`{door}({new}=")
            text = text.replace(f"`{other}(", f"`{door}(").replace(f"`{other}`", f"`{door}`")
        raise type(error)(text) from error.__cause__


def rising_times(door: str, t: Any, device: torch.device | None) -> tuple[Tensor, list[float]]:
    """Output times, which must rise, as float64 and as numbers."""
    with renamed(door):
        times, numbers = checked_times(t)
    if numbers[1] < numbers[0]:
        raise ValueError(f"`{door}(t=...)`: expected rising times, as it is the past that is known, got falling ones")
    if times.requires_grad:
        raise ValueError(f"`{door}(t=...)`: expected times without requires_grad")
    return times.to(device), numbers


def check_number(door: str, name: str, value: Any) -> float:
    """A positive finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"`{door}({name}=...)`: expected a finite number above 0, got {value!r}")
    return float(value)


def check_whole(door: str, name: str, value: Any, least: int) -> None:
    """A whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{door}({name}=...)`: expected a whole number of at least {least}, got {value!r}")


def check_function(door: str, name: str, function: Any, signature: str) -> None:
    """Something that can be called."""
    if not callable(function):
        raise TypeError(f"`{door}({name}=...)`: expected a function of ({signature}), got {function!r}")


def check_arguments(door: str, args: Any, loop: Any) -> None:
    """Further arguments in a tuple, and a loop that is one."""
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"`{door}(args=...)`: expected a tuple of further arguments, got {type(args).__name__}")
    if loop is not None and not hasattr(loop, "prepare"):
        raise TypeError(f"`{door}(loop=...)`: expected a loop object such as bdtorch.Native(), got {loop!r}")


def check_derivative(door: str, slope: State, y: State, t: float) -> None:
    """A derivative of the structure, shapes and dtype of the state, finite at the start."""
    with renamed(door, y0="y0"):
        check_slope(slope, y, t)


def whole_steps(numbers: list[float], dt: float) -> list[int] | None:
    """How many steps of ``dt`` lead from the first to each later time; None where one is off the grid."""
    marks: list[int] = []
    for time in numbers[1:]:
        count = (time - numbers[0]) / dt
        if abs(count - round(count)) > _MULTIPLE * max(1.0, 1e-3 * abs(count)) or round(count) <= (marks or [0])[-1]:
            return None
        marks.append(round(count))
    return marks


@dataclass(frozen=True, eq=False)
class Walk:
    """A solve in fixed steps that can be taken again, to find where it went wrong.

    Attributes:
        step: The step, which puts out the solution.
        state: The state before the first.
        sequences: What the step takes of each row.
        ends: ``ends(n)``, the time after n steps.
    """

    step: Step
    state: Any
    sequences: Any
    ends: Callable[[int], float]

    def broken(self, steps: int) -> tuple[float, State] | None:
        """The time and state after the first of so many steps that leads to NaN or infinity."""
        state, prepared = self.state, PythonLoop().prepare(self.step, self.state, self.sequences)
        with torch.no_grad():
            for number in range(min(steps, _RETRACED)):
                window = tree.map(lambda row, k=number: row[k : k + 1], self.sequences)
                state, out = prepared(state, window, number, 1)
                y = tree.map(lambda rows: rows[0], out)
                if not all(bool(leaf.isfinite().all()) for leaf in tree.leaves(y)):
                    return self.ends(number + 1), y
        return None


def check_finite(
    door: str, y: State, times: list[float], walk: Walk | None = None, marks: list[int] | None = None
) -> None:
    """Where an output is NaN or infinite, name the first such time and its component.

    Args:
        door: Which door.
        y: The outputs.
        times: Their times.
        walk: The steps that led to them.
        marks: For each output time after the first, how many steps lead there.
    """
    if blind():
        return
    sound = torch.stack([leaf.detach().reshape(len(times), -1).isfinite().all(1) for leaf in tree.leaves(y)]).all(0)
    if bool(sound.all()):
        return
    row = int((~sound).nonzero()[0])
    found = walk.broken(marks[row - 1]) if walk and marks and row else None
    if found is not None:
        with renamed(door):
            report_nonfinite(found[1], found[0], _BROKEN)
    since = f" after t = {times[row - 1]:g}" if row else ""
    with renamed(door):
        report_nonfinite(
            tree.map(lambda leaf: leaf[row], y), times[row],
            f"the solution became {{value}}{since}; the step may be too long, or the derivative undefined,",
        )  # fmt: skip
