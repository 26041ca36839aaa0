"""Bifurcation diagrams in two parameters: where folds and Hopf points lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bdtorch.analyze._diagram import SpecialPoint
from bdtorch.analyze._equilibria import FAR, Equilibria, Located
from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._field import VectorField
from bdtorch.analyze._loci import FoldLocus, HopfLocus
from bdtorch.analyze._normal_forms import critical_pair
from bdtorch.analyze._results import tensor
from bdtorch.analyze._starts import checked_bounds
from bdtorch.analyze._trace import Steps, Whole, distances
from bdtorch.analyze.continuation import begin, named_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Locus:
    """A curve of bifurcations, in order along it."""

    kind: str
    """``"fold"`` or ``"Hopf"``."""
    parameters: Tensor
    """``(points, 2)``."""
    x: Tensor
    """The variables, ``(points, n)``."""
    lyapunov: Tensor
    """On Hopf curves the first Lyapunov coefficient, ``(points,)``; NaN on folds and where the frequency vanishes."""
    reasons: tuple[str, str]
    """Why it ends where it begins and where it ends."""
    converged: bool
    """False where an end is one at which Newton's method failed or the number of steps ran out."""


@dataclass(frozen=True)
class ParameterPlane:
    """Curves of bifurcations in two parameters, and the points at which they degenerate."""

    names: tuple[str, ...]
    """The variables."""
    parameters: tuple[str, str]
    """The two parameters."""
    bounds: tuple[tuple[float, float], tuple[float, float]]
    """Their ranges."""
    curves: tuple[Locus, ...]
    """Curves of folds and of Hopf points."""
    points: tuple[SpecialPoint, ...]
    """``"cusp"``, ``"Bogdanov-Takens"``, ``"generalised Hopf"``, ``"zero-Hopf"``; ``branch`` counts ``curves``."""
    remarks: tuple[str, ...]
    """What the picture does not show."""

    @property
    def converged(self) -> bool:
        """Whether every curve was followed to where it ends."""
        return all(curve.converged for curve in self.curves)

    def of(self, kind: str) -> tuple[SpecialPoint, ...]:
        """The points of one kind."""
        return tuple(p for p in self.points if p.kind == kind)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the second parameter against the first into ``ax`` (default: a new figure)."""
        from bdtorch.analyze._draw import draw_parameter_plane

        return draw_parameter_plane(self, ax)


def parameter_plane(
    system: Any,
    bounds: Mapping[str, tuple[float, float]],
    *,
    start: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
    window: Mapping[str, tuple[float, float]] | None = None,
    parameters: Mapping[str, float] | None = None,
    inputs: Any = 0.0,
    fixed: Mapping[str, float] | None = None,
    max_step: float = 0.03,
    max_points: int = 1000,
) -> ParameterPlane:
    """Follow folds and Hopf points in two parameters.

    Equilibria are first continued in the first parameter, at three values of the second; each fold and Hopf point found
    there is then followed in both, and so are the curves that leave from Bogdanov-Takens points on these. A closed curve that
    none of the three lines meets is not found.

    Args:
        system: A `bdtorch.Flow`, a function ``f(state, parameters)`` or a `VectorField`.
        bounds: The two parameters and their ranges.
        start: As in `continuation`.
        window: As in `continuation`.
        parameters: As in `continuation`.
        inputs: As in `continuation`.
        fixed: As in `continuation`.
        max_step: The largest step, as a fraction of the ranges.
        max_points: Most steps in each direction along a curve.

    Raises:
        TypeError: ``system`` is of another kind.
        ValueError: there are not two parameters, a range is empty, reversed or not finite, a name is unknown, or no
            equilibrium was found.
    """
    if len(bounds) != 2:
        raise ValueError(f"`parameter_plane(bounds=...)`: expected the ranges of two parameters, got {list(bounds)}")
    one, two = bounds
    ranges = tuple(checked_bounds(f"parameter_plane(bounds={{{n!r}: ...}})", bounds[n]) for n in (one, two))
    varied = {one: ranges[0][0], two: ranges[1][0]}
    field = named_field(system, varied, start, window, parameters, inputs, fixed, "parameter_plane")
    search = _Search(field, (one, two), ranges, max_step, max_points)
    own = field.value(two)
    low, high = ranges[1]
    middle = own if low < own < high else low + 0.4873 * (high - low)
    remarks = field.remarks
    for value in (middle, low, high):
        remarks += search.line(value, start, window)
    search.from_takens_points()
    if not search.wholes:
        remarks += (f"no fold and no Hopf point was found along {two}={middle:g}, {low:g} and {high:g}",)
    return ParameterPlane(
        names=field.names,
        parameters=(one, two),
        bounds=(ranges[0], ranges[1]),
        curves=tuple(search.locus(i) for i in range(len(search.wholes))),
        points=tuple(search.points),
        remarks=remarks,
    )


class _Search:
    def __init__(
        self,
        field: VectorField,
        names: tuple[str, str],
        bounds: tuple[tuple[float, float], ...],
        max_step: float,
        max_points: int,
    ) -> None:
        self.field, self.names, self.bounds = field, names, bounds
        self.steps = Steps(first=max_step / 3.0, largest=max_step, count=max_points)
        self.wholes: list[tuple[FoldLocus | HopfLocus, Whole]] = []
        self.points: list[SpecialPoint] = []
        self._evaluator: Evaluator | None = None
        self._scale = np.zeros(0)

    def line(self, value: float, start: Any, window: Any) -> tuple[str, ...]:
        """Follow what is met along the first parameter at a value of the second."""
        name, other = self.names
        along = self.field.replaced(settings={other: value})
        try:
            engine, remarks = begin(along, name, self.bounds[0], start, window, "parameter_plane")
        except ValueError as error:
            if "no equilibrium" not in str(error):
                raise
            return (f"no equilibrium was found along {other}={value:g}",)
        for point in engine.located:
            if point.kind != "branch point":
                self._follow(engine, point, value)
        return remarks

    def from_takens_points(self) -> None:
        """Follow the curves through Bogdanov-Takens points, where a fold and a Hopf curve meet, that no line has met."""
        done = 0
        while done < len(self.points):
            point = self.points[done]
            done += 1
            if point.kind == "Bogdanov-Takens":
                z = np.append(point.x.numpy(), [point.parameters[name] for name in self.names])
                for omega in (None, 0.0):
                    self._through(z, omega)

    def _follow(self, engine: Equilibria, point: Located, value: float) -> None:
        z = np.append(point.z, value)
        n = engine.evaluator.n
        if self._evaluator is None:
            self._evaluator = Evaluator(self.field, self.names, z)
            self._scale = np.append(engine.scale, self.bounds[1][1] - self.bounds[1][0])
        if point.kind == "fold":
            self._through(z, None)
            return
        pair = critical_pair(np.linalg.eigvals(self._evaluator.slopes(z)[:, :n]).astype(complex))
        if pair is not None:
            self._through(z, pair.imag)

    def _through(self, z: Array, omega: float | None) -> None:
        """Follow the curve of Hopf points of frequency ``omega`` through ``z``, or of folds, if it is new."""
        assert self._evaluator is not None
        scale, n = self._scale, self._evaluator.n
        far = FAR * scale[:n]
        low = np.concatenate([-far, [b[0] for b in self.bounds]])
        high = np.concatenate([far, [b[1] for b in self.bounds]])
        kind = FoldLocus.kind if omega is None else HopfLocus.kind
        if any(old.kind == kind and self._near(old, whole, z, scale) for old, whole in self.wholes):
            return
        locus: FoldLocus | HopfLocus
        if omega is None:
            locus = FoldLocus(self._evaluator, z, scale, low, high)
        else:
            locus = HopfLocus(self._evaluator, z, omega, scale, low, high)
        begun = locus.curve.begin(locus.start)
        if begun is not None:
            whole = locus.curve.both_ways(begun, self.steps)
            self.wholes.append((locus, whole))
            self._special(locus, whole)

    def _near(self, locus: FoldLocus | HopfLocus, whole: Whole, z: Array, scale: Array) -> bool:
        """Whether a point lies on a curve that has been followed: the vectors of the extended systems may differ."""
        path = np.stack([locus.split(p.y * locus.scale)[0] for p in whole.points]) / scale
        if len(path) < 2:
            return False
        lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
        return bool((distances(path, z / scale) < 0.05 * lengths + 1e-7).any())

    def _special(self, locus: FoldLocus | HopfLocus, whole: Whole) -> None:
        found = [(locus.events[which], p) for which, p in whole.events if locus.happens(which, p)]
        if isinstance(locus, HopfLocus):
            ends = zip(whole.reasons, (whole.points[0], whole.points[-1]), strict=True)
            found += [("Bogdanov-Takens", p) for reason, p in ends if "frequency" in reason]
        assert self._evaluator is not None
        n = self._evaluator.n
        for kind, point in found:
            z = locus.split(point.y * locus.scale)[0]
            values = np.linalg.eigvals(self._evaluator.slopes(z)[:, :n]).astype(complex)
            parameters = {name: float(v) for name, v in zip(self.names, z[n:], strict=True)}
            unit = np.array([b[1] - b[0] for b in self.bounds])
            same = [
                p
                for p in self.points
                if p.kind == kind
                and np.abs((np.array(list(p.parameters.values())) - z[n:]) / unit).max() < 1e-5
                and np.allclose(p.x.numpy(), z[:n], rtol=1e-3, atol=1e-4)
            ]
            if not same:
                number = len(self.wholes) - 1
                self.points.append(SpecialPoint(kind, tensor(z[:n]), parameters, tensor(values), {}, number))

    def locus(self, number: int) -> Locus:
        """A followed curve as tensors."""
        locus, whole = self.wholes[number]
        z = np.stack([locus.split(p.y * locus.scale)[0] for p in whole.points])
        n = z.shape[1] - 2
        hopf = isinstance(locus, HopfLocus)
        values = [locus.lyapunov(p) if isinstance(locus, HopfLocus) else np.nan for p in whole.points]
        return Locus(
            kind="Hopf" if hopf else "fold",
            parameters=tensor(z[:, n:]),
            x=tensor(z[:, :n]),
            lyapunov=tensor(values),
            reasons=whole.reasons,
            converged=whole.converged,
        )
