"""Drawing sparse connectivity into the order of a CSR structure, at about 5 ns a synapse.

Numbers are those of `bdtorch.ops.uniform` in float64 under the key of the seed, so that a draw depends on its seed alone:
not on the device that it will be used on, the number of threads or the processor. It is made on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bdtorch.ops.random import make_key

_draw_bernoulli = torch.ops.bdtorch.draw_bernoulli.default
_draw_distinct = torch.ops.bdtorch.draw_distinct.default
_LIMIT = 2**31


def draw_bernoulli(
    seed: int, n_pre: int, n_post: int, p: float, *, self_offset: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draws each of ``n_pre * n_post`` pairs with probability p, by geometric gaps: time grows with the synapses.

    Source: Batagelj & Brandes (2005), doi:10.1103/PhysRevE.71.036113.

    Args:
        seed: Names the draw.
        n_pre: Number of rows, in [0, 2**31).
        n_post: Number of columns, in [0, 2**31).
        p: Probability, in [0, 1].
        self_offset: Row i does not get column ``i + self_offset``; None: it may have any.

    Returns:
        ``indices``, int32, ascending within each row, and ``indptr``, int64, ``(n_pre + 1,)``.

    Raises:
        ValueError: An argument is outside its range.
    """
    _expect_size("draw_bernoulli(n_pre=...)", n_pre)
    _expect_size("draw_bernoulli(n_post=...)", n_post)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"`draw_bernoulli(p=...)`: expected a probability in [0, 1], got {p!r}")
    barred = _offset("draw_bernoulli", self_offset, n_post)
    indices, indptr = _draw_bernoulli(make_key(seed), p, n_pre, n_post, barred)
    return indices, indptr


def draw_distinct(seed: int, rows: int, choices: int, number: int, *, self_offset: int | None = None) -> Tensor:
    """Draws ``number`` distinct integers of [0, choices) for each row, uniformly from all such subsets.

    Args:
        seed: Names the draw.
        rows: Number of rows, in [0, 2**31).
        choices: From how many, in [0, 2**31).
        number: How many.
        self_offset: Row i does not get ``i + self_offset``; None: it may have any.

    Returns:
        ``(rows, number)`` int32, ascending within each row.

    Raises:
        ValueError: An argument is outside its range, or there are not as many choices.
    """
    _expect_size("draw_distinct(rows=...)", rows)
    _expect_size("draw_distinct(choices=...)", choices)
    barred = _offset("draw_distinct", self_offset, choices)
    available = partners(rows, choices, barred)
    if not 0 <= number <= available:
        raise ValueError(f"`draw_distinct(number=...)`: expected a number in [0, {available}], got {number}")
    drawn: Tensor = _draw_distinct(make_key(seed), rows, choices, number, barred)
    return drawn


def partners(rows: int, choices: int, self_offset: int | None) -> int:
    """How many values there are for the row that has fewest."""
    return choices - int(self_offset is not None and self_offset < choices and self_offset + rows > 0)


def _expect_size(argument: str, n: int) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < _LIMIT:
        raise ValueError(f"`{argument}`: expected an integer in [0, 2**31), got {n!r}")


def _offset(op: str, self_offset: int | None, n: int) -> int:
    """The offset, or one that bars nothing."""
    if self_offset is None:
        return n
    if not -_LIMIT < self_offset < _LIMIT:
        raise ValueError(f"`{op}(self_offset=...)`: expected an integer in (-2**31, 2**31), got {self_offset!r}")
    return self_offset


@torch.library.register_fake(_draw_bernoulli)
def _(key: Tensor, p: float, n_pre: int, n_post: int, self_offset: int) -> tuple[Tensor, Tensor]:
    n = torch.library.get_ctx().new_dynamic_size()
    return key.new_empty((n,), dtype=torch.int32), key.new_empty((n_pre + 1,))


@torch.library.register_fake(_draw_distinct)
def _(key: Tensor, rows: int, choices: int, number: int, self_offset: int) -> Tensor:
    return key.new_empty((rows, number), dtype=torch.int32)
