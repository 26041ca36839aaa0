"""A branch of limit cycles as a problem for `trace`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bdtorch.analyze._collocation import Collocation, Cycle, Monodromy, multipliers
from bdtorch.analyze._evaluate import Array
from bdtorch.analyze._normal_forms import null_vectors

SHRUNK = "the cycles shrink to an equilibrium at a Hopf point"


@dataclass(frozen=True)
class CyclePoint:
    """A cycle, the tangent of its branch, and its monodromy matrix as `Collocation.linear` gives it."""

    cycle: Cycle
    tangent: Cycle
    monodromy: Monodromy

    def turned(self) -> CyclePoint:
        """The same with its tangent the other way."""
        return CyclePoint(self.cycle, _scaled(self.tangent, -1.0), self.monodromy)


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

    def at(self, cycle: Cycle) -> CyclePoint:
        """A cycle that solves the equations as a point of the branch, its tangent towards larger parameters."""
        self._least = cycle.period
        up = Cycle(cycle.edges, np.zeros_like(cycle.nodes), 0.0, self.collocation.parameter_scale)
        return self._with_tangent(cycle, up)

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
        one, two = (oscillation(p.cycle) / self.collocation.scale for p in (before, after))
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


def _torus_test(values: Array) -> float:
    if len(values) < 2:
        return 1.0
    i, j = np.triu_indices(len(values), 1)
    products = values[i] * values[j] - 1.0
    sizes = np.abs(products)
    return float(np.sign(np.prod(products / np.maximum(sizes, 1e-300)).real) * sizes.min())


def oscillation(cycle: Cycle) -> Array:
    """What varies along a cycle, at its nodes."""
    return cycle.nodes - cycle.nodes.mean((0, 1))


def _scaled(cycle: Cycle, factor: float) -> Cycle:
    return Cycle(cycle.edges, factor * cycle.nodes, factor * cycle.period, factor * cycle.parameter)


def _difference(one: Cycle, two: Cycle) -> Cycle:
    return Cycle(one.edges, one.nodes - two.nodes, one.period - two.period, one.parameter - two.parameter)
