"""The CUDA path of the operators on stored weights, rings and traces, executed on the CPU and held against the CPU ops."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch.connect import CSR

CPU = torch.ops.bdtorch
INF = math.inf


def values(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Multiples of 1/4, of which sums are exact in any order."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype) / 4


def spikes(*shape: int, event: bool, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    active = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    return active if event else active * values(*shape, seed=seed + 1, dtype=dtype)


# Around the sizes of a warp and a block, and beyond one stride of the grid (6 blocks of 64 threads).
SIZES = [(0, 5), (5, 0), (1, 1), (31, 33), (64, 65), (65, 64), (200, 450), (450, 130)]
KINDS = list(itertools.product([torch.float32, torch.float64, torch.bfloat16], [False, True]))


def of_sums(stored: torch.dtype) -> torch.dtype:
    return torch.float32 if stored == torch.bfloat16 else stored


@pytest.mark.parametrize("batch", [(), (0,), (3,)], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_dense_products(simulated_ops: Any, dtype: torch.dtype, event: bool, shape: Any, batch: Any) -> None:
    simulated_ops.set_schedule(5, 3, 0.1)
    matrix = values(*shape, seed=1, dtype=dtype)
    launches = simulated_ops.launch_count()
    for name, n in (("event_dense", shape[0]), ("event_dense_t", shape[1])):
        s = spikes(*batch, n, event=event, seed=2, dtype=of_sums(dtype))
        for m in (matrix, *([values(*batch, *shape, seed=3, dtype=dtype)] if batch else [])):
            assert torch.equal(getattr(simulated_ops, name)(s, m), getattr(CPU, name)(s, m)), name
    if 0 not in (*batch, *shape):
        assert simulated_ops.launch_count() == launches + (4 if batch else 2)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_changes_of_dense_weights(simulated_ops: Any, dtype: torch.dtype, event: bool, shape: Any, batch: Any) -> None:
    simulated_ops.set_schedule(6, 2, 0.1)
    weights = torch.randn(*batch, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for columns, slope in itertools.product([False, True], [False, True]):
        n, terms = (shape[1], shape[0]) if columns else shape
        s = spikes(*batch, n, event=event, seed=2, dtype=of_sums(dtype))
        a = torch.randn(*batch, terms, dtype=of_sums(dtype))
        arguments = (weights, s, a, a.cos() if slope else None, -0.5, 0.75 if slope else INF, columns)
        before = weights.clone()
        actual, expected = simulated_ops.plasticity_dense(*arguments), CPU.plasticity_dense(*arguments)
        assert torch.equal(actual, expected)
        assert torch.equal(weights, before)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_changes_of_sparse_weights(simulated_ops: Any, dtype: torch.dtype, event: bool, shape: Any, batch: Any) -> None:
    simulated_ops.set_schedule(7, 2, 0.1)
    if 0 in shape:
        indices, indptr = torch.zeros(0, dtype=torch.int32), torch.zeros(shape[0] + 1, dtype=torch.int64)
        order = None
    else:
        matrix = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.2
        csr, _ = CSR.from_dense(matrix.float())
        csr, order = csr.transpose()  # the view with numbered synapses
        indices, indptr, order = csr.indices, csr.indptr, order.to(torch.int32)
    rows, terms = len(indptr) - 1, shape[1] if order is None else shape[0]
    weights = torch.randn(*batch, len(indices)).to(dtype)
    s = spikes(*batch, rows, event=event, seed=2, dtype=of_sums(dtype))
    a = torch.randn(*batch, terms, dtype=of_sums(dtype))
    for numbers, pointers, slope in itertools.product((None, order), (indptr, indptr.int()), (None, a.cos())):
        arguments = (weights, s, a, slope, indices, pointers, numbers, -0.5, 0.75)
        assert torch.equal(simulated_ops.plasticity_csr(*arguments), CPU.plasticity_csr(*arguments))


@pytest.mark.parametrize("batch", [(), (0,), (3,)], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_delays_and_traces(simulated_ops: Any, dtype: torch.dtype, event: bool, shape: Any, batch: Any) -> None:
    simulated_ops.set_schedule(8, 2, 0.1)
    exists = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.2
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), exists.sum(1).cumsum(0)])
    indices = exists.nonzero()[:, 1].to(torch.int32)
    delays = torch.randint(0, 4, indices.shape, generator=torch.Generator().manual_seed(5)).to(torch.int32)
    stored, dtype = dtype, of_sums(dtype)
    ring, cursor = values(*batch, 4, shape[1], seed=6, dtype=dtype), torch.full(batch, 3)
    s = spikes(*batch, shape[0], event=event, seed=2, dtype=dtype)
    x, psi = (values(*batch, n, seed=n, dtype=dtype) for n in shape)
    e = values(*batch, len(indices), seed=9, dtype=dtype)
    for pointers, weights in itertools.product(
        (indptr, indptr.int()), (values(seed=7, dtype=dtype), values(len(indices), seed=8, dtype=dtype))
    ):
        arguments = (ring, cursor, s, weights.to(stored), indices, pointers, delays)
        for name in ("event_csr_delayed", "event_csr_delayed_ordered"):
            launches = simulated_ops.launch_count()
            assert torch.equal(getattr(simulated_ops, name)(*arguments), CPU.event_csr_delayed(*arguments)), name
            assert simulated_ops.launch_count() == launches + (0 not in (*batch, *shape, len(indices)))
        arguments = (e, weights, x, psi, indices, pointers)
        assert torch.equal(simulated_ops.eligibility_csr(*arguments), CPU.eligibility_csr(*arguments))


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ordered_delays_have_the_bits_of_the_cpu(
    simulated_ops: Any, dtype: torch.dtype, batch: tuple[int, ...]
) -> None:
    """Sums that round, so that their order shows; synapses of one pair with different delays and with the same."""
    generator = torch.Generator().manual_seed(3)
    exists = torch.rand(120, 70, generator=generator) < 0.4
    indices = exists.nonzero()[:, 1].to(torch.int32).repeat_interleave(3)
    indptr = 3 * torch.cat([torch.zeros(1, dtype=torch.int64), exists.sum(1).cumsum(0)])
    weights = torch.randn(len(indices), generator=generator).to(dtype)
    delays = torch.randint(0, 4, indices.shape, generator=generator).to(torch.int32)
    ring = torch.randn(*batch, 4, 70, generator=generator, dtype=of_sums(dtype))
    pre = torch.randn(*batch, 120, generator=generator, dtype=of_sums(dtype)).relu()
    for seed in range(3):
        simulated_ops.set_schedule(seed, 1 + seed, 0.2)
        for s in (pre, pre > 0):
            arguments = (ring, torch.full(batch, 2), s, weights, indices, indptr, delays)
            got = simulated_ops.event_csr_delayed_ordered(*arguments)
            assert torch.equal(got, CPU.event_csr_delayed(*arguments))
