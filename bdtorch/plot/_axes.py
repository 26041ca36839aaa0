"""What all pictures share: axes without chart junk, colours, and Matplotlib only once something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Sequence[str] = ("#20456b", "#c2452d", "#3b8068", "#8a5a9e", "#b8862b", "#5c6670")
"""One for each population or trace in turn: told apart in print and by the colour-blind."""


def prepared(ax: Axes | None) -> Axes:
    """``ax``, or axes of a new figure, in the style of this package.

    Raises:
        ImportError: Matplotlib is not installed.
        TypeError: ``ax`` is no Matplotlib axes.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError("bdtorch.plot draws with Matplotlib: pip install 'bdtorch[plot]'") from error
    if ax is None:
        ax = pyplot.subplots(figsize=(6.4, 3.0), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"`plot(ax=...)`: expected Matplotlib axes or None, got {type(ax).__name__}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_linewidth(0.6)
    ax.tick_params(width=0.6, length=3, labelsize="small")
    return ax


def colour(number: int) -> str:
    """The colour of population or trace ``number``."""
    return COLOURS[number % len(COLOURS)]
