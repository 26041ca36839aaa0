"""The CUDA path of the event-driven CSR ops, host code and kernels, executed on the CPU and held against the CPU op."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

CPU = torch.ops.bdtorch


def random_csr(
    n_pre: int, n_post: int, density: float, indptr_dtype: torch.dtype = torch.int64
) -> tuple[Tensor, Tensor]:
    connected = torch.rand(n_pre, n_post, generator=torch.Generator().manual_seed(n_pre)) < density
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])
    return connected.nonzero()[:, 1].to(torch.int32), indptr.to(indptr_dtype)


def assert_ops_agree(
    simulated: Any, indices: Tensor, indptr: Tensor, n_post: int, dtype: torch.dtype, shared: bool, event: bool,
    batch: tuple[int, ...],
) -> None:  # fmt: skip
    """Compares all ops; values are multiples of 1/4, so sums are exact in any order."""
    generator = torch.Generator().manual_seed(1)

    def values(*shape: int) -> Tensor:
        return torch.randint(-8, 9, shape, generator=generator).to(dtype) / 4

    def spikes(n: int) -> Tensor:
        active = torch.rand(*batch, n, generator=generator) < 0.4
        return active if event else active * values(*batch, n)

    pre, post, g = spikes(len(indptr) - 1), spikes(n_post), values(*batch, n_post)
    weights = values() if shared else values(len(indices))
    launches = simulated.launch_count()
    for name, arguments in (
        ("event_csr", (pre, weights, indices, indptr, n_post)),
        ("event_csr_ordered", (pre, weights, indices, indptr, n_post)),
        ("event_csr_t", (post, weights, indices, indptr)),
        ("csr_outer", (pre, g, indices, indptr)),
    ):
        actual, expected = getattr(simulated, name)(*arguments), getattr(CPU, name)(*arguments)
        assert torch.equal(actual, expected), name
    if 0 not in (*batch, n_post, len(indptr) - 1, len(indices)):
        assert simulated.launch_count() == launches + 5


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "indptr_dtype", "shared", "event"),
    list(itertools.product([torch.float32, torch.float64], [torch.int32, torch.int64], [False, True], [False, True])),
)
def test_ops_agree_with_the_cpu(
    simulated_ops: Any, dtype: torch.dtype, indptr_dtype: torch.dtype, shared: bool, event: bool, batch: tuple[int, ...]
) -> None:
    simulated_ops.set_schedule(7, 2, 0.1)
    indices, indptr = random_csr(70, 45, 0.2, indptr_dtype)
    assert_ops_agree(simulated_ops, indices, indptr, 45, dtype, shared, event, batch)


# Around the sizes of a warp and a block, and beyond one stride of the grid (6 blocks of 64 threads).
@pytest.mark.parametrize("n_pre", [0, 1, 31, 32, 33, 63, 64, 65, 400])
@pytest.mark.parametrize("n_post", [0, 1, 33])
def test_sizes_at_the_edges(simulated_ops: Any, n_pre: int, n_post: int) -> None:
    simulated_ops.set_schedule(3, 3, 0.1)
    indices, indptr = random_csr(n_pre, n_post, 0.2)
    assert_ops_agree(simulated_ops, indices, indptr, n_post, torch.float32, False, True, ())


@pytest.mark.parametrize("batch", [(0,), (1,)], ids=str)
def test_batches_at_the_edges(simulated_ops: Any, batch: tuple[int, ...]) -> None:
    indices, indptr = random_csr(20, 10, 0.3)
    assert_ops_agree(simulated_ops, indices, indptr, 10, torch.float64, False, False, batch)


def test_long_rows_are_shared_by_several_warps(simulated_ops: Any) -> None:
    simulated_ops.set_schedule(5, 2, 0.1)
    indices, indptr = random_csr(9, 300, 0.9)
    assert_ops_agree(simulated_ops, indices, indptr, 300, torch.float32, False, True, ())


@pytest.mark.parametrize("seed", range(5))
def test_no_schedule_changes_the_result(simulated_ops: Any, seed: int) -> None:
    simulated_ops.set_schedule(seed, 1 + seed, 0.3)
    indices, indptr = random_csr(130, 20, 0.3)
    assert_ops_agree(simulated_ops, indices, indptr, 20, torch.float32, False, False, (2,))


@pytest.mark.parametrize("weights_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
def test_the_ordered_product_has_the_bits_of_the_cpu(
    simulated_ops: Any, batch: tuple[int, ...], weights_dtype: torch.dtype
) -> None:
    """Sums that round, so that their order shows, and parallel synapses."""
    generator = torch.Generator().manual_seed(2)
    dtype = torch.float64 if weights_dtype == torch.float64 else torch.float32
    indices, indptr = random_csr(150, 90, 0.5)
    indices = indices.repeat_interleave(2)
    weights = torch.randn(len(indices), generator=generator).to(weights_dtype)
    spikes = torch.randn(*batch, 150, generator=generator, dtype=dtype).relu()
    for seed in range(3):
        simulated_ops.set_schedule(seed, 1 + seed, 0.2)
        for s in (spikes, spikes > 0):
            arguments = (s, weights, indices, 2 * indptr, 90)
            assert torch.equal(simulated_ops.event_csr_ordered(*arguments), CPU.event_csr(*arguments))


def test_weights_in_bfloat16(simulated_ops: Any) -> None:
    indices, indptr = random_csr(70, 45, 0.2)
    weights = (torch.randint(-8, 9, (len(indices),)) / 4).bfloat16()  # sums are exact in any order
    pre, post = torch.rand(70) < 0.4, torch.rand(45).round()
    for w in (weights, weights[0]):
        scattered = simulated_ops.event_csr(pre, w, indices, indptr, 45)
        assert scattered.dtype == torch.float32
        assert torch.equal(scattered, CPU.event_csr(pre, w, indices, indptr, 45))
        gathered = simulated_ops.event_csr_t(post, w, indices, indptr)
        assert torch.equal(gathered, CPU.event_csr_t(post, w, indices, indptr))
