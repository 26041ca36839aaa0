"""Delayed products and eligibility traces, against plain torch: values, derivatives, transforms, compilation, errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from bdtorch import ops
from bdtorch.connect import CSR
from tests.ops.test_event_csr_derivatives import FORWARD_MODE, TRANSFORMS

SLOTS = 5


def structure(n_pre: int, n_post: int, density: float = 0.4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices, indptr, delays, and the source of every synapse; with parallel synapses where there is room."""
    exists = torch.rand(n_pre, n_post, generator=torch.Generator().manual_seed(1)) < density
    pre, post = exists.nonzero(as_tuple=True)
    pre, post = torch.cat([pre, pre[:3]]), torch.cat([post, post[:3]])
    csr = CSR.from_edges(pre, post, n_pre, n_post) if n_pre and n_post else None
    if csr is None:
        empty = torch.zeros(0, dtype=torch.int32)
        return empty, torch.zeros(n_pre + 1, dtype=torch.int64), empty, empty.long()
    delays = torch.randint(0, SLOTS, (csr.synapses,), generator=torch.Generator().manual_seed(2)).to(torch.int32)
    return csr.indices, csr.indptr, delays, csr.rows


def delayed(ring: Tensor, cursor: Tensor, spikes: Tensor, weights: Tensor, ends: tuple[Tensor, ...]) -> Tensor:
    """One synapse after the other."""
    indices, _, delays, rows = ends
    flat = ring.reshape(cursor.numel(), *ring.shape[-2:])
    samples = []
    for b, (c, s) in enumerate(zip(cursor.reshape(-1), spikes.reshape(cursor.numel(), spikes.shape[-1]), strict=True)):
        slot = torch.remainder(c + delays.long(), ring.shape[-2])
        amount = weights.expand(len(indices)) * s[rows].to(weights.dtype)
        samples.append(flat[b].index_put((slot, indices.long()), amount, accumulate=True))
    return torch.stack(samples).reshape(ring.shape)


def traces(e: Tensor, decay: Tensor, x: Tensor, psi: Tensor, ends: tuple[Tensor, ...]) -> Tensor:
    return decay * e + x[..., ends[3]] * psi[..., ends[0].long()]


def values(*shape: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


SHAPES = [(0, 4), (4, 0), (1, 1), (7, 5), (40, 1000), (1000, 7)]


@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "event", "shared"),
    [*itertools.product([torch.float32, torch.float64, torch.bfloat16, torch.float16], [True, False], [True, False])],
)
def test_delayed_products(shape: Any, batch: Any, dtype: torch.dtype, event: bool, shared: bool) -> None:
    n_pre, n_post = shape
    ends = structure(n_pre, n_post)
    stored, dtype = dtype, torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    ring = values(*batch, SLOTS, n_post, dtype=dtype)
    cursor = torch.randint(0, SLOTS, batch, generator=torch.Generator().manual_seed(4))
    spikes = (values(*batch, n_pre, seed=5, dtype=dtype) - 0.3).relu()
    spikes = spikes > 0 if event else spikes
    weights = values(seed=6, dtype=dtype) if shared else values(len(ends[0]), seed=6, dtype=dtype)
    weights = weights.to(stored)
    before = ring.clone()
    for indptr in (ends[1], ends[1].int()):
        got = ops.event_csr_delayed(ring, cursor, spikes, weights, ends[0], indptr, ends[2])
        want = delayed(ring, cursor, spikes, weights.to(dtype), ends) if 0 not in batch else ring
        torch.testing.assert_close(got, want, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-5)
        assert torch.equal(ring, before)
    for index in itertools.product(*map(range, batch)):
        one = ops.event_csr_delayed(ring[index], cursor[index], spikes[index], weights, *ends[:3])
        assert torch.equal(got[index], one)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "shared"), [*itertools.product([torch.float32, torch.float64], [True, False])])
def test_traces(shape: Any, batch: Any, dtype: torch.dtype, shared: bool) -> None:
    ends = structure(*shape)
    e, x, psi = (values(*batch, n, seed=n, dtype=dtype) for n in (len(ends[0]), *shape))
    decay = torch.rand(() if shared else (len(ends[0]),), dtype=dtype)
    before = e.clone()
    for indptr in (ends[1], ends[1].int()):
        got = ops.eligibility_csr(e, decay, x, psi, ends[0], indptr)
        torch.testing.assert_close(got, traces(e, decay, x, psi, ends))
        assert torch.equal(e, before)
    for index in itertools.product(*map(range, batch)):
        assert torch.equal(got[index], ops.eligibility_csr(e[index], decay, x[index], psi[index], *ends[:2]))


def test_threads_give_the_same_bits() -> None:
    n = 700
    ends = structure(n, n, 0.3)
    ring, spikes = values(SLOTS, n), values(n, seed=5).relu()
    weights, e = values(len(ends[0]), seed=6), values(len(ends[0]), seed=7)

    def everything() -> list[Tensor]:
        cursor, decay = torch.tensor(3), torch.tensor(0.5, dtype=torch.float64)
        return [
            ops.event_csr_delayed(ring, cursor, spikes, weights, *ends[:3]),
            ops.eligibility_csr(e, decay, spikes, ring[0], *ends[:2]),
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = everything()
        torch.set_num_threads(3)
        assert all(torch.equal(a, b) for a, b in zip(everything(), single, strict=True))
    finally:
        torch.set_num_threads(before)


def test_gradient_of_eprop_and_sampled_products() -> None:
    """The batch's sum with learning signals, against an outer product; values of a product at the entries."""
    ends = structure(7, 5)
    e, signal = values(3, 2, len(ends[0])), values(3, 2, 5, seed=4)
    want = (e * signal[..., ends[0].long()]).sum((0, 1))
    torch.testing.assert_close(ops.eligibility_gradient(e, signal, ends[0]), want)
    a, b = values(7, 11).requires_grad_(), values(11, 5, seed=4).requires_grad_()
    torch.testing.assert_close(ops.csr_sampled(a, b, *ends[:2]), (a @ b)[ends[3], ends[0].long()])
    assert torch.autograd.gradcheck(lambda a, b: ops.csr_sampled(a, b, *ends[:2]), (a, b), check_forward_ad=True)
    with pytest.raises(ValueError, match=r"`csr_sampled\(a=..., b=...\)`: expected shapes"):
        ops.csr_sampled(a, b.T, *ends[:2])
    with pytest.raises(ValueError, match=r"`eligibility_gradient\(e=..., signal=...\)`: expected shapes"):
        ops.eligibility_gradient(e, signal[0], ends[0])


class Pair(NamedTuple):
    """An op as a function of two of its tensors, and the same function in plain torch."""

    op: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    a: Tensor
    b: Tensor


def pairs(name: str) -> list[Pair]:
    ends = structure(4, 3)
    if name == "event_csr_delayed":
        ring, cursor, spikes, weights = values(SLOTS, 3), torch.tensor(3), values(4), values(len(ends[0]), seed=6)
        shared = values(seed=7)

        def op(ring: Tensor, s: Tensor, w: Tensor) -> Tensor:
            return ops.event_csr_delayed(ring, cursor, s, w, *ends[:3])

        def plain(ring: Tensor, s: Tensor, w: Tensor) -> Tensor:
            return delayed(ring, cursor, s, w, ends)

        return [
            Pair(lambda r, s: op(r, s, weights), lambda r, s: plain(r, s, weights), ring, spikes),
            Pair(lambda s, w: op(ring, s, w), lambda s, w: plain(ring, s, w), spikes, weights),
            Pair(lambda s, w: op(ring, s, w), lambda s, w: plain(ring, s, w), spikes, shared),
        ]
    e, x, psi, decay = values(len(ends[0])), values(4, seed=5), values(3, seed=6), torch.rand((), dtype=torch.float64)

    def op_e(e: Tensor, decay: Tensor, x: Tensor, psi: Tensor) -> Tensor:
        return ops.eligibility_csr(e, decay, x, psi, *ends[:2])

    return [
        Pair(lambda e, d: op_e(e, d, x, psi), lambda e, d: traces(e, d, x, psi, ends), e, decay),
        Pair(lambda e, d: op_e(e, d, x, psi), lambda e, d: traces(e, d, x, psi, ends), e, e.sigmoid()),
        Pair(lambda x, p: op_e(e, decay, x, p), lambda x, p: traces(e, decay, x, p, ends), x, psi),
    ]


NAMES = ["event_csr_delayed", "eligibility_csr"]


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    for pair in pairs(name):
        inputs = (pair.a.requires_grad_(), pair.b.requires_grad_())
        assert torch.autograd.gradcheck(pair.op, inputs, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(pair.op, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", NAMES)
def test_transforms(name: str, transform: str) -> None:
    apply = TRANSFORMS[transform]
    for pair in pairs(name):
        plain = pair.plain
        if name == "event_csr_delayed" and "vmap" in transform:
            continue  # its plain form unrolls samples; see below
        torch.testing.assert_close(apply(pair.op)(pair.a, pair.b), apply(plain)(pair.a, pair.b))


@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_a_loop_over_samples(name: str) -> None:
    for pair in pairs(name):
        a, b = (torch.stack([x, 2 * x, -x]) for x in (pair.a, pair.b))
        for dims in ((0, 0), (0, None), (None, 0)):
            arguments = [x if d == 0 else x[1] for x, d in zip((a, b), dims, strict=True)]
            got = torch.func.vmap(pair.op, dims)(*arguments)
            for k in range(3):
                single = [x[k] if d == 0 else x for x, d in zip(arguments, dims, strict=True)]
                torch.testing.assert_close(got[k], pair.op(*single))
            gradient = torch.func.vmap(torch.func.grad(lambda a, b, op=pair.op: op(a, b).pow(2).sum(), (0, 1)), dims)
            for k in range(3):
                single = [x[k] if d == 0 else x for x, d in zip(arguments, dims, strict=True)]
                want = torch.func.grad(lambda a, b, f=pair.plain: f(a, b).pow(2).sum(), (0, 1))(*single)
                for x, y in zip(gradient(*arguments), want, strict=True):
                    torch.testing.assert_close(x[k], y)


@pytest.mark.parametrize("transform", [x for x in TRANSFORMS if x not in FORWARD_MODE and "vmap" not in x])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_transforms(name: str, transform: str) -> None:
    torch._dynamo.reset()
    pair, apply = pairs(name)[1], TRANSFORMS[transform]
    compiled = torch.compile(apply(pair.op), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pair.a, pair.b), apply(pair.plain)(pair.a, pair.b))


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize("event", [True, False])
def test_opcheck(event: bool, batch: tuple[int, ...]) -> None:
    ends = structure(4, 3)
    spikes = values(*batch, 4) > 0 if event else values(*batch, 4).requires_grad_()
    ring, cursor, weights = values(*batch, SLOTS, 3), torch.zeros(batch, dtype=torch.int64), values(len(ends[0]))
    arguments = (ring.requires_grad_(), cursor, spikes, weights.requires_grad_(), *ends[:3])
    for overload in (torch.ops.bdtorch.event_csr_delayed, torch.ops.bdtorch.event_csr_delayed_ordered):
        torch.library.opcheck(overload.default, arguments)
    e, x, psi = (values(*batch, n).requires_grad_() for n in (len(ends[0]), 4, 3))
    decay = torch.rand((), dtype=torch.float64).requires_grad_()
    torch.library.opcheck(torch.ops.bdtorch.eligibility_csr.default, (e, decay, x, psi, *ends[:2]))


@pytest.mark.parametrize("name", NAMES)
def test_compiled_graphs_hold_the_raw_op(name: str) -> None:
    torch._dynamo.reset()
    pair, called = pairs(name)[1], []

    def record(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        called.extend(node.target._opname for node in graph.graph.nodes if hasattr(node.target, "_opname"))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(pair.op, fullgraph=True, backend=aot_autograd(fw_compiler=record))
    torch.testing.assert_close(compiled(pair.a, pair.b), pair.plain(pair.a, pair.b))
    assert called == [f"_{name}_raw"]


def test_cursors_and_delays_beyond_the_ring_stay_in_it() -> None:
    """Calls do not read their values: they are taken modulo the ring, whatever they are."""
    ends = structure(7, 5)
    ring, spikes, weights = values(SLOTS, 5), torch.ones(7, dtype=torch.bool), values(len(ends[0]))
    for cursor, shift in ((2**63 - 1, 0), (-(2**63), 0), (-3, 0), (2, 2**31 - SLOTS), (2, -(2**31))):
        delays = (ends[2].long() + shift).to(torch.int32)
        slot = torch.remainder(torch.remainder(torch.tensor(cursor), SLOTS) + delays.long(), SLOTS)
        want = ring.index_put((slot, ends[0].long()), weights, accumulate=True)
        got = ops.event_csr_delayed(ring, torch.tensor(cursor), spikes, weights, *ends[:2], delays)
        torch.testing.assert_close(got, want)


ENDS = structure(4, 3)
RING, CURSOR, SPIKES, WEIGHT = torch.zeros(2, 3), torch.tensor(0), torch.zeros(4), torch.ones(())
E = torch.zeros(len(ENDS[0]))
BAD = {
    "`event_csr_delayed(ring=...)`: expected torch.float32, got torch.float64": (
        TypeError, lambda: ops.event_csr_delayed(RING.double(), CURSOR, SPIKES, WEIGHT, *ENDS[:3])),
    "`event_csr_delayed(ring=...)`: expected shape ('n_slots', 'n_post'), got (3,)": (
        ValueError, lambda: ops.event_csr_delayed(RING[0], CURSOR, SPIKES, WEIGHT, *ENDS[:3])),
    "`event_csr_delayed(ring=...)`: expected shape ('n_slots', 'n_post'), got (0, 3)": (
        ValueError, lambda: ops.event_csr_delayed(RING[:0], CURSOR, SPIKES, WEIGHT, *ENDS[:3])),
    "`event_csr_delayed(cursor=...)`: expected int64 of shape (), got torch.int32": (
        ValueError, lambda: ops.event_csr_delayed(RING, CURSOR.int(), SPIKES, WEIGHT, *ENDS[:3])),
    "`event_csr_delayed(delays=...)`: expected int32 of shape": (
        ValueError, lambda: ops.event_csr_delayed(RING, CURSOR, SPIKES, WEIGHT, *ENDS[:2], ENDS[2].long())),
    "`event_csr_delayed(spikes=...)`: expected shape (*batch, 4), got (3,)": (
        ValueError, lambda: ops.event_csr_delayed(RING, CURSOR, SPIKES[1:], WEIGHT, *ENDS[:3])),
    "`check_delays(delays=...)`: expected values in [0, 3), got 4 at position 1": (
        ValueError, lambda: ops.check_delays(torch.tensor([0, 4], dtype=torch.int32), 3)),
    "`eligibility_csr(decay=...)`: expected torch.float32, got torch.float64": (
        TypeError, lambda: ops.eligibility_csr(E, WEIGHT.double(), SPIKES, RING[0], *ENDS[:2])),
    "`eligibility_csr(x=...)`: expected shape (*batch, 4), got (3,)": (
        ValueError, lambda: ops.eligibility_csr(E, WEIGHT, SPIKES[1:], RING[0], *ENDS[:2])),
    "`eligibility_csr(psi=...)`: expected the batch shape of e, (), got (2,)": (
        ValueError, lambda: ops.eligibility_csr(E, WEIGHT, SPIKES, RING, *ENDS[:2])),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message: str) -> None:
    kind, call = BAD[message]
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)
