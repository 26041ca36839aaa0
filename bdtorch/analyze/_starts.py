"""Where continuation begins: equilibria at some values of the parameter, and scales of the variables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._field import VectorField
from bdtorch.analyze._roots import newton
from bdtorch.analyze._trajectory import flow_many

SEARCHED = 64


def checked_bounds(label: str, bounds: Sequence[float]) -> tuple[float, float]:
    """A range, of any kind of numbers, or an error that names ``label``."""
    try:
        values = tuple(float(v) for v in bounds)
    except (TypeError, ValueError, RuntimeError):
        values = ()
    if len(values) != 2 or not all(map(math.isfinite, values)) or values[0] >= values[1]:
        raise ValueError(f"`{label}`: expected two finite numbers, the lower limit first, got {bounds!r}")
    return values[0], values[1]


def given_starts(field: VectorField, start: Any, label: str) -> Array:
    """The starts that a user gave, ``(many, n)``."""
    listed = [] if start is None else [start] if isinstance(start, Mapping) else list(start)
    rows = []
    for point in listed:
        if not isinstance(point, Mapping) or set(point) != set(field.names):
            raise ValueError(f"`{label}`: expected values of {list(field.names)}, got {point!r}")
        rows.append([float(point[name]) for name in field.names])
    if not np.isfinite(rows).all():
        raise ValueError(f"`{label}`: expected finite numbers, got {start!r}")
    return np.array(rows, dtype=float).reshape(-1, len(field.names))


def search(
    evaluator: Evaluator,
    starts: Array,
    window: Mapping[str, Sequence[float]] | None,
    values: Sequence[float],
    label: str,
) -> tuple[list[Array], Array]:
    """Equilibria ``(found, n)`` at each value of the parameter, and the scale of every variable, ``(n,)``.

    They are what Newton's method reaches from the starts, from where trajectories from there settle, and from points spread
    over the window, or else over the region that the trajectories visit.
    """
    from scipy.stats import qmc  # where it is used, for it is slow to import

    field = evaluator.field
    initial = field.initial()
    known = np.vstack([starts, initial[None]]) if initial is not None else starts
    box = _window(field, window, label)
    if not len(known) and box is None:
        raise ValueError(f"`{label}(start=...)`: a function has no initial state: give a start or a window")
    if not len(known):
        known = 0.5 * (box[0] + box[1])[None]  # type: ignore[index]
    size = box[1] - box[0] if box is not None else np.maximum(np.abs(known).max(0), 1.0)
    visited = known
    ends = []
    for value in values:
        runs = flow_many(
            evaluator,
            known,
            _settling(evaluator, known[0], value),
            size,
            parameters=np.array([value]),
            tolerance=1e-4,
            max_steps=500,
            rest=0.1,
        )
        ends.append(np.stack([states[-1] for _, states in runs]))
        visited = np.vstack([visited, *(states for _, states in runs)])
    middle, spread = _box(visited) if box is None else (0.5 * (box[0] + box[1]), box[1] - box[0])
    unit = qmc.Sobol(len(middle), seed=0).random(SEARCHED)
    points = middle + (unit - 0.5) * spread * (2.0 if box is None else 1.0)
    found = []
    for value, end in zip(values, ends, strict=True):
        found.append(newton(evaluator, np.vstack([known, end, points]), spread, np.array([value])))
    roots = np.vstack(found)
    return found, np.maximum(spread, np.ptp(roots, axis=0)) if len(roots) and box is None else spread


def _window(field: VectorField, window: Mapping[str, Sequence[float]] | None, label: str) -> tuple[Array, Array] | None:
    if window is None:
        return None
    if set(window) != set(field.names):
        raise ValueError(f"`{label}(window=...)`: expected ranges of {list(field.names)}, got those of {list(window)}")
    pairs = [checked_bounds(f"{label}(window={{{name!r}: ...}})", window[name]) for name in field.names]
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])


def _settling(evaluator: Evaluator, x: Array, value: float) -> float:
    """A time that lets all but the slowest motions settle."""
    jacobian = evaluator.slopes(np.append(x, value))[:, : evaluator.n]
    rates = np.abs(np.linalg.eigvals(jacobian)) if np.isfinite(jacobian).all() else np.zeros(1)
    fastest = rates.max()
    if not fastest > 0:
        return 100.0
    return 50.0 / float(max(rates[rates > 1e-3 * fastest].min(), 1e-300))


def _box(visited: Array) -> tuple[Array, Array]:
    visited = visited[np.isfinite(visited).all(1)]
    low, high = np.quantile(visited, 0.01, axis=0), np.quantile(visited, 0.99, axis=0)
    spread = np.maximum(high - low, 0.2 * np.maximum(np.abs(low), np.abs(high)))
    return 0.5 * (low + high), np.where(spread > 0, spread, 1.0)
