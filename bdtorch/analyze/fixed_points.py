"""Fixed and slow points of systems of many variables, from many starts at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bdtorch.analyze._rows import RowMap
from bdtorch.analyze._search import GaussNewton, Newton, Progress, Search
from bdtorch.analyze.linearise import Linearisation, linearised

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class FixedPoints:
    r"""Points at which a system stands still or nearly so, and what became of every start.

    The speed is that of a continuous system, $f$, or what a map moves in a step, $f(x) = F(x) - x$; $q = |f|^2 / 2$.
    """

    x: Tensor
    """The points found, each once, slowest first, ``(points, n)``."""
    state: Any
    """They as states of the system, with a leading axis."""
    q: Tensor
    """Of each, ``(points,)``."""
    arrivals: Tensor
    """How many starts arrived at each, ``(points,)``."""
    ends: Tensor
    """Where each start arrived or got stuck, ``(starts, n)``."""
    end_q: Tensor
    """There, ``(starts,)``; infinite where the system gave no finite number."""
    converged: Tensor
    """Whether that is within the tolerance, ``(starts,)``."""
    outlier: Tensor
    """Whether it is converged, but left out for being too far away, ``(starts,)``."""
    point: Tensor
    """The number of the point at which each start arrived, or -1, ``(starts,)``."""
    iterations: Tensor
    """Steps that the search took from each start, ``(starts,)``."""
    tolerance: float
    """Largest ``q`` that counts."""
    discrete: bool
    """Whether the system is a map."""
    linearisation: Linearisation | None
    """At the points, where asked for."""
    remarks: tuple[str, ...]
    """What went wrong on the way, in words."""

    def __len__(self) -> int:
        return len(self.x)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the points in the plane of their (and the starts' ends') first two principal components, into ``ax``."""
        from bdtorch.analyze._draw_points import draw_points

        return draw_points(self, ax)


def fixed_points(
    system: Any,
    starts: Any,
    *,
    inputs: Any = None,
    dt: float | None = None,
    discrete: bool = False,
    method: Search | None = None,
    tolerance: float | None = None,
    unique: float | None = 1e-3,
    outliers: float | None = None,
    linearised: bool = True,
) -> FixedPoints:
    """Seek the fixed points of a system from many starts, with their stability and modes.

    Args:
        system: A `bdtorch.Flow` (its derivative, or with ``dt`` its step), another `bdtorch.DynamicalSystem` (its step), or
            a function ``(*batch, n)`` to ``(*batch, n)``. Gradients of its parameters are left alone.
        starts: States with one leading axis: ``(starts, n)``, or the system's state with leaves ``(starts, *size)``.
        inputs: The constant input.
        dt: Step of the map, ms.
        discrete: Whether a function is a map instead of a derivative.
        method: `Newton` (the default), `GaussNewton` or `GradientDescent`.
        tolerance: Largest ``q`` of a fixed point; default 1e-16 in double, 1e-10 in single precision.
        unique: Points nearer to each other than this (Euclidean distance) are one; None keeps what every start found.
        outliers: Leave out points further from the starts' mean than so many times the starts' mean distance from it.
        linearised: Whether to add Jacobians, eigenvalues and modes.

    Raises:
        TypeError, ValueError: An argument is not as described, a start is NaN or infinite, or the system is random, depends
            on time or is no differentiable function of its state alone.
    """
    rows, x = _entered("fixed_points", system, starts, inputs, dt, discrete)
    if tolerance is None:
        tolerance = 1e-16 if x.dtype == torch.float64 else 1e-10
    return _found(rows, x, Newton() if method is None else method, tolerance, unique, outliers, linearised)


def slow_points(
    system: Any,
    starts: Any,
    *,
    inputs: Any = None,
    dt: float | None = None,
    discrete: bool = False,
    method: Search | None = None,
    tolerance: float = 1e-6,
    unique: float | None = 1e-3,
    outliers: float | None = None,
    linearised: bool = False,
) -> FixedPoints:
    """Seek the slow points of a system: where ``q``, half the squared speed, is at most ``tolerance``.

    They include fixed points, and ghosts and stretches of attractors along which the system barely moves.

    Args:
        system: As for `fixed_points`.
        starts: As for `fixed_points`.
        inputs: The constant input.
        dt: Step of the map, ms.
        discrete: Whether a function is a map instead of a derivative.
        method: `GaussNewton` (the default), `GradientDescent` or `Newton`.
        tolerance: Largest ``q`` of a slow point.
        unique: As for `fixed_points`.
        outliers: As for `fixed_points`.
        linearised: Whether to add Jacobians, eigenvalues and modes, which cost ``n`` cubed at every point.

    Raises:
        TypeError, ValueError: As for `fixed_points`.

    Source: Sussillo & Barak (2013), doi:10.1162/NECO_a_00409.
    """
    rows, x = _entered("slow_points", system, starts, inputs, dt, discrete)
    return _found(rows, x, GaussNewton() if method is None else method, tolerance, unique, outliers, linearised)


def _entered(
    label: str, system: Any, starts: Any, inputs: Any, dt: float | None, discrete: bool
) -> tuple[RowMap, Tensor]:
    rows = RowMap(system, label, inputs=inputs, dt=dt, discrete=discrete)
    x = rows.rows(starts, "starts")
    rows.check(x)
    return rows, x


def _found(
    rows: RowMap,
    starts: Tensor,
    method: Search,
    tolerance: float,
    unique: float | None,
    outliers: float | None,
    wants_modes: bool,
) -> FixedPoints:
    if not isinstance(method, Search):
        raise TypeError(f"`{rows.label}(method=...)`: expected such as bdtorch.analyze.Newton(), got {method!r}")
    for name, value in (("tolerance", tolerance), ("unique", unique), ("outliers", outliers)):
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"`{rows.label}({name}=...)`: expected a finite number above 0, got {value!r}")
    end = method.search(rows, starts, tolerance)
    converged = end.q <= tolerance
    outlier = converged & _far(end.x, starts, outliers)
    chosen = (converged & ~outlier).nonzero()[:, 0]
    chosen = chosen[end.q[chosen].sort(stable=True)[1]]
    group = distinct(end.x[chosen], unique)
    count = int(group.max()) + 1 if len(group) else 0
    first = torch.full((count,), len(group), device=group.device)
    first = first.scatter_reduce(0, group, torch.arange(len(group), device=group.device), "amin")
    x = end.x[chosen[first]]
    point = torch.full_like(end.iterations, -1).index_copy(0, chosen, group)
    return FixedPoints(
        x=x,
        state=rows.state(x),
        q=end.q[chosen[first]],
        arrivals=group.bincount(minlength=count),
        ends=end.x,
        end_q=end.q,
        converged=converged,
        outlier=outlier,
        point=point,
        iterations=end.iterations,
        tolerance=tolerance,
        discrete=rows.discrete,
        linearisation=linearised(rows, x) if wants_modes and count else None,
        remarks=_remarks(end, converged, outlier, method),
    )


def _far(x: Tensor, starts: Tensor, scale: float | None) -> Tensor:
    if scale is None:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    centre = starts.mean(0)
    return (x - centre).norm(dim=1) > scale * (starts - centre).norm(dim=1).mean()


def _remarks(end: Progress, converged: Tensor, outlier: Tensor, method: Search) -> tuple[str, ...]:
    remarks = []
    lost, infinite = int((~converged).sum()), int(end.q.isinf().sum())
    if lost > infinite:
        spent = int((~converged & (end.iterations >= method.iterations)).sum())
        least = float(end.q[~converged].min())
        remarks.append(
            f"{lost - infinite} of {len(converged)} starts did not converge (least q {least:.2g}; {spent} of them after "
            f"all {method.iterations} iterations)"
        )
    if infinite:
        remarks.append(f"at {infinite} starts the system is not finite")
    if outlier.any():
        remarks.append(f"{int(outlier.sum())} starts arrived at outliers, which are left out")
    return tuple(remarks)


def distinct(x: Tensor, distance: float | None) -> Tensor:
    """Groups of rows: each row in turn joins the first group whose first member is within ``distance``, or founds one.

    Rows are compared within a window along their widest direction, so memory grows with their number alone.

    Returns:
        The group of each row, ``(rows,)``, int64, numbered in order of their first members.
    """
    rows = len(x)
    if distance is None or rows < 2:
        return torch.arange(rows, device=x.device)
    centred = x - x.mean(0)
    far = centred[centred.norm(dim=1).argmax()]
    along = centred @ (far / far.norm().clamp_min(torch.finfo(x.dtype).tiny))
    places, order = along.sort(stable=True)
    slack = distance * (1.0 + 1e-6)
    low = torch.searchsorted(places, along - slack).tolist()
    high = torch.searchsorted(places, along + slack, right=True).tolist()
    group = torch.full((rows,), -1, device=x.device)
    count = 0
    for row in range(rows):
        if group[row] >= 0:
            continue
        window = order[low[row] : high[row]]
        window = window[group[window] < 0]
        near = window[(x[window] - x[row]).norm(dim=1) <= distance]
        group[near] = count
        group[row] = count
        count += 1
    return group
