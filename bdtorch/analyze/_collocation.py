"""Limit cycles as a boundary value problem: orthogonal collocation, as in AUTO and MatCont.

A cycle of period ``T`` is rescaled to unit time: ``du/ds = T f(u, p)``, ``u(0) = u(1)``. On each of some intervals ``u`` is a
polynomial that satisfies the equation at Gauss points; the intervals share their ends. A linear step first eliminates the
inner unknowns of every interval (many small systems at once), which leaves ``x_{j+1} = G_j x_j + ...`` between the ends;
eliminating further leaves ``A x_0 = B x_1``, whose generalised eigenvalues are the Floquet multipliers.

Sources: de Boor & Swartz (1973), doi:10.1137/0710052; Doedel, Keller & Kernevez (1991),
doi:10.1142/S0218127491000555; Kuznetsov (2004), doi:10.1007/978-1-4757-3978-7, section 10.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._periodic import Reduced, reduce


@dataclass(frozen=True)
class Cycle:
    """A periodic solution on its mesh, or a direction in the space of such solutions."""

    edges: Array
    """Ends of the intervals in unit time, ``(intervals + 1,)``."""
    nodes: Array
    """Values at equidistant points of each interval, both ends included: ``(intervals, degree + 1, n)``."""
    period: float
    parameter: float = 0.0

    def plus(self, length: float, direction: Cycle) -> Cycle:
        """``self + length * direction``."""
        return replace(
            self,
            nodes=self.nodes + length * direction.nodes,
            period=self.period + length * direction.period,
            parameter=self.parameter + length * direction.parameter,
        )

    @property
    def profile(self) -> tuple[Array, Array]:
        """Unit times and values, ``(points,)`` and ``(points, n)``, from 0 to 1."""
        m = self.nodes.shape[1] - 1
        h = np.diff(self.edges)
        times = (self.edges[:-1, None] + h[:, None] * np.arange(m) / m).reshape(-1)
        values = self.nodes[:, :-1].reshape(-1, self.nodes.shape[2])
        return np.append(times, 1.0), np.vstack([values, self.nodes[-1, -1]])

    @property
    def amplitude(self) -> Array:
        """Largest minus smallest value of each variable."""
        values: Array = self.nodes.max((0, 1)) - self.nodes.min((0, 1))
        return values


class Monodromy(NamedTuple):
    """The matrix ``last^-1 first`` that carries a small change around a cycle, in two parts.

    Their generalised eigenvalues keep their accuracy where the matrix itself would overflow or cancel.
    """

    first: Array
    last: Array
    volume: float
    """The integral of the divergence over the period: the logarithm of the determinant (Liouville)."""


@dataclass(frozen=True)
class Condition:
    """A linear condition on the change of a cycle: its coefficients, and what they shall sum to."""

    nodes: Array
    period: float
    parameter: float
    value: float


class Collocation:
    """The discretised problem of one field.

    Args:
        evaluator: The field, with no or one active parameter.
        scale: Scale of the variables ``(n,)`` and of the parameter, for lengths.
        degree: Degree of the polynomials, and number of Gauss points.
    """

    def __init__(self, evaluator: Evaluator, scale: Array, parameter_scale: float = 1.0, degree: int = 4) -> None:
        self.evaluator, self.scale, self.parameter_scale, self.degree = evaluator, scale, parameter_scale, degree
        gauss, weights = np.polynomial.legendre.leggauss(degree)
        self._weights, at = weights / 2, (gauss + 1) / 2
        self._basis = [np.poly1d(c) for c in _lagrange(np.arange(degree + 1) / degree)]
        self._value = np.array([[b(s) for b in self._basis] for s in at])
        self._slope = np.array([[b.deriv()(s) for b in self._basis] for s in at])

    def at_gauss(self, nodes: Array, h: Array) -> tuple[Array, Array]:
        """Values and unit-time derivatives at the Gauss points, ``(intervals, degree, n)``."""
        value = np.einsum("ci,jin->jcn", self._value, nodes)
        return value, np.einsum("ci,jin->jcn", self._slope, nodes) / h[:, None, None]

    def functional(self, at_gauss: Array, h: Array) -> Array:
        """Coefficients of ``u -> integral of <u, v>``, ``v`` given at the Gauss points."""
        out: Array = np.einsum("c,ci,jcn,j->jin", self._weights, self._value, at_gauss, h)
        return out

    def phase(self, cycle: Cycle, reference: Cycle) -> Condition:
        """The condition that ``cycle`` be in phase with ``reference`` (of the same mesh)."""
        h = np.diff(reference.edges)
        row = self.functional(self.at_gauss(reference.nodes, h)[1] / self.scale**2, h)
        return Condition(row, 0.0, 0.0, float(-(row * (cycle.nodes - reference.nodes)).sum()))

    def length(self, direction: Cycle, period: float) -> Condition:
        """The functional whose value on a change is its component along ``direction``, in scaled units."""
        h = np.diff(direction.edges)
        row = self.functional(self.at_gauss(direction.nodes, h)[0] / self.scale**2, h)
        return Condition(row, direction.period / period**2, direction.parameter / self.parameter_scale**2, 0.0)

    def component(self, condition: Condition, change: Cycle) -> float:
        """A functional's value."""
        inner = float((condition.nodes * change.nodes).sum())
        return inner + condition.period * change.period + condition.parameter * change.parameter

    def norm(self, change: Cycle, period: float) -> float:
        """The scaled length of a change."""
        return math.sqrt(max(self.component(self.length(change, period), change), 0.0))

    def linear(
        self, cycle: Cycle, conditions: list[Condition], homogeneous: bool = False
    ) -> tuple[Cycle, Monodromy, float]:
        """Solve the linearised equations under two conditions (phase, and length or a fixed parameter).

        Returns:
            The change of the cycle, the monodromy matrix, and the largest residual before the change.
        """
        n, m, count = cycle.nodes.shape[2], self.degree, len(cycle.nodes)
        h = np.diff(cycle.edges)
        value, slope = self.at_gauss(cycle.nodes, h)
        free = self.evaluator.k
        z = value.reshape(-1, n)
        z = np.hstack([z, np.full((len(z), free), cycle.parameter)])
        f = self.evaluator.f(z).reshape(count, m, n)
        jacobian = self.evaluator.jacobian(z).reshape(count, m, n, n + free)
        residual = slope - cycle.period * f
        blocks = np.einsum("ci,ab,j->jcaib", self._slope, np.eye(n), 1.0 / h) - cycle.period * np.einsum(
            "ci,jcab->jcaib", self._value, jacobian[..., :n]
        )
        blocks = blocks.reshape(count, m * n, (m + 1) * n)
        sides = np.zeros((count, m * n, n + 3))
        sides[:, :, :n] = -blocks[:, :, :n]
        sides[:, :, n] = f.reshape(count, -1)
        if free:
            sides[:, :, n + 1] = cycle.period * jacobian[..., n].reshape(count, -1)
        if not homogeneous:
            sides[:, :, n + 2] = -residual.reshape(count, -1)
        inner = np.linalg.solve(blocks[:, :, n:], sides)
        # In units of the scales, lest small variables be lost beside large ones.
        end = inner[:, -n:] / self.scale[:, None]
        end[:, :, :n] *= self.scale
        reduced = reduce(-end[:, :, :n], np.broadcast_to(np.eye(n), (count, n, n)), end[:, :, n:])
        change = self._closed(cycle, conditions, inner, reduced)
        volume = cycle.period * np.einsum("j,c,jcaa->", h, self._weights, jacobian[..., :n])
        return (
            change,
            Monodromy(-reduced.first, reduced.last, float(volume)),
            float(np.abs(residual / self.scale).max()),
        )

    def _closed(self, cycle: Cycle, conditions: list[Condition], inner: Array, reduced: Reduced) -> Cycle:
        """Solve for the first point, the period and the parameter; put back what was eliminated."""
        count, nodes, n = cycle.nodes.shape
        # Every node as a function of (x_0, period, parameter, 1).
        ends = reduced.points * self.scale[:, None]
        ends[:, :, :n] /= self.scale
        inside = inner.reshape(count, nodes - 1, n, n + 3)
        every = np.einsum("jiab,jbc->jiac", inside[..., :n], ends[:-1])
        every[..., n:] += inside[..., n:]
        every = np.concatenate([ends[:-1, None], every[:, :-1], ends[1:, None]], axis=1)
        matrix, side = np.zeros((n + 2, n + 2)), np.zeros(n + 2)
        matrix[:n, :n], matrix[:n, n:] = (reduced.first + reduced.last) / self.scale, -reduced.side[:, :2]
        side[:n] = reduced.side[:, 2]
        for row, condition in zip((n, n + 1), conditions, strict=True):
            weight = np.einsum("jia,jiac->c", condition.nodes, every)
            matrix[row] = weight[: n + 2] + np.concatenate([np.zeros(n), [condition.period, condition.parameter]])
            side[row] = condition.value - weight[n + 2]
        solved = np.linalg.solve(matrix, side)
        full = every @ np.append(solved, 1.0)
        # The last node of an interval is the first of the next; taken from there, cycles stay closed to the bit.
        full[:, -1] = np.roll(full[:, 0], -1, 0)
        return Cycle(cycle.edges, full, float(solved[n]), float(solved[n + 1]))

    def held(self, cycle: Cycle) -> Condition:
        """The condition that the parameter stays as it is."""
        return Condition(np.zeros_like(cycle.nodes), 0.0, 1.0, 0.0)

    def solve(self, guess: Cycle, *, tolerance: float = 1e-10, iterations: int = 12) -> tuple[Cycle, Monodromy] | None:
        """Newton's method at a fixed parameter; the cycle and its monodromy matrix, or None where it does not converge."""
        cycle = guess
        for _ in range(iterations):
            conditions = [self.phase(cycle, guess), self.held(cycle)]
            try:
                change, monodromy, _ = self.linear(cycle, conditions)
            except np.linalg.LinAlgError:
                return None
            cycle = cycle.plus(1.0, change)
            size = self.norm(change, guess.period)
            if not math.isfinite(size) or size > 1e3 or cycle.period <= 0:
                return None
            if size <= tolerance:
                return cycle, monodromy
        return None

    def adapted(self, cycle: Cycle, intervals: int | None = None) -> Array:
        """Ends of intervals over which the error of interpolation is spread evenly."""
        m, count = self.degree, len(cycle.nodes)
        h = np.diff(cycle.edges)
        signs = np.array([(-1.0) ** (m - i) * math.comb(m, i) for i in range(m + 1)])
        top = np.einsum("i,jin->jn", signs, cycle.nodes / self.scale) * (m / h[:, None]) ** m
        jump = np.abs(np.roll(top, -1, 0) - top).max(1) / (0.5 * (h + np.roll(h, -1)))  # at the right end of each
        monitor = (0.5 * (jump + np.roll(jump, 1)) + 1e-300) ** (1.0 / (m + 1))
        monitor = monitor + 0.1 * (monitor * h).sum()
        total = np.concatenate([[0.0], np.cumsum(monitor * h)])
        return np.interp(np.linspace(0.0, total[-1], (intervals or count) + 1), total, cycle.edges)

    def moved(self, cycle: Cycle, edges: Array) -> Cycle:
        """The same piecewise polynomial on another mesh."""
        m, h = self.degree, np.diff(edges)
        times = edges[:-1, None] + h[:, None] * np.arange(m + 1) / m
        where = np.clip(np.searchsorted(cycle.edges, times, side="right") - 1, 0, len(cycle.nodes) - 1)
        local = (times - cycle.edges[where]) / np.diff(cycle.edges)[where]
        values = np.stack([b(local) for b in self._basis], axis=-1)
        nodes = np.einsum("jki,jkin->jkn", values, cycle.nodes[where])
        nodes[:, -1] = np.roll(nodes[:, 0], -1, 0)
        return replace(cycle, edges=edges, nodes=nodes)

    def sampled(self, times: Array, states: Array, intervals: int, parameter: float = 0.0) -> Cycle:
        """A first guess from a trajectory ``(points, n)`` over one period; the mesh follows its speed."""
        unit = (times - times[0]) / (times[-1] - times[0])
        speed = np.abs(np.diff(states, axis=0) / self.scale).max(1)
        path = np.concatenate([[0.0], np.cumsum(speed)])
        path = path / max(path[-1], 1e-300) + unit
        edges = np.interp(np.linspace(0.0, path[-1], intervals + 1), path, unit)
        m = self.degree
        at = edges[:-1, None] + np.diff(edges)[:, None] * np.arange(m + 1) / m
        closing = np.linspace(0.0, 1.0, len(unit))[:, None] * (states[0] - states[-1])
        nodes = np.stack([np.interp(at, unit, column) for column in (states + closing).T], axis=-1)
        nodes[:, -1] = np.roll(nodes[:, 0], -1, 0)
        return Cycle(edges, nodes, float(times[-1] - times[0]), parameter)

    def refined(self, guess: Cycle, passes: int = 3) -> tuple[Cycle, Monodromy] | None:
        """`solve`, then again on meshes adapted to the solution."""
        found = self.solve(guess)
        for _ in range(passes if found else 0):
            found = self.solve(self.moved(found[0], self.adapted(found[0]))) if found else None
        return found


def _lagrange(points: Array) -> list[Array]:
    basis = []
    for i, p in enumerate(points):
        others = np.delete(points, i)
        basis.append(np.poly(others) / np.prod(p - others))
    return basis


def multipliers(monodromy: Monodromy) -> Array:
    """Floquet multipliers, the trivial one (nearest to 1) first, then by falling modulus.

    In the plane the other one follows from the divergence alone, and is exact however small or large.
    """
    from scipy.linalg import eigvals  # where it is used, for it is slow to import

    values = eigvals(monodromy.first, monodromy.last).astype(complex)
    if len(values) == 2:
        trivial = values[int(np.argmin(np.abs(values - 1.0)))]
        return np.array([trivial, math.exp(min(monodromy.volume, 700.0))])
    first = int(np.argmin(np.abs(values - 1.0)))
    rest = np.delete(values, first)
    return np.concatenate([[values[first]], rest[np.argsort(-np.abs(rest), kind="stable")]])
