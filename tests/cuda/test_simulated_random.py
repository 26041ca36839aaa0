"""The CUDA path of the random ops, host code and kernels, executed on the CPU: its bits are those of the CPU ops."""

import itertools
from typing import Any

import pytest
import torch

from bdtorch.ops import make_key

CPU = torch.ops.bdtorch
DTYPES = [torch.float32, torch.float64]
BATCHES = [(), (1,), (3,), (2, 2), (0,)]
# Around a Philox block, and beyond one stride of the grid (6 blocks of 64 threads, 4 numbers each).
SIZES = [0, 1, 2, 3, 4, 5, 257, 1601]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["random_uniform", "random_normal", "random_exponential"])
def test_numbers_equal_those_of_the_cpu(simulated_ops: Any, op: str, dtype: torch.dtype) -> None:
    simulated_ops.set_schedule(7, 2, 0.1)
    for batch, n in itertools.product(BATCHES, SIZES):
        key, counter = make_key(5, batch), torch.tensor(2**33 + 1)
        launches = simulated_ops.launch_count()
        actual = getattr(simulated_ops, op)(key, counter, n, dtype)
        assert torch.equal(actual, getattr(CPU, op)(key, counter, n, dtype))
        assert simulated_ops.launch_count() == launches + (actual.numel() > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_events_equal_those_of_the_cpu(simulated_ops: Any, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for batch, n in itertools.product(BATCHES, SIZES):
        key, counter = make_key(5, batch), torch.arange(make_key(5, batch).numel()).reshape(batch)
        for p_shape in ((), (n,), (*batch, n)):
            p = torch.rand(p_shape, generator=generator, dtype=dtype)
            actual = simulated_ops.random_bernoulli(key, counter, p, n)
            assert torch.equal(actual, CPU.random_bernoulli(key, counter, p, n))


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_equal_those_of_the_cpu(simulated_ops: Any, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for batch, n in itertools.product(BATCHES, SIZES):
        key, counter = make_key(5, batch), torch.arange(make_key(5, batch).numel()).reshape(batch)
        for shape in ((), (n,), (*batch, n)):
            p = torch.rand(shape, generator=generator, dtype=dtype)
            actual = simulated_ops.random_poisson(key, counter, p * 30, n)
            assert torch.equal(actual, CPU.random_poisson(key, counter, p * 30, n))
            actual = simulated_ops.random_binomial(key, counter, 40, p, n)
            assert torch.equal(actual, CPU.random_binomial(key, counter, 40, p, n))


@pytest.mark.parametrize("seed", range(3))
def test_no_schedule_changes_the_result(simulated_ops: Any, seed: int) -> None:
    simulated_ops.set_schedule(seed, 1 + seed, 0.3)
    key = make_key(1, (2,))
    expected = CPU.random_normal(key, torch.tensor(3), 900, torch.float32)
    assert torch.equal(simulated_ops.random_normal(key, torch.tensor(3), 900, torch.float32), expected)
