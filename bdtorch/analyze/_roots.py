"""Equilibria: Newton's method from many starts at once, and telling roots apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bdtorch.analyze._evaluate import Array, Evaluator


def solve_small(matrices: Array, sides: Array) -> Array:
    """Solve many small systems at once; singular ones in the least-squares sense."""
    try:
        return np.linalg.solve(matrices, sides[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.stack([np.linalg.lstsq(m, s, rcond=1e-12)[0] for m, s in zip(matrices, sides, strict=True)])


def newton(evaluator: Evaluator, starts: Array, extent: Array, parameters: Array | None = None) -> Array:
    """Roots of the field that Newton's method reaches from ``starts``, shape ``(found, n)``, each once.

    Args:
        evaluator: The field; its active parameters stand at ``parameters``.
        starts: ``(many, n)``.
        extent: What counts as a long way in each variable, ``(n,)``: no step goes further, and roots nearer than 1e-5 of
            it are one.
        parameters: ``(k,)``.
    """
    fixed = np.zeros(0) if parameters is None else np.asarray(parameters, dtype=float)
    n = evaluator.n
    x = np.array(starts, dtype=float)
    for _ in range(60):
        z = np.hstack([x, np.broadcast_to(fixed, (len(x), len(fixed)))])
        f, jacobian = evaluator.f(z), evaluator.jacobian(z)[:, :, :n]
        alive = np.isfinite(f).all(1) & np.isfinite(jacobian).all((1, 2))
        x, f, jacobian = x[alive], f[alive], jacobian[alive]
        if not len(x):
            return np.zeros((0, n))
        step = solve_small(jacobian, -f)
        length = np.abs(step / extent).max(1, keepdims=True)
        step = step / np.maximum(1.0, length / 0.5)
        x = x + step
        if (np.abs(step) <= 1e-13 * (extent + np.abs(x))).all():
            break
    return _settled(evaluator, x, extent, fixed)


def _settled(evaluator: Evaluator, x: Array, extent: Array, fixed: Array) -> Array:
    """Of the last iterates those that solve the equations, each once."""
    n = evaluator.n
    z = np.hstack([x, np.broadcast_to(fixed, (len(x), len(fixed)))])
    f, jacobian = evaluator.f(z), evaluator.jacobian(z)[:, :, :n]
    # What rounding of x alone would leave of f, and what a double root's slow convergence would.
    floor = 1e-9 * (np.abs(jacobian) * extent).sum(2)
    good = np.isfinite(f).all(1) & (np.abs(f) <= floor + 1e-300).all(1)
    return distinct(x[good], extent)


def distinct(x: Array, extent: Array, tolerance: float = 1e-5) -> Array:
    """Rows of ``x`` that differ by more than ``tolerance`` of ``extent``, in lexicographic order."""
    kept: list[Array] = []
    for row in x:
        if all(np.abs((row - other) / extent).max() > tolerance for other in kept):
            kept.append(row)
    kept.sort(key=lambda row: tuple(np.round(row / extent, 6)))
    return np.array(kept).reshape(-1, x.shape[1])


def bisect(function: Callable[[Array], Array], low: Array, high: Array, iterations: int = 60) -> Array:
    """Roots between ``low`` and ``high`` (``(many, n)``) of a vectorised function that changes its sign there."""
    below = function(low) >= 0
    for _ in range(iterations):
        middle = 0.5 * (low + high)
        same = (function(middle) >= 0) == below
        low = np.where(same[:, None], middle, low)
        high = np.where(same[:, None], high, middle)
    return 0.5 * (low + high)
