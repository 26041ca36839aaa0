"""What all pictures share: axes without chart junk, colours, and Matplotlib only once something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Sequence[str] = ("#1a4480", "#b3471d", "#4fb095", "#a98ae0", "#d9a520", "#4a3f45")
"""One for each population or trace in turn: told apart in print and by the colour-blind, also by their lightness."""

BLUE, RED, GREEN, PURPLE, GOLD, DARK = COLOURS
GREY = "#9aa3ab"
"""What stands behind the data."""

STYLE: Mapping[str, Any] = {
    "axes.linewidth": 0.6,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.xmargin": 0.02,
    "figure.constrained_layout.use": True,
    "legend.edgecolor": "none",
    "legend.fontsize": "small",
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "savefig.dpi": 150,
    "xtick.labelsize": "small",
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "ytick.labelsize": "small",
    "ytick.major.size": 3.0,
    "ytick.major.width": 0.6,
}
"""The look of the gallery, as settings of Matplotlib: ``with matplotlib.rc_context(bdtorch.plot.STYLE): ...``."""


def prepared(ax: Axes | None, size: tuple[float, float] = (6.4, 3.0), caller: str = "plot") -> Axes:
    """``ax``, or axes of a new figure of ``size`` inches, in the style of this package.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: ``ax`` is no Matplotlib axes.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError(f"`{caller}()` draws with Matplotlib: pip install 'bdtorch[plot]'") from error
    if ax is None:
        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"`{caller}(ax=...)`: expected Matplotlib axes or None, got {type(ax).__name__}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_linewidth(0.6)
    ax.tick_params(width=0.6, length=3, labelsize="small")
    return ax


def colour(number: int) -> str:
    """The colour of population or trace ``number``."""
    return COLOURS[number % len(COLOURS)]
