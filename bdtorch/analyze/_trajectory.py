"""Trajectories of a field: many starts at once with steps of their own, for pictures and first guesses; or one, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bdtorch.analyze._evaluate import Array, Evaluator

# Dormand & Prince (1980), doi:10.1016/0771-050X(80)90013-3: RK5(4)7M.
_C = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]
_E = [71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]

_Field = Callable[[Array, Array], Array]
"""The slopes at ``(k, n)`` points of trajectories with these numbers ``(k,)``."""


@dataclass
class _Walkers:
    """Trajectories on their way.

    Attributes:
        number: Which of the starts each began from, ``(k,)``.
        x: Where each is, ``(k, n)``.
        t: At what time, ``(k,)``.
        slope: The field there, ``(k, n)``.
        h: The next step of each, ``(k,)``.
    """

    number: Array
    x: Array
    t: Array
    slope: Array
    h: Array

    def trial(self, field: _Field, scale: Array) -> tuple[Array, Array, Array]:
        """Where a step of each leads ``(k, n)``, the field there ``(k, n)``, and the error in units of ``scale`` ``(k,)``."""
        stages = [self.slope]
        for row in _C:
            y = self.x + self.h[:, None] * sum(c * k for c, k in zip(row, stages, strict=True))
            stages.append(field(y, self.number))
        error = np.abs(self.h[:, None] * sum(e * k for e, k in zip(_E, stages, strict=True)) / scale).max(1)
        return y, stages[-1], error

    def step(self, field: _Field, extent: Array, tolerance: float) -> Array:
        """Try a step, choose the next, and say who took it, ``(k,)`` bool."""
        y, slope, error = self.trial(field, extent)
        error = error / tolerance
        error = np.where(np.isfinite(error), error, 1e6)
        good = error <= 1.0
        self.x, self.slope = np.where(good[:, None], y, self.x), np.where(good[:, None], slope, self.slope)
        self.t = np.where(good, self.t + self.h, self.t)
        self.h = self.h * np.clip(0.9 * np.maximum(error, 1e-10) ** -0.2, 0.2, 5.0)
        return good

    def keep(self, on: Array) -> None:
        """Leave out those that have ended."""
        if not on.all():
            self.number, self.x, self.t = self.number[on], self.x[on], self.t[on]
            self.slope, self.h = self.slope[on], self.h[on]


def flow_many(
    evaluator: Evaluator,
    starts: Array,
    duration: float,
    extent: Array,
    *,
    parameters: Array | None = None,
    tolerance: float = 1e-6,
    backward: bool = False,
    limit: float = 20.0,
    max_steps: int = 20_000,
    rest: float = 0.0,
) -> list[tuple[Array, Array]]:
    """Times ``(steps,)`` and states ``(steps, n)`` of every start; a trajectory ends where it leaves by ``limit`` extents.

    Args:
        evaluator: The field.
        starts: ``(many, n)``.
        duration: Time to follow each.
        extent: Scale of each variable ``(n,)``, to which the tolerance is relative.
        parameters: Values of active parameters: ``(k,)``, or ``(many, k)``.
        tolerance: Error of a step.
        backward: Against the direction of time.
        limit: Farther than this many extents from its start, a trajectory ends.
        max_steps: Steps at which it ends in any case.
        rest: A trajectory ends too where at its speed it would go less than this many extents in all of the time.
    """
    many = len(starts)
    fixed = np.zeros((many, 0)) if parameters is None else np.broadcast_to(parameters, (many, np.shape(parameters)[-1]))
    sign = -1.0 if backward else 1.0

    def field(y: Array, number: Array) -> Array:
        return sign * evaluator.f(np.hstack([y, fixed[number]]))

    walkers = _begin(field, np.array(starts, dtype=float), duration, extent)
    paths: list[tuple[list[float], list[Array]]] = [([0.0], [row.copy()]) for row in walkers.x]
    for _ in range(max_steps):
        for i in np.nonzero(walkers.step(field, extent, tolerance))[0]:
            times, states = paths[walkers.number[i]]
            times.append(walkers.t[i])
            states.append(walkers.x[i].copy())
        left = np.abs((walkers.x - starts[walkers.number]) / extent).max(1) > limit
        on = (walkers.t < duration * (1 - 1e-12)) & ~left & (walkers.h > 1e-12 * duration)
        if rest:
            on &= np.abs(walkers.slope / extent).max(1) * duration > rest
        walkers.h = np.minimum(walkers.h, duration - walkers.t)
        walkers.keep(on)
        if not len(walkers.t):
            break
    return [(sign * np.array(times), np.array(states)) for times, states in paths]


def _begin(field: _Field, x: Array, duration: float, extent: Array) -> _Walkers:
    """All trajectories at their starts, with steps that are short beside their speed."""
    number = np.arange(len(x))
    slope = field(x, number)
    speed = np.abs(slope / extent).max(1)
    h = np.minimum(duration, 1e-3 / np.maximum(speed, 1e-3 / duration))
    return _Walkers(number, x, np.zeros(len(x)), slope, h)


def flow_stiff(
    evaluator: Evaluator,
    start: Array,
    duration: float,
    extent: Array,
    *,
    backward: bool = False,
    limit: float = 20.0,
    parameters: Array | None = None,
    max_steps: int = 6000,
) -> tuple[Array, Array]:
    """As `flow_many` for one start, by steps that are implicit where the field is stiff; it ends early where the solver does."""
    from scipy.integrate import LSODA  # where it is used, for it is slow to import

    sign, n = -1.0 if backward else 1.0, evaluator.n
    fixed = np.zeros(0) if parameters is None else parameters
    solver = LSODA(
        lambda t, y: sign * evaluator.at(np.concatenate([y, fixed])),
        0.0,
        start,
        duration,
        rtol=1e-6,
        atol=1e-7 * extent,
        jac=lambda t, y: sign * evaluator.slopes(np.concatenate([y, fixed]))[:, :n],
    )
    times, states = [0.0], [start]
    while solver.status == "running" and len(times) < max_steps:
        solver.step()
        if not np.isfinite(solver.y).all():
            break
        times.append(solver.t)
        states.append(solver.y.copy())
        if np.abs((solver.y - start) / extent).max() > limit:
            break
    return sign * np.array(times), np.stack(states)


def flow_one(evaluator: Evaluator, start: Array, times: Array, parameters: Array | None = None) -> Array:
    """The trajectory from ``start`` at ``times`` (the first is the start's), to ten digits, shape ``(times, n)``.

    Raises:
        RuntimeError: the solver could not reach the last time.
    """
    from scipy.integrate import solve_ivp  # where it is used, for it is slow to import

    fixed = np.zeros(0) if parameters is None else parameters
    solved = solve_ivp(
        lambda t, y: evaluator.at(np.concatenate([y, fixed])),
        (times[0], times[-1]),
        start,
        method="LSODA",
        t_eval=times,
        rtol=1e-9,
        atol=1e-11 * (1.0 + np.abs(start)),
        jac=lambda t, y: evaluator.slopes(np.concatenate([y, fixed]))[:, : evaluator.n],
    )
    if not solved.success:
        raise RuntimeError(f"the trajectory from {start} ended at t={solved.t[-1]:g}: {solved.message}")
    return solved.y.T
