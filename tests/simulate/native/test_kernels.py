"""The operators of this package within a native loop, for every shape and dtype that they take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bdtorch.connect import CSR, Dense
from bdtorch.ops import (
    binomial,
    eligibility_csr,
    event_csr_delayed,
    poisson,
    rls_gain,
    rls_memory,
    rls_update,
)
from bdtorch.ops import random as draws
from bdtorch.ops.event_csr import csr_outer, event_csr, event_csr_t
from bdtorch.ops.event_dense import event_dense, event_dense_t
from bdtorch.ops.procedural import ProceduralMatrix, procedural_event, procedural_gather
from bdtorch.simulate.loops.native import operations
from tests.simulate.native.stepping import assert_same, both, run

N_PRE, N_POST, B = 70, 130, 3
KERNELS = {name for name in operations.EXTERNAL if name.startswith("bdtorch.")}


def structure(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, indices and indptr, with empty rows and parallel synapses."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(0, 6, (N_PRE,), generator=generator)
    rows = [torch.randint(0, N_POST, (n,), generator=generator).sort()[0] for n in lengths.tolist()]
    indices = torch.cat(rows).to(torch.int32)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return torch.randn(len(indices), generator=generator, dtype=dtype), indices, indptr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_sparse_products(dtype, threads):
    weights, indices, indptr = structure(dtype)
    short = indptr.to(torch.int32)

    def step(x, t):
        pre, post, w = x
        batch = torch.stack([pre, -pre, pre * 0.0])
        spikes = batch > 0.3
        out = [
            event_csr(pre > 0.0, weights, indices, indptr, N_POST),
            event_csr(pre.relu(), weights[0], indices, short, N_POST),
            event_csr(spikes, w, indices, indptr, N_POST),
            event_csr(batch.relu(), w, indices, short, N_POST),
            event_csr(spikes.view(3, 1, N_PRE), weights, indices, indptr, N_POST),
            event_csr_t(post > 0.0, weights, indices, indptr),
            event_csr_t(post.expand(B, N_POST), w[0], indices, indptr),
            csr_outer(pre > 0.0, post, indices, indptr),
            csr_outer(batch, torch.stack([post, post.flip(0), post + 1.0]), indices, indptr),
        ]
        return [pre.roll(1), post.roll(-1), w * 0.9], out

    state = torch.randn(N_PRE, dtype=dtype), torch.randn(N_POST, dtype=dtype), weights
    for native, reference in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_random_numbers(dtype, threads):
    keys = draws.make_key(7, (B,))
    level = torch.linspace(0.0, 1.0, 150, dtype=dtype)

    def step(x, t):
        key, counter, many, p = x
        out = [
            draws.uniform(key, counter, 150, dtype=dtype),
            draws.normal(key, counter, 150, dtype=dtype),
            draws.normal(many, counter.expand(B), 33, dtype=dtype),
            draws.normal(many, counter, 33, dtype=dtype),  # one counter for all streams, and the reverse
            draws.exponential(key, counter, 150, dtype=dtype),
            draws.bernoulli(key, counter + many % 5, p, 150),
            poisson(key, counter, p * 30, 150),
            poisson(many, counter, p.mean(), 33),
            binomial(many, counter, 40, p.expand(B, 150) * 0.5, 150),
            binomial(key, counter, 7, p, 150),
            draws.bernoulli(key, counter, p.mean(), 150),
            draws.bernoulli(key, counter, p, 150),
            draws.bernoulli(many, counter.expand(B), p.expand(B, 150) * 0.5, 150),
            *(draws.uniform(key, counter << 33, n, dtype=dtype) for n in (8, 9, 127, 129, 643)),  # lots, cut and whole
            draws.bernoulli(key, counter, p.mean(), 643),
            draws.uniform(many.view(B, 1).expand(B, 2), (counter + many * 0).view(B, 1).expand(B, 2), 5, dtype=dtype),
        ]
        return [key, counter + 1, many, p.roll(3)], out

    state = (draws.make_key(3), torch.tensor(5), keys, level)
    for native, reference in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_procedural_products(dtype, threads):
    by_chance = ProceduralMatrix(N_PRE, N_POST, -5, p=0.2, draws="normal")
    by_number = ProceduralMatrix(N_PRE, N_POST, 9, number=7, self_offset=3)
    mean, std = torch.tensor(0.5, dtype=dtype), torch.tensor(0.1, dtype=dtype)

    def step(x, t):
        pre, post = x
        batch = torch.stack([pre, -pre, pre * 0.0])
        out = [
            procedural_event(pre > 0.0, mean, std, by_chance),
            procedural_event(batch.relu(), mean, std, by_chance),
            procedural_event(batch > 0.3, mean, None, by_number),
            procedural_gather(post, mean, std, by_chance),
            procedural_gather(post.expand(B, N_POST), mean, None, by_number),
        ]
        return [pre.roll(1), post.roll(-1)], out

    state = torch.randn(N_PRE, dtype=dtype), torch.randn(N_POST, dtype=dtype)
    for native, reference in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_dense_event_products(dtype, threads):
    def step(x, t):
        pre, post, m = x
        batch = torch.stack([pre, -pre, pre * 0.0])
        out = [
            event_dense(pre > 0.0, m),
            event_dense(batch.relu(), m),
            event_dense(batch > 0.3, torch.stack([m, -m, m + 1.0])),
            event_dense_t(post > 0.0, m),
            event_dense_t(post.relu().expand(B, N_POST), m),
            event_dense_t(pre > 0.0, m.T),  # laid out anew
        ]
        return [pre.roll(1), post.roll(-1), m * 0.9], out

    state = [torch.randn(n, dtype=dtype) for n in ((N_PRE,), (N_POST,), (N_PRE, N_POST))]
    for native, reference in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", ["sparse", "pre", "post"])
def test_changes_of_weights(dtype, threads, layout):
    if layout == "sparse":
        weights, indices, indptr = structure(dtype)
        connect = CSR(indices, indptr, N_POST)
        connect.index_targets()
    else:
        connect = Dense(N_PRE, N_POST, order=layout)
        weights = torch.randn(connect.weight_shape, dtype=dtype)

    def step(x, t):
        pre, post, w, batch, kept = x
        spikes, factors = pre > 0.5, pre.relu()
        y = connect(spikes, w)
        after = connect.on_pre(w, spikes, post, low=-1.0, high=1.0)
        after = connect.on_post(after, post.relu(), pre, -pre, high=0.8)
        among = connect.on_pre(batch, spikes.expand(B, N_PRE), post.expand(B, N_POST), low=-0.5)
        among = connect.on_post(among, post.expand(B, N_POST) > 0.5, torch.stack([pre, -pre, factors]))
        once = connect.on_pre(kept, factors, post)  # `kept` is still needed, and never changes
        twice = connect.on_pre(once, factors, post)
        return [pre.roll(1), post.roll(-1), after, among, kept], [y, once, twice, kept * 2.0]

    start = (torch.randn(N_PRE, dtype=dtype), torch.randn(N_POST, dtype=dtype), weights)
    state = (*start, torch.stack([weights, -weights, weights * 0.5]), weights * 2.0)
    for got, want in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(got, want, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_delays_and_traces(dtype, threads):
    weights, indices, indptr = structure(dtype)
    delays = torch.arange(len(indices), dtype=torch.int32) % 7

    def step(x, t):
        pre, post, ring, rings, cursor, e, many, kept = x
        ends = (indices, indptr)
        spikes, factors = pre > 0.5, torch.stack([pre, -pre, pre * 0.0]).relu()
        after = event_csr_delayed(ring, cursor, spikes, weights, *ends, delays)
        later = event_csr_delayed(rings, cursor + torch.arange(B), factors, weights[0], *ends, delays)
        traces = eligibility_csr(e, weights.abs().clamp(max=0.9), pre, post, *ends)
        among = eligibility_csr(many, post[0].abs().clamp(max=0.9), factors, post.expand(B, N_POST), *ends)
        apart = event_csr_delayed(kept, cursor, spikes, weights, *ends, delays)  # `kept` never changes
        moved = [pre.roll(1), post.roll(-1), after, later, (cursor + 1) % 3, traces, among, kept]
        return moved, [after.sum(0) * 0.0, apart, kept * 2.0]

    ring = torch.randn(7, N_POST, dtype=dtype)
    e = torch.randn(len(indices), dtype=dtype)
    start = (torch.randn(N_PRE, dtype=dtype), torch.randn(N_POST, dtype=dtype), ring, torch.stack([ring, -ring, ring]))
    state = (*start, torch.tensor(2), e, torch.stack([e, -e, e]), ring.clone())
    for got, want in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(got, want, exact=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_recursive_least_squares(dtype, threads):
    n, block = 19, 3

    def step(x, t):
        sample, one, count, many, kept = x
        learn = torch.stack([sample[0] > 0.0, sample[1] > 0.0, sample[2] > 0.0])
        counts = torch.stack([count, (count + 1) % block, count * 0])
        samples = torch.stack([sample, -sample, sample * sample])
        after = rls_update(one, count, sample, block=block, forgetting=0.95)
        among = rls_update(many, counts, samples, block=block, learn=learn)
        apart = rls_update(kept, count, sample, block=block)  # `kept` never changes
        moved = [sample.roll(1), after, torch.remainder(count + 1, block), among, kept]
        return moved, [rls_gain(after, n, block), rls_gain(among, n, block), apart * 1.0]

    one = rls_memory(n, block, 0.5, dtype=dtype)
    state = (torch.randn(n, dtype=dtype), one, torch.tensor(0), torch.stack([one, 2 * one, one]), one.clone())
    for got, want in zip(*both(step, *state, threads=threads), strict=True):
        assert_same(got, want, exact=False)


def test_a_count_out_of_range_is_an_error():
    def step(x, t):
        return [rls_update(x[0], x[1], x[2], block=2), x[1] + 1, x[2]], x[2]

    with pytest.raises(IndexError, match=r"out of range in step 3: bdtorch\._rls_update_raw"):
        run(step, rls_memory(3, 2, 1.0), torch.tensor(0), torch.ones(3), loop="native", steps=4)


def test_every_kernel_is_exercised():
    assert {name.removeprefix("bdtorch.").removesuffix(".default") for name in KERNELS} == {
        "_csr_outer_raw", "_event_csr_raw", "_event_csr_t_raw", "random_bernoulli", "random_normal",
        "random_uniform", "random_exponential", "random_poisson", "random_binomial",
        "_procedural_event_raw", "_procedural_gather_raw",
        "_event_dense_raw", "_event_dense_t_raw",
        "_plasticity_csr_raw", "_plasticity_dense_raw", "_event_csr_delayed_raw", "_eligibility_csr_raw",
        "_rls_update_raw", "divisor",
    }  # fmt: skip
