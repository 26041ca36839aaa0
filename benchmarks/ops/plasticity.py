"""Time of event-driven changes of weights against the same formula over all weights in torch's operations.

    python benchmarks/ops/plasticity.py [--n 3000] [--threads 1] [--json FILE]

The operators are functional, so both sides write all weights; a native loop changes them in place. A step is a weight of
an active neuron.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch

from bdtorch import ops
from benchmarks.ops._compare import Case, main, random_csr

LOW, HIGH = 0.0, 1.0


def cases(n: int) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    dense, a = torch.rand(n, n, generator=generator), torch.randn(n, generator=generator) * 0.01
    spikes = torch.rand(n, generator=generator) < 0.01
    s = spikes.float()
    events = int(spikes.sum()) * n
    yield Case(
        "dense, rows", lambda: ops.plasticity_dense(dense, spikes, a, low=LOW, high=HIGH),
        lambda: (dense + s[:, None] * a).clamp(LOW, HIGH), events,
    )  # fmt: skip
    yield Case(
        "dense, columns", lambda: ops.plasticity_dense(dense, spikes, a, low=LOW, high=HIGH, columns=True),
        lambda: (dense + a[:, None] * s).clamp(LOW, HIGH), events,
    )  # fmt: skip
    weights, indices, indptr = random_csr(n, 0.1)
    weights = weights.sigmoid()
    rows = torch.repeat_interleave(torch.arange(n), indptr.diff())
    columns, order = indices.long(), torch.argsort(indices, stable=True)
    counts = torch.bincount(columns, minlength=n)
    view = (rows[order].int(), torch.cat([counts.new_zeros(1), counts.cumsum(0)]), order.int())
    yield Case(
        "sparse, by sources", lambda: ops.plasticity_csr(weights, spikes, a, None, indices, indptr, low=LOW, high=HIGH),
        lambda: (weights + s[rows] * a[columns]).clamp(LOW, HIGH), int(indptr.diff()[spikes].sum()),
    )  # fmt: skip
    yield Case(
        "sparse, by targets", lambda: ops.plasticity_csr(weights, spikes, a, None, *view, low=LOW, high=HIGH),
        lambda: (weights + s[columns] * a[rows]).clamp(LOW, HIGH), int(counts[spikes].sum()),
    )  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 3000)
