"""Examples of the documentation, run as printed: `python docs/site/tutorials.py` keeps their pictures in docs/images."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

DOCS = Path(__file__).resolve().parents[1]
PAGES = ("tutorials/first_neuron.md", "tutorials/first_network.md", "tutorials/analysis.md")
"""Pages whose pictures are shown."""


def run(name: str) -> dict[str, Any]:
    """Run the examples of a page, in one namespace, in the working directory; returns the namespace."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    if not blocks:
        raise ValueError(f"`run(name={name!r})`: expected a page with examples")
    namespace: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}, example {number + 1}", "exec", dont_inherit=True), namespace)
    return namespace


def main() -> None:
    """Run the pages, and keep what they draw."""
    matplotlib.use("Agg")
    before = Path.cwd()
    for name in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            run(name)
            os.chdir(before)
            for picture in Path(folder).glob("*.png"):
                shutil.copy(picture, DOCS / "images" / picture.name)


if __name__ == "__main__":
    main()
