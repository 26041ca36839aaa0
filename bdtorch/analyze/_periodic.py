"""Chains of small linear equations with periodic ends, by structured orthogonal factorisation.

Neighbouring equations are joined pairwise, the variable between them eliminated by a QR factorisation, until one equation
between the first and the last variable remains. It is stable however fast solutions grow or decay along the chain, and
every level is one batch of small matrices.

Source: Wright (1992), doi:10.1137/0913028.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Reduced(NamedTuple):
    """The last equation ``first x_0 + last x_N = side w``, and all variables with ``x_N = x_0``."""

    first: Array
    last: Array
    side: Array
    points: Array
    """``x_j = points[j] (x_0, w)``, shape ``(N + 1, n, n + columns)``."""


class _Level(NamedTuple):
    middle: Array
    left: Array
    right: Array
    side: Array
    odd: bool


def reduce(first: Array, last: Array, side: Array) -> Reduced:
    """Eliminate the inner variables of ``first[j] x_j + last[j] x_{j+1} = side[j] w``, ``j < N``.

    Args:
        first: ``(N, n, n)``.
        last: ``(N, n, n)``.
        side: ``(N, n, columns)``.
    """
    n, levels = first.shape[1], []
    while len(first) > 1:
        pairs, odd = len(first) // 2, len(first) % 2 == 1
        even, uneven = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        zero = np.zeros((pairs, n, n))
        q = np.linalg.qr(np.concatenate([last[even], first[uneven]], axis=1), mode="complete")
        turn = q.Q.transpose(0, 2, 1)
        left = turn @ np.concatenate([first[even], zero], axis=1)
        right = turn @ np.concatenate([zero, last[uneven]], axis=1)
        both = turn @ np.concatenate([side[even], side[uneven]], axis=1)
        levels.append(_Level(q.R[:, :n], left[:, :n], right[:, :n], both[:, :n], odd))
        tail = slice(2 * pairs, None)
        first = np.concatenate([left[:, n:], first[tail]])
        last = np.concatenate([right[:, n:], last[tail]])
        side = np.concatenate([both[:, n:], side[tail]])
    columns = side.shape[2]
    ends = np.concatenate([np.eye(n), np.zeros((n, columns))], axis=1)
    points = np.stack([ends, ends])
    for level in reversed(levels):
        pairs = len(level.middle)
        rest = np.concatenate([np.zeros((pairs, n, n)), level.side], axis=2)
        rest = rest - level.left @ points[:pairs] - level.right @ points[1 : pairs + 1]
        fine = np.empty((2 * pairs + 1 + level.odd, n, n + columns))
        fine[0 : 2 * pairs + 1 : 2], fine[1 : 2 * pairs : 2] = points[: pairs + 1], np.linalg.solve(level.middle, rest)
        if level.odd:
            fine[-1] = points[-1]
        points = fine
    return Reduced(first[0], last[0], side[0], points)
