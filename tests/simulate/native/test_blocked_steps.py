"""A step that is one pass over many elements takes many steps block by block, and no bit changes by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.integrate import RK4, ODESolver
from bdtorch.simulate.loops.native import emit

N = 20_001  # more than the innermost cache holds, and not a multiple of a block


def _pushed(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    return 0.3 - rate * torch.tanh(y)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("every", [3, 40])
def test_fixed_steps(threads: int, every: int, sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    y0 = torch.randn(N, generator=torch.Generator().manual_seed(0))
    times = torch.arange(0, 121, every, dtype=torch.float64) * 0.05
    rate = torch.tensor(0.7)

    def solve() -> Tensor:
        solver = ODESolver(_pushed, method=RK4(), dt=0.05, loop=bt.Native(threads=threads), progress=False)
        y: Tensor = solver(y0, times, args=(rate,)).y
        return y

    blocked = solve()
    monkeypatch.setattr(emit, "_CACHE", 1 << 40)
    plain = solve()
    assert ["low + " in source for source in sources] == [True, False]
    assert torch.equal(blocked, plain)


def test_a_model_with_inputs_traces_and_gradients(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(30, N, generator=torch.Generator().manual_seed(0))
    neuron = bt.rates.LeakyRate(N, tau=5.0)

    def run(gradient: bool) -> list[Tensor]:
        inputs = x.clone().requires_grad_(gradient)
        record: dict[str, Any] = {"r": bt.trace("x", every=7)}
        sol = bt.simulate(neuron, inputs, dt=0.5, loop=bt.Native(threads=1), record=record, keep_out=False)
        final = torch.utils._pytree.tree_leaves(sol.state)
        if gradient:
            return [*final, *torch.autograd.grad(final[0].square().sum(), inputs)]
        return [*final, sol["r"]]

    found = [*run(False), *run(True)]
    assert any("low + " in source for source in sources)
    monkeypatch.setattr(emit, "_CACHE", 1 << 40)
    for value, plain in zip(found, [*run(False), *run(True)], strict=True):
        assert torch.equal(value, plain)
