"""Time of drawing connectivity against the same laws in torch's operations, which draw the same numbers.

    python benchmarks/ops/draw.py [--n 10000] [--threads 1] [--json FILE]

A step is a synapse.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch
from torch import Tensor

from bdtorch import ops
from benchmarks.ops._compare import Case, main


def uniforms(step: int, n: int) -> Tensor:
    return ops.uniform(ops.make_key(0), torch.tensor(step), n, dtype=torch.float64)


def by_gaps(n: int, p: float) -> Tensor:
    """Targets of all rows; geometric gaps, part by part."""
    chunk = min(int(n * n * p + 6.0 * math.sqrt(n * n * p * (1.0 - p)) + 16), 1 << 22)
    last, parts = -1, []
    while last < n * n:
        gaps = (torch.log1p(-uniforms(len(parts), chunk)) / math.log1p(-p)).floor().clamp(max=float(n * n)).long() + 1
        pairs = last + gaps.cumsum(0)
        last = int(pairs[-1])
        parts.append((pairs[pairs < n * n] % n).to(torch.int32))
    return torch.cat(parts)


def by_rejection(n: int, number: int) -> Tensor:
    """Rows of distinct values: what a row has twice is drawn again."""
    values, step = (uniforms(0, n * number) * n).long().reshape(n, number), 1
    while True:
        values = values.sort(1).values
        rejected = torch.zeros_like(values, dtype=torch.bool)
        rejected[:, 1:] = values[:, 1:] == values[:, :-1]
        count = int(rejected.sum())
        if not count:
            return values.to(torch.int32)
        values[rejected] = (uniforms(step, count) * n).long()
        step += 1


def cases(n: int) -> Iterator[Case]:
    for mean in (n // 100, n // 10):
        p = mean / n
        yield Case(
            f"each pair with probability {p:g}",
            lambda p=p: ops.draw_bernoulli(0, n, n, p)[0],
            lambda p=p: by_gaps(n, p), n * mean,
        )  # fmt: skip
        yield Case(
            f"{mean} distinct values a row",
            lambda m=mean: ops.draw_distinct(0, n, n, m),
            lambda m=mean: by_rejection(n, m), n * mean,
        )  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 10_000)
