"""Checks of drawing and ordering connectivity for `bdtorch.ops.selftest`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops._checks import Check, csr_of

_PRE, _POST = 300, 200


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat([part.long().reshape(-1) for part in parts])


def _uniforms(seed: int, step: int, n: int) -> Tensor:
    return ops.uniform(ops.make_key(seed), torch.tensor(step), n, dtype=torch.float64)


def _sorted(pre: Tensor, post: Tensor) -> Tensor:
    return _joined(*ops.csr_sort(pre, post, _PRE, _POST))


def _argsorted(pre: Tensor, post: Tensor) -> Tensor:
    order = torch.argsort(pre * _POST + post, stable=True)
    return _joined(post[order], _starts(pre, _PRE), order)


def _transposed(indices: Tensor, indptr: Tensor) -> Tensor:
    return _joined(*ops.csr_transpose(indices, indptr, _POST))


def _turned_round(indices: Tensor, indptr: Tensor) -> Tensor:
    order = torch.argsort(indices, stable=True)
    rows = torch.repeat_interleave(torch.arange(_PRE), indptr.diff())
    return _joined(rows[order], _starts(indices.long(), _POST), order)


def _starts(index: Tensor, n: int) -> Tensor:
    return torch.cat([index.new_zeros(1), torch.bincount(index, minlength=n).cumsum(0)])


def _drawn_pairs(p: float, self_offset: int | None) -> Tensor:
    return _joined(*ops.draw_bernoulli(3, _PRE, _POST, p, self_offset=self_offset))


def _gaps(p: float, self_offset: int | None) -> Tensor:
    """The successes among all pairs, whose distances are geometric."""
    total = _PRE * _POST
    enough = int(total * p + 6.0 * math.sqrt(total * p * (1.0 - p)) + 16)  # as many gaps as are drawn at once
    gaps = (torch.log1p(-_uniforms(3, 0, enough)) / math.log1p(-p)).floor().long() + 1
    pairs = gaps.cumsum(0) - 1
    pairs = pairs[pairs < total]
    pre, post = pairs // _POST, pairs % _POST
    if self_offset is not None:
        kept = post != pre + self_offset
        pre, post = pre[kept], post[kept]
    return _joined(post, _starts(pre, _PRE))


def _drawn_distinct(number: int) -> Tensor:
    return ops.draw_distinct(8, _PRE, _POST, number, self_offset=5)


def _rejected(number: int) -> Tensor:
    """Integers drawn until those of each row differ from each other and from the one that it may not have."""
    barred = torch.arange(_PRE)[:, None] + 5
    values = (_uniforms(8, 0, _PRE * number) * _POST).long().reshape(_PRE, number)
    step = 0
    while True:
        values = values.sort(1).values
        again = values == barred
        again[:, 1:] |= values[:, 1:] == values[:, :-1]
        if not again.any():
            return values.to(torch.int32)
        step += 1
        values[again] = (_uniforms(8, step, int(again.sum())) * _POST).long()


def connectivity_checks() -> Iterator[Check]:
    """Sorts and transpositions, on every device; drawing, which is the CPU's, against the formulas in torch."""
    generator = torch.Generator().manual_seed(4)
    pre, post = (torch.randint(0, n, (5000,), generator=generator) for n in (_PRE, _POST))
    yield Check("csr_sort", _sorted, (pre, post), _argsorted)
    for density in (0.02, 0.7):
        yield Check("csr_transpose", _transposed, csr_of(_PRE, _POST, density, generator), _turned_round)
    for p, self_offset in ((0.03, None), (0.03, 0), (0.9, 2)):
        yield Check("draw_bernoulli", _drawn_pairs, (p, self_offset), _gaps)
    for number in (3, 40):
        yield Check("draw_distinct", _drawn_distinct, (number,), _rejected)
