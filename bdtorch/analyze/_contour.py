"""Zero sets of a function of two variables: marching squares, each point then solved for on its edge of the grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bdtorch.analyze._roots import bisect

Array = np.ndarray
Scalar = Callable[[Array], Array]
"""A function of points ``(many, 2)``."""


def zero_curves(function: Scalar, x: Array, y: Array, values: Array) -> list[Array]:
    """The curves on which ``function`` vanishes, each ``(points, 2)`` in order; a closed one repeats its first point.

    Args:
        function: The function.
        x: Grid of the first variable, ``(nx,)``.
        y: Grid of the second, ``(ny,)``.
        values: ``function`` on the grid, ``(nx, ny)``. Zeros count as positive, so that a curve that runs along a line of
            the grid is one curve.
    """
    positive = values >= 0
    points, horizontal, vertical = _crossings(function, x, y, values, positive)
    links: dict[int, list[int]] = {}
    for i, j in zip(*_mixed(positive), strict=True):
        around = [
            horizontal[i, j],
            vertical[i + 1, j],
            horizontal[i, j + 1],
            vertical[i, j],
        ]  # below, right, above, left
        present = [k for k in around if k >= 0]
        if len(present) == 4:
            centre = function(np.array([[0.5 * (x[i] + x[i + 1]), 0.5 * (y[j] + y[j + 1])]]))[0] >= 0
            low, right, high, left = around
            pairs = [(low, right), (high, left)] if centre == positive[i, j] else [(low, left), (high, right)]
        else:
            pairs = [(present[0], present[1])] if len(present) == 2 else []
        for a, b in pairs:
            links.setdefault(a, []).append(b)
            links.setdefault(b, []).append(a)
    return [points[chain] for chain in _chains(links) if len(chain) > 1]


def _mixed(positive: Array) -> tuple[Array, Array]:
    """The cells whose corners differ."""
    corners = positive[:-1, :-1].astype(int) + positive[1:, :-1] + positive[:-1, 1:] + positive[1:, 1:]
    i, j = np.nonzero((corners > 0) & (corners < 4))
    return i, j


def _crossings(function: Scalar, x: Array, y: Array, values: Array, positive: Array) -> tuple[Array, Array, Array]:
    """The zeros on the edges of the grid; for each edge along ``x`` and along ``y`` the number of its zero, or -1."""
    hi, hj = np.nonzero(positive[1:] != positive[:-1])
    vi, vj = np.nonzero(positive[:, 1:] != positive[:, :-1])
    low = np.vstack([np.column_stack([x[hi], y[hj]]), np.column_stack([x[vi], y[vj]])])
    high = np.vstack([np.column_stack([x[hi + 1], y[hj]]), np.column_stack([x[vi], y[vj + 1]])])
    size = np.concatenate(
        [
            np.maximum(abs(values[hi, hj]), abs(values[hi + 1, hj])),
            np.maximum(abs(values[vi, vj]), abs(values[vi, vj + 1])),
        ]
    )
    points = bisect(function, low, high) if len(low) else low
    # A sign that changes through a pole or a jump is no zero.
    zero = np.abs(function(points)) <= np.maximum(1e-6 * size, 1e-300) if len(low) else np.zeros(0, dtype=bool)
    numbers = np.where(zero, np.arange(len(low)), -1)
    horizontal = np.full((len(x) - 1, len(y)), -1)
    vertical = np.full((len(x), len(y) - 1), -1)
    horizontal[hi, hj] = numbers[: len(hi)]
    vertical[vi, vj] = numbers[len(hi) :]
    return points, horizontal, vertical


def _chains(links: dict[int, list[int]]) -> list[list[int]]:
    """Walk along the links: open chains from their ends first, then closed ones."""
    chains, seen = [], set()
    for start in sorted(links, key=lambda node: len(links[node])):
        if start in seen:
            continue
        chain = [start]
        seen.add(start)
        while True:
            onward = [node for node in links[chain[-1]] if node not in seen]
            if not onward:
                break
            chain.append(onward[0])
            seen.add(onward[0])
        if len(chain) > 2 and len(links[start]) == 2 and start in links[chain[-1]]:
            chain.append(start)
        chains.append(chain)
    return chains
