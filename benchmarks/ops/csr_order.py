"""Time of sorting and transposing synapses against torch's sorts.

    python benchmarks/ops/csr_order.py [--n 10000] [--threads 1] [--json FILE]

A step is a synapse.
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
    for mean in (n // 100, n // 10):
        indices, indptr = ops.draw_bernoulli(0, n, n, mean / n)
        pre = torch.repeat_interleave(torch.arange(n), indptr.diff())
        mixed = torch.randperm(len(pre), generator=torch.Generator().manual_seed(0))
        first, second = pre[mixed], indices[mixed].long()
        yield Case(
            f"sort, {mean} synapses a neuron",
            lambda a=first, b=second: ops.csr_sort(a, b, n, n)[2],
            lambda a=first, b=second: torch.argsort(a * n + b, stable=True), len(pre),
        )  # fmt: skip
        yield Case(
            f"transpose, {mean} synapses a neuron",
            lambda i=indices, p=indptr: ops.csr_transpose(i, p, n)[2],
            lambda i=indices: torch.argsort(i, stable=True).int(), len(pre),
        )  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 10_000)
