"""Pictures of the analysers' results, with Matplotlib only once something is drawn."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bdtorch.analyze._diagram import Diagram, SpecialPoint
    from bdtorch.analyze.fast_slow import FastSlow
    from bdtorch.analyze.parameter_plane import ParameterPlane
    from bdtorch.analyze.phase_plane import PhasePlane
    from bdtorch.analyze.scan import Scan

BLUE, RED, GREEN, GREY, GOLD = "#20456b", "#c2452d", "#3b8068", "#9aa3ab", "#b8862b"


def axes(ax: Axes | None, size: tuple[float, float] = (5.2, 4.2)) -> Axes:
    """``ax``, or axes of a new figure.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: ``ax`` is no Matplotlib axes.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError("`plot()` draws with Matplotlib: pip install 'bdtorch[plot]'") from error
    if ax is None:
        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"`plot(ax=...)`: expected Matplotlib axes or None, got {type(ax).__name__}")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def draw_phase_plane(plane: PhasePlane, ax: Axes | None) -> Axes:
    """A phase line or plane."""
    ax = axes(ax)
    (_line if len(plane.names) == 1 else _plane)(plane, ax)
    if plane.remarks:
        ax.set_title("; ".join(plane.remarks), fontsize="x-small", loc="left")
    legend(ax)
    return ax


def _line(plane: PhasePlane, ax: Axes) -> None:
    x, f = plane.grid[0].numpy(), plane.field[:, 0].numpy()
    ax.axhline(0.0, color=GREY, lw=0.6)
    ax.plot(x, f, color=BLUE, lw=1.2)
    for point in plane.fixed_points:
        ax.plot(float(point.x[0]), 0.0, "o", color=BLUE, mfc=BLUE if point.stable else "white", ms=6)
    ax.set(xlabel=plane.names[0], ylabel=f"d{plane.names[0]}/dt", xlim=plane.window[0])


def _plane(plane: PhasePlane, ax: Axes) -> None:
    x, y = (g.numpy() for g in plane.grid)
    u, v = np.moveaxis(plane.field.numpy(), -1, 0)
    # Speeds relative to the window, so that arrows show directions in the picture.
    ax.streamplot(x, y, u.T, v.T, color="#d5dade", density=1.1, linewidth=0.6, arrowsize=0.7)
    for name, colour in zip(plane.names, (BLUE, RED), strict=True):
        for number, curve in enumerate(plane.nullclines[name]):
            ax.plot(*curve.numpy().T, color=colour, lw=1.2, label=None if number else f"d{name}/dt = 0")
    for trajectory in plane.trajectories:
        ax.plot(*trajectory.x.numpy().T, color=GREY, lw=0.8)
    for cycle in plane.cycles:
        style = "-" if cycle.stable else "--"
        kind = "stable" if cycle.stable else "unstable"
        ax.plot(*cycle.x.numpy().T, style, color=GREEN, lw=1.8, label=f"{kind} cycle, period {cycle.period:.4g}")
    for point in plane.fixed_points:
        fill = "black" if point.stable else "white"
        ax.plot(*point.x.tolist(), "o", color="black", mfc=fill, ms=6, label=point.type, ls="none", zorder=5)
    ax.set(xlabel=plane.names[0], ylabel=plane.names[1], xlim=plane.window[0], ylim=plane.window[1])


MARKERS = {
    "fold": ("s", RED), "Hopf": ("o", GREEN), "branch point": ("D", GOLD), "fold of cycles": ("s", GREEN),
    "period doubling": ("^", GREEN), "torus": ("v", GREEN), "cusp": ("P", RED), "Bogdanov-Takens": ("X", BLUE),
    "generalised Hopf": ("*", GREEN), "zero-Hopf": ("h", GOLD),
}  # fmt: skip


def runs(flags: np.ndarray) -> list[tuple[slice, bool]]:
    """Stretches of equal flags; each reaches the first point of the next, so that lines have no gaps."""
    edges = [0, *(np.nonzero(np.diff(flags.astype(int)))[0] + 1).tolist(), len(flags)]
    return [(slice(a, b + 1), bool(flags[a])) for a, b in itertools.pairwise(edges) if a < b]


def draw_diagram(diagram: Diagram, ax: Axes | None, variable: str | None = None) -> Axes:
    """A bifurcation diagram in one parameter."""
    column = variable_index(diagram.names, variable)
    ax = axes(ax, (6.0, 4.0))
    _equilibria(diagram, ax, column)
    for branch in diagram.cycles:
        p = branch.parameter.numpy()
        for part, stable in runs(branch.stable.numpy()):
            for side in (branch.minimum, branch.maximum):
                ax.plot(p[part], side[part, column].numpy(), "-" if stable else ":", color=GREEN, lw=1.4)
    for point in (*diagram.points, *diagram.cycle_points):
        mark(ax, point.kind, point.parameters[diagram.parameter], _height(diagram, point, column), point.criticality)
    ax.set(xlabel=diagram.parameter, ylabel=diagram.names[column], xlim=diagram.bounds)
    legend(ax)
    return ax


def _equilibria(diagram: Diagram, ax: Axes, column: int) -> None:
    for branch in diagram.branches:
        p, x = branch.parameter.numpy(), branch.x[:, column].numpy()
        for part, stable in runs(branch.stable.numpy()):
            ax.plot(p[part], x[part], "-" if stable else "--", color=BLUE, lw=1.4 if stable else 1.0)


def _height(diagram: Diagram, point: SpecialPoint, column: int) -> float:
    """Where to mark a point: on its curve, which for cycles is that of the largest values."""
    if "period" not in point.coefficients or point.kind == "Hopf":
        return float(point.x[column])
    branch = diagram.cycles[point.branch]
    gaps = (branch.period - point.coefficients["period"]).abs() / branch.period.abs().max()
    gaps = gaps + (branch.parameter - point.parameters[diagram.parameter]).abs() / (
        diagram.bounds[1] - diagram.bounds[0]
    )
    return float(branch.maximum[int(gaps.argmin()), column])


def variable_index(names: tuple[str, ...], variable: str | None) -> int:
    """The place of a variable.

    Raises:
        ValueError: there is none of that name.
    """
    if variable is not None and variable not in names:
        raise ValueError(f"`plot(variable=...)`: expected one of {list(names)}, got {variable!r}")
    return 0 if variable is None else names.index(variable)


def mark(ax: Axes, kind: str, x: float, y: float, criticality: str = "") -> None:
    """A bifurcation's marker, labelled for the legend."""
    shape, colour = MARKERS[kind]
    fill = "white" if criticality == "subcritical" else colour
    label = f"{kind} ({criticality})" if criticality else kind
    ax.plot(x, y, shape, color=colour, mfc=fill, ms=6, ls="none", label=label, zorder=5)


def legend(ax: Axes) -> None:
    """Each label once."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if handles:
        ax.legend(handles.values(), handles.keys(), frameon=False, fontsize="x-small", loc="best")


def draw_parameter_plane(plane: ParameterPlane, ax: Axes | None) -> Axes:
    """Curves of bifurcations in two parameters."""
    ax = axes(ax)
    for curve in plane.curves:
        p, q = curve.parameters.numpy().T
        if curve.kind == "fold":
            ax.plot(p, q, color=RED, lw=1.4, label="fold")
            continue
        for part, below in runs(curve.lyapunov.numpy() < 0):
            kind = "supercritical" if below else "subcritical"
            ax.plot(p[part], q[part], "-" if below else "--", color=GREEN, lw=1.4, label=f"Hopf ({kind})")
    for point in plane.points:
        mark(ax, point.kind, point.parameters[plane.parameters[0]], point.parameters[plane.parameters[1]])
    ax.set(xlabel=plane.parameters[0], ylabel=plane.parameters[1], xlim=plane.bounds[0], ylim=plane.bounds[1])
    legend(ax)
    return ax


def draw_fast_slow(result: FastSlow, ax: Axes | None, variable: str | None = None) -> Axes:
    """The fast subsystem's diagram with the trajectory over it."""
    fast = result.diagram.names
    column = variable_index(fast, variable)
    ax = axes(ax, (6.0, 4.0))
    x = result.trajectory.x.numpy()
    ax.plot(x[:, result.names.index(result.slow)], x[:, result.names.index(fast[column])], color=GREY, lw=0.5)
    return draw_diagram(result.diagram, ax, variable)


def draw_scan(result: Scan, ax: Axes | None, variable: str | None = None) -> Axes:
    """Local maxima of attractors, and their smallest values."""
    column = variable_index(result.names, variable)
    ax = axes(ax, (6.0, 4.0))
    values = result.values.numpy()
    for value, peaks in zip(values, result.peaks[result.names[column]], strict=True):
        ax.plot(np.full(len(peaks), value), peaks.numpy(), ",", color=BLUE)
    ax.plot(values, result.maximum[:, column].numpy(), ".", color=BLUE, ms=2)
    ax.plot(values, result.minimum[:, column].numpy(), ".", color=RED, ms=2)
    ax.set(xlabel=result.parameter, ylabel=result.names[column])
    return ax
