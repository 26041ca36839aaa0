"""Delay equations in adaptive steps: a growing history, breaks met as they come, and steps longer than delays."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._adaptive import concrete
from bdtorch.integrate._base import Adaptive, IntegrationError, Trial
from bdtorch.integrate._control import LEAST, PIController, first_step
from bdtorch.integrate._coupling import Dense
from bdtorch.integrate._dde_fixed import DelayEquation
from bdtorch.integrate._delays import Lag, breaks
from bdtorch.integrate._door import check_derivative, renamed
from bdtorch.integrate._equation import blind, report_nonfinite, unwritten
from bdtorch.integrate._history import _NUDGE, History, aside, evaluate, read
from bdtorch.integrate._loop import Progress

_EXACT, _LANDING, _REFINEMENTS = 1e-9, 1e-2, 4  # of a step: how near to its end a break may lie; after so many trials
_SWEEPS = 12  # of the fixed-point iteration in a step that sees itself
_BISECTIONS = 50


@dataclass(frozen=True)
class DelayTolerance:
    """How exact, and how far to go for it; see `ddeint`."""

    rtol: float
    atol: float
    controller: PIController
    max_step: float
    max_steps: int
    levels: int


@dataclass(eq=False)
class _Past:
    """The solution so far: a function, then polynomials, of which the last may be a guess of the step at hand."""

    before: Callable[[Tensor], State]
    start: float
    spec: Any
    edges: list[float]
    pieces: list[list[Tensor]] = field(default_factory=list)
    seen: float = -math.inf
    """The latest time looked up since this was reset."""

    def look(
        self, lag: Lag, t: Tensor, y: State, args: tuple[Any, ...], span: tuple[float, float], slope: bool
    ) -> State:
        """The past of a step that begins and lasts as ``span`` says."""
        flat = tree.leaves(y)
        values = []
        for number, (leaf, delay) in enumerate(zip(flat, lag.at(t, y, args), strict=True)):
            s = t - delay
            live = delay > 0 if lag.zeros else None
            value = self._leaf(number, s, s.detach() + aside(t.detach(), *span), slope, live)
            values.append(value if live is None else torch.where(live, value, leaf))
        return tree.unflatten(values, self.spec)

    def _leaf(self, number: int, s: Tensor, nudged: Tensor, slope: bool, live: Tensor | None) -> Tensor:
        looked = nudged if live is None else torch.where(live, nudged, self.start)
        self.seen = max(self.seen, float(looked.max()))
        earliest = float(looked.min())
        if self.seen >= self.start and earliest >= self.start and self.pieces:
            return self._solved(number, s, looked, slope)
        if float(looked.max()) < self.start or not self.pieces:
            return self._history(number, s, slope)
        mixed = torch.where(looked < self.start, self._history(number, torch.clamp(s, max=self.start), slope), 0.0)
        late = looked >= self.start
        solved = self._solved(number, torch.where(late, s, self.start), torch.where(late, looked, self.start), slope)
        return torch.where(late, solved, mixed)

    def _solved(self, number: int, s: Tensor, looked: Tensor, slope: bool) -> Tensor:
        if s.dim() == 0:
            k = self.index(float(looked))
            used, row = [k], torch.zeros((), dtype=torch.int64, device=s.device)
        else:
            edges = torch.tensor(self.edges[1:-1], dtype=torch.float64, device=s.device)
            where = torch.searchsorted(edges, looked.contiguous(), right=True)
            kinds, row = where.unique(return_inverse=True)
            used = kinds.tolist()
        ends = torch.tensor([self.edges[k : k + 2] for k in used], dtype=torch.float64, device=s.device)[row]
        left, width = ends[..., 0], ends[..., 1] - ends[..., 0]
        pieces = torch.stack([self.pieces[k][number] for k in used])
        return read(pieces, row, (s - left) / width, width if slope else None)

    def index(self, s: float) -> int:
        """The step in which a time lies; the last one also stands for what is later."""
        return min(max(bisect.bisect_right(self.edges, s) - 1, 0), len(self.pieces) - 1)

    def _history(self, number: int, s: Tensor, slope: bool) -> Tensor:
        def value(u: Tensor) -> Tensor:
            return tree.leaves(self.before(u))[number]

        def wanted(u: Tensor) -> Tensor:
            if not slope:
                return value(u)
            return torch.func.jvp(value, (u,), (torch.ones_like(u),))[1]

        if isinstance(self.before, History):
            earliest = float(concrete(s).min())
            if earliest < self.before.start - 1e-9 * max(1.0, abs(self.before.start)):
                raise ValueError(
                    f"`ddeint(history=...)`: expected it to reach back to t = {earliest:g}, to which a delay that is a "
                    f"function looks, got one that begins at t = {self.before.start:g}"
                )
        if s.dim() == 0:
            return wanted(s)
        many = torch.func.vmap(wanted)(s.flatten())  # all components at all of the times, of which each wants its own
        shape = torch.broadcast_shapes(s.shape, many.shape[1:])
        rows = many.reshape(len(many), *(1,) * (len(shape) - many.dim() + 1), *many.shape[1:]).expand(len(many), *shape)
        index = torch.arange(s.numel(), device=s.device).reshape(s.shape).expand(shape)
        return rows.gather(0, index.unsqueeze(0)).squeeze(0)

    def value(self, t: float) -> State:
        """The solution at ``t``."""
        k = self.index(t)
        theta = (t - self.edges[k]) / (self.edges[k + 1] - self.edges[k])
        return tree.unflatten([evaluate(piece, theta) for piece in self.pieces[k]], self.spec)


@dataclass(eq=False)
class _Found:
    """What an adaptive solution found out."""

    past: _Past
    steps: int = 0
    rejections: int = 0
    evaluations: int = 0

    def history(self) -> History:
        """The solution as a function."""
        flat = [torch.stack(leaf) for leaf in zip(*self.past.pieces, strict=True)]
        return History(torch.tensor(self.past.edges, dtype=torch.float64, device=flat[0].device), flat, self.past.spec)


class _Meeting(NamedTuple):
    """A delay that is a function meets a break: where in the step, which level it makes, and which delay and break."""

    theta: float
    level: int
    pair: tuple[int, float]


class _Walk:
    """An adaptive solution under way."""

    def __init__(
        self,
        equation: DelayEquation,
        method: Adaptive,
        past: Callable[[Tensor], State],
        y: State,
        start: float,
        tolerance: DelayTolerance,
    ) -> None:
        self.equation, self.method, self.tolerance = equation, method, tolerance
        packed, self.unpack = Dense(0).pack(y)
        self.y = packed
        self.found = _Found(_Past(past, start, tree.flatten(y)[1], [start]))
        self.t, self.span = start, (start, 1.0)
        self.broken: list[tuple[float, int]] = []
        self.fresh: set[tuple[int, float]] = set()
        self.pending: _Meeting | None = None
        self.refined, self.landing = 0, math.inf

    def derivative(self, y: Tensor, t: Tensor) -> Tensor:
        """``f``, on the packed state."""
        return Dense(0).pack(self.slope_state(self.unpack(y), t))[0]

    def slope_state(self, y: State, t: Tensor) -> State:
        """``f``."""
        self.found.evaluations += 1
        past, args = self.found.past, self.equation.args

        def look(lag: Lag, s: Tensor, z: State, slope: bool) -> State:
            return past.look(lag, s, z, args, self.span, slope)

        return self.equation.derivative(look)(y, t)

    def time(self, t: float) -> Tensor:
        """As a 0-d tensor."""
        return torch.tensor(t, dtype=torch.float64, device=self.y.device)

    def check_delays(self) -> None:
        """Delays that are functions, where the solution has got to; in steps that are refused they may be anything."""
        for lag in self.equation.variable:
            delays = lag.at(self.time(self.t), self.unpack(self.y), self.equation.args)
            least = min(float(delay.detach().min()) for delay in delays)
            if least < 0:
                raise ValueError(
                    "`ddeint(delays=...)`: expected delays of at least 0, but one that is a function became "
                    f"{least:g} at t = {self.t:g}"
                )

    def attempt(self, slope: Tensor, h: float) -> tuple[Trial, bool]:
        """Try a step; whether it settled, if it saw itself through a delay shorter than the step."""
        past = self.found.past
        del past.edges[self.found.steps + 1 :], past.pieces[self.found.steps :]
        self.span, past.seen = (self.t, h), -math.inf
        t, step = self.time(self.t), self.time(h)
        if not past.pieces:  # a first guess that a step without any before it can look at
            self._lay(Trial(self.y, slope, (), (h * slope,)), h)
            past.seen = -math.inf
        trial = self.method.trial(self.derivative, self.y, slope, t, step, True)
        if past.seen <= self.t + _NUDGE * h:
            self._lay(trial, h)
            return trial, True
        for _ in range(_SWEEPS):
            self._lay(trial, h)
            before, trial = trial, self.method.trial(self.derivative, self.y, slope, t, step, True)
            scale = self.tolerance.atol + self.tolerance.rtol * trial.y.detach().abs()
            change = (trial.y.detach() - before.y.detach()) / scale
            if float(self.tolerance.controller.norm(change)) < 0.01:
                self._lay(trial, h)
                return trial, True
        return trial, False

    def _lay(self, trial: Trial, h: float) -> None:
        past, taken = self.found.past, self.found.steps
        del past.edges[taken + 1 :], past.pieces[taken:]
        past.edges.append(self.t + h)
        rows = [tree.leaves(self.unpack(power)) for power in (self.y, *trial.powers)]
        past.pieces.append([torch.stack(leaf) for leaf in zip(*rows, strict=True)])

    def hidden_break(self, h: float) -> bool:
        """Whether a delay that is a function first meets a break inside the step at hand, which then is to land there."""
        found: _Meeting | None = None
        for lag in self.equation.variable:
            carried = 0 if lag in self.equation.neutral else 1
            for time, below in self.broken:
                if below + carried > self.tolerance.levels or (id(lag), time) in self.fresh:
                    continue
                theta = self._meeting(lag, time, h)
                if theta is not None and (found is None or theta < found.theta):
                    found = _Meeting(theta, below + carried, (id(lag), time))
        if found is None or (self.refined >= _REFINEMENTS and found.theta > 1.0 - _LANDING):
            return False
        self.pending, self.refined, self.landing = found, self.refined + 1, self.t + found.theta * h
        return True

    def accept(self, trial: Trial, t: float) -> None:
        """Go on from ``t``; a delay's break met there is a break from now on, and is not met again by the next step."""
        self.fresh = set()
        if self.pending is not None and t == self.landing:
            self.broken.append((t, self.pending.level))
            self.fresh = {self.pending.pair}
            self.pending, self.refined, self.landing = None, 0, math.inf
        self.found.steps += 1
        self.found.past.edges[-1] = t
        self.t, self.y = t, trial.y
        self.check_delays()

    def _meeting(self, lag: Lag, time: float, h: float) -> float | None:
        past = self.found.past

        def gap(theta: float) -> Tensor:
            s = self.t + theta * h
            y = tree.unflatten([evaluate(piece.detach(), theta) for piece in past.pieces[-1]], past.spec)
            delays = lag.at(self.time(s), y, self.equation.args)
            return torch.cat([(s - delay.detach() - time).flatten() for delay in delays])

        start, end = gap(0.0), gap(1.0)
        crossing = start * end < 0
        if not bool(crossing.any()):
            return None
        low, high = torch.zeros_like(start), torch.ones_like(start)
        for _ in range(_BISECTIONS):
            half = 0.5 * (low + high)
            here = torch.stack([gap(float(theta))[k] for k, theta in enumerate(half)])
            same = here * start > 0
            low, high = torch.where(same, half, low), torch.where(same, high, half)
        theta = float(high[crossing].min())
        return theta if theta < 1.0 - _EXACT else None


def solve_adaptively(
    equation: DelayEquation,
    method: Adaptive,
    past: Callable[[Tensor], State],
    y: State,
    times: list[float],
    tolerance: DelayTolerance,
    roots: Sequence[tuple[float, int]],
    progress: bool | None,
) -> tuple[list[State], _Found]:
    """Solve; returns the states at the output times, and the solution.

    Source: Hairer, Norsett & Wanner (1993), section II.17, doi:10.1007/978-3-540-78862-1; for breaks of delays that are
        functions: Feldstein & Neves (1984), doi:10.1137/0721056.
    """
    if blind():
        raise ValueError(
            "`ddeint(dt=...)`: expected a step under torch.func transforms, as adaptive ones depend on values"
        )
    if not sum(leaf.numel() for leaf in tree.leaves(y)):
        raise ValueError(
            "`ddeint(history=...)`: expected at least one number, by whose error to choose steps, got none"
        )
    start, end = times[0], times[-1]
    walk = _Walk(equation, method, past, y, start, tolerance)
    walk.check_delays()
    stops = _stops(walk, roots, end)
    with unwritten("ddeint", "f", walk.y):
        begun = walk.slope_state(walk.unpack(walk.y), walk.time(start))
    check_derivative("ddeint", begun, y, start)
    slope = Dense(0).pack(begun)[0]
    h = _first_step(walk, slope, end)
    outputs = [y]
    last, rejected, tries = 0.0, False, 0
    with Progress(end - start, progress, "ddeint") as bar:
        while walk.t < end:
            if stops[0] <= walk.t:
                del stops[0]
            stop = min(stops[0], walk.landing)
            cut = stop - walk.t
            step = cut if h > 0.999 * cut else (0.5 * cut if h > 0.6 * cut else h)  # no sliver is left before a stop
            tries += 1
            if tries > tolerance.max_steps:
                raise IntegrationError(
                    f"`ddeint(max_steps=...)`: {tries - 1} steps were not enough to pass t = {walk.t:g}"
                )
            trial, settled = walk.attempt(slope, step)
            size, factor = _judge(walk, trial, last, rejected)
            if not settled or size > 0.0:
                h, rejected = step * (factor if settled else min(factor, 0.5)), True
                _check_progress(walk, h)
            elif not walk.hidden_break(step):
                walk.accept(trial, stop if step == cut else walk.t + step)
                while len(outputs) < len(times) and times[len(outputs)] <= walk.t + 1e-12 * max(1.0, abs(walk.t)):
                    outputs.append(walk.found.past.value(times[len(outputs)]))
                h = min(max(step * factor, h) if step < h else step * factor, tolerance.max_step)
                walk.span = (walk.t, h)
                slope = walk.derivative(walk.y, walk.time(walk.t)) if step == cut else trial.slope  # the right limit
                last, rejected = max(size, LEAST), False
                bar.update(walk.t - start)
    walk.found.rejections = tries - walk.found.steps
    return outputs, walk.found


def _stops(walk: _Walk, roots: Sequence[tuple[float, int]], end: float) -> list[float]:
    """The breaks of constant delays and the end, where steps must end; the walk is told of the breaks."""
    lags, neutral = walk.equation.constants()
    walk.broken = breaks(roots, lags, neutral, end, walk.tolerance.levels) if lags or neutral else list(roots)
    close = 1e-9 * max(abs(walk.t), abs(end))
    return [time for time, _ in walk.broken if walk.t + close < time < end - close] + [end]


def _first_step(walk: _Walk, slope: Tensor, end: float) -> float:
    tolerance = walk.tolerance
    lags, neutral = walk.equation.constants()
    shortest = min([*lags, *neutral, math.inf])
    longest = walk.time(min(end - walk.t, tolerance.max_step, shortest))
    atol = torch.full_like(walk.y, tolerance.atol)
    h = first_step(
        walk.derivative, walk.y, slope, walk.time(walk.t), walk.method.error_order, tolerance.rtol, atol,
        tolerance.controller.norm, longest,
    )  # fmt: skip
    return float(h)


def _judge(walk: _Walk, trial: Trial, last: float, rejected: bool) -> tuple[float, float]:
    """The logarithm of the error in units of the tolerance, and by how much to change the step."""
    control, tolerance = walk.tolerance.controller, walk.tolerance
    size = torch.log(control.error(trial, walk.y, tolerance.rtol, torch.full_like(walk.y, tolerance.atol)))
    refused = torch.full_like(size, rejected, dtype=torch.bool)
    factor = control.factor(size, torch.full_like(size, last), refused, walk.method.error_order)
    return float(size), float(factor)


def _check_progress(walk: _Walk, h: float) -> None:
    if h > 16.0 * torch.finfo(torch.float64).eps * max(1.0, abs(walk.t)):
        return
    ahead = 1e-9 * max(1.0, abs(walk.t))  # what cannot be evaluated may begin here, or just after
    for t in (walk.t, walk.t + ahead):
        with renamed("ddeint"):
            report_nonfinite(walk.unpack(walk.derivative(walk.y, walk.time(t))), t, "the derivative is {value}")
    raise IntegrationError(
        f"`ddeint`: the step fell below what t = {walk.t:g} can resolve; the solution may have a singularity there"
    )
