"""Functions of this package that the loop takes as one, where torch makes them of many operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.channels import exprel, linoid
from bdtorch.simulate.loops.native import compiler, made
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


def _vmapped(
    system: Stepping, x: Tensor, axis: int, loop: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, list[str]]:
    sources: list[str] = []
    make = compiler.compiled
    monkeypatch.setattr(made, "compiled", lambda source: (sources.append(source), make(source))[1])

    def one(part: Tensor) -> Tensor:
        return bt.simulate(system, dt=0.1, duration=0.3, loop=loop, state={"x0": part}).state["x0"]

    return torch.func.vmap(one, in_dims=axis)(x), sources


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", [0, 1])
def test_one_function_of_all_members(name: str, axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-3.0, 3.0, 21).reshape(7, 3)
    system = Stepping(lambda state, t: ([FUNCTIONS[name](state[0]) - 0.5 * state[0]], state[0][:1]), x[0])
    ours, sources = _vmapped(system, x, axis, "auto", monkeypatch)
    assert f"bdtorch::{name}" in sources[0] and "expm1" not in sources[0]
    theirs, none = _vmapped(system, x, axis, "reference", monkeypatch)
    assert not none
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_operand_that_members_share_is_taken_once() -> None:
    shared = torch.linspace(-1.0, 1.0, 5)
    system = Stepping(lambda state, t: ([exprel(state[0]), state[1] + exprel(state[0])], state[0][:1]), shared, shared)
    x = torch.linspace(0.0, 1.0, 15).reshape(3, 5)

    def one(part: Tensor, loop: str) -> Tensor:
        return bt.simulate(system, dt=0.1, duration=0.3, loop=loop, state={"x0": shared, "x1": part}).state["x1"]

    ours, theirs = (torch.func.vmap(lambda part, loop=loop: one(part, loop))(x) for loop in ("auto", "reference"))
    torch.testing.assert_close(ours, theirs)
