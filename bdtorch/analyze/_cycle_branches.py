"""All branches of limit cycles of a diagram: from Hopf points, and from where simulations settle."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bdtorch.analyze._collocation import Collocation, Cycle, multipliers
from bdtorch.analyze._cycles import SHRUNK, CycleCurve, CyclePoint, oscillation
from bdtorch.analyze._diagram import CycleBranch, SpecialPoint
from bdtorch.analyze._equilibria import Equilibria
from bdtorch.analyze._evaluate import Array
from bdtorch.analyze._find_cycles import last_loop, proper
from bdtorch.analyze._results import LimitCycle, limit_cycle, tensor
from bdtorch.analyze._roots import solve_small
from bdtorch.analyze._trace import Steps, Trace, trace
from bdtorch.analyze._trajectory import flow_many, flow_stiff

KINDS = ("fold of cycles", "period doubling", "torus")
SIMULATED = (0.1127, 0.5061, 0.9213)
"""Where in the range of the parameter trajectories are followed until they settle."""


class CycleBranches:
    """Follows and collects branches of cycles.

    Args:
        engine: The branches of equilibria.
        bounds: Range of the parameter.
        steps: Lengths of steps.
        intervals: Mesh intervals of a cycle.
        max_period: A branch ends where the period is this many times its least.
        window: Ranges of the variables in which simulations begin; default about the equilibria.
    """

    def __init__(
        self,
        engine: Equilibria,
        bounds: tuple[float, float],
        steps: Steps,
        intervals: int,
        max_period: float,
        window: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.engine, self.evaluator = engine, engine.evaluator
        self.bounds, self.steps, self.intervals, self.max_period = bounds, steps, intervals, max_period
        self._window = window
        scale = engine.scale
        self._visited = np.vstack([[p.y for p in path] for path in engine.paths])[:, :-1] * scale[:-1]
        self._extent = np.maximum(scale[:-1], np.ptp(self._visited, axis=0))
        self._collocation = Collocation(self.evaluator, self._extent, float(scale[-1]))
        self.branches: list[CycleBranch] = []
        self.special: list[SpecialPoint] = []
        self.remarks: tuple[str, ...] = ()

    @property
    def _name(self) -> str:
        return self.evaluator.active[0]

    def from_hopf_points(self, hopf: list[SpecialPoint]) -> None:
        """The branch from every Hopf point, each once where it joins two."""
        joined: list[SpecialPoint] = []
        for point in hopf:
            if any(point is other for other in joined):
                continue
            curve = CycleCurve(self._collocation, self.bounds, self.max_period)
            rest = self._born(curve, point, self.intervals)
            first, length = None, self.steps.first
            while first is None and length > 1e-4:
                first, length = curve.advance(rest, length), 0.5 * length
            if first is None:
                self.remarks += (f"no cycle was found beside the Hopf point at {self._name}={rest.cycle.parameter:g}",)
                continue
            if not self.bounds[0] <= first[0].cycle.parameter <= self.bounds[1]:
                continue
            path = self._followed(curve, first[0])
            found = [rest, *path.points]
            if path.reason == SHRUNK:
                end = self._nearest(found[-1].cycle, hopf)
                joined.append(end)
                found.append(self._born(curve, end, 1))
            self._add(found, [path], point, ("a Hopf point", path.reason))

    def from_simulations(self) -> None:
        """Branches through the cycles on which trajectories settle, where they are not known yet."""
        from scipy.stats import qmc  # where it is used, for it is slow to import

        unit = qmc.Sobol(self.evaluator.n, seed=1).random(4)
        if self._window is None:
            middle = 0.5 * (self._visited.min(0) + self._visited.max(0))
            starts = middle + (unit - 0.5) * 1.2 * self._extent
        else:
            low, high = np.array([self._window[name] for name in self.evaluator.field.names], dtype=float).T
            starts = low + unit * (high - low)
        for part in SIMULATED:
            value = self.bounds[0] + part * (self.bounds[1] - self.bounds[0])
            parameters = np.array([value])
            near = self.evaluator.f(np.hstack([starts, np.full((len(starts), 1), value)]))
            speed = np.abs(near / self._extent).max(1)
            speed = speed[np.isfinite(speed) & (speed > 0)]
            if not len(speed):
                continue
            duration = 60.0 / float(np.median(speed))
            runs = flow_many(
                self.evaluator,
                starts,
                duration,
                self._extent,
                parameters=parameters,
                tolerance=1e-5,
                max_steps=3000,
                rest=0.1,
            )
            guesses = [self._loop(*run, parameters) for run in runs]
            for guess in guesses:
                if guess is not None and not self._known(guess):
                    self._through(guess)
            if not any(guesses):
                slow = [states[-1] for times, states in runs if self._under_way(times, states, parameters)]
                if slow and not self._slowly(slow[0], 100.0 * duration, parameters):
                    self.remarks += (
                        f"a simulation at {self._name}={value:g} neither came to rest nor closed a loop that could be "
                        "solved for: an attractor may be missed",
                    )

    def _loop(self, times: Array, states: Array, parameters: Array, finer: int = 1) -> Cycle | None:
        count = finer * self.intervals
        return last_loop(self.evaluator, times, states, self._extent, self._collocation, count, parameters)

    def _slowly(self, start: Array, duration: float, parameters: Array) -> bool:
        """Follow on what moves slowly for most of the time, and so is stiff as a rule; whether a cycle or rest is met."""
        times, states = flow_stiff(self.evaluator, start, duration, self._extent, parameters=parameters, max_steps=2000)
        for finer in (1, 4):
            guess = self._loop(times, states, parameters, finer)
            if guess is None:
                return not self._under_way(times, states, parameters)
            if self._known(guess) or self._through(guess):
                return True
        return False

    def _under_way(self, times: Array, states: Array, parameters: Array) -> bool:
        """Whether a trajectory has neither left nor come to rest."""
        if not np.isfinite(states[-1]).all() or np.abs((states[-1] - states[0]) / self._extent).max() > 4.9:
            return False
        z = np.concatenate([states[-1], parameters])[None]
        slopes = self.evaluator.jacobian(z)[:, :, : self.evaluator.n] * self._extent
        return bool(np.abs(solve_small(slopes, -self.evaluator.f(z))).max() > 0.02)

    def _through(self, guess: Cycle) -> bool:
        """Add the branch through the cycle next to ``guess``; whether there is one."""
        solved = self._collocation.refined(guess)
        far = np.full(len(self._extent), np.inf)
        if solved is None or not proper(solved[0], guess, -far, far, self._extent):
            return False
        if self._known(solved[0]):
            return True
        curve = CycleCurve(self._collocation, self.bounds, self.max_period)
        start = curve.at(solved[0])
        forward = self._followed(curve, start)
        curve.at(solved[0])
        backward = self._followed(curve, start.turned())
        points = [*(p.turned() for p in backward.points[:0:-1]), *forward.points]
        self._add(points, [backward, forward], None, (backward.reason, forward.reason))
        return True

    def _followed(self, curve: CycleCurve, start: CyclePoint) -> Trace[CyclePoint]:
        """The curve from ``start`` along its tangent, with its bifurcations among its points."""
        path = trace(curve, start, self.steps)
        folds = _folds(path, 1e-7 * float(self.engine.scale[-1]))
        events = sorted([*folds, *(e for e in path.events if e[1] != 0)], key=lambda event: event[0])
        points = list(path.points)
        for index, _, point in reversed(events):
            if not any(point is other for other in points):
                points.insert(index + 1, point)
        return replace(path, points=points, events=events)

    def _known(self, cycle: Cycle) -> bool:
        """Whether a branch passes near a cycle: in the extrema, and in the period, at its parameter."""
        low, high = cycle.nodes.min((0, 1)), cycle.nodes.max((0, 1))
        for branch in self.branches:
            p = branch.parameter.numpy()
            for i in np.nonzero((p[1:] - cycle.parameter) * (p[:-1] - cycle.parameter) <= 0)[0]:
                part = (cycle.parameter - p[i]) / (p[i + 1] - p[i]) if p[i + 1] != p[i] else 0.5
                between = [x[i] + part * (x[i + 1] - x[i]) for x in (branch.minimum.numpy(), branch.maximum.numpy())]
                off = max(
                    np.abs((between[0] - low) / self._extent).max(), np.abs((between[1] - high) / self._extent).max()
                )
                period = float(branch.period[i] + part * (branch.period[i + 1] - branch.period[i]))
                if off < 0.05 and abs(period / cycle.period - 1.0) < 0.1:
                    return True
        return False

    def _born(self, curve: CycleCurve, point: SpecialPoint, intervals: int) -> CyclePoint:
        x, value = point.x.numpy(), point.parameters[self._name]
        jacobian = self.evaluator.slopes(np.append(x, value))[:, : self.evaluator.n]
        return curve.born(x, value, point.coefficients["omega"], jacobian, intervals)

    def _nearest(self, cycle: Cycle, hopf: list[SpecialPoint]) -> SpecialPoint:
        z = np.append(cycle.nodes.mean((0, 1)), cycle.parameter)

        def gap(point: SpecialPoint) -> float:
            here = np.append(point.x.numpy(), point.parameters[self._name])
            return float(np.abs((here - z) / self.engine.scale).max())

        return min(hopf, key=gap)

    def _add(
        self,
        points: list[CyclePoint],
        paths: list[Trace[CyclePoint]],
        origin: SpecialPoint | None,
        reasons: tuple[str, str],
    ) -> None:
        number = len(self.branches)
        bifurcations = []
        for path in paths:
            for _, which, at in path.events:
                special = _special(which, at, number, self._name)
                if special is not None:
                    self.special.append(special)
                    bifurcations.append(at.cycle)
        branch = _branch(points, bifurcations, origin, reasons, all(path.converged for path in paths))
        self.branches.append(branch)
        if self.evaluator.n > 2 and any(abs(complex(c.multipliers[0]) - 1.0) > 1e-2 for c in branch.cycles[1:]):
            self.remarks += (f"some multipliers on branch {number} of cycles are inaccurate: use more intervals",)


def _branch(
    points: list[CyclePoint],
    bifurcations: list[Cycle],
    origin: SpecialPoint | None,
    reasons: tuple[str, str],
    converged: bool,
) -> CycleBranch:
    cycles = [limit_cycle(p.cycle, p.monodromy) for p in points]
    # A cycle of size zero has the multipliers of its equilibrium.
    for i, p in enumerate(points):
        if np.abs(oscillation(p.cycle)).max() == 0.0:
            beside = cycles[1] if i == 0 else cycles[i - 1]
            cycles[i] = LimitCycle(cycles[i].t, cycles[i].x, cycles[i].period, beside.multipliers, beside.stable)
    stable = [c.stable and not any(p.cycle is b for b in bifurcations) for c, p in zip(cycles, points, strict=True)]
    return CycleBranch(
        parameter=tensor([p.cycle.parameter for p in points]),
        period=tensor([p.cycle.period for p in points]),
        minimum=tensor([p.cycle.nodes.min((0, 1)) for p in points]),
        maximum=tensor([p.cycle.nodes.max((0, 1)) for p in points]),
        multipliers=tensor([c.multipliers.numpy() for c in cycles]),
        stable=tensor(stable).bool(),
        cycles=tuple(cycles),
        origin=origin,
        reasons=reasons,
        converged=converged,
    )


def _special(which: int, point: CyclePoint, number: int, parameter: str) -> SpecialPoint | None:
    values = multipliers(point.monodromy)
    if which != 0 and not abs(values[0] - 1.0) < 1e-2:
        return None  # near a homoclinic orbit multipliers of the smallest and the largest size are mixed up
    if KINDS[which] == "torus":
        i, j = np.triu_indices(len(values) - 1, 1)
        nearest = int(np.argmin(np.abs(values[1:][i] * values[1:][j] - 1.0)))
        if abs(values[1:][i][nearest].imag) < 1e-6:
            return None  # two real multipliers whose product is one: nothing changes its stability
    return SpecialPoint(
        kind=KINDS[which],
        x=tensor(point.cycle.nodes[0, 0]),
        parameters={parameter: point.cycle.parameter},
        eigenvalues=tensor(values),
        coefficients={"period": point.cycle.period},
        branch=number,
    )


def _folds(path: Trace[CyclePoint], least: float) -> list[tuple[int, int, CyclePoint]]:
    """Events where the parameter turns.

    Where it stands still to rounding, as in a canard explosion, the turn is where a multiplier passes 1, else its extremum.
    """
    slopes = np.array([p.tangent.parameter for p in path.points])
    values = np.array([p.cycle.parameter for p in path.points])
    moving = np.nonzero(np.abs(slopes) > least)[0]
    located = {index: point for index, which, point in path.events if which == 0}
    found = []
    for i, j in itertools.pairwise(moving.tolist()):
        if slopes[i] * slopes[j] >= 0:
            continue
        growing = [int((np.abs(multipliers(p.monodromy)[1:]) > 1.0).sum()) for p in path.points[i : j + 1]]
        passed = np.nonzero(np.diff(growing))[0]
        turn = int(i + (passed[0] + 1 if len(passed) else np.argmax(np.sign(slopes[i]) * values[i : j + 1])))
        found.append((i, 0, located[i]) if j == i + 1 and i in located else (turn, 0, path.points[turn]))
    return found
