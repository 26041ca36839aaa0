"""The inductor loop: compiled once and kept, chunks sized by measurement, no Python inside, graphs over owned buffers."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate._body import Body
from bdtorch.simulate._kept import kept_with
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops import inductor
from bdtorch.simulate.loops._chunks import Chunks, chunks_of
from bdtorch.simulate.loops._direct import Tap
from bdtorch.simulate.loops.inductor import Inductor, InductorRunner
from bdtorch.simulate.loops.reference import Reference
from bdtorch.simulate.records import Record
from benchmarks import coba, stdp
from tests.simulate.chunked import Again, Leaky, body_of, graphs

pytestmark = pytest.mark.usefixtures("fresh")


def run(system: bt.DynamicalSystem, inputs: Any, loop: Any, steps: int = 13, **options: Any) -> list[Tensor]:
    with torch.no_grad():
        record = {"x": bt.trace("0", index=(0, 2), every=3), "out": lambda state, out: out}
        if not isinstance(inputs, Tensor) or not inputs.dim():
            options["duration"] = 0.5 * steps
        sol = bt.simulate(system, inputs, dt=0.5, record=record, loop=loop, **options)
    return [*sol.state, sol["x"], sol["out"]]


def expect_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0.0)


@pytest.mark.usefixtures("quick")
def test_runs_that_differ_in_values_compile_nothing() -> None:
    system = Leaky()
    run(system, 0.5, Inductor(chunk=4))
    sequences = [torch.full((13, 3), value, dtype=torch.float64) for value in (0.1, 0.2)]
    run(system, sequences[0], Inductor(chunk=4))
    before = graphs()
    assert before >= 4  # a chunk of 4 and one of 1, for constant and for changing inputs
    with torch._dynamo.config.patch(error_on_recompile=True):
        for value, steps in ((0.7, 13), (-1.0, 26)):
            system.w.data.mul_(1.1)
            expect_same(run(system, value, Inductor(chunk=4), steps), run(system, value, "reference", steps))
        expect_same(run(system, sequences[1], Inductor(chunk=4)), run(system, sequences[1], "reference"))
        state = (torch.full((3,), -2.0, dtype=torch.float64), torch.ones(3, dtype=torch.int64))
        again = [run(system, 0.5, loop, state=state, t0=4.0) for loop in (Inductor(chunk=4), "reference")]
        expect_same(*again)
    assert graphs() == before


@pytest.mark.usefixtures("quick")
def test_what_decides_on_the_code_is_told_apart() -> None:
    system = Leaky()
    results = []
    for loop in (Inductor(chunk=2), "reference"):
        results.append([])
        for offset in (1.0, 2.0):  # records whose code is the same, and whose closure is not
            with torch.no_grad():
                record = {"y": lambda state, out, offset=offset: out + offset, "z": lambda state, out: out * offset}  # noqa: B023
                sol = bt.simulate(system, lambda t: offset * t, dt=0.5, duration=3.0, record=record, loop=loop)  # noqa: B023
            results[-1] += [sol["y"], sol["z"]]
        results[-1] += run(system, torch.ones(6, 3, dtype=torch.float64), loop, batch_shape=())
        results[-1] += run(system, torch.ones(6, 2, 3, dtype=torch.float64), loop, batch_shape=(2,))
        system.gain = 0.25
        results[-1] += run(system, 0.5, loop)
        system.gain = 0.5
    expect_same(*results)


@pytest.mark.usefixtures("quick")
def test_a_system_may_change_more_often_than_compilers_allow() -> None:
    system = Leaky()
    for k in range(2 * torch._dynamo.config.recompile_limit):
        system.gain = 0.1 * k
        expect_same(run(system, 0.5, Inductor(chunk=1), 2), run(system, 0.5, "reference", 2))


@pytest.mark.usefixtures("quick")
def test_copies_of_a_system_have_chunks_of_their_own_and_nothing_outlives_it() -> None:
    system = Leaky()
    run(system, 0.5, Inductor(chunk=1), 2)
    copies = [copy.deepcopy(system), pickle.loads(pickle.dumps(system)), copy.copy(system)]
    for other in copies:
        other.gain = 2.0
        expect_same(run(other, 0.5, Inductor(chunk=1), 2), run(other, 0.5, "reference", 2))
    expect_same(run(system, 0.5, Inductor(chunk=1), 2), run(system, 0.5, "reference", 2))
    assert list(system.state_dict()) == ["w"]
    gone = weakref.ref(copies[0])
    del copies, other
    torch._dynamo.reset()
    gc.collect()
    assert gone() is None


def test_few_bodies_are_kept() -> None:
    system = Leaky()
    for k in range(12):
        body = body_of(system, float(k))
        body.dt = float(k + 1)
        chunks_of(body, list(system.init_state()))
    assert len(kept_with(system, "inductor", 8).things) == 8


@pytest.mark.parametrize(
    "build",
    [pytest.param(lambda: coba.build(100), marks=pytest.mark.slow), lambda: stdp.build(20, 30)],
    ids=["coba", "stdp"],
)
def test_no_python_runs_inside(build: Callable[[], bt.Network]) -> None:
    """Compiled graphs hold the raw twins of operators alone, for which only C++ is registered."""
    seen: set[str] = set()

    def note(graph: torch.fx.Graph) -> None:
        seen.update(str(node.target) for node in graph.nodes if node.op == "call_function")

    net = build()
    inputs = 20.0 if "E" in net.populations else None
    patch = {"post_grad_custom_post_pass": note, "fx_graph_cache": False}
    with torch.no_grad(), torch._inductor.config.patch(patch):
        bt.simulate(net, inputs, dt=0.1, duration=0.2, loop=Inductor(chunk=1))
    own = {name for name in seen if name.startswith("bdtorch")}
    assert own
    for name in own:
        namespace, operator, _ = name.split(".")
        assert operator.endswith("_raw") or operator.startswith("random_"), name
        for key in ("AutogradCPU", "AutogradOther", "Python"):
            assert not torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{operator}", key) or (
                "fallthrough" in torch._C._dispatch_dump_table(f"{namespace}::{operator}")
            )
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"{namespace}::{operator}", "CPU")
    assert not any("autograd" in name or "higher_order" in name for name in seen)


class Moves(bt.DynamicalSystem):
    """Steps whose results are their arguments, each other, parts of both, or the system's own tensors."""

    def __init__(self, kind: str) -> None:
        super().__init__((3,))
        self.kind = kind
        self.register_buffer("own", torch.arange(3.0))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        x = self.own if self.kind == "lent" else torch.linspace(1.0, 2.0, 3)
        return (x, x) if self.kind == "same" else (x, torch.zeros(3))

    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
        a, b = state
        moved = {
            "swap": lambda: ((b, a), a),
            "hold": lambda: ((b + 1.0, b), a),
            "same": lambda: ((a + b,) * 2, b),
            "own": lambda: ((self.own, a + b), a),
            "turned": lambda: ((a.flip(0) + t.float(), torch.cat([a[:1], b[:2]])), a[:2]),
            "nothing": lambda: (state, self.own),
            "lent": lambda: ((a + self.own, b + a), a),
        }
        return moved[self.kind]()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["swap", "hold", "same", "own", "turned", "nothing", "lent"])
@pytest.mark.parametrize("recorder", [None, Again])
def test_results_that_are_arguments_or_one_another(kind: str, recorder: Any) -> None:
    system = Moves(kind)
    records = {"out": Record(lambda state, out: out), "first": bt.trace("0", every=2)}
    state = system.init_state()
    body = Body(system, resolve(None, system), records, state, 0.5)
    body.try_out(list(state), 0)
    with torch.no_grad():
        runner = InductorRunner(body, Chunks(body), 3, recorder)
        found = runner.advance(list(state), [], 0, 11, lambda: False)
        expected = Reference().start(body, list(state)).advance(list(state), [], 0, 11, lambda: False)
    for a, b in zip((*found.state, *found.kept), (*expected.state, *expected.kept), strict=True):
        assert isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)


@pytest.mark.usefixtures("quick")
def test_only_the_first_call_of_an_advance_goes_through_dynamo(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    original = InductorRunner._checked_steps

    def counted(self: InductorRunner, size: int, *arguments: Any) -> Any:
        checked.append(size)
        return original(self, size, *arguments)

    monkeypatch.setattr(InductorRunner, "_checked_steps", counted)
    system = Leaky()
    body, state = body_of(system), list(system.init_state())
    for grad in (False, True):  # with a gradient the first state carries none, and goes through another graph
        checked.clear()
        with torch.set_grad_enabled(grad):
            runner = InductorRunner(body, Chunks(body), 4, None)
            found = runner.advance(state, [], 0, 22, lambda: False)
            expected = Reference().start(body, state).advance(state, [], 0, 22, lambda: False)
        assert checked == ([4, 4, 1] if grad else [4, 1])
        torch.testing.assert_close(found.state, expected.state, rtol=1e-12, atol=0.0)
        if grad:
            got, want = (torch.autograd.grad(x.state[0].sum(), system.w)[0] for x in (found, expected))
            torch.testing.assert_close(got, want, rtol=1e-12, atol=0.0)
    system.gain = 0.25  # which the next advance sees
    with torch.no_grad():
        found, expected = (
            loop.advance(state, [], 0, 22, lambda: False) for loop in (runner, Reference().start(body, state))
        )
    torch.testing.assert_close(found.state, expected.state, rtol=1e-12, atol=0.0)


@pytest.mark.usefixtures("quick")
def test_a_run_keeps_its_values_while_another_of_the_same_system_goes_on() -> None:
    system = Leaky()
    body, state = body_of(system, 0.5), list(system.init_state())
    with torch.no_grad():
        runner = Inductor(chunk=2).start(body, state)
        first = runner.advance(state, [], 0, 6, lambda: False)
        other = body_of(system, 0.9)
        Inductor(chunk=2).start(other, state).advance(state, [], 0, 6, lambda: False)
        second = runner.advance(first.state, [], 6, 6, lambda: False)
        expected = Reference().start(body_of(system, 0.5), state).advance(state, [], 0, 12, lambda: False)
    torch.testing.assert_close(second.state, expected.state, rtol=1e-12, atol=0.0)


class Clock:
    """Chunks that take the time that a test says, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pace: dict[int, float], compilation: float) -> None:
        self.now, self.pace, self.compilation = 0.0, pace, compilation
        self.compiled: list[int] = []
        self.compiling = 0.0
        monkeypatch.setattr(inductor.time, "perf_counter", lambda: self.now)

    def of(self, size: int) -> tuple[Callable[..., Any], Tap]:
        if size not in self.compiled:
            self.compiled.append(size)
            self.now += self.compilation * size
            self.compiling += self.compilation * size

        def steps(state: list[Tensor], windows: list[Tensor], first: Tensor) -> Any:
            self.now += size * self.pace[size]
            return state, [torch.zeros(3) if size == 1 else torch.zeros(size, 3) for x in state]

        return steps, Tap()


@pytest.mark.parametrize(
    ("pace", "steps", "compiled"),
    [
        ({1: 1.0, 4: 0.5, 16: 0.2, 64: 0.15}, 20, [1]),  # a short run compiles one chunk
        ({1: 1.0, 4: 0.5, 16: 0.2, 64: 0.15}, 20_000, [1, 4, 16, 64]),
        ({1: 1.0, 4: 0.5, 16: 0.49, 64: 0.48}, 20_000, [1, 4, 16]),  # longer ones gain nothing
        ({1: 1.0, 4: 2.0, 16: 2.0, 64: 2.0}, 20_000, [1, 4]),
    ],
)
def test_chunks_are_sized_by_measurement(
    monkeypatch: pytest.MonkeyPatch, pace: dict[int, float], steps: int, compiled: list[int]
) -> None:
    system = Leaky()
    body = body_of(system)
    chunks = Chunks(body)
    clock = Clock(monkeypatch, pace, compilation=10.0)
    monkeypatch.setattr(chunks, "of", clock.of)
    runner = InductorRunner(body, chunks, None, None)
    runner.advance(list(system.init_state()), [], 0, steps, lambda: False)
    assert clock.compiled == compiled
    assert clock.compiling < 1.3 * (clock.now - clock.compiling) + 10.0 * compiled[-1] / 2
    found = chunks.paces[False]
    assert min(found.fastest, key=found.fastest.__getitem__) == min(compiled, key=pace.__getitem__)
    assert found.settled() == (steps > 1000)
    if steps < 1000:
        return
    spent = clock.now
    runner.advance(list(system.init_state()), [], 0, 6400, lambda: False)
    assert clock.now - spent == pytest.approx(6400 * min(pace[size] for size in compiled), rel=0.1)


def test_measured_chunks_give_the_run_of_the_reference_loop() -> None:
    net = coba.build(100)
    record = {"E": bt.spikes("E"), "v": bt.trace("E.v", every=3)}
    runs = [
        bt.simulate(net, 20.0, dt=0.1, duration=30.0, record=record, loop=loop) for loop in ("inductor", "reference")
    ]
    assert torch.equal(runs[0]["E"].pairs, runs[1]["E"].pairs) and len(runs[0]["E"]) > 0
    torch.testing.assert_close(runs[0]["v"], runs[1]["v"], rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_gradients_are_those_of_the_reference_loop() -> None:
    """Of a recurrent spiking network and of a layer that a user wrote in plain torch, past a number of whole chunks."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(11, 2, 4, generator=generator, dtype=torch.float64)
    cell = bt.neurons.LIF(4, tau=5.0, surrogate=bt.surrogate.Arctan(), dtype=torch.float64)
    weight = torch.nn.Parameter(torch.linspace(-3.0, 5.0, 16, dtype=torch.float64).reshape(4, 4))
    projection = bt.Projection(bt.connect.AllToAll(False), weight, bt.synapses.Exponential(3.0))
    net = bt.Network({"E": cell}, {("E", "E"): projection})
    for system, scale in ((net, 300.0), (Gated(4), 1.0)):
        found = []
        for loop in (Inductor(chunk=3), "reference"):
            system.zero_grad()
            given = x.clone().requires_grad_()
            out = bt.simulate(system, scale * given, dt=0.1, loop=loop, record={"y": _output}, check_finite=False)["y"]
            out.pow(2).sum().backward()
            found.append([given.grad, *(parameter.grad for parameter in system.parameters())])
        for a, b in zip(*found, strict=True):
            assert b is not None and b.abs().sum() > 0
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def _output(state: Any, out: Any) -> Tensor:
    return out["E"] if isinstance(out, dict) else out


class Gated(bt.DynamicalSystem):
    """A user's own module of PyTorch's cells."""

    def __init__(self, n: int) -> None:
        super().__init__(n, dtype=torch.float64)
        self.cell = torch.nn.LSTMCell(n, n, dtype=torch.float64)
        self.layer = torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.LayerNorm(n)).double()

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        return self.fill(batch_shape, 0.1), self.fill(batch_shape, 0.2)

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> Any:
        h, c = self.cell(self.layer(inputs), state)
        return (h, c), torch.relu(h)
