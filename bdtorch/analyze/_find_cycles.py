"""Limit cycles within a window: followed forward and backward in time until they return, then solved for."""

from __future__ import annotations

import numpy as np

from bdtorch.analyze._collocation import Collocation, Cycle, Monodromy, multipliers
from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._trajectory import flow_many

INTERVALS = 60


def find_cycles(
    evaluator: Evaluator, low: Array, high: Array, equilibria: Array, duration: float
) -> tuple[list[tuple[Cycle, Monodromy]], bool]:
    """Isolated cycles that enter the window, each with its monodromy matrix; and whether others, not isolated, were met.

    Forward in time trajectories approach stable cycles; backward, in the plane, those unstable on both sides.

    Args:
        evaluator: The field, without active parameters.
        low: Lower corner of the window, ``(n,)``.
        high: Its upper corner.
        equilibria: Known ones, ``(many, n)``; search starts beside them too.
        duration: For how long to follow trajectories.
    """
    extent = high - low
    starts = _starts(low, high, equilibria)
    problem = Collocation(evaluator, extent)
    found: list[tuple[Cycle, Monodromy]] = []
    dense = False
    for backward in (False, True):
        for times, states in flow_many(
            evaluator, starts, duration, extent, backward=backward, limit=5.0, max_steps=6000
        ):
            guess = last_loop(evaluator, times, states, extent, problem)
            if guess is None or any(_same(guess, known, extent, 2e-2) for known, _ in found):
                continue
            solved = problem.refined(guess)
            if solved is None or not proper(solved[0], guess, low, high, extent):
                continue
            if evaluator.n > 1 and (np.abs(multipliers(solved[1])[1:] - 1.0) < 1e-6).any():
                dense = True
            elif not any(_same(solved[0], known, extent, 1e-4) for known, _ in found):
                found.append(solved)
    return found, dense


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
