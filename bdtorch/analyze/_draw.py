"""Pictures of the analysers' results, with Matplotlib only once something is drawn."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bdtorch._axes import BLUE, DARK, GOLD, GREEN, GREY, RED, prepared

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bdtorch.analyze._diagram import Diagram, SpecialPoint
    from bdtorch.analyze._results import FixedPoint
    from bdtorch.analyze.fast_slow import FastSlow
    from bdtorch.analyze.parameter_plane import ParameterPlane
    from bdtorch.analyze.phase_plane import PhasePlane
    from bdtorch.analyze.scan import Scan


def draw_phase_plane(plane: PhasePlane, ax: Axes | None) -> Axes:
    """A phase line or plane."""
    beside, ax = ax is None, prepared(ax, (6.6, 4.2))
    (_line if len(plane.names) == 1 else _plane)(plane, ax)
    note(ax, plane.remarks)
    legend(ax, beside)
    return ax


def _line(plane: PhasePlane, ax: Axes) -> None:
    x, f = plane.grid[0].numpy(), plane.field[:, 0].numpy()
    ax.axhline(0.0, color=GREY, lw=0.6)
    ax.plot(x, f, color=BLUE, lw=1.4)
    # Between neighbouring equilibria the flow has one direction.
    edges = [x[0], *sorted(float(p.x[0]) for p in plane.fixed_points), x[-1]]
    for middle in (0.5 * (one + two) for one, two in itertools.pairwise(edges) if two - one > 0.05 * (x[-1] - x[0])):
        right = np.interp(middle, x, f) > 0
        ax.plot(middle, 0.0, ">" if right else "<", color=GREY, ms=6, ls="none")
    for point in plane.fixed_points:
        _dot(ax, float(point.x[0]), 0.0, point)
    ax.set(xlabel=plane.names[0], ylabel=f"d{plane.names[0]}/dt", xlim=plane.window[0])


def _dot(ax: Axes, x: float, y: float, point: FixedPoint) -> None:
    """An equilibrium: filled where it is stable, a diamond where it is a saddle."""
    fill, shape = DARK if point.stable else "white", "D" if point.type.startswith("saddle") else "o"
    ax.plot(x, y, shape, color=DARK, mfc=fill, ms=6, label=point.type, ls="none", zorder=5, clip_on=False)


def _plane(plane: PhasePlane, ax: Axes) -> None:
    x, y = (g.numpy() for g in plane.grid)
    u, v = np.moveaxis(plane.field.numpy(), -1, 0)
    # Speeds relative to the window, so that arrows show directions in the picture.
    ax.streamplot(x, y, u.T, v.T, color="#cfd5da", density=1.1, linewidth=0.7, arrowsize=0.8)
    for name, colour in zip(plane.names, (BLUE, RED), strict=True):
        for number, curve in enumerate(plane.nullclines[name]):
            ax.plot(*curve.numpy().T, color=colour, lw=1.4, label=None if number else f"d{name}/dt = 0")
    for number, trajectory in enumerate(plane.trajectories):
        ax.plot(*trajectory.x.numpy().T, color=GOLD, lw=1.0, label=None if number else "trajectory")
        ax.plot(*trajectory.x[0].tolist(), ".", color=GOLD, ms=5)
    for cycle in plane.cycles:
        style = "-" if cycle.stable else "--"
        kind = "stable" if cycle.stable else "unstable"
        ax.plot(*cycle.x.numpy().T, style, color=GREEN, lw=2.0, label=f"{kind} cycle, period {cycle.period:.4g}")
    for point in plane.fixed_points:
        across, up = point.x.tolist()
        _dot(ax, across, up, point)
    ax.set(xlabel=plane.names[0], ylabel=plane.names[1], xlim=plane.window[0], ylim=plane.window[1])


MARKERS = {
    "fold": ("s", RED), "Hopf": ("o", GREEN), "branch point": ("D", GOLD), "fold of cycles": ("s", GREEN),
    "period doubling": ("^", GREEN), "torus": ("v", GREEN), "cusp": ("P", RED), "Bogdanov-Takens": ("X", BLUE),
    "generalised Hopf": ("*", GREEN), "zero-Hopf": ("h", GOLD),
}  # fmt: skip


def runs(flags: np.ndarray) -> list[tuple[slice, bool]]:
    """Stretches of a line by the flags of its points, each with both of its ends.

    A side is flagged where one of its ends is: bifurcations, at which flags change, are points without a flag.
    """
    if len(flags) < 2:
        return [(slice(0, len(flags)), bool(flags.all()))]
    sides = flags[1:] | flags[:-1]
    edges = [0, *(np.nonzero(np.diff(sides.astype(int)))[0] + 1).tolist(), len(sides)]
    return [(slice(a, b + 1), bool(sides[a])) for a, b in itertools.pairwise(edges)]


def draw_diagram(diagram: Diagram, ax: Axes | None, variable: str | None = None, beside: bool = False) -> Axes:
    """A bifurcation diagram in one parameter."""
    column = variable_index(diagram.names, variable)
    beside, ax = beside or ax is None, prepared(ax, (7.2, 4.0))
    for branch in diagram.branches:
        p, x = branch.parameter.numpy(), branch.x[:, column].numpy()
        for part, stable in runs(branch.stable.numpy()):
            label = f"{'stable' if stable else 'unstable'} equilibria"
            ax.plot(p[part], x[part], "-" if stable else "--", color=BLUE, lw=1.6 if stable else 1.0, label=label)
    for cycles in diagram.cycles:
        p = cycles.parameter.numpy()
        for part, stable in runs(cycles.stable.numpy()):
            label = f"{'stable' if stable else 'unstable'} cycles, extrema"
            for side in (cycles.minimum, cycles.maximum):
                ax.plot(
                    p[part],
                    side[part, column].numpy(),
                    "-" if stable else ":",
                    color=GREEN,
                    lw=1.6,
                    label=label,
                )
    for point in (*diagram.points, *diagram.cycle_points):
        mark(ax, point.kind, point.parameters[diagram.parameter], _height(diagram, point, column), point.criticality)
    ax.set(xlabel=diagram.parameter, ylabel=diagram.names[column], xlim=diagram.bounds)
    note(ax, diagram.remarks)
    legend(ax, beside)
    return ax


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


def note(ax: Axes, remarks: Sequence[str]) -> None:
    """What a picture does not show, above it."""
    if remarks:
        text = "\n".join(line for remark in remarks for line in textwrap.wrap(remark, 100))
        ax.set_title(text, fontsize="xx-small", loc="left")


def legend(ax: Axes, beside: bool = False) -> None:
    """Each label once; ``beside`` the axes, where the figure is made for them, else within."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if handles:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if beside else {"loc": "best"}
        ax.legend(
            handles.values(), handles.keys(), framealpha=0.85, edgecolor="none", fontsize="x-small", **place
        ).set_zorder(6)


def draw_parameter_plane(plane: ParameterPlane, ax: Axes | None) -> Axes:
    """Curves of bifurcations in two parameters."""
    beside, ax = ax is None, prepared(ax, (6.6, 4.2))
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
    note(ax, plane.remarks)
    legend(ax, beside)
    return ax


def draw_fast_slow(result: FastSlow, ax: Axes | None, variable: str | None = None) -> Axes:
    """The fast subsystem's diagram with the trajectory over it."""
    fast = result.diagram.names
    column = variable_index(fast, variable)
    beside, ax = ax is None, prepared(ax, (7.2, 4.0))
    x = result.trajectory.x.numpy()
    across, up = (x[:, result.names.index(name)] for name in (result.slow, fast[column]))
    ax.plot(across, up, color=GREY, lw=0.6, label="trajectory of the whole")
    return draw_diagram(result.diagram, ax, variable, beside)


def draw_scan(result: Scan, ax: Axes | None, variable: str | None = None) -> Axes:
    """Local maxima of attractors, and their smallest values."""
    column = variable_index(result.names, variable)
    beside, ax = ax is None, prepared(ax, (7.2, 4.0))
    values = result.values.numpy()
    peaks = result.peaks[result.names[column]]
    at = np.repeat(values, [len(found) for found in peaks])
    ax.plot(
        at, np.concatenate([found.numpy() for found in peaks]), ".", color=BLUE, ms=1.5, mew=0, label="local maxima"
    )
    ax.plot(values, result.maximum[:, column].numpy(), "-", color=BLUE, lw=0.8, label="largest value")
    ax.plot(values, result.minimum[:, column].numpy(), "-", color=RED, lw=0.8, label="smallest value")
    ax.set(xlabel=result.parameter, ylabel=result.names[column])
    legend(ax, beside)
    return ax
