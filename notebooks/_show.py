"""What the scripts share: where pictures go, and tables of what was measured beside what was published."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import bdtorch as bt

JUPYTER = "ipykernel" in sys.modules
OUT = Path(__file__).resolve().parents[1] / "out"
"""Where pictures go."""
COLOURS = bt.plot.COLOURS
SHADE, BEHIND = "0.93", "0.65"
"""Of spans that are marked, and of what the data are compared with."""
P = ParamSpec("P")


def styled(draw: Callable[P, None]) -> Callable[P, None]:
    """Draw in `bdtorch.plot.STYLE`, and leave Matplotlib's settings as they were."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        with matplotlib.rc_context(bt.plot.STYLE):
            draw(*args, **kwargs)

    return drawn


def keep(figure: Figure, name: str) -> Path:
    """Save a figure as ``out/name.png``, and close it (in a notebook the figure stays, and is shown)."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.png"
    figure.savefig(path)
    if not JUPYTER:
        plt.close(figure)
    return path


def shades(count: int) -> list[Any]:
    """Colours for ``count`` values in order, from the lightest to the darkest."""
    return list(plt.get_cmap("viridis")([0.85 * (1.0 - k / max(1, count - 1)) for k in range(count)]))


def table(title: str, rows: Iterable[tuple[str, Any, Any]]) -> None:
    """Print rows of a quantity, what was measured here, and what was published."""
    lines = [("", "here", "published"), *((name, _text(here), _text(published)) for name, here, published in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    print(title)
    for name, here, published in lines:
        print(f"  {name:{widths[0]}}  {here:>{widths[1]}}  {published:>{widths[2]}}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def script(main: Callable[[bool], Any]) -> None:
    """Run ``main(quick)`` from the command line: ``--full`` for the published size, quick by default."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--full", action="store_true", help="the published size and number of iterations")
    arguments = parser.parse_args([] if JUPYTER else None)  # a kernel has arguments of its own
    full = arguments.full or os.environ.get("BDTORCH_FULL") == "1"
    main(not full)
