"""A step with an effect beside its results: compiled loops refuse it by name, and the reference loop has it every step."""

from __future__ import annotations

import functools
import gc
import io
import itertools
import logging
import random
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate.loops import LoopError

COUNT = 0
LOG: list[float] = []


class Settings:
    """A plain object that a step may hold."""

    def __init__(self) -> None:
        self.calls = 0


class Cell(bt.DynamicalSystem):
    """v' = 0.9 v + 1, and whatever ``effect`` does, in a part of a container, as users have it."""

    made = 0

    def __init__(self, effect: Any = None) -> None:
        super().__init__((4,))
        self.effect = effect
        self.n = 0
        self.log: list[Any] = []
        self.seen: dict[str, Any] = {"deep": {"steps": 0}}
        self.settings = Settings()
        self.generator = np.random.default_rng(0)
        self.dice = random.Random(0)
        self.table = np.zeros(3)
        self.plain = torch.zeros(4)
        self.register_buffer("total", torch.zeros(4))
        self.gain = torch.nn.Parameter(torch.full((4,), 0.9), requires_grad=False)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.zeros(*batch_shape, 4)

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        if self.effect is not None:
            self.effect(self, state, t)
        return self.gain * state + 1.0, state


class Counting(Cell):
    """Counts its steps in the most usual way."""

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        self.n += 1
        return super().step(state, inputs, t, dt)


def count_globally(cell: Cell, v: Tensor, t: Tensor) -> None:
    global COUNT
    COUNT += 1


def helper_that_logs() -> None:
    LOG.append(0.0)


def through_a_helper(cell: Cell, v: Tensor, t: Tensor) -> None:
    helper_that_logs()


def count_on_the_class(cell: Cell, v: Tensor, t: Tensor) -> None:
    Cell.made += 1


def closure() -> Any:
    steps = 0

    def effect(cell: Cell, v: Tensor, t: Tensor) -> None:
        nonlocal steps
        steps += 1

    return effect


def default(cell: Cell, v: Tensor, t: Tensor, memory: list[int] = []) -> None:  # noqa: B006
    memory.append(len(memory))


def count(cell: Cell, v: Tensor, t: Tensor) -> None:
    cell.n += 1


def print_a_word(cell: Cell, v: Tensor, t: Tensor) -> None:
    print("step")


def replace_the_buffer(cell: Cell, v: Tensor, t: Tensor) -> None:
    cell.total = cell.total + v


def toggle(cell: Cell, v: Tensor, t: Tensor) -> None:
    cell.training = not cell.training


def partly(number: int, cell: Cell, v: Tensor, t: Tensor) -> None:
    cell.seen["deep"]["steps"] += number


EFFECTS: dict[str, tuple[Any, str]] = {
    "an attribute": (count, r"changes the attribute 'n' of Cell \('layers.0'\)"),
    "a list": (lambda cell, v, t: cell.log.append(1), r"changes the attribute 'log' of Cell \('layers.0'\)"),
    "a tensor into a list": (lambda cell, v, t: cell.log.append(v), "changes the attribute 'log' of Cell"),
    "a nested dict": (functools.partial(partly, 1), "changes the attribute 'seen' of Cell"),
    "a plain object": (lambda cell, v, t: vars(cell.settings).update(calls=cell.settings.calls + 1), "'settings'"),
    "a class attribute": (count_on_the_class, r"changes the class attribute 'made' of Cell"),
    "a global": (count_globally, r"changes the global 'COUNT' of .*test_side_effects"),
    "a global of a helper": (through_a_helper, r"changes the global 'LOG' of .*test_side_effects"),
    "a closure": (
        closure(),
        r"changes the variable 'steps' of closure\.<locals>\.effect \(test_side_effects\.py:\d+\)",
    ),
    "a default": (default, r"changes default 0 of default \(test_side_effects\.py:\d+\)"),
    "a print": (print_a_word, r"prints \(test_side_effects\.py:\d+\)"),
    "the clock": (lambda cell, v, t: time.perf_counter(), r"reads the clock \(test_side_effects\.py:\d+\)"),
    "a mode": (toggle, "changes the attribute 'training' of Cell"),
    "a buffer assigned": (replace_the_buffer, "changes the buffer 'total' of Cell"),
    "a buffer": (lambda cell, v, t: cell.total.add_(1.0), r"changes the buffer 'total' of Cell|add_\.Tensor writes to"),
    "a parameter": (lambda cell, v, t: cell.gain.data.mul_(0.5), "mul_|changes the parameter 'gain' of Cell"),
    "a plain tensor": (lambda cell, v, t: cell.plain.copy_(v), "changes the attribute 'plain' of Cell|copy_"),
    "a plain tensor assigned": (lambda cell, v, t: setattr(cell, "plain", v), "changes the attribute 'plain' of Cell"),
    "an array": (lambda cell, v, t: cell.table.__setitem__(0, cell.table[0] + 1), "the attribute 'table' of Cell"),
    "a NumPy generator": (lambda cell, v, t: cell.generator.normal(), "changes the attribute 'generator' of Cell"),
    "a Python generator": (lambda cell, v, t: cell.dice.random(), "changes the attribute 'dice' of Cell"),
    "NumPy's generator": (lambda cell, v, t: np.random.rand(3), "changes the state of NumPy's global random generator"),
    "Python's generator": (lambda cell, v, t: random.random(), "changes the state of Python's `random`"),
}


class Slotted:
    """An object that has no `__dict__`."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0

    def count(self) -> None:
        self.calls += 1


class Counted:
    """A class that no system is of."""

    calls = 0


def count_on_another_class(cell: Cell, v: Tensor, t: Tensor) -> None:
    Counted.calls += 1


def count_on_itself(cell: Cell, v: Tensor, t: Tensor) -> None:
    count_on_itself.calls = getattr(count_on_itself, "calls", 0) + 1  # type: ignore[attr-defined]


def keep_in(held: Any, function: Any) -> Any:
    return lambda cell, v, t: function(held)


EFFECTS |= {
    "slots": (keep_in(Slotted(), Slotted.count), r"changes the variable 'held'"),
    "another class": (count_on_another_class, "changes the class attribute 'calls' of Counted"),
    "a function's own": (count_on_itself, r"changes the attribute 'calls' of count_on_itself"),
    "bytes": (keep_in(bytearray(), lambda held: held.append(1)), "changes the variable 'held'"),
    "a file": (
        keep_in(io.StringIO(), lambda held: held.write("step")),
        r"writes to a file \(test_side_effects\.py:\d+\)",
    ),
    "a log": (
        lambda cell, v, t: logging.getLogger("bdtorch.test").warning("step"),
        r"writes to a file|reads the clock",
    ),
}


def run(system: bt.DynamicalSystem, loop: Any, **options: Any) -> bt.Solution:
    with torch.no_grad():
        return bt.simulate(system, dt=0.1, duration=0.5, loop=loop, **options)


def test_what_the_garbage_collector_calls_is_not_the_step_s_doing() -> None:
    """As test runners and profilers of memory do, which note how long each collection takes."""
    times: list[float] = []

    def note(phase: str, info: dict[str, int]) -> None:
        times.append(time.perf_counter())

    thresholds = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1)
    try:
        run(Cell(lambda cell, v, t: [[k] for k in range(1000)]), "native")
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(note)
    assert times
    assert gc.isenabled()


@pytest.mark.parametrize("loop", ["native", "inductor"])
@pytest.mark.parametrize("name", EFFECTS)
def test_effects_are_refused_by_name(name: str, loop: str) -> None:
    effect, message = EFFECTS[name]
    system = bt.Sequential(Cell(effect), Cell())
    with pytest.raises(LoopError, match=message) as caught:
        run(system, loop)
    assert f"the {loop} loop cannot run this model" in str(caught.value)


def test_the_line_that_counts_is_named() -> None:
    line = Counting.step.__code__.co_firstlineno + 1
    with pytest.raises(LoopError, match=rf"'n' of Counting \(test_side_effects\.py:{line}\)"):
        run(Counting(), "native")


def test_a_gradient_and_a_batch_of_runs_change_nothing_about_it() -> None:
    cell = Counting()
    cell.gain.requires_grad_(True)
    with pytest.raises(LoopError, match="changes the attribute 'n' of Counting"):
        bt.simulate(cell, dt=0.1, duration=0.5, loop="native")
    cell.gain.requires_grad_(False)
    with pytest.raises(LoopError, match="changes the attribute 'n' of Counting"):
        torch.func.vmap(lambda v: run(cell, "native", state=v).out)(torch.zeros(3, 4))
    with pytest.raises(LoopError, match="changes the attribute 'n' of Counting"):
        bt.export_loop("unused", cell, dt=0.1)


def test_auto_has_the_effect_in_the_reference_loop() -> None:
    cell = Counting()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sol = run(cell, "auto")
    assert sol.loop == "reference" and cell.n >= 5
    texts = [str(w.message) for w in caught]
    for loop, following in (("native", "inductor"), ("inductor", "reference")):
        assert any(
            f"the {loop} loop" in x and "'n' of Counting" in x and f"to the {following} loop" in x for x in texts
        )


def numbers() -> Any:
    yield from itertools.count()


@pytest.mark.parametrize("loop", ["native", "inductor"])
@pytest.mark.parametrize(
    "held", [itertools.count, numbers, lambda: iter(np.arange(99)), lambda: itertools.cycle([1, 2])]
)
def test_a_step_that_differs_from_one_call_to_the_next_is_refused(held: Any, loop: str) -> None:
    """What hides in an iterator no snapshot shows, but two calls on the same state tell."""
    made = held()
    with pytest.raises(
        LoopError, match=rf"the {loop} loop .* taken again .* gives another value to the state variable"
    ):
        run(Varying(lambda: float(next(made))), loop)


def test_a_gradient_of_such_a_step_is_refused_too() -> None:
    made = itertools.count()
    system = Varying(lambda: float(next(made)))
    system.gain = torch.nn.Parameter(torch.ones(4))
    with pytest.raises(LoopError, match="gives another value to the state variable"):
        bt.simulate(system, dt=0.1, duration=0.5, loop="native")


class Varying(Cell):
    """v' = 0.9 v + 1 + whatever ``number`` gives."""

    def __init__(self, number: Any) -> None:
        super().__init__()
        self.number = number

    def step(self, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        after, out = super().step(state, inputs, t, dt)
        return after + self.number(), out


@pytest.mark.parametrize("loop", ["native", "inductor"])
def test_hooks_are_watched(loop: str) -> None:
    system, seen = Cell(), []
    system.part = torch.nn.Identity()
    system.part.register_forward_hook(lambda module, inputs, out: seen.append(out))
    system.effect = lambda cell, v, t: cell.part(v)
    with pytest.raises(LoopError, match="changes the variable 'seen'"):
        run(system, loop)


@pytest.mark.parametrize("loop", ["native", "inductor"])
def test_records_and_inputs_are_watched_too(loop: str) -> None:
    log: list[int] = []
    with pytest.raises(LoopError, match="changes the variable 'log'"):
        run(Cell(), loop, record={"v": lambda state, out: (log.append(1), out)[1]})
    with pytest.raises(LoopError, match="changes the variable 'log'"):
        run(Cell(), loop, inputs=lambda t: (log.append(1), t)[1])


def remember(cell: Cell, v: Tensor, t: Tensor) -> None:
    cell.seen.setdefault("decay", 0.5)
    cell.last_shape = tuple(v.shape)


def test_what_settles_is_no_effect() -> None:
    """A value that is kept at the first step, and one that is assigned again and again but stays."""
    cell = Cell(remember)
    assert torch.equal(run(cell, "native").out, run(Cell(), "reference").out)


def test_watching_costs_little() -> None:
    net = bt.Network({f"p{k}": bt.neurons.HodgkinHuxley(10) for k in range(8)}, {})
    from bdtorch.simulate._purity import Watch

    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert Watch(net, []).effects(lambda: None) == []
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02


def test_classes_made_while_running_are_watched() -> None:
    """Their module is said to be that of `abc`, which makes them."""
    log: list[int] = []

    def step(self: Any, state: Tensor, inputs: Any, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        log.append(1)
        return state, state

    made = type("Made", (Cell,), {"step": step})
    with pytest.raises(LoopError, match="changes the variable 'log'"):
        bt.simulate(made(), dt=1.0, duration=3.0, loop="native")
