"""Branches of limit cycles, from the Hopf points at which they are born."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from bdtorch.analyze._collocation import Collocation, Cycle, Monodromy, multipliers
from bdtorch.analyze._diagram import CycleBranch, SpecialPoint
from bdtorch.analyze._equilibria import Equilibria
from bdtorch.analyze._evaluate import Array
from bdtorch.analyze._normal_forms import null_vectors
from bdtorch.analyze._results import LimitCycle, limit_cycle, tensor
from bdtorch.analyze._trace import Steps, Trace, trace

KINDS = ("fold of cycles", "period doubling", "torus")
SHRUNK = "the cycles shrink to an equilibrium at a Hopf point"


@dataclass(frozen=True)
class CyclePoint:
    """A cycle, the tangent of its branch, and its monodromy matrix as `Collocation.linear` gives it."""

    cycle: Cycle
    tangent: Cycle
    monodromy: Monodromy


class CycleCurve:
    """The branch of cycles as a problem for `trace`.

    Args:
        collocation: The discretised problem, with the parameter active.
        bounds: Range of the parameter.
        max_period: The branch ends where the period is this many times its least.
    """

    def __init__(self, collocation: Collocation, bounds: tuple[float, float], max_period: float) -> None:
        self.collocation, self.bounds, self.max_period = collocation, bounds, max_period
        self._least = math.inf

    def born(self, x: Array, parameter: float, omega: float, jacobian: Array, intervals: int) -> CyclePoint:
        """The Hopf point as a cycle of size zero, its tangent the oscillation that grows from it."""
        q = null_vectors(jacobian - 1j * omega * np.eye(len(x)))[0]
        edges, m = np.linspace(0.0, 1.0, intervals + 1), self.collocation.degree
        times = edges[:-1, None] + np.diff(edges)[:, None] * np.arange(m + 1) / m
        wave = (np.exp(2j * math.pi * times)[..., None] * q).real
        rest = Cycle(edges, np.broadcast_to(x, wave.shape).copy(), 2.0 * math.pi / omega, parameter)
        wave[:, -1] = np.roll(wave[:, 0], -1, 0)
        tangent = Cycle(edges, wave, 0.0, 0.0)
        size = self.collocation.norm(tangent, rest.period)
        self._least = rest.period
        return CyclePoint(rest, _scaled(tangent, 1.0 / size), Monodromy(np.eye(len(x)), np.eye(len(x)), 0.0))

    def advance(self, point: CyclePoint, length: float) -> tuple[CyclePoint, int] | None:
        problem = self.collocation
        guess = point.cycle.plus(length, point.tangent)
        row = problem.length(point.tangent, point.cycle.period)
        cycle = guess
        for iteration in range(1, 9):  # noqa: B007
            off = _difference(cycle, guess)
            along = replace(row, value=-problem.component(row, off))
            try:
                change, _, _ = problem.linear(cycle, [problem.phase(cycle, guess), along])
            except np.linalg.LinAlgError:
                return None
            cycle = cycle.plus(1.0, change)
            size = problem.norm(change, point.cycle.period)
            if not math.isfinite(size) or size > 1.0 or cycle.period <= 0:
                return None
            if size <= 1e-9:
                break
        else:
            return None
        if problem.norm(_difference(cycle, point.cycle), point.cycle.period) > 3.0 * length:
            return None
        return self._with_tangent(cycle, point.tangent), iteration

    def _with_tangent(self, cycle: Cycle, previous: Cycle) -> CyclePoint:
        problem = self.collocation
        row = problem.length(previous, cycle.period)
        phase = replace(problem.phase(cycle, cycle), value=0.0)
        tangent, monodromy, _ = problem.linear(cycle, [phase, replace(row, value=1.0)], homogeneous=True)
        return CyclePoint(cycle, _scaled(tangent, 1.0 / problem.norm(tangent, cycle.period)), monodromy)

    def tests(self, point: CyclePoint) -> Array:
        others = multipliers(point.monodromy)[1:]
        others = np.where(np.isfinite(others), others, 1e100)
        others = others / np.maximum(1.0, np.abs(others) / 1e100)
        # A multiplier of the plane is positive.
        doubling = float(np.prod((1.0 + others) / (1.0 + np.abs(others))).real) if len(others) > 1 else 1.0
        return np.array([point.tangent.parameter, doubling, _torus_test(others)])

    def alignment(self, before: CyclePoint, after: CyclePoint) -> float:
        return self.collocation.component(self.collocation.length(before.tangent, after.cycle.period), after.tangent)

    def ended(self, before: CyclePoint, after: CyclePoint) -> tuple[str, CyclePoint | None] | None:
        low, high = self.bounds
        one, two = (_oscillation(p.cycle) / self.collocation.scale for p in (before, after))
        size = np.abs(two).max()
        if (one * two).sum() < 0 or size < 1e-3 * min(1.0, 1e3 * np.abs(one).max()):
            return SHRUNK, before
        if not low <= after.cycle.parameter <= high:
            limit = low if after.cycle.parameter < low else high
            which = "lower" if limit == low else "upper"
            return f"the parameter reached its {which} limit", self._at_limit(before, after, limit)
        self._least = min(self._least, after.cycle.period)
        if after.cycle.period > self.max_period * self._least:
            return (
                f"the period grew to {after.cycle.period / self._least:.0f} times its least: "
                "the branch nears a homoclinic orbit or a saddle-node on a cycle"
            ), None
        return None

    def _at_limit(self, before: CyclePoint, after: CyclePoint, limit: float) -> CyclePoint:
        part = (limit - before.cycle.parameter) / (after.cycle.parameter - before.cycle.parameter)
        change = _difference(after.cycle, before.cycle)
        found = self.collocation.solve(replace(before.cycle.plus(part, change), parameter=limit))
        return before if found is None else self._with_tangent(found[0], after.tangent)

    def reach(self, point: CyclePoint, largest: float) -> float:
        return largest

    def renewed(self, point: CyclePoint, number: int) -> CyclePoint:
        if number % 3:
            return point
        edges = self.collocation.adapted(point.cycle)
        moved, tangent = (self.collocation.moved(c, edges) for c in (point.cycle, point.tangent))
        return CyclePoint(moved, _scaled(tangent, 1.0 / self.collocation.norm(tangent, moved.period)), point.monodromy)


def follow_cycles(
    engine: Equilibria,
    hopf: list[SpecialPoint],
    bounds: tuple[float, float],
    steps: Steps,
    intervals: int,
    max_period: float,
) -> tuple[list[CycleBranch], list[SpecialPoint], tuple[str, ...]]:
    """The branch of cycles from every Hopf point, each once where it joins two; their bifurcations; and remarks."""
    evaluator, scale = engine.evaluator, engine.scale
    visited = np.vstack([[p.y for p in path] for path in engine.paths])[:, :-1] * scale[:-1]
    extent = np.maximum(scale[:-1], np.ptp(visited, axis=0))
    collocation = Collocation(evaluator, extent, float(scale[-1]))
    branches: list[CycleBranch] = []
    special: list[SpecialPoint] = []
    remarks: tuple[str, ...] = ()
    joined: list[SpecialPoint] = []
    for point in hopf:
        if any(point is other for other in joined):
            continue
        x, value = point.x.numpy(), point.parameters[evaluator.active[0]]
        curve = CycleCurve(collocation, bounds, max_period)
        jacobian = evaluator.slopes(np.append(x, value))[:, : evaluator.n]
        rest = curve.born(x, value, point.coefficients["omega"], jacobian, intervals)
        first, length = None, steps.first
        while first is None and length > 1e-4:
            first, length = curve.advance(rest, length), 0.5 * length
        if first is None:
            remarks += (f"no cycle was found beside the Hopf point at {evaluator.active[0]}={value:g}",)
            continue
        if not bounds[0] <= first[0].cycle.parameter <= bounds[1]:
            continue
        path = trace(curve, first[0], steps)
        found = [rest, *path.points]
        reason = path.reason
        if reason == SHRUNK:
            end = _nearest(found[-1].cycle, hopf, evaluator.active[0], scale)
            joined.append(end)
            last = curve.born(
                end.x.numpy(), end.parameters[evaluator.active[0]], end.coefficients["omega"], jacobian, 1
            )
            found.append(CyclePoint(replace(last.cycle), last.tangent, last.monodromy))
        number = len(branches)
        branches.append(_branch(found, point, reason, path.converged))
        folds = _folds(path, 1e-7 * float(scale[-1]))
        for which, at in folds + [(which, at) for _, which, at in path.events if which != 0]:
            bifurcation = _special(which, at, number, evaluator.active[0])
            special += [bifurcation] if bifurcation else []
        if len(extent) > 2 and any(abs(complex(b.multipliers[0]) - 1.0) > 1e-2 for b in branches[-1].cycles[1:]):
            remarks += (f"some multipliers on branch {number} of cycles are inaccurate: use more intervals",)
    return branches, special, remarks


def _branch(points: list[CyclePoint], origin: SpecialPoint, reason: str, converged: bool) -> CycleBranch:
    cycles = [limit_cycle(p.cycle, p.monodromy) for p in points]
    # A cycle of size zero has the multipliers of its equilibrium.
    for i, p in enumerate(points):
        if np.abs(_oscillation(p.cycle)).max() == 0.0:
            beside = cycles[1] if i == 0 else cycles[i - 1]
            cycles[i] = LimitCycle(cycles[i].t, cycles[i].x, cycles[i].period, beside.multipliers, beside.stable)
    return CycleBranch(
        parameter=tensor([p.cycle.parameter for p in points]),
        period=tensor([p.cycle.period for p in points]),
        minimum=tensor([p.cycle.nodes.min((0, 1)) for p in points]),
        maximum=tensor([p.cycle.nodes.max((0, 1)) for p in points]),
        multipliers=tensor([c.multipliers.numpy() for c in cycles]),
        stable=tensor([c.stable for c in cycles]).bool(),
        cycles=tuple(cycles),
        origin=origin,
        reason=reason,
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


def _folds(path: Trace[CyclePoint], least: float) -> list[tuple[int, CyclePoint]]:
    """Where the parameter turns. Where it stands still to rounding, as in a canard explosion, the turn is its extremum."""
    slopes = np.array([p.tangent.parameter for p in path.points])
    values = np.array([p.cycle.parameter for p in path.points])
    moving = np.nonzero(np.abs(slopes) > least)[0]
    located = {index: point for index, which, point in path.events if which == 0}
    found = []
    for i, j in itertools.pairwise(moving.tolist()):
        if slopes[i] * slopes[j] >= 0:
            continue
        turn = int(i + np.argmax(np.sign(slopes[i]) * values[i : j + 1]))
        found.append((0, located[i] if j == i + 1 and i in located else path.points[turn]))
    return found


def _nearest(cycle: Cycle, hopf: list[SpecialPoint], parameter: str, scale: Array) -> SpecialPoint:
    z = np.append(cycle.nodes.mean((0, 1)), cycle.parameter)

    def gap(point: SpecialPoint) -> float:
        return float(np.abs((np.append(point.x.numpy(), point.parameters[parameter]) - z) / scale).max())

    return min(hopf, key=gap)


def _torus_test(values: Array) -> float:
    if len(values) < 2:
        return 1.0
    i, j = np.triu_indices(len(values), 1)
    products = values[i] * values[j] - 1.0
    sizes = np.abs(products)
    return float(np.sign(np.prod(products / np.maximum(sizes, 1e-300)).real) * sizes.min())


def _oscillation(cycle: Cycle) -> Array:
    return cycle.nodes - cycle.nodes.mean((0, 1))


def _scaled(cycle: Cycle, factor: float) -> Cycle:
    return Cycle(cycle.edges, factor * cycle.nodes, factor * cycle.period, factor * cycle.parameter)


def _difference(one: Cycle, two: Cycle) -> Cycle:
    return Cycle(one.edges, one.nodes - two.nodes, one.period - two.period, one.parameter - two.parameter)
