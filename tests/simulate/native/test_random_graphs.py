"""Random steps: whatever mixture of operations, views and exchanged states, all loops and numbers of threads agree.

A case is a little program over five state leaves: it draws operations over a growing pool of values, then new states
and outputs from the pool, among them old states, their views and constants. Many cases make one step, so that the
planner also fuses across them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.ops.event_csr import event_csr, event_csr_t
from bdtorch.simulate.loops.native import compiler
from tests.simulate.native.stepping import assert_same, flat, run

N, B = 150, 3  # more than two blocks of 64, in which threads share flat work
CASES, PER_STEP = 320, 20
Pool = dict[str, list[Tensor]]
"""Values by kind: float64 ``v`` (N,), ``m`` (B, N) and ``s`` (), int64 ``i`` (N,) in [0, N), bool ``b`` (N,)."""


def initial(generator: torch.Generator) -> list[Tensor]:
    v, w, m = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((N,), (N,), (B, N)))
    return [v, w, m, torch.randint(0, N, (N,), generator=generator), torch.rand(N, generator=generator) < 0.2]


KINDS = ("v", "v", "m", "i", "b")
INDPTR = torch.arange(N + 1, dtype=torch.int32) * 4
INDICES = torch.randint(0, N, (N, 4), generator=torch.Generator().manual_seed(5)).sort(1)[0].reshape(-1).to(torch.int32)
WEIGHTS = torch.linspace(-1.0, 1.0, 4 * N, dtype=torch.float64)
MATRIX = 0.1 * torch.randn(N, N, generator=torch.Generator().manual_seed(6), dtype=torch.float64)

Rule = tuple[str, str, Callable[..., Tensor]]
"""Kinds of the operands, kind of the result, and the operation."""

RULES: list[Rule] = [
    ("vv", "v", lambda x, y: x + y),
    ("vv", "v", lambda x, y: x * y - 0.5),
    ("vv", "v", lambda x, y: torch.maximum(x, -y)),
    ("v", "v", lambda x: torch.sin(3.0 * x)),
    ("v", "v", lambda x: x / 1.7),
    ("v", "v", lambda x: (x * 2.0).clamp_(-1.0, 1.0)),
    ("vs", "v", lambda x, k: x - k),
    ("bvv", "v", torch.where),
    ("bv", "v", lambda c, x: x.masked_fill(c, 0.25)),
    ("vi", "v", lambda x, i: x.gather(0, i)),
    ("vi", "v", lambda x, i: x.scatter(0, i, 0.5)),
    ("v", "v", lambda x: x.scatter(0, torch.arange(0, N, 3), x[1::3] * 2.0)),
    ("v", "v", lambda x: x.flip(0)),
    ("v", "v", lambda x: x.roll(7)),
    ("vv", "v", lambda x, y: torch.cat([x[50:], y[:50]])),
    ("v", "v", lambda x: x.view(10, 15).t().reshape(N)),
    ("v", "v", lambda x: x[::2].unsqueeze(1).expand(75, 2).reshape(N)),
    ("m", "v", lambda m: m[1]),
    ("m", "v", lambda m: m.sum(0)),
    ("m", "v", lambda m: m.amax(0)),
    ("b", "v", lambda c: event_csr(c, WEIGHTS, INDICES, INDPTR, N)),
    ("v", "v", lambda x: event_csr(torch.where(x > 0.5, x, 0.0), WEIGHTS[3], INDICES, INDPTR, N)),
    ("b", "v", lambda c: event_csr(c.flip(0), WEIGHTS, INDICES, INDPTR, N)),
    ("m", "m", lambda m: event_csr(m.flip(0) * 0.1, WEIGHTS, INDICES, INDPTR, N)),
    ("m", "v", lambda m: event_csr_t(m[1:].flip(1), WEIGHTS, INDICES, INDPTR)[0]),
    ("b", "v", lambda c: event_csr_t(c, WEIGHTS, INDICES, INDPTR)),
    ("v", "v", lambda x: MATRIX @ x),
    ("v", "v", lambda x: x @ MATRIX),
    ("", "v", lambda: torch.linspace(0.0, 1.0, N, dtype=torch.float64)),
    ("mv", "m", lambda m, x: m * 0.5 + x),
    ("mm", "m", lambda m, w: m - w.flip(1)),
    ("vv", "m", lambda x, y: torch.stack([x, y, x - y])),
    ("v", "m", lambda x: x.expand(B, N)),
    ("m", "m", lambda m: torch.cat([m[1:], m[:1]])),
    ("mm", "m", lambda m, w: torch.cat([m, w * 2.0], 1)[:, 70 : 70 + N]),
    ("m", "m", lambda m: (m @ MATRIX).tanh()),
    ("mb", "m", lambda m, c: torch.where(c, m, 0.0)),
    ("mb", "m", lambda m, c: event_csr(c & (m > 0.0), WEIGHTS, INDICES, INDPTR, N)),
    ("ms", "m", lambda m, k: m.t().contiguous().t() * k),
    ("i", "i", lambda i: (i * 7 + 3).remainder(N)),
    ("ib", "i", lambda i, c: torch.where(c, 5, i)),
    ("ii", "i", lambda i, j: j.index_select(0, i)),
    ("ii", "i", torch.minimum),
    ("vv", "b", lambda x, y: x > y),
    ("bb", "b", lambda c, d: c ^ d),
    ("bi", "b", lambda c, i: c[i]),
    ("mv", "b", lambda m, x: (m < x).any(0)),
    ("v", "s", lambda x: x.mean()),
    ("m", "s", lambda m: m.abs().amax().sqrt()),
    ("b", "s", lambda c: c.sum() / N),
    ("v", "s", lambda x: x.select(0, 3)),
    ("s", "s", lambda k: k * 0.5 + 0.1),
]


class Program:
    """One case. The same seed draws the same program."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, leaves: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        draw = random.Random(self.seed)
        pool: Pool = {kind: [x for x, k in zip(leaves, KINDS, strict=True) if k == kind] for kind in "vmib"}
        pool["s"] = [t * 0.01, torch.tensor(0.3, dtype=torch.float64)]
        for _ in range(draw.randint(2, 14)):
            operands, result, operation = draw.choice(RULES)
            pool[result].append(operation(*(draw.choice(pool[kind]) for kind in operands)))
        # Bounded, so that runs stay comparable; half of the states are handed on as they are.
        after = [draw.choice(pool[kind]) for kind in KINDS]
        after = [torch.tanh(x) if x.is_floating_point() and draw.random() < 0.5 else x for x in after]
        return after, [draw.choice(pool[draw.choice("vmibs")]) for _ in range(3)]


def step(programs: list[Program]) -> Callable[[list[Tensor], Tensor], tuple[list[Tensor], list[list[Tensor]]]]:
    def take(leaves: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        after, observed = [], []
        for number, program in enumerate(programs):
            new, seen = program(leaves[5 * number : 5 * number + 5], t)
            after += new
            observed.append(seen)
        return after, observed

    return take


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch):
    """The planner is on trial here, not the optimiser."""
    monkeypatch.setattr(compiler, "FLAGS", tuple("-O1" if flag == "-O3" else flag for flag in compiler.FLAGS))


@pytest.mark.parametrize("first", range(0, CASES, PER_STEP))
def test_loops_and_threads_agree(first):
    programs = [Program(seed) for seed in range(first, first + PER_STEP)]
    state = [leaf for seed in range(PER_STEP) for leaf in initial(torch.Generator().manual_seed(seed))]
    reference = flat(run(step(programs), *state, loop="reference", steps=5))
    single = flat(run(step(programs), *state, loop=bt.Native(threads=1), steps=5))
    for native, expected in zip(single, reference, strict=True):
        assert_same(native, expected, exact=False, units=1e6)
    for threads in (2, 3):
        several = flat(run(step(programs), *state, loop=bt.Native(threads=threads), steps=5))
        assert all(torch.equal(x, y) for x, y in zip(several, single, strict=True))
