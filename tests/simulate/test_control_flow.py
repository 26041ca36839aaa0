"""Python that depends on values of tensors, or makes numbers of them: each loop has its results, or says what and where."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate.loops import LoopError

Function = Callable[[Tensor, Tensor], Tensor]


class Stepped(bt.DynamicalSystem):
    """v' = f(v, t)."""

    def __init__(self, function: Function) -> None:
        super().__init__((4,))
        self.function = function

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.linspace(0.0, 0.3, 4).expand(*batch_shape, 4).clone()

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        return self.function(state, t), state


def run(function: Function, loop: Any) -> bt.Solution:
    with torch.no_grad():
        return bt.simulate(Stepped(function), dt=0.1, duration=0.6, loop=loop)


def branch(v: Tensor, t: Tensor) -> Tensor:
    if v.max() > 0.5:
        return v * 0.5
    return v + 0.2


def branch_on_time(v: Tensor, t: Tensor) -> Tensor:
    return v * 0.5 if t > 0.2 else v + 1.0


def repeat(v: Tensor, t: Tensor) -> Tensor:
    while v.sum() < 3.0:
        v = v + 0.5
    return v * 0.5


def expect(v: Tensor, t: Tensor) -> Tensor:
    assert torch.all(v < 100.0)
    return v + 1.0


FLOW: dict[str, tuple[Function, str]] = {
    "branch": (branch, "value of a tensor"),
    "branch on time": (branch_on_time, "value of a tensor"),
    "while": (repeat, "value of a tensor"),
    "assert": (expect, "value of a tensor"),
    "any": (lambda v, t: v * 0.1 if (v > 1.0).any() else v + 1.0, "value of a tensor"),
    "comprehension": (lambda v, t: torch.stack([x + 1.0 if x < 1.0 else x - 1.0 for x in v]), "value of a tensor"),
    "item": (lambda v, t: v + v.mean().item() + 1.0, "value of a tensor"),
    "int": (lambda v, t: v + int(v[3] * 2.0) + 1.0, "value of a tensor"),
    "float of time": (lambda v, t: v + float(t), "value of a tensor"),
    "math of time": (lambda v, t: v + math.exp(-t), "value of a tensor"),
    "index": (lambda v, t: v + v[int(v[3]) % 4] + 1.0, "value of a tensor"),
    "range": (lambda v, t: v + sum(range(int(v.sum()))) % 7 + 0.5, "value of a tensor"),
    "length of nonzero": (lambda v, t: v + len((v > 1.0).nonzero()) + 1.0, "value of a tensor"),
    "contains": (lambda v, t: v + (1.0 if 0.0 in v else 2.0), "value of a tensor"),
    "allclose": (lambda v, t: v + (1.0 if torch.allclose(v, v * t) else 2.0), "value of a tensor"),
    "full": (lambda v, t: torch.full((4,), v[3] + 1.0), "value of a tensor"),
    "list of elements": (lambda v, t: torch.tensor([v[3] + 1.0, *v[:3]]), "tensor makes a tensor of the values of others"),
    "list by name": (lambda v, t: torch.tensor(data=[v[3] + 1.0, *v[:3]]), "makes a tensor of the values of others"),
    "as_tensor": (lambda v, t: torch.as_tensor([v[3] + 1.0, *v[:3]]), "as_tensor makes a tensor of the values of others"),
    "new_tensor": (lambda v, t: v.new_tensor([v[3] + 1.0, *v[:3]]), "new_tensor makes a tensor of the values of others"),
    "numpy": (lambda v, t: torch.from_numpy(np.tanh(v.numpy())) + 1.0, "takes a tensor out of PyTorch"),
    "array": (lambda v, t: v + float(np.stack([v, v]).sum()) + 1.0, "takes a tensor out of PyTorch"),
    "tolist": (lambda v, t: torch.tensor([x + 1.0 for x in v.tolist()]), "takes a tensor out of PyTorch"),
    "format": (lambda v, t: v + len(f"{v[3]:.3g}"), "takes a tensor out of PyTorch"),
    "deepcopy": (lambda v, t: copy.deepcopy(v) + 1.0, "takes a tensor out of PyTorch"),
    "storage": (lambda v, t: v + v.storage()[3] + 1.0, "takes a tensor out of PyTorch"),
    "parameter": (lambda v, t: torch.nn.Parameter(v, requires_grad=False) + 1.0, "has become another tensor"),
}  # fmt: skip
COMPILED = {"branch", "branch on time", "item", "int", "math of time", "list of elements", "format"}
"""What is tried with the other compiled loop in the quick tests."""


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("name", FLOW)
def test_the_native_loop_names_what_it_cannot_follow(name: str) -> None:
    function, message = FLOW[name]
    with pytest.raises(LoopError, match=message) as caught:
        run(function, "native")
    assert "(test_control_flow.py:" in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of torch, about what such steps do
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in COMPILED else pytest.mark.slow) for n in FLOW])
def test_the_inductor_loop_is_right_or_names_it(name: str) -> None:
    function, _ = FLOW[name]
    torch._dynamo.reset()
    try:
        found = run(function, "inductor").out
    except LoopError as error:
        assert "cannot compile this model" in str(error) and "(test_control_flow.py:" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(found, run(function, "reference").out)


def test_auto_falls_back_and_says_why() -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sol = run(branch_on_time, "auto")
    texts = [str(w.message) for w in caught if "falling back" in str(w.message)]
    assert sol.loop == "reference" and len(texts) == 2
    assert all("test_control_flow.py:" in text and "t > 0.2" in text for text in texts)
    assert torch.equal(sol.out, run(branch_on_time, "reference").out)


@pytest.mark.parametrize(
    "function",
    [
        lambda v, t: v + torch.randn(4),
        lambda v, t: v + torch.rand_like(v),
        lambda v, t: v + torch.bernoulli(torch.full((4,), 0.5)),
        lambda v, t: v + torch.empty(4).normal_(),
        lambda v, t: torch.nn.functional.dropout(v + 1.0, 0.5),
        lambda v, t: v + torch.distributions.Normal(0.0, 1.0).sample((4,)),
    ],
)
def test_hidden_randomness_is_named(function: Function) -> None:
    with pytest.raises(LoopError, match=r"draws from torch's global generator.*\(test_control_flow.py:"):
        run(function, "native")


def test_hidden_randomness_differs_from_step_to_step_in_the_inductor_loop() -> None:
    """It is what the step asks for, and is drawn anew for each of the steps of a chunk."""
    out = run(lambda v, t: v + torch.rand(4), bt.Inductor(chunk=3)).out
    increments = out.diff(dim=0).flatten()
    assert len(increments.unique()) == len(increments)


def test_randomness_of_python_is_named() -> None:
    for loop in ("native", "inductor"):
        with pytest.raises(LoopError, match="changes the state of Python's `random`"):
            run(lambda v, t: v + random.gauss(0.0, 1.0), loop)


@pytest.mark.parametrize("loop", ["native", "inductor", "reference", "auto"])
@pytest.mark.parametrize(
    ("function", "became"),
    [
        (lambda v, t: v[1:], r"\(3,\)"),
        (lambda v, t: torch.cat([v, v[:1]]), r"\(5,\)"),
        (lambda v, t: v.double(), "float64"),
        (lambda v, t: v > 0.0, "bool"),
        (lambda v, t: v.unsqueeze(0), r"\(1, 4\)"),
    ],
)
def test_shapes_and_dtypes_that_change_are_errors_of_the_front_door(function: Function, became: str, loop: str) -> None:
    with pytest.raises(ValueError, match=rf"step must keep shape, dtype and device.*became .*{became}"):
        run(function, loop)
