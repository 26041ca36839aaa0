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
    real, imaginary = values.real / scale, values.imag / scale
    zero = np.abs(values) / scale <= tolerance
    if len(matrix) == 1:
        # A single slope has nothing to be compared with but the unit of the equation.
        return "saddle-node" if abs(values[0]) <= tolerance * 1e-2 else ("stable" if real[0] < 0 else "unstable")
    if zero.any():
        return "saddle-node" if zero.sum() == 1 else "non-hyperbolic"
    if (np.abs(real) <= tolerance).any():
        return "centre" if (np.abs(real) <= tolerance).all() else "non-hyperbolic"
    up, rotating = real > 0, np.abs(imaginary) > tolerance
    if up.any() and not up.all():
        return "saddle-focus" if rotating.any() else "saddle"
    stability = "unstable" if up.all() else "stable"
    # Equal eigenvalues are known only to the square root of the rounding error.
    if len(matrix) == 2 and abs(values[0] - values[1]) / scale <= tolerance:
        off = matrix - 0.5 * np.trace(matrix) * np.eye(2)
        return f"{stability} {'star' if np.abs(off).max() <= tolerance * scale else 'degenerate node'}"
    leading = np.argmin(np.abs(real))
    return f"{stability} {'focus' if rotating[leading] else 'node'}"


def is_stable(jacobian: np.ndarray) -> bool:
    """Whether all eigenvalues have negative real parts."""
    return bool((np.linalg.eigvals(jacobian).real < 0).all())
