"""Time of segment reductions, which are torch's gathers and scatters, against `torch.segment_reduce` on sorted segments.

    python benchmarks/ops/segments.py [--n 10000] [--threads 1] [--json FILE]

A step is a synapse; there are a hundred for each neuron. `torch.segment_reduce` must have them sorted, bdtorch need not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch

from bdtorch import ops
from benchmarks.ops._compare import Case, main


def cases(n: int) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, n, (100 * n,), generator=generator)
    values = torch.randn(len(index), generator=generator)
    order = torch.argsort(index, stable=True)
    ordered, lengths = values[order], torch.bincount(index, minlength=n)
    for name in ("sum", "mean", "max", "min"):
        yield Case(
            f"segment_{name}", lambda name=name: getattr(ops, f"segment_{name}")(values, index, n),
            lambda name=name: torch.segment_reduce(ordered, name, lengths=lengths), len(index),
        )  # fmt: skip

    def softmax() -> torch.Tensor:
        highest = torch.segment_reduce(ordered, "max", lengths=lengths).repeat_interleave(lengths)
        weight = torch.exp(ordered - highest)
        shares = weight / torch.segment_reduce(weight, "sum", lengths=lengths).repeat_interleave(lengths)
        return torch.empty_like(shares).index_copy(0, order, shares)

    yield Case("segment_softmax", lambda: ops.segment_softmax(values, index, n), softmax, len(index))
    x, pre = torch.randn(n, generator=generator), torch.randint(0, n, (100 * n,), generator=generator)
    yield Case("pre2post", lambda: ops.pre2post(x, pre, index, n),
               lambda: torch.zeros(n).scatter_add(0, index, x[pre]), len(index))  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 10_000)
