"""What gradients through time cost grows as the number of steps does, in memory and in work, and stays below eager PyTorch's.

Counted, not timed: bytes that autograd keeps for the way back, and bytes that PyTorch's operations write. Peers that turn
quadratic do so by a copy of the whole sequence for every step, which the second would show. `benchmarks/training.py` times it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bdtorch as bt


class Written(TorchDispatchMode):
    """Counts the bytes of results that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += sum(x.numel() * x.element_size() for x in tree_leaves(result) if isinstance(x, Tensor))
        return result


def cost(loop: Any, steps: int) -> tuple[int, int]:
    """Bytes that are kept for the way back, without the inputs, and bytes that are written on both ways."""
    torch.manual_seed(0)
    cell = bt.neurons.LIF(16, tau=20.0, v_th=1.0, v_reset=0.0, surrogate=bt.surrogate.SuperSpike(10.0))
    model = bt.Sequential(
        bt.Recurrent(cell, 4, w_in=bt.init.Normal(0.0, 2.0), seed=1), bt.Readout(16, 2, tau=20.0, seed=2)
    )
    x = torch.rand(steps, 3, 4)
    kept: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() != x.data_ptr():
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved), Written() as written:
        out = bt.simulate(model, x, dt=1.0, loop=loop).out
        out.mean(0).square().sum().backward()
    return sum(kept.values()), written.bytes


@pytest.mark.parametrize("loop", [bt.Native(), bt.Native(recompute=25)], ids=str)
def test_the_cost_of_a_gradient_is_linear_in_the_number_of_steps_and_below_eager(loop: bt.Native) -> None:
    cost(loop, 10)  # compilers and what is kept for them
    few, some, many = (cost(loop, steps) for steps in (250, 1000, 4000))
    eager = cost("reference", 250)
    for quarter, whole in ((few, some), (some, many)):
        assert whole[0] < 4.1 * quarter[0]
        assert whole[1] < 4.1 * quarter[1]
    assert few[0] < eager[0] and few[1] < 0.2 * eager[1]
    states = 3 * (16 + 16 + 2) * 4  # bytes of a step: potentials and spikes, and the readout
    assert many[0] < 4000 * states * (1.2 if loop.recompute == 0 else 0.1)
