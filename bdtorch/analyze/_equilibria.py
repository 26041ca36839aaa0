"""Branches of equilibria in one parameter: where they begin, where they bifurcate, how they hang together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bdtorch.analyze._diagram import Branch, SpecialPoint
from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._normal_forms import (
    branch_point,
    critical_pair,
    fold_coefficient,
    hopf_test,
    lyapunov,
    other_tangent,
)
from bdtorch.analyze._results import tensor
from bdtorch.analyze._trace import Curve, CurvePoint, Steps, distances, signed_singular

FOLD, BRANCH_POINT, HOPF = 0, 1, 2
FAR = 1e3


@dataclass(frozen=True)
class Located:
    """A bifurcation as arrays."""

    kind: str
    z: Array
    tangent: Array
    branch: int


class Equilibria:
    """Follows all branches that it can reach.

    Args:
        evaluator: The field, with one active parameter.
        scale: Scales of the variables and the parameter, ``(n + 1,)``.
        bounds: Range of the parameter.
        steps: Lengths of steps.
    """

    def __init__(self, evaluator: Evaluator, scale: Array, bounds: tuple[float, float], steps: Steps) -> None:
        self.evaluator, self.scale, self.steps = evaluator, scale, steps
        far = FAR * scale[:-1]
        low, high = np.append(-far, bounds[0]), np.append(far, bounds[1])
        names = (*evaluator.field.names, *evaluator.active)
        self.curve = Curve(evaluator.at, evaluator.slopes, scale, low, high, names, self._tests)
        self.paths: list[list[CurvePoint]] = []
        self.ends: list[tuple[tuple[str, str], bool]] = []
        self.located: list[Located] = []

    def _eigenvalues(self, point: CurvePoint) -> Array:
        n = self.evaluator.n
        return np.linalg.eigvals(point.jacobian[:, :n] / self.scale[:n]).astype(complex)

    def _tests(self, point: CurvePoint) -> Array:
        bordered = np.vstack([point.jacobian, point.tangent])
        return np.array([point.tangent[-1], signed_singular(bordered), hopf_test(self._eigenvalues(point))])

    def known(self, z: Array) -> bool:
        """Whether the equilibrium ``z`` lies on a branch that has been followed."""
        return any(self.curve.passes(path, z / self.scale) for path in self.paths)

    def follow(self, z: Array) -> bool:
        """Follow the branch through the equilibrium ``z`` both ways, if it is new."""
        if self.known(z):
            return False
        up = self.curve.begin(z, towards=1)
        if up is None:
            return False
        self._both_ways(up, None)
        return True

    def switch(self, at: Located, most: int) -> None:
        """Follow the other branch through a branch point, and those through branch points on it."""
        queue = [at]
        done: list[Array] = []
        while queue and len(self.paths) < most:
            here = queue.pop(0)
            if any(np.linalg.norm((here.z - z) / self.scale) < 1e-5 for z in done):
                continue
            done.append(here.z)
            direction = other_tangent(self.evaluator, here.z, here.tangent, self.scale)
            start = self.curve.at_branch_point(here.z, direction)
            length = self.steps.first
            beside = [self.curve.advance(start, length)]
            start_back = CurvePoint(start.y, -start.tangent, start.jacobian)
            beside.append(self.curve.advance(start_back, length))
            if any(b is not None and not self.known(b[0].y * self.scale) for b in beside):
                before = len(self.located)
                self._both_ways(start, here)
                queue.extend(p for p in self.located[before:] if p.kind == "branch point")

    def _both_ways(self, start: CurvePoint, origin: Located | None) -> None:
        whole = self.curve.both_ways(start, self.steps)
        number = len(self.paths)
        self.paths.append(whole.points)
        self.ends.append((whole.reasons, whole.converged))
        self._classify(whole.events, number, origin)

    def _classify(self, events: list[tuple[int, CurvePoint]], number: int, origin: Located | None) -> None:
        """Add the events of a branch, each once: a fold at a branch point is the turn of the branch that is born there."""
        here = [p.z for p in self.located if p.kind == "branch point"] + ([origin.z] if origin else [])
        found: list[Located] = []
        for which, point in sorted(events, key=lambda event: event[0] != BRANCH_POINT):
            z = point.y * self.scale
            near = any(np.linalg.norm((z - other) / self.scale) < 1e-4 for other in here)
            if which == BRANCH_POINT and not near:
                solved = branch_point(self.evaluator, z, self.scale)
                here.append(solved)
                found.append(Located("branch point", solved, point.tangent, number))
            elif which == FOLD and not near:
                found.append(Located("fold", z, point.tangent, number))
            elif which == HOPF and critical_pair(self._eigenvalues(point)) is not None:
                found.append(Located("Hopf", z, point.tangent, number))
        for p in found:
            if not any(p.kind == q.kind and np.linalg.norm((p.z - q.z) / self.scale) < 1e-6 for q in self.located):
                self.located.append(p)

    def branch(self, number: int) -> Branch:
        """A followed branch as tensors, with the bifurcations on it among its points."""
        n = self.evaluator.n
        z, bifurcations = self._with_bifurcations(number)
        values = np.linalg.eigvals(self.evaluator.jacobian(z)[:, :, :n]).astype(complex)
        reasons, converged = self.ends[number]
        stable = (values.real < 0).all(1) & ~bifurcations
        return Branch(tensor(z[:, n]), tensor(z[:, :n]), tensor(values), tensor(stable).bool(), reasons, converged)

    def _with_bifurcations(self, number: int) -> tuple[Array, Array]:
        """The points of a branch, and which of them are bifurcations."""
        y = np.stack([p.y for p in self.paths[number]])
        marked = np.zeros(len(y), dtype=bool)
        for point in self.located:
            here = point.z / self.scale
            gaps = np.linalg.norm(y - here, axis=1)
            if gaps.min() < 1e-6:
                marked |= gaps < 1e-6
            elif point.branch == number and len(y) > 1:
                after = 1 + int(np.argmin(distances(y, here)))
                y, marked = np.insert(y, after, here, axis=0), np.insert(marked, after, True)
        return y * self.scale, marked

    def special(self, point: Located) -> SpecialPoint:
        """A bifurcation as tensors, with its normal form coefficients."""
        n = self.evaluator.n
        values = np.linalg.eigvals(self.evaluator.slopes(point.z)[:, :n]).astype(complex)
        coefficients = {}
        if point.kind == "Hopf":
            omega = abs(complex(critical_pair(values) or 0.0).imag)
            coefficients = {
                "lyapunov": lyapunov(self.evaluator, point.z, omega),
                "omega": omega,
                "period": 2.0 * math.pi / omega,
            }
        elif point.kind == "fold":
            coefficients = {"quadratic": abs(fold_coefficient(self.evaluator, point.z))}
        parameters = {self.evaluator.active[0]: float(point.z[n])}
        return SpecialPoint(point.kind, tensor(point.z[:n]), parameters, tensor(values), coefficients, point.branch)
