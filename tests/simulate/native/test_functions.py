"""Functions of this package that the loop takes as one, where torch makes them of many operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.channels import exprel, linoid
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Stepping, body_of, both

FUNCTIONS = {"exprel": exprel, "linoid": linoid}
NEAR_ZERO = torch.tensor([0.0, -0.0, 1e-30, -1e-12, 3e-5, -1e-3, 0.0186, -0.0187])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_function_agrees_with_its_operations(name: str, dtype: torch.dtype) -> None:
    x = torch.cat([NEAR_ZERO, torch.linspace(-40.0, 40.0, 201)]).to(dtype)

    def step(state: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        return [state[0] * 0.9], FUNCTIONS[name](state[0])

    graph = trace(body_of(step, x), [x])
    assert sorted(node.op for node in graph.nodes if node.kind == "op") == ["aten.mul.Tensor", f"bdtorch.{name}"]
    for native, reference in zip(*both(step, x), strict=True):
        torch.testing.assert_close(native, reference, rtol=8 * torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_are_those_of_the_operations(name: str) -> None:
    def slopes(loop: Any) -> Tensor:
        x = torch.cat([NEAR_ZERO, torch.linspace(-5.0, 5.0, 51)]).double().requires_grad_()
        system = Stepping(lambda state, t: ([FUNCTIONS[name](state[0])], state[0][:1]), x)
        state = bt.simulate(system, dt=0.1, duration=0.2, loop=loop, state={"x0": x}).state
        return torch.autograd.grad(state["x0"].sum(), x)[0]

    torch.testing.assert_close(slopes(bt.Native(threads=1)), slopes("reference"), rtol=1e-12, atol=1e-14)
