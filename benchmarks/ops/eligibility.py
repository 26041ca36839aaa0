"""Time of eligibility traces and of sampled products against the same in torch's operations.

    python benchmarks/ops/eligibility.py [--n 3000] [--threads 1] [--json FILE]

A step is a synapse (of every sample).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch

from bdtorch import ops
from benchmarks.ops._compare import Case, main, random_csr


def cases(n: int) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    _, indices, indptr = random_csr(n, 0.05)
    rows, columns, n_synapses = torch.repeat_interleave(torch.arange(n), indptr.diff()), indices.long(), len(indices)
    decay = torch.tensor(0.95)
    for batch in ((), (8,)):
        e, x, psi = (torch.randn(*batch, size, generator=generator) for size in (n_synapses, n, n))
        label, steps = f"batch {batch}", n_synapses * (batch[0] if batch else 1)
        yield Case(
            f"eligibility_csr, {label}", lambda e=e, x=x, p=psi: ops.eligibility_csr(e, decay, x, p, indices, indptr),
            lambda e=e, x=x, p=psi: decay * e + x[..., rows] * p[..., columns], steps,
        )  # fmt: skip
        yield Case(
            f"eligibility_gradient, {label}", lambda e=e, p=psi: ops.eligibility_gradient(e, p, indices),
            lambda e=e, p=psi: (e * p[..., columns]).reshape(-1, n_synapses).sum(0), steps,
        )  # fmt: skip
    a, b = torch.randn(n, 16, generator=generator), torch.randn(16, n, generator=generator)
    yield Case("csr_sampled, 16 terms, against the whole product", lambda: ops.csr_sampled(a, b, indices, indptr),
               lambda: (a @ b)[rows, columns], n_synapses)  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 3000)
