"""What the scripts share: where pictures go, and tables of what was measured beside what was published."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib

if "ipykernel" not in sys.modules:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

OUT = Path(__file__).resolve().parents[1] / "out"
"""Where pictures go."""


def keep(figure: Figure, name: str) -> Path:
    """Save a figure as ``out/name.png``, and close it."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def table(title: str, rows: Iterable[tuple[str, Any, Any]]) -> None:
    """Print rows of a quantity, what was measured here, and what was published."""
    print(title)
    print(f"  {'':44} {'here':>14} {'published':>22}")
    for name, here, published in rows:
        print(f"  {name:44} {_text(here):>14} {_text(published):>22}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def script(main: Callable[[bool], Any]) -> None:
    """Run ``main(quick)`` from the command line: ``--full`` for the published size, quick by default."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--full", action="store_true", help="the published size and number of iterations")
    full = parser.parse_args().full or os.environ.get("BDTORCH_FULL") == "1"
    main(not full)
