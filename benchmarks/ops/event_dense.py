"""Time of dense products with spikes against torch's product with the same spikes as numbers.

    python benchmarks/ops/event_dense.py [--n 2000] [--threads 1] [--json FILE]

A step is an element of an active row, or column.
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
    matrix = torch.randn(n, n, generator=generator)
    half = matrix.bfloat16()
    for active in (0.01, 0.1, 1.0):
        spikes = torch.rand(n, generator=generator) < active
        values, events = spikes.float(), int(spikes.sum()) * n
        label = f"{active:.0%} active"
        yield Case(f"rows, {label}", lambda s=spikes: ops.event_dense(s, matrix), lambda v=values: v @ matrix, events)
        yield Case(
            f"columns, {label}", lambda s=spikes: ops.event_dense_t(s, matrix), lambda v=values: matrix @ v, events
        )
        wide = half.float()
        yield Case(
            f"rows, bfloat16, {label}",
            lambda s=spikes: ops.event_dense(s, half),
            lambda v=values, m=wide: v @ m,
            events,
        )


if __name__ == "__main__":
    main(str(__doc__), cases, 2000)
