"""Step-size control of stochastic methods: dyadic steps, which are rejected without changing the path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._loop import Progress, stacked

_DEPTH = 24  # halvings of the longest step, at most
_EASY = 0.25  # a step this far below the tolerance is doubled

Advance = Callable[[State, Tensor, int, int], State]
"""``advance(y, number, depth, level)``: a step of length ``dt / 2**level`` from ``number * dt / 2**depth``."""


@dataclass(frozen=True)
class Tolerance:
    """How exact a step has to be: see `bdtorch.integrate.sdeint`."""

    rtol: float
    atol: float

    def excess(self, y: State, one: State, two: State, batch: int) -> float:
        """The largest error among the batch elements, in units of what is tolerated; infinite where it is NaN."""
        squares: list[Tensor] = []
        for before, coarse, fine in zip(tree.leaves(y), tree.leaves(one), tree.leaves(two), strict=True):
            scale = self.atol + self.rtol * torch.maximum(before.abs(), fine.abs())
            squares.append(((fine - coarse) / scale).square().flatten(batch).reshape(*before.shape[:batch], -1))
        worst = float(torch.cat(squares, -1).mean(-1).amax().sqrt().detach())
        return worst if worst == worst else float("inf")


def solve_adaptively(
    advance: Advance,
    y0: State,
    counts: list[int],
    tolerance: Tolerance,
    start: float,
    dt: float,
    batch: int,
    progress: bool | None,
) -> tuple[State, int, int]:
    """Solve with steps ``dt / 2**level``, each beginning at a multiple of itself.

    Returns:
        The solution after ``counts`` times ``dt``, stacked; the number of steps accepted; the number rejected.
    """
    y, position, level, accepted, rejected = y0, 0, 0, 0, 0
    end, wanted = counts[-1] << _DEPTH, {count << _DEPTH for count in counts}
    kept = [y0]
    with Progress(end, progress, "sdeint") as bar:
        while position < end:
            half = 1 << (_DEPTH - level - 1)
            one = advance(y, _number(position, y), _DEPTH, level)
            middle = advance(y, _number(position, y), _DEPTH, level + 1)
            two = advance(middle, _number(position + half, y), _DEPTH, level + 1)
            excess = tolerance.excess(y, one, two, batch)
            if excess > 1.0:
                rejected, level = rejected + 1, level + 1
                if level == _DEPTH:
                    t = start + position * dt / 2**_DEPTH
                    raise FloatingPointError(
                        f"`sdeint(rtol={tolerance.rtol:g})`: no step from t = {t:g} meets the tolerance, not even one "
                        f"of {dt / 2**_DEPTH:g}; the solution may explode there"
                    )
                continue
            y, position, accepted = two, position + 2 * half, accepted + 1
            if position in wanted:
                kept.append(y)
            bar.update(position)
            if level and excess < _EASY and position % (4 * half) == 0:
                level -= 1
    return stacked(kept, y0), accepted, rejected


def _number(position: int, y: State) -> Tensor:
    return torch.full((), position, dtype=torch.int64, device=tree.leaves(y)[0].device)
