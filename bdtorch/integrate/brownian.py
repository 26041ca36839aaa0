"""Brownian motion as a function of key and time, which can be looked at on ever finer grids."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch.ops import random

_LEVEL = 1 << 56  # counters of level l begin at l times this: room for 2^56 steps, and 127 halvings


class Increment(NamedTuple):
    r"""What a path does in an interval of length $h$; both parts are normal, and independent of one another.

    The iterated integral $\int_0^h (W_s - W_0)\,ds$ is $h\,(w / 2 + \text{area})$.
    """

    w: Tensor
    """$W_h - W_0$, of variance $h$; shape ``(*batch, width)``."""
    area: Tensor | None
    """Mean over the interval of what the path lies above its chord, of variance $h/12$; None where not asked for."""


@dataclass(frozen=True, eq=False)
class BrownianPath:
    r"""Independent Brownian motions, each a fixed function of its key: the same path however finely it is read.

    Over steps of length ``step`` the increments $w$ and areas $a$ are drawn outright. A step of length $h$ is halved by

    $$w_{1,2} = (w \pm d)/2, \quad a_{1,2} = (2 a - d/2 \pm e)/2, \quad
    d = 3 a + \tfrac12 \sqrt{h}\,\xi_1, \quad e = \sqrt{h/12}\,\xi_2$$

    with $\xi$ drawn for that very node of the tree of halvings, so the halves have the joint law that they must have
    and sum to the whole. Two runs with steps ``step / 2**i`` and ``step / 2**j`` thus see one path.
    A dtype has paths of its own: float32 numbers are not the rounded float64 ones, since they are drawn from fewer bits.

    Attributes:
        step: The coarsest step, in the unit of time; a solver's step is this one divided by a power of 2.
        seed: Integer, or the key itself: int64 of shape ``(*batch,)``, one stream for each batch element.
        batch_shape: Batch of the paths where ``seed`` is an integer; element b has the key ``fold(seed, b)``.
        start: Time at which the paths are 0.
        device: Where the key is made if ``seed`` is an integer.
        key: int64, ``(*batch,)``.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.

    Source: Gaines & Lyons (1997), doi:10.1137/S0036139995286515, for trees of halvings; Foster, Lyons & Oberhauser
        (2020), doi:10.1137/19M1261912, for the law of increment and area.
    """

    step: float
    seed: int | Tensor = 0
    batch_shape: tuple[int, ...] = ()
    start: float = 0.0
    device: torch.device | str | None = None
    key: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.step, bool) or not isinstance(self.step, (int, float)) or not 0 < self.step < math.inf:
            raise ValueError(f"`BrownianPath(step=...)`: expected a finite number above 0, got {self.step!r}")
        if isinstance(self.seed, Tensor):
            if self.seed.dtype != torch.int64:
                raise TypeError(f"`BrownianPath(seed=...)`: expected an integer or int64 keys, got {self.seed.dtype}")
            if self.batch_shape not in ((), tuple(self.seed.shape)):
                raise ValueError(
                    f"`BrownianPath(batch_shape=...)`: expected the shape of the keys, {tuple(self.seed.shape)}, "
                    f"got {self.batch_shape}"
                )
            key = self.seed
        else:
            key = random.make_key(self.seed, tuple(self.batch_shape), device=self.device)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "batch_shape", tuple(key.shape))

    def increment(
        self,
        number: Tensor,
        width: int,
        *,
        dtype: torch.dtype,
        depth: int = 0,
        level: int | None = None,
        area: bool = False,
    ) -> Increment:
        """What the paths do in one step.

        Args:
            number: 0-d int64: where the step begins, counted from ``start`` in units of ``step / 2**depth``.
            width: How many independent motions for each batch element.
            dtype: float32 or float64.
            depth: How often ``step`` has been halved to make the grid.
            level: The step's length is ``step / 2**level``, and ``number`` a multiple of ``2**(depth - level)``;
                default ``depth``.
            area: Whether the area is wanted as well.
        """
        level = depth if level is None else level
        w, a = self._draw(_floor(number, depth), width, dtype, both=area or level > 0)
        w = math.sqrt(self.step) * w
        if a is None:
            return Increment(w, None)
        a, length = math.sqrt(self.step / 12) * a, self.step
        for halving in range(1, level + 1):
            half = _floor(number, depth - halving)
            first, second = self._draw(_floor(half, 1) + halving * _LEVEL, width, dtype, both=True)
            assert second is not None
            sign = (1 - 2 * (half % 2)).to(dtype)
            difference = 3.0 * a + (0.5 * math.sqrt(length)) * first
            w = 0.5 * (w + sign * difference)
            a = a - 0.25 * difference + sign * (0.5 * math.sqrt(length / 12)) * second
            length *= 0.5
        return Increment(w, a if area else None)

    def motion(self, steps: int, width: int, *, dtype: torch.dtype = torch.float64, depth: int = 0) -> Tensor:
        """The paths themselves at the first ``steps`` ends of steps of length ``step / 2**depth``, and at ``start``.

        Returns:
            ``(steps + 1, *batch, width)``.
        """
        numbers = torch.arange(steps, device=self.key.device)
        paths = [self.increment(number, width, dtype=dtype, depth=depth).w for number in numbers.unbind()]
        zero = torch.zeros((1, *self.key.shape, width), dtype=dtype, device=self.key.device)
        return torch.cat([zero, torch.stack(paths).cumsum(0)]) if paths else zero

    def _draw(self, counter: Tensor, width: int, dtype: torch.dtype, both: bool) -> tuple[Tensor, Tensor | None]:
        counter = counter.expand(self.key.shape)
        numbers = random.normal(self.key, counter, 2 * width if both else width, dtype=dtype)
        return numbers[..., :width], numbers[..., width:] if both else None


def _floor(number: Tensor, halvings: int) -> Tensor:
    return torch.div(number, 1 << halvings, rounding_mode="floor") if halvings else number
