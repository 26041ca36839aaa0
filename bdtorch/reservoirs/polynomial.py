"""Monomials of features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def _choices(features: int, degree: int) -> list[tuple[int, ...]]:
    """Which features each monomial of one degree multiplies, in lexicographic order (in terms that Dynamo follows)."""
    rows: list[tuple[int, ...]] = [()]
    for _ in range(degree):
        rows = [(*row, feature) for row in rows for feature in range(row[-1] if row else 0, features)]
    return rows


def polynomial_count(features: int, degrees: Sequence[int]) -> int:
    """Number of monomials of ``features`` variables that have one of ``degrees``."""
    return sum(math.comb(features + degree - 1, degree) for degree in checked_degrees(degrees, "polynomial_count"))


def polynomial_features(x: Tensor, degrees: Sequence[int]) -> Tensor:
    """All monomials of the given degrees, ``x_i x_j ...`` with ``i <= j <= ...``.

    Args:
        x: Features, ``(*leading, features)``.
        degrees: Degrees in the order in which their monomials follow one another; 0 is the constant 1, 1 is ``x``.

    Returns:
        Tensor ``(*leading, polynomial_count(features, degrees))``.

    Raises:
        TypeError: ``x`` is no floating tensor.
        ValueError: ``x`` has no features, or ``degrees`` is empty, negative or has duplicates.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"`polynomial_features(x=...)`: expected a floating tensor, got {x!r}")
    if x.dim() < 1 or not x.shape[-1]:
        raise ValueError(f"`polynomial_features(x=...)`: expected features on the last axis, got {tuple(x.shape)}")
    parts = []
    for degree in checked_degrees(degrees, "polynomial_features"):
        if degree == 0:
            parts.append(torch.ones_like(x[..., :1]))
            continue
        chosen = torch.tensor(_choices(x.shape[-1], degree), device=x.device)
        product = x[..., chosen[:, 0]]
        for factor in range(1, degree):
            product = product * x[..., chosen[:, factor]]
        parts.append(product)
    return torch.cat(parts, -1)


def checked_degrees(degrees: Sequence[int], label: str) -> tuple[int, ...]:
    """``degrees`` as a tuple of distinct whole numbers, or an error that names ``label``."""
    chosen = tuple(degrees) if isinstance(degrees, Iterable) else ()
    whole = all(isinstance(degree, int) and not isinstance(degree, bool) and degree >= 0 for degree in chosen)
    if not chosen or not whole or len(set(chosen)) != len(chosen):
        raise ValueError(f"`{label}(degrees=...)`: expected distinct whole numbers of at least 0, got {degrees!r}")
    return chosen
