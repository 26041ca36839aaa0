"""Which line of a model is being run."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
from pathlib import Path
from types import FrameType

import torch

_PACKAGE = Path(__file__).resolve().parent
_TORCH = Path(torch.__file__).resolve().parent
_STANDARD = Path(os.__file__).resolve().parent
_INSTALLED = {"site-packages", "dist-packages"}


def site() -> str:
    """The innermost line outside of the time loops, torch, NumPy and Python's own library, as "file:line: code"."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_of_a_model(name):
            return line_of(name, frame.f_lineno)
        frame = frame.f_back
    return "unknown line"


def site_in(traceback: str) -> str:
    """The same, of a traceback as text."""
    places = re.findall(r'File "([^"]+)", line (\d+)', traceback)
    return next(
        (line_of(name, int(number)) for name, number in reversed(places) if is_of_a_model(name)), "unknown line"
    )


def line_of(filename: str, number: int) -> str:
    """A line of a file, with its place."""
    return f"{os.path.basename(filename)}:{number}: {linecache.getline(filename, number).strip()}"


@functools.cache
def is_of_a_model(filename: str) -> bool:
    """Whether a file may be a model's, be it of this package."""
    path = Path(filename).resolve()  # environments may lie behind links
    if path.is_relative_to(_PACKAGE) or path.is_relative_to(_TORCH):
        return False
    installed = _INSTALLED.intersection(path.parts)
    return "numpy" not in path.parts if installed else not path.is_relative_to(_STANDARD)
