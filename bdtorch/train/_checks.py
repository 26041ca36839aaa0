"""Numbers that constructors are given, checked at the door."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

from torch import Tensor


def above_zero(value: Any, label: str) -> float:
    """A finite number above 0, or an error that names ``label``."""
    return _number(value, label, "a finite number above 0", lambda x: 0.0 < x < math.inf)


def not_negative(value: Any, label: str) -> float:
    """A finite number of at least 0, or an error that names ``label``."""
    return _number(value, label, "a finite number of at least 0", lambda x: 0.0 <= x < math.inf)


def finite(value: Any, label: str) -> float:
    """A finite number, or an error that names ``label``."""
    return _number(value, label, "a finite number", math.isfinite)


def fraction(value: Any, label: str, *, zero: bool = True) -> float:
    """A number in [0, 1], or in (0, 1] where not even ``zero`` is one, or an error that names ``label``."""
    expected = f"a number in {'[' if zero else '('}0, 1]"
    return _number(value, label, expected, lambda x: (x >= 0.0 if zero else x > 0.0) and x <= 1.0)


def whole(value: Any, label: str, *, least: int = 1) -> int:
    """A whole number of at least ``least``, or an error that names ``label``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        expected = "a positive integer" if least == 1 else f"a whole number of at least {least}"
        raise ValueError(f"`{label}`: expected {expected}, got {value!r}")
    return value


def flag(value: Any, label: str) -> bool:
    """True or False, or an error that names ``label``."""
    if not isinstance(value, bool):
        raise ValueError(f"`{label}`: expected True or False, got {value!r}")
    return value


def _number(value: Any, label: str, expected: str, fits: Callable[[float], bool]) -> float:
    """``value`` as a float; numbers of NumPy are numbers, and so are tensors of one element and no axes."""
    known = isinstance(value, numbers.Real) or (
        isinstance(value, Tensor) and not value.dim() and not value.is_complex()
    )
    if not known or isinstance(value, bool) or not fits(float(value)):
        raise ValueError(f"`{label}`: expected {expected}, got {value!r}")
    return float(value)
