"""Python that depends on values of tensors, or makes numbers of them: each loop has its results, or says what and where."""

from __future__ import annotations

import array
import copy
import datetime
import importlib
import math
import os
import pickle
import random
import secrets
import statistics
import struct
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
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


def with_data_of(v: Tensor, t: Tensor) -> Tensor:
    x = torch.zeros(4)
    x.data = v
    return x + 1.0


def swallowed(v: Tensor, t: Tensor) -> Tensor:
    try:
        return v + float(v[3]) + 1.0
    except RuntimeError:
        return v


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
    "older constructor": (lambda v, t: torch.Tensor([v[3] + 1.0, *v[:3]]), "value of a tensor"),
    "numpy": (lambda v, t: torch.from_numpy(np.tanh(v.numpy())) + 1.0, "takes a tensor out of PyTorch"),
    "array": (lambda v, t: v + float(np.stack([v, v]).sum()) + 1.0, "takes a tensor out of PyTorch"),
    "tolist": (lambda v, t: torch.tensor([x + 1.0 for x in v.tolist()]), "takes a tensor out of PyTorch"),
    "format": (lambda v, t: v + len(f"{v[3]:.3g}"), "takes a tensor out of PyTorch"),
    "deepcopy": (lambda v, t: copy.deepcopy(v) + 1.0, "takes a tensor out of PyTorch"),
    "storage": (lambda v, t: v + v.storage()[3] + 1.0, "takes a tensor out of PyTorch"),
    "parameter": (lambda v, t: torch.nn.Parameter(v, requires_grad=False) + 1.0, "has become another tensor"),
}  # fmt: skip
FROZEN: dict[str, tuple[Function, str]] = {
    "of a tuple": (lambda v, t: torch.Tensor((v[3] + 1.0, *v[:3])), "value of a tensor"),
    "of nested lists": (lambda v, t: torch.Tensor([[v[3] + 1.0], [v[0]]])[0] + v, "value of a tensor"),
    "of time": (lambda v, t: torch.Tensor([t]) + v, "value of a tensor"),
    "of floats": (lambda v, t: torch.FloatTensor([v[3] + 1.0, *v[:3]]), "value of a tensor"),
    "of doubles": (lambda v, t: torch.DoubleTensor([v[3] + 1.0]).float() + v, "value of a tensor"),
    "of integers": (lambda v, t: torch.LongTensor([(v[3] * 9.0).long()]) + v + 1.0, "value of a tensor"),
    "of booleans": (lambda v, t: torch.BoolTensor([v[3] > 0.5]) + v + 1.0, "value of a tensor"),
    "new": (lambda v, t: v.new([v[3] + 1.0, *v[:3]]), "new makes a tensor of the values of others"),
    "asarray of a list": (lambda v, t: torch.asarray([v[3] + 1.0, *v[:3]]), "asarray makes a tensor"),
    "complex": (lambda v, t: v + complex(v[3]).real + 1.0, "value of a tensor"),
    "array of numbers": (lambda v, t: v + array.array("f", [v[3]])[0] + 1.0, "value of a tensor"),
    "bytes of a number": (lambda v, t: v + struct.unpack("f", struct.pack("f", v[3]))[0] + 1.0, "value of a tensor"),
    "mean of numbers": (lambda v, t: v + statistics.fmean(v.unbind()) + 1.0, "value of a tensor"),
    "maximum": (lambda v, t: v * 0.5 + max(v[0], v[3]) + 1.0, "value of a tensor"),
    "sorted": (lambda v, t: v + sorted(v)[0] + 1.0, "value of a tensor"),
    "not": (lambda v, t: v + (not v[3] > 0.5) + 0.5, "value of a tensor"),
    "list index": (lambda v, t: v + [1.0, 2.0, 3.0][(v[3] * 9.0).long() % 3], "value of a tensor"),
    "slice": (lambda v, t: v + v[: (v[3] * 9.0).long() % 3 + 1].sum() + 1.0, "value of a tensor"),
    "factor": (lambda v, t: torch.add(v, v, alpha=v[3]) + 1.0, "value of a tensor"),
    "roll": (lambda v, t: v.roll((v[3] * 9.0).long()) + 1.0, "value of a tensor"),
    "is nonzero": (lambda v, t: v + torch.is_nonzero(v[0]) + 0.5, "value of a tensor"),
    "equal": (lambda v, t: v + torch.equal(v, v * t) + 0.5, "value of a tensor"),
    "size of a mask": (lambda v, t: v + v[v > 1.0].numel() + 1.0, "has no lowering"),
    "size of where": (lambda v, t: v + torch.where(v > 1.0)[0].numel() + 1.0, "value of a tensor"),
    "number of values": (lambda v, t: v + torch.unique(v.round()).numel() + 1.0, "has no lowering"),
    "data_ptr": (lambda v, t: v + v.data_ptr() * 0 + v[3], "takes a tensor out of PyTorch"),
    "asarray": (lambda v, t: v + float(np.asarray(v)[3]) + 1.0, "takes a tensor out of PyTorch"),
    "number of NumPy": (lambda v, t: v + float(np.float32(v[3])) + 1.0, "takes a tensor out of PyTorch"),
    "memory": (lambda v, t: v + memoryview(v.numpy())[3] + 1.0, "takes a tensor out of PyTorch"),
    "pickle": (lambda v, t: pickle.loads(pickle.dumps(v)) + 1.0, "takes a tensor out of PyTorch"),
    "DLPack": (lambda v, t: torch.from_dlpack(v) + 1.0, "takes a tensor out of PyTorch"),
    "a capsule": (lambda v, t: torch.from_dlpack(torch.utils.dlpack.to_dlpack(v)) + 1.0, "has become another tensor"),
    "caught": (swallowed, "value of a tensor"),
    "data that is set": (with_data_of, "data is set"),
}  # fmt: skip
"""What the native loop alone is asked for."""
COMPILED = {
    "older constructor",
    "branch",
    "branch on time",
    "item",
    "int",
    "math of time",
    "list of elements",
    "format",
}
"""What is tried with the other compiled loop in the quick tests."""


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("name", [*FLOW, *FROZEN])
def test_the_native_loop_names_what_it_cannot_follow(name: str) -> None:
    function, message = (FLOW | FROZEN)[name]
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


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda v, t: v + os.urandom(1)[0], "draws from the system's entropy"),
        (lambda v, t: v + secrets.randbelow(100), "draws from the system's entropy"),
        (lambda v, t: v + random.SystemRandom().random(), "draws from the system's entropy"),
        (lambda v, t: v + uuid.uuid4().int % 7, "draws from the system's entropy"),
        (lambda v, t: v + float(np.random.default_rng().random()), "draws from the system's entropy"),
        (lambda v, t: v + time.monotonic_ns() % 7, "reads the clock"),
        (lambda v, t: v + time.thread_time() % 1, "reads the clock"),
        (lambda v, t: v + datetime.datetime.now().microsecond % 7, "reads the clock"),
    ],
)
def test_what_no_two_runs_share_is_named(function: Function, message: str) -> None:
    with pytest.raises(LoopError, match=rf"{message} \(test_control_flow.py:"):
        run(function, "native")


def test_what_a_module_does_while_it_is_imported_is_not_the_steps_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `numpy.random` draws entropy when it is first asked for."""
    (tmp_path / "seeded_at_import.py").write_text("import os, time\nSEED, BORN = os.urandom(4), time.time()\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def grow(v: Tensor, t: Tensor) -> Tensor:
        importlib.import_module("seeded_at_import")
        return v + 1.0

    assert run(grow, "native").loop == "native"
    assert "seeded_at_import" in sys.modules


def test_a_seeded_generator_is_a_constant() -> None:
    def draw(v: Tensor, t: Tensor) -> Tensor:
        return v + float(np.random.default_rng(3).random())

    assert torch.equal(run(draw, "native").out, run(draw, "reference").out)


@pytest.mark.parametrize(
    "function",
    [
        lambda v, t: torch.Tensor(v) + 1.0,
        lambda v, t: torch.FloatTensor(v) + 1.0,
        lambda v, t: torch.scalar_tensor(2.0).fill_(v[3]) + v + 1.0,
        lambda v, t: torch.empty(4).fill_(v[3]) + v + 1.0,
        lambda v, t: torch.Tensor([float(torch.ones(1)), 2.0, 3.0, 4.0]) + v,
        lambda v, t: v.data + t.detach().float() + 1.0,
    ],
)
def test_copies_within_torch_are_followed(function: Function) -> None:
    torch.testing.assert_close(run(function, "native").out, run(function, "reference").out)


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
