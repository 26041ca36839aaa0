"""Time of a sample of recursive least squares against the same in torch's operations.

    python benchmarks/ops/rls.py [--n 1000] [--threads 1] [--json FILE]

Called from Python, the operator returns a new memory, whose copy is most of the time of large ones; the native loop
updates it in place (`benchmarks/force.py` measures that). A step is an element of the inverse correlation matrix.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch
from torch import Tensor

from bdtorch import ops
from benchmarks.ops._compare import Case, main

BLOCK = 32


def updated(inverse: Tensor, x: Tensor) -> Tensor:
    """The gain, once P is what the formula makes of it."""
    seen = inverse @ x
    gain = seen / (1.0 + x @ seen)
    torch.addr(inverse, gain, seen, alpha=-1.0)
    return gain


def cases(n: int) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for size in (n // 10, n):
        for dtype in (torch.float32, torch.float64):
            memory, count = ops.rls_memory(size, BLOCK, 1.0, dtype=dtype), torch.zeros((), dtype=torch.int64)
            for _ in range(BLOCK // 2):  # as many in wait as there are on average
                x = torch.randn(size, generator=generator, dtype=dtype)
                memory, count = ops.rls_update(memory, count, x, block=BLOCK), count + 1
            inverse, x = (
                ops.rls_inverse(memory, count, block=BLOCK),
                torch.randn(size, generator=generator, dtype=dtype),
            )
            yield Case(
                f"rls_update, {size} features, {str(dtype).removeprefix('torch.')}",
                lambda m=memory, c=count, x=x, n=size: ops.rls_gain(ops.rls_update(m, c, x, block=BLOCK), n, BLOCK),
                lambda p=inverse, x=x: updated(p, x), size * size,
            )  # fmt: skip


if __name__ == "__main__":
    main(str(__doc__), cases, 1000)
