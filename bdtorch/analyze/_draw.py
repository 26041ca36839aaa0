"""Pictures of the analysers' results, with Matplotlib only once something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bdtorch.analyze.phase_plane import PhasePlane

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
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize="x-small", loc="best")
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
