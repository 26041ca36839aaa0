"""Checks of drawing and ordering connectivity for `bdtorch.ops.selftest`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops._checks import Check, csr_of

_PRE, _POST = 300, 200


def _uniforms(seed: int, step: int, n: int) -> Tensor:
    return ops.uniform(ops.make_key(seed), torch.tensor(step), n, dtype=torch.float64)


def bernoulli_pairs(seed: int, total: int, p: float) -> Tensor:
    """Positions of the successes among trials, in torch's operations."""
    if p == 0.0:
        return torch.empty(0, dtype=torch.int64)
    if p == 1.0:
        return torch.arange(total)
    chunk = min(int(total * p + 6.0 * math.sqrt(total * p * (1.0 - p)) + 16), 1 << 22)
    last, step, parts = -1, 0, []
    while last < total:
        gaps = (torch.log1p(-_uniforms(seed, step, chunk)) / math.log1p(-p)).floor().clamp(max=float(total)).long() + 1
        parts.append(last + gaps.cumsum(0))
        last, step = int(parts[-1][-1]), step + 1
    pairs = torch.cat(parts)
    return pairs[pairs < total]


def distinct_rows(seed: int, rows: int, choices: int, number: int, self_offset: int) -> Tensor:
    """Drawing and rejecting, or ranking, in torch's operations."""
    barred = (torch.arange(rows) + self_offset)[:, None]
    if 2 * number > choices:
        keys = _uniforms(seed, 0, rows * choices).reshape(rows, choices)
        return keys.masked_fill(torch.arange(choices) == barred, 2.0).argsort(1)[:, :number].sort(1).values
    values = (_uniforms(seed, 0, rows * number) * choices).long().reshape(rows, number)
    for step in range(1, 1000):
        values = values.sort(1).values
        rejected = values == barred
        rejected[:, 1:] |= values[:, 1:] == values[:, :-1]
        if not rejected.any():
            return values
        values[rejected] = (_uniforms(seed, step, int(rejected.sum())) * choices).long()
    raise AssertionError("no end of rejections")


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat([part.long().reshape(-1) for part in parts])


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
    pairs = bernoulli_pairs(3, _PRE * _POST, p)
    pre, post = pairs // _POST, pairs % _POST
    if self_offset is not None:
        kept = post != pre + self_offset
        pre, post = pre[kept], post[kept]
    return _joined(post, _starts(pre, _PRE))


def _drawn_distinct(number: int) -> Tensor:
    return ops.draw_distinct(8, _PRE, _POST, number, self_offset=5)


def _rejected(number: int) -> Tensor:
    return distinct_rows(8, _PRE, _POST, number, 5).to(torch.int32)


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
