"""Fixed steps: a grid of steps over the output times, and the step as a loop takes it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Integrator
from bdtorch.integrate._equation import Equation, report_nonfinite, surely_finite
from bdtorch.integrate._loop import Pace, Prepared, PythonLoop, iterate

_ROUNDING = 1e-6  # of a step, by which an output time may miss the grid


@dataclass(frozen=True)
class Grid:
    """Steps between output times.

    Attributes:
        steps: Number of steps.
        every: Every so-manieth step is kept.
        rows: Which of those kept are the outputs after the first.
        dt: The step, or None where steps differ: one for each output.
        widths: Where steps differ: their lengths.
        begins: Where steps differ: their beginnings.
    """

    steps: int
    every: int
    rows: tuple[int, ...]
    dt: float | None
    widths: tuple[float, ...] = ()
    begins: tuple[float, ...] = ()


def grid(times: list[float], dt: Any) -> Grid:
    """Lay steps of ``dt`` over the output times; without ``dt``, one step leads to each of them.

    Raises:
        ValueError: ``dt`` is not a number, has the wrong sign, or does not divide the intervals.
    """
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if dt is None:
        if max(abs(gap - gaps[0]) for gap in gaps) <= 1e-9 * abs(gaps[0]):
            span = (times[-1] - times[0]) / len(gaps)
            return Grid(len(gaps), 1, tuple(range(len(gaps))), span)
        return Grid(len(gaps), 1, tuple(range(len(gaps))), None, tuple(gaps), tuple(times[:-1]))
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not math.isfinite(dt):
        raise ValueError(f"`odeint(dt=...)`: expected a finite number, got {dt!r}")
    if dt * gaps[0] <= 0:
        direction = "above 0, since the times rise" if gaps[0] > 0 else "below 0, since the times fall"
        raise ValueError(f"`odeint(dt=...)`: expected a number {direction}, got {dt!r}")
    marks: list[int] = []
    for time in times[1:]:
        number = (time - times[0]) / dt
        if abs(number - round(number)) > _ROUNDING * max(1.0, abs(number)) or round(number) < len(marks) + 1:
            raise ValueError(
                f"`odeint(dt=...)`: expected output times a whole number of steps dt={dt:g} from t = {times[0]:g}, "
                f"got t = {time:g}"
            )
        marks.append(round(number))
    every = math.gcd(*marks)
    return Grid(marks[-1], every, tuple(mark // every - 1 for mark in marks), float(dt))


@dataclass(frozen=True)
class FixedStep:
    """The step of one method on one equation, for a `TimeLoop`: its state holds ``y``, ``t0`` and the tensors ``args``."""

    method: Integrator
    equation: Equation
    dt: float | None

    def __call__(self, state: dict[str, Any], slices: Any, number: Tensor) -> tuple[dict[str, Any], State]:
        args = state["args"]
        if self.dt is None:
            t, dt = slices["begin"], slices["width"]
            single = next((leaf for leaf in tree.leaves(state["y"]) if not leaf.dim()), None)
            dt = dt if single is None else dt.to(single.dtype)  # whose dtype a number of another would change
        else:
            t, dt = state["t0"] + number * self.dt, self.dt
        y = self.method.step(self.equation.derivative(args), self.equation.slopes(args), state["y"], t, dt)
        return {"y": y, "t0": state["t0"], "args": args}, y


def sequences(steps: Grid, device: torch.device) -> dict[str, Tensor]:
    """The lengths and beginnings of unequal steps."""
    if steps.dt is not None:
        return {}
    columns = {"begin": steps.begins, "width": steps.widths}
    return {name: torch.tensor(values, dtype=torch.float64, device=device) for name, values in columns.items()}


def run(
    prepared: Prepared, state: dict[str, Any], steps: Grid, progress: bool | None, pace: Pace | None = None
) -> State:
    """Take the steps; returns the outputs, the initial state first."""
    rows = sequences(steps, state["t0"].device)
    _, kept = iterate(prepared, state, steps.steps, sequences=rows, progress=progress, description="odeint", pace=pace)
    if steps.rows != tuple(range(len(steps.rows))):
        chosen = torch.tensor(steps.rows, device=state["t0"].device)
        kept = tree.map(lambda leaf: leaf[chosen], kept)
    return tree.map(lambda first, rest: torch.cat([first.unsqueeze(0), rest]), state["y"], kept)


def check_finite(step: FixedStep, outputs: State, state: dict[str, Any], steps: Grid, times: list[float]) -> None:
    """Where an output is NaN or infinite: repeat the steps that led to it, and name time and component."""
    flat = tree.leaves(outputs)
    if all(map(surely_finite, flat)):
        return
    sound = torch.stack([leaf.detach().reshape(len(leaf), -1).isfinite().all(1) for leaf in flat]).all(0)
    if bool(sound.all()):
        return
    row = int((~sound).nonzero()[0])
    first = 0 if row == 1 else (steps.rows[row - 2] + 1) * steps.every
    last = (steps.rows[row - 1] + 1) * steps.every
    rows = sequences(steps, state["t0"].device)
    with torch.no_grad():
        state = {**state, "y": tree.map(lambda leaf: leaf[row - 1], outputs)}
        prepared = PythonLoop().prepare(step, state)
        for number in range(first, last):
            window = {name: values[number : number + 1] for name, values in rows.items()}
            state, _ = prepared(state, window, number, 1)
            time = times[0] + (number + 1) * steps.dt if steps.dt is not None else times[number + 1]
            report_nonfinite(state["y"], time, _DIVERGED)
    report_nonfinite(tree.map(lambda leaf: leaf[row], outputs), times[row], _DIVERGED)


_DIVERGED = (
    "the solution became {value}; the step may be too large for an explicit method, an implicit one may not have converged, "
    "or the derivative may be undefined,"
)
