"""The CUDA path of recursive least squares, executed on the CPU and held against the CPU op."""

from typing import Any

import pytest
import torch

from bdtorch.ops import rls_gain, rls_inverse, rls_memory

CPU = torch.ops.bdtorch


@pytest.mark.parametrize(("n", "block", "batch"), [(1, 1, ()), (5, 4, (3,)), (70, 3, (2,)), (260, 2, ())], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_taken_in_as_on_the_cpu(
    simulated_ops: Any, dtype: torch.dtype, n: int, block: int, batch: tuple[int, ...]
) -> None:
    simulated_ops.set_schedule(11, 2, 0.1)
    generator = torch.Generator().manual_seed(n)
    here = there = rls_memory(n, block, 2.0, batch, dtype=dtype)
    counts = torch.zeros(batch, dtype=torch.int64)
    tolerance = 100 * torch.finfo(dtype).eps
    for k in range(2 * block + 1 if n < 200 else 3):
        x = torch.randn(*batch, n, generator=generator).to(dtype)
        learn = torch.rand(batch, generator=generator) < 0.8 if k % 2 else None
        arguments = (counts, x, learn, block, 0.9)
        launches = simulated_ops.launch_count()
        here, there = CPU.rls_update(here, *arguments), simulated_ops.rls_update(there, *arguments)
        assert simulated_ops.launch_count() == launches + 3
        counts = (counts + (1 if learn is None else learn.long())) % block
        inverses = [rls_inverse(memory, counts, block=block, forgetting=0.9) for memory in (here, there)]
        gains = [rls_gain(memory, n, block) for memory in (here, there)]
        for want, found in (inverses, gains):
            assert (found - want).abs().max() <= tolerance * want.abs().max()


def test_a_memory_whose_count_is_out_of_range_stays(simulated_ops: Any) -> None:
    memory, x = rls_memory(5, 4, 1.0, (3,)), torch.ones(3, 5)
    after = simulated_ops.rls_update(memory, torch.tensor([-1, 0, 4]), x, None, 4, 1.0)
    assert torch.equal(after[[0, 2]], memory[[0, 2]])
    assert not torch.equal(after[1], memory[1])
