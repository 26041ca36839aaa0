"""Delay equations in fixed steps: a mesh that meets the breaks, and a pure step over a ring of polynomials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, Integrator
from bdtorch.integrate._coupling import Dense
from bdtorch.integrate._delays import Lag, breaks
from bdtorch.integrate._derivatives import row_diagonal
from bdtorch.integrate._door import whole_steps
from bdtorch.integrate._equation import shared_time
from bdtorch.integrate._history import Ring, aside, piece, read, sample

Span = tuple[Tensor, Any]
"""Beginning and length of a step."""

Look = Callable[[Lag, Tensor, State, bool], State]
"""``look(lag, t, y, slope)``: the state, or its slope, so long before ``t``."""


@dataclass(frozen=True, eq=False)
class DelayEquation:
    """``dy/dt = function(t, y, past, *args)``, or ``function(t, y, past, slopes, *args)`` where slopes are delayed too.

    Attributes:
        function: What the user gave.
        args: Further arguments.
        lags: Delays of values.
        neutral: Delays of slopes.
        linear: Slope of each variable's own equation, with the arguments of ``function``; None to differentiate.
    """

    function: Callable[..., State]
    args: tuple[Any, ...]
    lags: tuple[Lag, ...]
    neutral: tuple[Lag, ...] = ()
    linear: Callable[..., State] | None = None

    def call(self, function: Callable[..., State], look: Look) -> Derivative:
        """A function of the user's, closed over the past."""

        def derivative(y: State, t: Tensor) -> State:
            past: list[Any] = [tuple(look(lag, t, y, False) for lag in self.lags)]
            if self.neutral:
                past.append(tuple(look(lag, t, y, True) for lag in self.neutral))
            return tree.aligned(function(shared_time(t, y), y, *past, *self.args), y)

        return derivative

    def derivative(self, look: Look) -> Derivative:
        """``f(y, t)``."""
        return self.call(self.function, look)

    def slopes(self, look: Look) -> Derivative:
        """``df_i/dy_i`` at a fixed past, for exponential methods."""
        if self.linear is not None:
            return self.call(self.linear, look)
        derivative, layout = self.derivative(look), Dense(0)

        def own(y: State, t: Tensor) -> State:
            rows, unpack = layout.pack(y)
            return unpack(row_diagonal(lambda z: layout.pack(derivative(unpack(z), t))[0], rows))

        return own

    @property
    def variable(self) -> tuple[Lag, ...]:
        """Delays that are functions."""
        return tuple(lag for lag in (*self.lags, *self.neutral) if lag.function is not None)

    def constants(self) -> tuple[list[float], list[float]]:
        """The distinct constant delays of values, and of slopes."""
        values = {number for lag in self.lags for number in lag.numbers}
        return sorted(values), sorted({number for lag in self.neutral for number in lag.numbers})


@dataclass(frozen=True)
class Mesh:
    """Steps, and those before the start that hold the history.

    Attributes:
        before: Edges of the history's steps, up to the start.
        after: Edges of the steps.
        dt: Their length where all are equal and the output times lie ``every`` steps apart; else None.
        outputs: For each output time, how many steps lead there.
        rows: How many steps the past reaches back at most.
    """

    before: np.ndarray
    after: np.ndarray
    dt: float | None
    outputs: list[int]
    rows: int


def mesh(
    times: list[float],
    dt: float,
    equation: DelayEquation,
    longest: float,
    levels: int,
    roots: Sequence[tuple[float, int]],
) -> Mesh:
    """Equal steps where all delays and output times are multiples of ``dt``; else steps of at most ``dt`` between all
    output times and breaks.

    Args:
        times: Output times, the first of them the initial one.
        dt: Longest step.
        equation: The equation.
        longest: Longest delay.
        levels: Breaks up to this level are met.
        roots: Breaks of the history and at the start.
    """
    start, end = times[0], times[-1]
    lags, neutral = equation.constants()
    kinks = sorted(time for time, _ in roots if time < start)
    marks = whole_steps(times, dt)
    steps = max(1, math.ceil(longest / dt - 1e-6))
    distances = [*lags, *neutral, *(start - kink for kink in kinks)] if levels else []
    if marks is not None and all(_is_whole(distance / dt) for distance in distances):
        before = start + dt * np.arange(-steps, 1)
        return Mesh(before, start + dt * np.arange(marks[-1] + 1), dt, [0, *marks], steps)
    met = [time for time, _ in breaks(roots, lags, neutral, end, levels) if time > start] if levels else []
    after = _divided([start, *met, *times[1:]], dt)
    reach = max(longest, 0.5 * dt)
    before = _divided([start - reach, *(kink for kink in kinks if kink > start - reach), start], dt)
    edges = np.concatenate([before[:-1], after])
    oldest = np.searchsorted(edges, after[:-1] - longest - 1e-9 * dt, side="right") - 1
    rows = int((np.arange(len(after) - 1) + len(before) - 1 - np.maximum(oldest, 0)).max())
    outputs = [int(np.abs(after - time).argmin()) for time in times]
    return Mesh(before, after, None, outputs, max(rows, len(before) - 1))


def _is_whole(ratio: float) -> bool:
    return abs(ratio - round(ratio)) <= 1e-9 * max(1.0, ratio)


def _divided(points: list[float], dt: float) -> np.ndarray:
    """Edges of equal steps of at most ``dt`` between neighbouring points."""
    fixed = [min(points)]
    for point in sorted(points):
        if point - fixed[-1] > 1e-6 * dt:
            fixed.append(point)
    parts = [np.linspace(a, b, max(1, math.ceil((b - a) / dt - 1e-9)) + 1)[:-1] for a, b in itertools.pairwise(fixed)]
    return np.concatenate([*parts, [fixed[-1]]])


@dataclass(frozen=True, eq=False)
class DelayStep:
    """The step of a method on a delay equation: its state holds ``y``, the ``ring``, and how far delays ``reach``."""

    method: Integrator
    equation: DelayEquation
    ring: Ring
    degree: int

    def __call__(self, state: dict[str, Any], slices: Any, number: Tensor) -> tuple[dict[str, Any], State]:
        y = state["y"]
        t, h = when(self.ring, slices, number, tree.leaves(y)[0].dtype)
        look = looking_back(self.ring, state["ring"], number, (t, h), self.equation.args)
        derivative = self.equation.derivative(look)
        slope = derivative(y, t)

        def known(z: State, s: Tensor) -> State:
            return slope if z is y and s is t else derivative(z, s)

        after = self.method.step(known, self.equation.slopes(look), y, t, h)
        new = piece(self.degree, derivative, y, slope, after, t, h)
        moved = {"y": after, "ring": self.ring.push(state["ring"], new, number, t, h)}
        if "reach" in state:
            moved["reach"] = reach(self.ring, self.equation, state, number, y, after, (t, h))
        return moved, after


def reach(
    ring: Ring, equation: DelayEquation, state: dict[str, Any], number: Tensor, y: State, after: State, span: Span
) -> Tensor:
    """How far delays that are functions have looked beyond the ring so far: after its end, and before its beginning."""
    beyond = [state["reach"]]
    t, h = span
    for s, z in ((t, y), (t + h, after)):
        for lag in equation.variable:
            for delay in lag.at(s, z, equation.args):
                far = ring.find(state["ring"], s - delay, aside(s, t, h), number)[3].detach()
                beyond.append(torch.stack([far.amax(), -far.amin()]))
    return torch.stack(beyond).amax(0)


def when(ring: Ring, slices: Any, number: Tensor, dtype: torch.dtype) -> tuple[Tensor, Any]:
    """Beginning and length of a step."""
    if ring.dt is not None:
        return ring.start + number * ring.dt, ring.dt
    return slices["t"], slices["h"].to(dtype)


def looking_back(ring: Ring, state: dict[str, Any], number: Tensor, span: Span, args: tuple[Any, ...]) -> Look:
    """Lookups in the ring as it was before step ``number``, which begins and lasts as ``span`` says."""

    def look(lag: Lag, t: Tensor, y: State, slope: bool) -> State:
        flat, spec = tree.flatten(y)
        places: dict[int, Any] = {}
        values = []
        for leaf, pieces, delay in zip(flat, state["pieces"], lag.at(t, y, args), strict=True):
            if id(delay) not in places:
                places[id(delay)] = ring.find(state, t - delay, aside(t, *span), number)
            row, theta, width, _ = places[id(delay)]
            value = read(pieces, row, theta, width if slope else None)
            values.append(torch.where(delay == 0, leaf, value) if lag.zeros else value)
        return tree.unflatten(values, spec)

    return look


def degree_of(order: int, neutral: bool) -> int:
    """The degree of polynomials whose error, or whose slope's error where slopes are delayed, keeps the order."""
    return max(2, order if neutral else order - 1)


def begin(ring: Ring, steps: Mesh, history: Callable[[Tensor], State], degree: int, y: State) -> dict[str, Any]:
    """The ring with the history in it."""
    leaf = tree.leaves(y)[0]
    before = torch.as_tensor(steps.before, dtype=torch.float64, device=leaf.device)
    lefts, widths = before[:-1], before.diff()
    pieces = sample(history, lefts, widths, degree, leaf.dtype)
    missing = ring.rows - len(lefts)
    if missing:  # rows that no time falls into
        lefts = torch.cat([lefts.new_full((missing,), -torch.inf), lefts])
        widths = torch.cat([widths.new_ones(missing), widths])
        pieces = [torch.cat([p.new_zeros((missing, *p.shape[1:])), p]) for p in pieces]
    return ring.begin(pieces, lefts, widths)


def rows_of(steps: Mesh, device: torch.device) -> dict[str, Tensor]:
    """Beginnings and lengths of unequal steps."""
    if steps.dt is not None:
        return {}
    edges = torch.as_tensor(steps.after, dtype=torch.float64, device=device)
    return {"t": edges[:-1], "h": edges.diff()}
