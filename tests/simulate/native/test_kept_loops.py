"""A loop that a system has made is taken for its next run where, and only where, the step is still the same."""

from __future__ import annotations

import copy
import functools
import gc
import io
import os
import pickle
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch.simulate._kept import ATTRIBUTE, kept_with
from bdtorch.simulate.loops import native
from bdtorch.simulate.loops.native import compiler, made

GAIN = 1.0
SETTINGS = types.ModuleType("settings")
SETTINGS.shift = 1.0  # type: ignore[attr-defined]


def shifted(x: Tensor, by: float = 0.0) -> Tensor:
    return x + by


def closure(value: float) -> tuple[Callable[[Tensor], Tensor], Callable[[float], None]]:
    def apply(x: Tensor) -> Tensor:
        return x * value

    def change(to: float) -> None:
        nonlocal value
        value = to

    return apply, change


class Scale(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Slower(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * 0.5


class Reaching(bt.DynamicalSystem):
    """A step that depends on something of every kind."""

    offset = 0.25
    weight: nn.Parameter
    scale: Tensor

    def __init__(self) -> None:
        super().__init__((4,))
        self.tau = 10.0
        self.part: nn.Module = Scale(0.9)
        self.weight = nn.Parameter(torch.linspace(-1.0, 1.0, 16).reshape(4, 4), requires_grad=False)
        self.register_buffer("scale", torch.linspace(0.5, 1.0, 4))
        self.table = {"bias": [0.125, 0.5]}
        self.array = np.linspace(0.0, 0.3, 4, dtype=np.float32)
        self.by_closure, self.change_closure = closure(1.5)
        self.order = 1

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.linspace(0.0, 0.3, 4).to(self.scale).expand(*batch_shape, 4).clone()

    def rate(self, x: Tensor) -> Tensor:
        return torch.exp(-x)

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        drive = (state @ self.weight.t()) + self.scale.exp() * self.table["bias"][0] + torch.from_numpy(self.array)
        drive = shifted(self.by_closure(drive) * GAIN) + SETTINGS.shift + self.offset
        drive = drive + float(os.environ.get("BDTORCH_TEST_DRIVE", "0")) + self.scale.sum().item()
        if self.training:
            drive = drive * 0.75
        x = self.part(state) + dt / self.tau * (self.rate(drive) + (0.0 if inputs is None else inputs))
        return x.to(state.dtype) * self.order, x


def simulated(system: bt.DynamicalSystem, loop: Any = "native", **options: Any) -> Tensor:
    out = bt.simulate(system, **({"dt": 0.1, "duration": 0.5, "loop": loop} | options)).out
    assert isinstance(out, Tensor)
    return out


def optimise(system: Reaching) -> None:
    system.weight.grad = torch.ones_like(system.weight)
    torch.optim.Adam([system.weight], lr=0.1).step()
    system.weight.grad = None


def replace_weight(system: Reaching) -> None:
    system.weight = nn.Parameter(torch.eye(4), requires_grad=False)


def load(system: Reaching) -> None:
    system.load_state_dict({name: x + 0.5 for name, x in system.state_dict().items()})


def patch_method(system: Reaching) -> None:
    system.rate = types.MethodType(lambda self, x: torch.exp(-x * x), system)  # type: ignore[method-assign]


def hook(system: Reaching) -> None:
    system.part.register_forward_hook(lambda module, args, out: out + 0.5)


def swap(system: Reaching) -> None:
    system.part = Slower()


CHANGES: dict[str, Callable[[Reaching], Any]] = {
    "a number": lambda system: setattr(system, "tau", 5.0),
    "a number of a part": lambda system: setattr(system.part, "by", 0.5),
    "the sign of zero": lambda system: setattr(system, "order", -1),
    "a list in a dict": lambda system: system.table["bias"].__setitem__(0, 0.75),
    "an array": lambda system: system.array.__setitem__(2, 9.0),
    "another part": swap,
    "a replaced parameter": replace_weight,
    "an optimiser": optimise,
    "a parameter's data": lambda system: system.weight.data.mul_(2.0),
    "a parameter's memory": lambda system: system.weight.detach().numpy().fill(0.125),
    "a buffer in place": lambda system: system.scale.mul_(3.0),
    "a buffer's memory": lambda system: system.scale.numpy().__setitem__(1, 4.0),
    "a replaced buffer": lambda system: setattr(system, "scale", torch.full((4,), 0.1)),
    "strides of a buffer": lambda system: setattr(system, "scale", torch.linspace(0.0, 7.0, 8)[::2]),
    "a loaded state dict": load,
    "a method of the object": patch_method,
    "evaluation": lambda system: system.eval(),
    "a hook": hook,
    "a closure": lambda system: system.change_closure(2.5),
    "a weight that is infinite": lambda system: system.weight.data.__setitem__((0, 0), float("inf")),
    "a weight that is NaN": lambda system: system.weight.data.__setitem__((3, 3), float("nan")),
    "double precision": lambda system: (system.to(torch.float64), setattr(system, "array", system.array.astype(float))),
}  # fmt: skip
SURROUNDINGS: dict[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "a global": lambda patch: patch.setitem(globals(), "GAIN", 3.0),
    "a function": lambda patch: patch.setitem(globals(), "shifted", lambda x: x - 1.0),
    "a default": lambda patch: patch.setattr(shifted, "__defaults__", (0.5,)),
    "code": lambda patch: patch.setattr(shifted, "__code__", (lambda x, by=0.0: x - 2.0).__code__),
    "a module": lambda patch: patch.setattr(SETTINGS, "shift", 2.0),
    "a method of the class": lambda patch: patch.setattr(Reaching, "rate", lambda self, x: torch.exp(-2.0 * x)),
    "a class attribute": lambda patch: patch.setattr(Reaching, "offset", 1.0),
    "the environment": lambda patch: patch.setenv("BDTORCH_TEST_DRIVE", "2"),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "dt": {"dt": 0.05},
    "a constant input": {"inputs": 2.0},
    "an input with time": {"inputs": torch.linspace(0.0, 1.0, 20).reshape(5, 4)},
    "a function": {"inputs": lambda t: torch.sin(t).float()},
    "another function": {"inputs": lambda t: torch.cos(t).float()},
    "a batch": {"batch_shape": (3,)},
    "a state": {"state": torch.full((4,), 2.0)},
    "a later start": {"t0": 2.0, "inputs": lambda t: torch.sin(t).float()},
    "a parameter": {"parameters": {"weight": torch.eye(4)}},
    "a parameter that is folded": {"parameters": {"scale": torch.zeros(4)}},
    "another structure": {"batch_shape": (2, 1)},
}


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is on trial here, not the optimiser."""
    monkeypatch.setattr(compiler, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in compiler.FLAGS))


@pytest.fixture(params=[True, False], ids=["kept", "naive"])
def expected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Tensor, Tensor], None]:
    """That a result is right; or, with a cache that asks for nothing but the system, that it is wrong, as a test must see."""

    def right(found: Tensor, reference: Tensor) -> None:
        torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-6, equal_nan=True)

    def wrong(found: Tensor, reference: Tensor) -> None:
        with pytest.raises(AssertionError):
            right(found, reference)

    if request.param:
        return right
    loop_of = made.loop_of
    first: dict[int, Any] = {}

    def naive(body: Any, graph: Any) -> Any:
        if id(body.system) not in first:
            loop, constants = loop_of(body, graph)
            first[id(body.system)] = loop, [x.clone() for x in constants]
        return first[id(body.system)]

    monkeypatch.setattr(native, "loop_of", naive)
    return wrong


@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_the_system(name: str, expected: Callable[[Tensor, Tensor], None]) -> None:
    system = Reaching()
    options = {"check_finite": False}
    before = simulated(system, **options)
    torch.testing.assert_close(before, simulated(system, "reference", **options))
    CHANGES[name](system)
    reference = simulated(system, "reference", **options)
    assert not torch.equal(before, reference)
    expected(simulated(system, **options), reference)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_changes_around_the_system(
    name: str, expected: Callable[[Tensor, Tensor], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Reaching()
    before = simulated(system)
    SURROUNDINGS[name](monkeypatch)
    reference = simulated(system, "reference")
    assert not torch.equal(before, reference)
    expected(simulated(system), reference)


def test_changes_of_the_arguments() -> None:
    """In turns, and each of them twice, so that what is kept for one is there when another is asked for."""
    system = Reaching()
    for _ in range(2):
        for name, options in ARGUMENTS.items():
            found, reference = simulated(system, **options), simulated(system, "reference", **options)
            torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_changes_of_the_records() -> None:
    system = Reaching()
    base: dict[str, Any] = {"dt": 0.1, "duration": 1.0}
    for index, every in ((0, 1), (2, 1), (2, 3), ([1, 3], 2)):
        record = {"x": picked(index, every)}
        found, reference = (
            bt.simulate(system, **base, record=record, loop=loop)["x"] for loop in ("native", "reference")
        )
        torch.testing.assert_close(found, reference)


def picked(index: Any, every: int) -> Any:
    return bt.Record(lambda state, out: state[..., torch.as_tensor(index)], every)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The loops that are made from now on."""
    made_anew: list[int] = []
    make = made._make
    monkeypatch.setattr(made, "_make", lambda *arguments: (made_anew.append(1), make(*arguments))[1])
    return made_anew


def test_runs_that_differ_in_values_alone_make_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made_anew = counted(monkeypatch)
    system = bt.neurons.LIF(5, tau=nn.Parameter(torch.linspace(5.0, 20.0, 5)), v_init=bt.init.Uniform(-1.0, 1.0))
    runs = [{}, {"seed": 3}, {"inputs": 20.0}, {"inputs": 30.0}, {"duration": 2.0}, {"record": {"v": bt.trace("v")}}]
    loops = []
    for options in runs:
        with torch.no_grad():
            system.tau.mul_(0.9)
            arguments = {"inputs": 10.0, "dt": 0.1, "duration": 1.0} | options
            native, reference = (
                bt.simulate(system, **arguments, loop=loop).state.v for loop in ("native", "reference")
            )
        torch.testing.assert_close(native, reference)
        loops.append(len(made_anew))
    assert loops == [1, 1, 1, 1, 1, 2]


def test_training_makes_three_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    made_anew = counted(monkeypatch)
    system = Reaching()
    system.weight.requires_grad_()
    oracle = copy.deepcopy(system)
    for model, loop in ((system, "native"), (oracle, "reference")):
        optimizer = torch.optim.Adam([model.weight], lr=0.05)
        for _ in range(4):
            optimizer.zero_grad()
            simulated(model, loop).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(system.weight, oracle.weight)
    assert len(made_anew) == 2  # there and back


def test_a_gradient_that_is_asked_for_later() -> None:
    system = Reaching()
    before = simulated(system)
    system.weight.requires_grad_()
    after = simulated(system)
    assert torch.equal(before, after) and after.requires_grad and not before.requires_grad
    (found,) = torch.autograd.grad(after.sum(), system.weight)
    (reference,) = torch.autograd.grad(simulated(system, "reference").sum(), system.weight)
    torch.testing.assert_close(found, reference)
    system.weight.requires_grad_(False)
    assert not simulated(system).requires_grad


def test_ensembles_are_told_apart() -> None:
    system = Reaching()
    weights = torch.stack([torch.eye(4) * k for k in range(3)])
    for levels in ((weights, None), (weights, torch.arange(3.0)), (None, torch.arange(3.0)), (weights, None)):
        both = [
            torch.func.vmap(
                functools.partial(member, system, loop), in_dims=tuple(x if x is None else 0 for x in levels)
            )(*levels)
            for loop in ("native", "reference")
        ]
        torch.testing.assert_close(*both)
    torch.testing.assert_close(simulated(system), simulated(system, "reference"))


def member(system: Reaching, loop: str, weight: Tensor | None, inputs: Tensor | None) -> Tensor:
    return simulated(system, loop, inputs=inputs, parameters=None if weight is None else {"weight": weight})


def test_another_kernel_of_an_operator() -> None:
    op = bt.ops.define(
        "kept_double(Tensor x) -> Tensor", lambda x: 2.0 * x, fake=torch.empty_like, native=kernel("2.0f")
    )
    system = Reaching()
    system.rate = op  # type: ignore[method-assign]
    torch.testing.assert_close(simulated(system), simulated(system, "reference"))
    bt.ops.set_native_kernel(op.raw, kernel("3.0f"))
    bt.ops.set_native_kernel(op.public, kernel("3.0f"))
    found = simulated(system)
    system.rate = lambda x: 3.0 * x  # type: ignore[method-assign]
    torch.testing.assert_close(found, simulated(system, "reference"))


def kernel(factor: str) -> Any:
    text = f"""
    namespace kept_{factor[0]} {{
    inline void apply(bdtorch::View<const float> x, bdtorch::View<float> out) {{
      for (int64_t k = 0; k < out.numel(); ++k) out.data[k] = {factor} * x.data[k];
    }}
    }}
    """
    return bt.ops.NativeKernel(text, f"kept_{factor[0]}::apply")


def test_copies_begin_with_none_and_checkpoints_hold_none(tmp_path: Any) -> None:
    system = Reaching()
    fresh = set(system.state_dict())
    simulated(system)
    assert ATTRIBUTE in vars(system) and set(system.state_dict()) == fresh
    buffer = io.BytesIO()
    system.by_closure = system.change_closure = None  # type: ignore[assignment]  which cannot be pickled
    system.by_closure = shifted  # type: ignore[assignment]
    simulated(system)
    torch.save(system, buffer)
    buffer.seek(0)
    copies = [copy.deepcopy(system), pickle.loads(pickle.dumps(system)), torch.load(buffer, weights_only=False)]
    for other in copies:
        assert not kept_with(other, "native", 16).things
        other.tau = 3.0
        torch.testing.assert_close(simulated(other), simulated(other, "reference"))
    shallow = copy.copy(system)
    shallow.tau = 2.0
    for model in (shallow, system):
        torch.testing.assert_close(simulated(model), simulated(model, "reference"))


def test_few_loops_are_kept_and_no_tensor_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "_KEPT", 3)
    system = Reaching()
    for k in range(5):
        system.tau = 10.0 + k
        simulated(system)
    assert len(kept_with(system, "native", 3).things) == 3
    gone = [weakref.ref(system.weight), weakref.ref(system.scale)]
    system.weight = nn.Parameter(torch.eye(4), requires_grad=False)
    system.scale = torch.ones(4)
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    loops = [weakref.ref(loop) for loop in kept_with(system, "native", 16).things.values()]
    whole = weakref.ref(system)
    del system
    gc.collect()
    assert whole() is None and all(loop() is None for loop in loops)


def test_threads_share_a_system() -> None:
    system = Reaching()
    inputs = [float(k % 3) for k in range(12)]
    expected = [simulated(system, "reference", inputs=x) for x in inputs]
    found: dict[int, Tensor] = {}

    def work(k: int) -> None:
        found[k] = simulated(system, inputs=inputs[k], dt=0.1, progress=False)

    simulated(system, inputs=0.0)
    workers = [threading.Thread(target=work, args=(k,)) for k in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k, reference in enumerate(expected):
        torch.testing.assert_close(found[k], reference)


class Looking(bt.DynamicalSystem):
    """Looks things up in a table, one further at every step."""

    look: Callable[[Tensor, Tensor], Tensor]

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.zeros(1)

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        return state + 1.0, self.look(torch.arange(3.0), state.long())


def look_here(table: Tensor, index: Tensor) -> Tensor:
    return table[index]


def look_there(table: Tensor, index: Tensor) -> Tensor:
    return table[index]


def test_an_error_names_the_line_that_is_now() -> None:
    system = Looking((1,))
    for look in (look_here, look_there, look_here):
        system.look = look
        line = look.__code__.co_firstlineno + 1
        with pytest.raises(IndexError, match=rf"out of range in step 4.*test_kept_loops.py:{line}:"):
            simulated(system, duration=1.0)
