"""Following a curve of solutions by pseudo-arclength steps, and locating where test functions vanish on it.

Sources: Keller (1977), in Applications of Bifurcation Theory; Allgower & Georg (2003), doi:10.1137/1.9780898719154.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from bdtorch.analyze._evaluate import Array

P = TypeVar("P")


class Problem(Protocol[P]):
    """A curve of solutions. A point knows its tangent."""

    def advance(self, point: P, length: float) -> tuple[P, int] | None:
        """The solution ``length`` along the tangent at ``point`` and the iterations it took, or None."""

    def tests(self, point: P) -> Array:
        """Functions whose sign changes are events."""

    def alignment(self, before: P, after: P) -> float:
        """The cosine of the angle between two tangents."""

    def ended(self, before: P, after: P) -> tuple[str, P | None] | None:
        """Whether the curve ends between two points: the reason, and the last point if it is not ``after``."""

    def reach(self, point: P, largest: float) -> float:
        """How far to go from a point at most, where ``largest`` is the largest step in the parameters."""

    def renewed(self, point: P, number: int) -> P:
        """The same solution, discretised anew where that is due."""


@dataclass(frozen=True)
class Steps:
    """Lengths of steps, in the scaled units of the problem."""

    first: float = 0.01
    largest: float = 0.03
    smallest: float = 1e-7
    count: int = 1000
    straight: float = 0.998
    """Steps grow while the tangent turns by no more than the angle of this cosine."""


@dataclass
class Trace(Generic[P]):
    """What was followed."""

    points: list[P]
    events: list[tuple[int, int, P]] = field(default_factory=list)
    """After which point, which test function vanishes, and where."""
    reason: str = ""
    converged: bool = True


def trace(problem: Problem[P], start: P, steps: Steps) -> Trace[P]:
    """Follow the curve from ``start`` along its tangent until it ends, or until steps become too small."""
    result: Trace[P] = Trace([start])
    length, point, values = steps.first, start, problem.tests(start)
    for number in range(1, steps.count + 1):
        found = None
        while length >= steps.smallest:
            found = problem.advance(point, length)
            if found is not None and problem.alignment(point, found[0]) > 0.9:
                break
            found, length = None, 0.5 * length
        if found is None:
            result.reason = "Newton's method did not converge even at the smallest step"
            result.converged = False
            return result
        after, iterations = found
        end = problem.ended(point, after)
        if end is not None:
            result.reason, last = end
            after = after if last is None else last
        new = problem.tests(after)
        for which in np.nonzero((values >= 0) != (new >= 0))[0]:
            event = _locate(problem, point, length, int(which))
            if event is not None:
                result.events.append((len(result.points) - 1, int(which), event))
        result.points.append(after)
        if end is not None:
            return result
        straight = problem.alignment(point, after)
        easy, hard = iterations <= 3 and straight > steps.straight, iterations > 5 or straight < 10 * steps.straight - 9
        length = min(length * (1.5 if easy else 0.7 if hard else 1.0), problem.reach(after, steps.largest))
        point, values = problem.renewed(after, number), new
    result.reason = f"{steps.count} steps were made"
    result.converged = False
    return result


def _locate(problem: Problem[P], point: P, length: float, which: int) -> P | None:
    """The solution between ``point`` and a step of ``length`` at which test function ``which`` vanishes."""
    from scipy.optimize import brentq  # where it is used, for it is slow to import

    def value(part: float) -> float:
        found = problem.advance(point, part) if part > 0 else (point, 0)
        if found is None:
            raise ArithmeticError
        return float(problem.tests(found[0])[which])

    try:
        if (value(0.0) >= 0) == (value(length) >= 0):  # it lies in what discretising anew has changed
            return point
        root = brentq(value, 0.0, length, xtol=1e-13, rtol=1e-14, maxiter=100)
    except ValueError:
        return None
    except ArithmeticError:
        root = _narrowed(value, length)
    found = (point, 0) if root == 0 else problem.advance(point, root) if root is not None else None
    return None if found is None else found[0]


def _narrowed(value: Callable[[float], float], length: float) -> float | None:
    """Where ``value`` vanishes, to a thousandth of ``length`` or better, or None.

    At a branch point the curve is singular: next to it, Newton's method does not converge, and this is as near as one comes.
    """
    low, high = 0.0, length
    try:
        begun = value(low) >= 0
        while high - low > 1e-8 * length:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if (value(middle) >= 0) == begun else (low, middle)
    except ArithmeticError:
        if high - low > 1e-3 * length:
            return None
    return low


CLOSED = "the curve closed"


@dataclass(frozen=True)
class CurvePoint:
    """A point of an algebraic curve, in scaled unknowns."""

    y: Array
    tangent: Array
    jacobian: Array


@dataclass(frozen=True)
class Whole:
    """A curve followed in both directions, in order."""

    points: list[CurvePoint]
    events: list[tuple[int, CurvePoint]]
    """Which test function vanishes, and where."""
    reasons: tuple[str, str]
    converged: bool


class Curve:
    """The curve ``residual(u) = 0`` of ``N`` equations in ``N + 1`` unknowns.

    Args:
        residual: ``(N + 1,)`` to ``(N,)``.
        jacobian: ``(N + 1,)`` to ``(N, N + 1)``.
        scale: Of every unknown; all lengths are in these units.
        low: Lower limits of the unknowns.
        high: Upper limits.
        names: What to call each unknown where a limit ends the curve.
        tests: Test functions of a point.
        controls: How many of the last unknowns are parameters.
    """

    def __init__(
        self,
        residual: Callable[[Array], Array],
        jacobian: Callable[[Array], Array],
        scale: Array,
        low: Array,
        high: Array,
        names: Sequence[str],
        tests: Callable[[CurvePoint], Array],
        controls: int = 1,
    ) -> None:
        self._residual, self._jacobian, self.scale = residual, jacobian, scale
        self._low, self._high, self._names, self._tests = low / scale, high / scale, names, tests
        self._controls = controls
        self._first: CurvePoint | None = None
        self._away = False

    def begin(self, u: Array, direction: Array | None = None, towards: int = 1) -> CurvePoint | None:
        """The point of the curve next to ``u``; its tangent points along ``direction``, or up (1) or down the last unknown."""
        y = u / self.scale
        tangent = None if direction is None else direction / np.linalg.norm(direction)
        jacobian = self._jacobian(u) * self.scale
        if not np.isfinite(jacobian).all():
            return None
        if tangent is None:
            tangent = np.linalg.svd(jacobian)[2][-1]
            tangent = tangent * (towards if tangent[-1] >= 0 else -towards)
        found = self._corrected(y, tangent)
        if found is None:
            return None
        y, jacobian, _ = found
        self._first, self._away = CurvePoint(y, self._tangent(jacobian, tangent), jacobian), False
        return self._first

    def at_branch_point(self, u: Array, direction: Array) -> CurvePoint:
        """A point taken as it is, with a given tangent: another branch leaves along it."""
        self._first = CurvePoint(u / self.scale, direction / np.linalg.norm(direction), self._jacobian(u) * self.scale)
        self._away = False
        return self._first

    def _corrected(self, guess: Array, row: Array) -> tuple[Array, Array, int] | None:
        y = guess.copy()
        side = np.zeros(len(y))
        for iteration in range(1, 10):
            u = y * self.scale
            side[:-1], side[-1] = -self._residual(u), -row @ (y - guess)
            jacobian = self._jacobian(u) * self.scale
            if not (np.isfinite(side).all() and np.isfinite(jacobian).all()):
                return None
            try:
                step = np.linalg.solve(np.vstack([jacobian, row]), side)
            except np.linalg.LinAlgError:  # exactly at a branch point
                step = np.linalg.lstsq(np.vstack([jacobian, row]), side, rcond=1e-12)[0]
            y = y + step
            size = np.abs(step).max()
            if size > 1e3:
                return None
            # Newton's next step would be of the square of this one's size.
            if size <= 1e-10 * (1.0 + np.abs(y).max()):
                jacobian = self._jacobian(y * self.scale) * self.scale
                return (y, jacobian, iteration) if np.isfinite(jacobian).all() else None
        return (y, jacobian, iteration) if size <= 1e-9 else None

    def _tangent(self, jacobian: Array, previous: Array) -> Array:
        side = np.zeros(len(previous))
        side[-1] = 1.0
        try:
            tangent = np.linalg.solve(np.vstack([jacobian, previous]), side)
        except np.linalg.LinAlgError:
            return previous
        size = np.linalg.norm(tangent)
        return tangent / size if np.isfinite(size) else previous

    def advance(self, point: CurvePoint, length: float) -> tuple[CurvePoint, int] | None:
        found = self._corrected(point.y + length * point.tangent, point.tangent)
        if found is None:
            return None
        y, jacobian, iterations = found
        if np.abs(y - point.y).max() > 3.0 * length + 1e-12:
            return None
        return CurvePoint(y, self._tangent(jacobian, point.tangent), jacobian), iterations

    def tests(self, point: CurvePoint) -> Array:
        return self._tests(point)

    def alignment(self, before: CurvePoint, after: CurvePoint) -> float:
        return float(before.tangent @ after.tangent)

    def ended(self, before: CurvePoint, after: CurvePoint) -> tuple[str, CurvePoint | None] | None:
        for limits, sign, which in ((self._low, -1.0, "lower"), (self._high, 1.0, "upper")):
            out = np.nonzero(sign * (after.y - limits) > 1e-12)[0]
            if len(out):
                i = int(out[0])
                return f"{self._names[i]} reached its {which} limit", self._at_limit(before, after, i, limits[i])
        if self._first is not None:
            step = float(np.linalg.norm(after.y - before.y))
            gap = float(np.linalg.norm(after.y - self._first.y))
            if self._away and gap < step and after.tangent @ self._first.tangent > 0.9:
                return CLOSED, self._first
            self._away = self._away or gap > 3.0 * step
        return None

    def _at_limit(self, before: CurvePoint, after: CurvePoint, i: int, limit: float) -> CurvePoint:
        part = (limit - before.y[i]) / (after.y[i] - before.y[i])
        row = np.zeros(len(after.y))
        row[i] = 1.0
        guess = before.y + np.clip(part, 0.0, 1.0) * (after.y - before.y)
        guess[i] = limit
        found = self._corrected(guess, row)
        if found is None or np.abs(found[0] - guess).max() > np.linalg.norm(after.y - before.y):
            return before
        return CurvePoint(found[0], self._tangent(found[1], after.tangent), found[1])

    def reach(self, point: CurvePoint, largest: float) -> float:
        # Where the parameters hardly move, the unknowns may move further: their scales are rougher guesses.
        return largest / max(float(np.abs(point.tangent[-self._controls :]).max()), 0.1)

    def renewed(self, point: CurvePoint, number: int) -> CurvePoint:
        return point

    def both_ways(self, start: CurvePoint, steps: Steps) -> Whole:
        """Follow the curve from ``start`` in both directions."""
        forward = self._from(start, steps)
        if forward.reason == CLOSED:
            return Whole(forward.points, [(w, p) for _, w, p in forward.events], (CLOSED, CLOSED), forward.converged)
        backward = self._from(CurvePoint(start.y, -start.tangent, start.jacobian), steps)
        turned = [CurvePoint(p.y, -p.tangent, p.jacobian) for p in backward.points[:0:-1]]
        return Whole(
            [*turned, *forward.points],
            [(which, point) for _, which, point in (*backward.events, *forward.events)],
            (backward.reason, forward.reason),
            backward.converged and forward.converged,
        )

    def _from(self, start: CurvePoint, steps: Steps) -> Trace[CurvePoint]:
        self._first, self._away = start, False
        return trace(self, start, steps)

    def passes(self, path: list[CurvePoint], y: Array) -> bool:
        """Whether the point ``y`` of the curve lies on a path that has been followed."""
        corners = np.stack([p.y for p in path])
        if len(corners) < 2:
            return False
        sides, lengths, parts = _projected(corners, y)
        gaps = distances(corners, y)
        for i in np.nonzero(gaps < 0.1 * np.sqrt(lengths) + 1e-9)[0]:
            found = self._corrected(corners[i] + parts[i] * sides[i], sides[i] / np.sqrt(lengths[i]))
            if found is not None and np.linalg.norm(found[0] - y) < 1e-6:
                return True
        return False


def _projected(corners: Array, y: Array) -> tuple[Array, Array, Array]:
    """The sides of a polygon, the squares of their lengths, and at which part of each ``y`` comes nearest."""
    sides = np.diff(corners, axis=0)
    lengths = np.maximum((sides**2).sum(1), 1e-300)
    return sides, lengths, np.clip(((y - corners[:-1]) * sides).sum(1) / lengths, 0.0, 1.0)


def distances(corners: Array, y: Array) -> Array:
    """Of the point ``y`` from each side of the polygon with the corners ``(points, n)``: ``(points - 1,)``."""
    sides, _, parts = _projected(corners, y)
    gaps: Array = np.linalg.norm(corners[:-1] + parts[:, None] * sides - y, axis=1)
    return gaps


def signed_singular(matrix: Array) -> float:
    """The smallest singular value with the sign of the determinant: smooth where one of them passes zero."""
    return float(np.linalg.slogdet(matrix)[0] * np.linalg.svd(matrix, compute_uv=False)[-1])
