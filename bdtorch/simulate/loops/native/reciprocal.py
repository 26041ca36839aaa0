"""Division by a number that is known when the loop is printed, as a product and a fused sum: a fourth of a division's time."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch

from bdtorch.simulate.loops.native.graph import Node

_BITS = {torch.float32: 24, torch.float64: 53}
_ODD = 1 << 10
"""Odd factors below it: far below what exactness asks for, so that only quotients near the subnormal numbers see a difference."""

_LARGEST = 2.0**40


def known_divisor(node: Node) -> tuple[float, float, float] | None:
    """What an operation divides by, and the parts of its `reciprocal`, where it is a division that needs no more than those."""
    if node.op not in ("aten.div.Tensor", "aten.div.Scalar") or (divisor := _number(node.args[1], node.dtype)) is None:
        return None
    parts = reciprocal(divisor, node.dtype)
    return None if parts is None else (divisor, *parts)


def _number(value: Any, dtype: torch.dtype) -> float | None:
    """An operand that is a number, as one of a dtype."""
    if isinstance(value, Node):
        return _number(torch.tensor(value.args[0], dtype=value.dtype).item(), dtype) if value.op == "full" else None
    return float(torch.tensor(value, dtype=dtype).item())


def reciprocal(divisor: float, dtype: torch.dtype) -> tuple[float, float] | None:
    """``1 / divisor`` as the sum of two numbers of a dtype, where ``bdtorch::divided`` divides by it like a division.

    Args:
        divisor: A number of ``dtype``.
        dtype: float32 or float64.

    Returns:
        ``1 / divisor`` rounded towards zero, and the nearest to the rest. None where the divisor is a power of two, which
        compilers know about, or has a large odd factor, or is too large or small, or where the dtype is another.
    """
    bits = _BITS.get(dtype)
    if bits is None or not math.isfinite(divisor) or not 1 / _LARGEST <= abs(divisor) <= _LARGEST:
        return None
    factor = abs(Fraction(divisor).numerator)
    odd = factor // (factor & -factor)
    if not 1 < odd < _ODD:
        return None
    exact = 1 / Fraction(divisor)
    high = Fraction(int(exact * _scale(exact, bits))) / _scale(exact, bits)
    rest = exact - high
    return float(high), float(Fraction(round(rest * _scale(rest, bits))) / _scale(rest, bits))


def _scale(value: Fraction, bits: int) -> Fraction:
    """The power of two that makes a number one of so many bits before the point."""
    return Fraction(2) ** (bits - math.frexp(float(value))[1])
