"""Which line of a model is being run."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch

_PACKAGE = Path(__file__).resolve().parent
_OPERATORS = _PACKAGE.parent / "ops"
_TORCH = Path(torch.__file__).resolve().parent
_STANDARD = Path(os.__file__).resolve().parent
_INSTALLED = {"site-packages", "dist-packages"}


class Site(NamedTuple):
    """A line of a file, which prints as "file:line: code"."""

    filename: str
    number: int

    def __str__(self) -> str:
        return line_of(self.filename, self.number) if self.number else "unknown line"


def site() -> Site:
    """The innermost line outside of the time loops, the doors of operators, torch, NumPy and Python's own library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_of_a_model(name):
            return Site(name, frame.f_lineno)
        frame = frame.f_back
    return Site("", 0)


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
    if any(path.is_relative_to(folder) for folder in (_PACKAGE, _OPERATORS, _TORCH)):
        return False
    installed = _INSTALLED.intersection(path.parts)
    return "numpy" not in path.parts if installed else not path.is_relative_to(_STANDARD)
