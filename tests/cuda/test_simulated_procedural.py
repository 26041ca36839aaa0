"""The CUDA path of the ops on procedural matrices, host code and kernels, executed on the CPU: it meets the same matrix."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch.ops import ProceduralMatrix

CPU = torch.ops.bdtorch


def assert_ops_agree(
    simulated: Any, matrix: ProceduralMatrix, dtype: torch.dtype, event: bool, batch: tuple[int, ...] = ()
) -> None:
    """Compares both products. Without draws values are multiples of 1/4, so sums are exact in any order."""
    generator = torch.Generator().manual_seed(1)

    def values(*shape: int) -> Tensor:
        return torch.randint(-8, 9, shape, generator=generator).to(dtype) / 4

    def spikes(n: int) -> Tensor:
        active = torch.rand(*batch, n, generator=generator) < 0.4
        return active if event else active * values(*batch, n)

    offset, scale = torch.tensor(0.75, dtype=dtype), None if matrix.draws == "none" else torch.tensor(0.5, dtype=dtype)
    launches = simulated.launch_count()
    for name, x in (("procedural_event", spikes(matrix.n_pre)), ("procedural_gather", spikes(matrix.n_post))):
        arguments = (x, offset, scale, *matrix.arguments)
        actual, expected = getattr(simulated, name)(*arguments), getattr(CPU, name)(*arguments)
        if scale is None:
            assert torch.equal(actual, expected), name
        else:
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    if 0 not in (*batch, matrix.n_pre, matrix.n_post):
        assert simulated.launch_count() == launches + 3
    x = spikes(matrix.n_pre)
    x = x if event else x * torch.rand(x.shape, generator=generator, dtype=dtype)  # sums that round, if with draws
    arguments = (x, offset, scale, *matrix.arguments)
    assert torch.equal(simulated.procedural_event_ordered(*arguments), CPU.procedural_event(*arguments))


def law(n_post: int, probability: bool) -> dict[str, Any]:
    return {"p": 0.3} if probability else {"number": min(n_post - 1, 1 + n_post // 3) if n_post > 1 else 0}


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("draws", ["none", "uniform", "normal"])
@pytest.mark.parametrize("probability", [True, False], ids=["p", "number"])
def test_products_agree_with_the_cpu(simulated_ops: Any, probability: bool, draws: str, batch: tuple[int, ...]) -> None:
    simulated_ops.set_schedule(7, 2, 0.1)
    for dtype, event in itertools.product([torch.float32, torch.float64], [False, True]):
        matrix = ProceduralMatrix(40, 45, 3, draws=draws, self_offset=5, **law(45, probability))
        assert_ops_agree(simulated_ops, matrix, dtype, event, batch)


@pytest.mark.parametrize("probability", [True, False], ids=["p", "number"])
@pytest.mark.parametrize("n_post", [0, 1, 33])
@pytest.mark.parametrize("n_pre", [0, 1, 31, 64, 65, 400])
def test_sizes_at_the_edges(simulated_ops: Any, n_pre: int, n_post: int, probability: bool) -> None:
    simulated_ops.set_schedule(3, 3, 0.1)
    assert_ops_agree(simulated_ops, ProceduralMatrix(n_pre, n_post, 4, **law(n_post, probability)), torch.float32, True)


@pytest.mark.parametrize("p", [0.0, 0.02, 1.0])
def test_rows_of_several_tiles(simulated_ops: Any, p: float) -> None:
    simulated_ops.set_schedule(5, 2, 0.1)
    n_post = 900 if p == 1.0 else 40_000
    assert_ops_agree(simulated_ops, ProceduralMatrix(5, n_post, 9, p=p, self_offset=7), torch.float32, True)


def test_long_rows_of_a_fixed_number(simulated_ops: Any) -> None:
    assert_ops_agree(simulated_ops, ProceduralMatrix(6, 1000, 9, number=700), torch.float32, False)


@pytest.mark.parametrize("batch", [(0,), (1,)], ids=str)
def test_batches_at_the_edges(simulated_ops: Any, batch: tuple[int, ...]) -> None:
    assert_ops_agree(simulated_ops, ProceduralMatrix(20, 10, 2, p=0.3), torch.float64, False, batch)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("probability", [True, False], ids=["p", "number"])
def test_no_schedule_changes_the_result(simulated_ops: Any, probability: bool, seed: int) -> None:
    simulated_ops.set_schedule(seed, 1 + seed, 0.3)
    assert_ops_agree(simulated_ops, ProceduralMatrix(130, 20, 5, **law(20, probability)), torch.float32, False, (2,))
