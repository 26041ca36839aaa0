"""Phase planes: nullclines, equilibria, trajectories and limit cycles of one or two variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bdtorch.analyze._contour import zero_curves
from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._field import VectorField, as_field
from bdtorch.analyze._find_cycles import Found, find_cycles
from bdtorch.analyze._results import FixedPoint, LimitCycle, Trajectory, fixed_point, limit_cycle, tensor
from bdtorch.analyze._roots import bisect, newton
from bdtorch.analyze._starts import checked_bounds
from bdtorch.analyze._trajectory import flow_one

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class PhasePlane:
    """A phase line or plane."""

    names: tuple[str, ...]
    """The one or two variables; columns of every ``x`` below follow this order."""
    window: tuple[tuple[float, float], ...]
    """The range of each."""
    grid: tuple[Tensor, ...]
    """Grid points of each."""
    field: Tensor
    """The derivative on the grid: ``(nx, 1)`` or ``(nx, ny, 2)``."""
    nullclines: dict[str, tuple[Tensor, ...]]
    """For each variable of a plane the curves on which its derivative vanishes, each ``(points, 2)`` in order."""
    fixed_points: tuple[FixedPoint, ...]
    """All equilibria found in the window."""
    cycles: tuple[LimitCycle, ...]
    """All limit cycles found that enter the window, stable and unstable."""
    trajectories: tuple[Trajectory, ...]
    """From the given starts."""
    remarks: tuple[str, ...]
    """What the picture does not show."""

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it into ``ax`` (default: a new figure), and return the axes."""
        from bdtorch.analyze._draw import draw_phase_plane

        return draw_phase_plane(self, ax)


def phase_plane(
    system: Any,
    window: Mapping[str, tuple[float, float]],
    *,
    parameters: Mapping[str, float] | None = None,
    inputs: Any = 0.0,
    fixed: Mapping[str, float] | None = None,
    starts: Sequence[Mapping[str, float]] = (),
    duration: float | None = None,
    resolution: int | None = None,
    cycles: bool = True,
) -> PhasePlane:
    """Analyse a system of one or two free variables within a window.

    Equilibria are sought by Newton's method from every place where the nullclines come near each other and from a grid
    of starts; limit cycles by following trajectories forward and backward in time until they return, then solved for
    by collocation. What is smaller than a cell of the grid can be missed.

    Args:
        system: A `bdtorch.Flow`, a function ``f(state, parameters)`` of a dict of numbers that returns a dict or a
            sequence of derivatives, or a `VectorField`.
        window: The range of each free variable.
        parameters: Values for parameters: of a function all of them, of a flow those to replace.
        inputs: The constant input of a flow.
        fixed: Variables to hold at a value, for systems of more than two.
        starts: Where trajectories begin, as values of the free variables by name.
        duration: For how long to follow trajectories; default fifty times a characteristic time of the field.
        resolution: Cells of the grid along each axis; default 400 for a line, 120 for a plane.
        cycles: Whether to look for limit cycles.

    Raises:
        TypeError: ``system`` is of another kind.
        ValueError: more than two variables are free, a range is empty, reversed or not finite, the derivative is not
            finite somewhere in the window, is random or depends on time, or a name is unknown.
    """
    names = [*window, *(fixed or {})]
    field = as_field(system, names, parameters=parameters, inputs=inputs, fixed=fixed)
    low, high = _window(field, window)
    field.check(0.5 * (low + high) + 0.0123 * (high - low))
    evaluator = Evaluator(field, (), 0.5 * (low + high))
    evaluator.check()
    cells = resolution or (400 if len(low) == 1 else 120)
    if not isinstance(cells, int) or cells < 4:
        raise ValueError(f"`phase_plane(resolution=...)`: expected an integer of at least 4, got {resolution!r}")
    axes = [np.linspace(a, b, cells + 1) for a, b in zip(low, high, strict=True)]
    values = _on_grid(evaluator, axes)
    nullclines = _nullclines(evaluator, axes, values) if len(low) == 2 else {}
    roots = _equilibria(evaluator, axes, values, nullclines)
    follow = _duration(values, high - low) if duration is None else _positive("duration", duration)
    found = find_cycles(evaluator, low, high, roots, follow) if cycles and len(low) == 2 else None
    points = tuple(fixed_point(evaluator, x, high - low) for x in roots)
    remarks = field.remarks + _doubts(found)
    if any(p.type == "centre" for p in points) and not (found and found.dense):
        remarks += ("the linearisation has a centre, which does not decide whether the orbits around it close",)
    flat = sum(p.type in ("saddle-node", "non-hyperbolic") for p in points)
    if flat > 3 or (len(low) == 2 and len(roots) > 50):
        remarks += (f"{len(roots)} equilibria: they may form a curve, of which these are samples",)
    remarks += _unresolved(evaluator, axes, values)
    return PhasePlane(
        names=field.names,
        window=tuple((float(a), float(b)) for a, b in zip(low, high, strict=True)),
        grid=tuple(tensor(a) for a in axes),
        field=tensor(values),
        nullclines={name: tuple(tensor(c) for c in curves) for name, curves in nullclines.items()},
        fixed_points=points,
        cycles=tuple(limit_cycle(*pair) for pair in found.cycles) if found else (),
        trajectories=tuple(_trajectory(evaluator, field, start, follow) for start in starts),
        remarks=remarks,
    )


def _doubts(found: Found | None) -> tuple[str, ...]:
    """What the search for cycles leaves open."""
    remarks: tuple[str, ...] = ()
    if found and found.dense:
        remarks += ("closed orbits fill a region: none of them is a limit cycle",)
    elif found and found.open:
        remarks += (
            "orbits nearly close where no isolated cycle was found: closed orbits may fill a region, a cycle may be stable "
            "on one side only, or a focus may be weak",
        )
    if found and found.unsettled:
        remarks += (
            "a trajectory was still on its way when the search for cycles ended: one with a long period may be missed",
        )
    return remarks


def _unresolved(evaluator: Evaluator, axes: list[Array], values: Array) -> tuple[str, ...]:
    """Whether a derivative changes its sign within cells of the grid more often than their corners show."""
    parts = (0.17, 0.43, 0.79) if len(axes) == 1 else (0.5,)
    inside = []
    for part in parts:
        middles = np.stack(np.meshgrid(*((1 - part) * a[:-1] + part * a[1:] for a in axes), indexing="ij"), axis=-1)
        inside.append(evaluator.f(middles.reshape(-1, len(axes))).reshape(middles.shape) > 0)
    above = values > 0
    if len(axes) == 1:
        signs = np.stack([above[:-1], *inside, above[1:]])
        missed = (signs[1:] != signs[:-1]).sum(0) > (signs[0] != signs[-1])
    else:
        corners = np.stack([above[:-1, :-1], above[1:, :-1], above[:-1, 1:], above[1:, 1:]])
        missed = np.where(inside[0], ~corners.any(0), corners.all(0))
    if not missed.any():
        return ()
    names = [name for i, name in enumerate(evaluator.field.names) if missed[..., i].any()]
    return (
        f"the derivative of {' and '.join(names)} changes its sign within cells of the grid ({int(missed.any(-1).sum())} of "
        f"{missed[..., 0].size}): equilibria may be missed; raise the resolution, or narrow the window",
    )


def _window(field: VectorField, window: Mapping[str, tuple[float, float]]) -> tuple[Array, Array]:
    if len(field.names) > 2:
        raise ValueError(
            f"`phase_plane(window=...)`: {len(field.names)} variables are free, {list(field.names)}, and a plane has two: "
            f"hold the others, as in fixed={{{field.names[-1]!r}: 0.0}}"
        )
    if set(window) != set(field.names):
        raise ValueError(
            f"`phase_plane(window=...)`: expected ranges of {list(field.names)}, got those of {list(window)}"
        )
    pairs = [checked_bounds(f"phase_plane(window={{{name!r}: ...}})", window[name]) for name in field.names]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"`phase_plane({name}=...)`: expected a finite number above 0, got {value!r}")
    return float(value)


def _on_grid(evaluator: Evaluator, axes: list[Array]) -> Array:
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = evaluator.f(points.reshape(-1, len(axes))).reshape(*points.shape)
    if not np.isfinite(values).all():
        bad = points[~np.isfinite(values).all(-1)][0]
        where = ", ".join(f"{n}={v:g}" for n, v in zip(evaluator.field.names, bad, strict=True))
        raise ValueError(
            f"`phase_plane(window=...)`: the derivative is not finite at {where}: exclude it from the window"
        )
    for i, name in enumerate(evaluator.field.names):
        if not values[..., i].any():
            raise ValueError(f"the derivative of {name} is zero everywhere in the window: hold {name} with `fixed`")
    return values


def _nullclines(evaluator: Evaluator, axes: list[Array], values: Array) -> dict[str, list[Array]]:
    def component(i: int) -> list[Array]:
        return zero_curves(lambda z: evaluator.f(z)[:, i], axes[0], axes[1], values[..., i])

    return {name: component(i) for i, name in enumerate(evaluator.field.names)}


def _equilibria(evaluator: Evaluator, axes: list[Array], values: Array, nullclines: dict[str, list[Array]]) -> Array:
    low, high = np.array([a[0] for a in axes]), np.array([a[-1] for a in axes])
    coarse = np.stack(np.meshgrid(*(a[:: max(1, len(a) // 12)] for a in axes), indexing="ij"), axis=-1)
    starts = [coarse.reshape(-1, len(axes))]
    if len(axes) == 1:
        change = np.nonzero((values[1:, 0] >= 0) != (values[:-1, 0] >= 0))[0]
        between = axes[0][change][:, None], axes[0][change + 1][:, None]
        if len(change):
            starts.append(bisect(lambda z: evaluator.f(z)[:, 0], *between))
    for i, name in enumerate(nullclines):
        for curve in nullclines[name]:
            other = evaluator.f(curve)[:, 1 - i] >= 0
            change = np.nonzero(other[1:] != other[:-1])[0]
            starts.append(0.5 * (curve[change] + curve[change + 1]))
    roots = newton(evaluator, np.vstack(starts), high - low)
    margin = 1e-9 * (high - low)
    return roots[((roots >= low - margin) & (roots <= high + margin)).all(1)]


def _duration(values: Array, extent: Array) -> float:
    speed = np.abs(values / extent).max(-1)
    return 50.0 / float(np.median(speed[speed > 0]))


def _trajectory(evaluator: Evaluator, field: VectorField, start: Mapping[str, float], duration: float) -> Trajectory:
    if set(start) != set(field.names):
        raise ValueError(
            f"`phase_plane(starts=...)`: expected values of {list(field.names)}, got those of {list(start)}"
        )
    times = np.linspace(0.0, duration, 1001)
    first = np.array([float(start[name]) for name in field.names])
    if not np.isfinite(first).all():
        raise ValueError(f"`phase_plane(starts=...)`: expected finite numbers, got {dict(start)}")
    states = flow_one(evaluator, first, times)
    return Trajectory(tensor(times), tensor(states))
