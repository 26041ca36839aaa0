"""Time of products with a delay for every synapse against a scatter of all synapses in torch's operations.

    python benchmarks/ops/delay.py [--n 5000] [--threads 1] [--json FILE]

The operator is functional, so both sides copy the ring; a native loop writes into it. A step is a synaptic event.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch

from bdtorch import ops
from benchmarks.ops._compare import Case, main, random_csr

SLOTS = 20


def cases(n: int) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    weights, indices, indptr = random_csr(n, 0.02)
    rows = torch.repeat_interleave(torch.arange(n), indptr.diff())
    delays = torch.randint(0, SLOTS, indices.shape, generator=generator).int()
    ring, cursor = torch.zeros(SLOTS, n), torch.tensor(7)
    for active in (0.01, 0.1):
        spikes = torch.rand(n, generator=generator) < active
        place = torch.remainder(cursor + delays, SLOTS) * n + indices
        for name, w in (("float32", weights), ("one weight", weights[0])):

            def theirs(s: torch.Tensor = spikes, w: torch.Tensor = w, place: torch.Tensor = place) -> torch.Tensor:
                return ring.flatten().scatter_add(0, place, w * s[rows]).reshape(SLOTS, n)

            yield Case(
                f"{name}, {active:.0%} active",
                lambda s=spikes, w=w: ops.event_csr_delayed(ring, cursor, s, w, indices, indptr, delays),
                theirs, int(indptr.diff()[spikes].sum()),
            )  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 5000)
