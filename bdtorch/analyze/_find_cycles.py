"""Limit cycles within a window: followed forward and backward in time until they return, then solved for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdtorch.analyze._collocation import Collocation, Cycle, Monodromy, multipliers
from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._roots import solve_small
from bdtorch.analyze._trajectory import flow_many, flow_stiff

INTERVALS = 60
SLOW, LONGER = 3, 4000.0
"""How many of the trajectories that are still under way are followed on, and how many times as long."""


class Found(NamedTuple):
    """Cycles, and what was met besides."""

    cycles: list[tuple[Cycle, Monodromy]]
    """Isolated ones, each with its monodromy matrix."""
    dense: bool
    """Whether orbits close that are not isolated."""
    open: bool
    """Whether an orbit nearly closes where no cycle was solved for."""
    unsettled: bool
    """Whether a trajectory was still on its way when the search ended."""


def find_cycles(evaluator: Evaluator, low: Array, high: Array, equilibria: Array, duration: float) -> Found:
    """Isolated cycles that enter the window.

    Forward in time trajectories approach stable cycles; backward, in the plane, those unstable on both sides. From beside
    each cycle the search goes on against its stability, towards the next of a nest.

    Args:
        evaluator: The field, without active parameters.
        low: Lower corner of the window, ``(n,)``.
        high: Its upper corner.
        equilibria: Known ones, ``(many, n)``; search starts beside them too.
        duration: For how long to follow trajectories at first; some of those that are still on their way then, longer.
    """
    search = _Search(evaluator, low, high, duration)
    starts = _starts(low, high, equilibria)
    for backward in (False, True):
        search.follow(starts, backward)
    beside = 0
    while beside < len(search.cycles) and len(search.cycles) < 20:
        cycle, monodromy = search.cycles[beside]
        beside += 1
        search.follow(_beside(cycle), bool((np.abs(multipliers(monodromy)[1:]) < 1.0).all()))
    return Found(search.cycles, search.dense, search.open, search.unsettled)


class _Search:
    """Follows trajectories, and collects the cycles on which they settle."""

    def __init__(self, evaluator: Evaluator, low: Array, high: Array, duration: float) -> None:
        self.evaluator, self.low, self.high, self.duration = evaluator, low, high, duration
        self.extent = high - low
        self.problem = Collocation(evaluator, self.extent)
        self.cycles: list[tuple[Cycle, Monodromy]] = []
        self.dense = self.open = self.unsettled = False

    def follow(self, starts: Array, backward: bool) -> None:
        """Look for cycles on which trajectories from ``starts``, ``(many, n)``, settle."""
        runs = flow_many(
            self.evaluator, starts, self.duration, self.extent, backward=backward, limit=5.0, max_steps=6000
        )
        under_way = [states[-1] for times, states in runs if not self._settled(times, states)]
        # What moves slowly for most of the time is stiff as a rule.
        for start in under_way[:: -(-len(under_way) // SLOW) or 1]:
            run = flow_stiff(self.evaluator, start, LONGER * self.duration, self.extent, backward=backward, limit=5.0)
            self.unsettled |= not self._settled(*run, fine=True)

    def _settled(self, times: Array, states: Array, fine: bool = False) -> bool:
        """Whether the trajectory is done with: on a cycle, which is added, at rest, or away."""
        guess = last_loop(self.evaluator, times, states, self.extent, self.problem)
        if guess is None:
            gone = np.abs((states[-1] - states[0]) / self.extent).max() > 4.9 or not np.isfinite(states[-1]).all()
            # Beside an equilibrium Newton's step is short; on a slow manifold, where the speed is small too, it is not.
            z = states[-1][None]
            step = solve_small(self.evaluator.jacobian(z) * self.extent, -self.evaluator.f(z))
            return bool(gone or np.abs(step).max() < 0.02)
        if any(_same(guess, known, self.extent, 2e-2) for known, _ in self.cycles):
            return True
        solved = self.problem.refined(guess)
        if solved is None and fine:
            finer = last_loop(self.evaluator, times, states, self.extent, self.problem, 4 * INTERVALS)
            solved = self.problem.refined(finer) if finer else None
        if solved is None or not proper(solved[0], guess, self.low, self.high, self.extent):
            end = guess.nodes[-1]
            self.open |= bool(_gap(times, states, guess, self.extent) < 2e-3 and self._inside(end))
        elif self.evaluator.n > 1 and (np.abs(multipliers(solved[1])[1:] - 1.0) < 1e-6).any():
            self.dense = True
        elif not any(_same(solved[0], known, self.extent, 1e-4) for known, _ in self.cycles):
            self.cycles.append(solved)
        return True

    def _inside(self, states: Array) -> bool:
        return bool(((states >= self.low) & (states <= self.high)).all(-1).any())


def _gap(times: Array, states: Array, loop: Cycle, extent: Array) -> float:
    """By how much a trajectory misses itself after its last loop, relative to the loop."""
    before = times[-1] - np.sign(times[-1]) * loop.period
    point = np.array([np.interp(abs(before), np.abs(times), column) for column in states.T])
    return float((np.abs(point - states[-1]) / extent).max() / (loop.amplitude / extent).max())


def _beside(cycle: Cycle) -> Array:
    """Two points on either side of a cycle of the plane, a hundredth of its size from it."""
    values = cycle.profile[1]
    size = np.maximum(cycle.amplitude, 1e-300)
    ahead = (values[1] - values[0]) / size
    ahead = ahead / np.linalg.norm(ahead)
    across = np.array([-ahead[1], ahead[0]]) * size
    return values[0] + 0.01 * np.array([[1.0], [-1.0]]) * across


def _starts(low: Array, high: Array, equilibria: Array) -> Array:
    extent = high - low
    axes = [np.linspace(a, b, 6)[1:-1] for a, b in zip(low, high, strict=True)]
    starts = [np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(low))]
    for size in (0.01, 0.08):
        starts.append(equilibria + size * extent * np.eye(len(low))[0])
    return np.vstack(starts)


def last_loop(
    evaluator: Evaluator,
    times: Array,
    states: Array,
    extent: Array,
    problem: Collocation,
    intervals: int = INTERVALS,
    parameters: Array | None = None,
) -> Cycle | None:
    """The last loop of a trajectory through the plane across its end, if it nearly closes there."""
    if len(times) < 30 or np.abs((states[-1] - states[0]) / extent).max() > 4.9:
        return None
    end = states[-1]
    fixed = np.zeros(0) if parameters is None else parameters
    normal = evaluator.f(np.concatenate([end, fixed])[None])[0] / extent**2
    side = (states - end) @ normal
    onward = side[1:] > 0 if times[-1] > 0 else side[1:] < 0
    crossing = np.nonzero((onward != (side[:-1] > 0 if times[-1] > 0 else side[:-1] < 0)) & onward)[0]
    crossing = crossing[crossing < len(times) - 3]
    if not len(crossing):
        return None
    k = crossing[-1]
    part = side[k] / (side[k] - side[k + 1])
    point = states[k] + part * (states[k + 1] - states[k])
    loop = np.vstack([point, states[k + 1 :]])
    size = (np.ptp(loop, axis=0) / extent).max()
    if size < 1e-3 or np.abs((point - end) / extent).max() > 0.05 * max(size, 0.2):
        return None
    moments = np.concatenate([[times[k] + part * (times[k + 1] - times[k])], times[k + 1 :]])
    if times[-1] < 0:
        moments, loop = moments[::-1], loop[::-1]
    return problem.sampled(moments, loop, intervals, float(fixed[0]) if len(fixed) else 0.0)


def proper(cycle: Cycle, guess: Cycle, low: Array, high: Array, extent: Array) -> bool:
    """Whether Newton's method stayed with the loop it started from, and that loop enters the window."""
    size, before = (cycle.amplitude / extent).max(), (guess.amplitude / extent).max()
    values = cycle.profile[1]
    inside = ((values >= low) & (values <= high)).all(1).any()
    return bool(size > 0.2 * before and size < 5.0 * before and 0.3 < cycle.period / guess.period < 3.0 and inside)


def _same(one: Cycle, two: Cycle, extent: Array, tolerance: float) -> bool:
    middles = [c.nodes.max((0, 1)) + c.nodes.min((0, 1)) for c in (one, two)]
    near = np.abs((middles[0] - middles[1]) / extent).max() < 2 * tolerance
    alike = np.abs((one.amplitude - two.amplitude) / extent).max() < tolerance
    return bool(near and alike and abs(one.period / two.period - 1.0) < tolerance)
