"""Types of equilibria, from the eigenvalues of the Jacobian."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def equilibrium_type(jacobian: Tensor | np.ndarray, *, tolerance: float = 1e-6) -> str:
    """The type of an equilibrium with this Jacobian.

    One variable: ``"stable"``, ``"unstable"``, ``"saddle-node"`` (slope zero). More: ``"stable node"``, ``"unstable node"``,
    ``"stable focus"``, ``"unstable focus"``, ``"saddle"``, ``"saddle-focus"`` (a saddle with complex eigenvalues, from three
    variables on), ``"centre"`` (the linearisation's; the equation itself may spiral), ``"stable star"`` and ``"unstable
    star"`` (equal eigenvalues, every direction an eigenvector), ``"stable degenerate node"`` and ``"unstable degenerate
    node"`` (equal eigenvalues, one eigenvector; these four for two variables), ``"saddle-node"`` (one eigenvalue zero),
    ``"non-hyperbolic"`` (several zero eigenvalues).

    Args:
        jacobian: ``(n, n)``.
        tolerance: What counts as zero, relative to the largest eigenvalue, or a tenth of the largest entry.

    Raises:
        ValueError: ``jacobian`` is not square or not finite.
    """
    given = jacobian.detach().cpu().numpy() if isinstance(jacobian, Tensor) else jacobian
    matrix = np.array(given, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"`equilibrium_type(jacobian=...)`: expected a square matrix, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("`equilibrium_type(jacobian=...)`: expected finite numbers")
    values = np.linalg.eigvals(matrix)
    scale = max(float(np.abs(values).max()), 0.1 * float(np.abs(matrix).max()), 1e-300)
    # A single slope has nothing to be compared with but the unit of the equation.
    off = 1e-2 * tolerance if len(matrix) == 1 else tolerance * scale
    return _named(matrix, values, np.full(len(values), off), tolerance)


def located_type(jacobian: np.ndarray, beside: np.ndarray) -> str:
    """The type of an equilibrium that was solved for: an eigenvalue is zero where its sign depends on the root's last digits.

    Args:
        jacobian: ``(n, n)``, in units in which variables and times are of the size of one.
        beside: The same where the root might be as well, ``(many, n, n)``.
    """
    values = np.linalg.eigvals(jacobian)
    off = np.full(len(values), 1e-12 * float(np.abs(values).max()))
    for other in np.linalg.eigvals(beside):
        off = np.maximum(off, _changes(values, other))
    return _named(jacobian, values, off, 1e-6)


def _changes(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By how much each of a few eigenvalues moves, paired so that they move least."""
    from scipy.optimize import linear_sum_assignment  # where it is used, for it is slow to import

    gaps = np.abs(values[:, None] - other)
    return gaps[linear_sum_assignment(gaps)]


def _named(matrix: np.ndarray, values: np.ndarray, off: np.ndarray, tolerance: float) -> str:
    """The type, where eigenvalues may be off by ``off``, and are equal where they differ by ``tolerance`` of the largest."""
    zero, level = np.abs(values) <= off, np.abs(values.real) <= off
    if len(matrix) == 1:
        return "saddle-node" if zero[0] else ("stable" if values[0].real < 0 else "unstable")
    if zero.any():
        return "saddle-node" if zero.sum() == 1 else "non-hyperbolic"
    scale = max(float(np.abs(values).max()), 0.1 * float(np.abs(matrix).max()))
    if level.any():
        return "centre" if level.all() else "non-hyperbolic"
    up, rotating = values.real > 0, np.abs(values.imag) > tolerance * scale
    if up.any() and not up.all():
        return "saddle-focus" if rotating.any() else "saddle"
    stability = "unstable" if up.all() else "stable"
    # Equal eigenvalues are known only to the square root of the rounding error.
    if len(matrix) == 2 and abs(values[0] - values[1]) <= tolerance * scale:
        apart = matrix - 0.5 * np.trace(matrix) * np.eye(2)
        return f"{stability} {'star' if np.abs(apart).max() <= tolerance * scale else 'degenerate node'}"
    leading = np.argmin(np.abs(values.real))
    return f"{stability} {'focus' if rotating[leading] else 'node'}"


def is_stable(jacobian: np.ndarray) -> bool:
    """Whether all eigenvalues have negative real parts."""
    return bool((np.linalg.eigvals(jacobian).real < 0).all())
