"""The inductor loop: compiled once and kept, chunks sized by measurement, no Python inside, graphs over owned buffers."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import bdtorch as bt
from bdtorch.simulate._body import Body
from bdtorch.simulate._kept import kept_with
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops import inductor
from bdtorch.simulate.loops._chunks import Chunks, chunks_of
from bdtorch.simulate.loops._direct import Tap
from bdtorch.simulate.loops._replay import CudaRecorder, Recorder
from bdtorch.simulate.loops.inductor import Inductor, InductorRunner
from bdtorch.simulate.loops.reference import Reference
from bdtorch.simulate.records import Record
from benchmarks import coba, stdp


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile no further than to graphs, which is all that these tests count."""
    monkeypatch.setattr(Tap, "compiler", "eager")


def graphs() -> int:
    """How many graphs Dynamo has compiled."""
    return int(counters["stats"]["unique_graphs"])


class Leaky(bt.DynamicalSystem):
    """x' = gain x + w . input + time, with a step of its own, whose output is the state before."""

    def __init__(self, gain: float = 0.5) -> None:
        super().__init__((3,), dtype=torch.float64)
        self.gain = gain
        self.w = torch.nn.Parameter(torch.linspace(0.5, 1.5, 3, dtype=torch.float64))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        return torch.ones(*batch_shape, 3, dtype=torch.float64), torch.zeros(*batch_shape, 3, dtype=torch.int64)

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> Any:
        x, n = state
        return (self.gain * x + self.w * inputs + t, n + (x > 1.0)), x


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


def body_of(system: bt.DynamicalSystem, inputs: Any = 0.5) -> Body:
    state = system.init_state()
    records = {"x": bt.trace("0"), "out": Record(lambda state, out: out, every=2)}
    body = Body(system, resolve(inputs, system), records, state, 0.5)
    body.try_out(list(state), 0)
    return body


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


class Again(Recorder):
    """Re-executes what was recorded, on the CPU, and leaves undefined what the real one leaves so."""

    def __init__(self) -> None:
        self.replays = 0

    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        self.function = function
        function()
        self.results = [torch.full_like(result, 77) for result in function()]
        return self.results

    def replay(self) -> None:
        self.replays += 1
        for mine, new in zip(self.results, self.function(), strict=True):
            mine.copy_(new)


class Failing(Recorder):
    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            raise RuntimeError("capture_end: the capture has failed")  # as CUDA has it, whose message hides the first

    def replay(self) -> None: ...


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("inputs", [0.5, torch.linspace(-1, 1, 42, dtype=torch.float64).reshape(14, 3)], ids=type)
def test_recorded_chunks_run_over_buffers_of_their_own(inputs: Any) -> None:
    system = Leaky()
    body = body_of(system, inputs)
    recorders: list[Again] = []

    def recorder() -> Again:
        recorders.append(Again())
        return recorders[-1]

    state = [leaf.clone() for leaf in system.init_state()]
    given = [leaf.clone() for leaf in state]
    with torch.no_grad():
        plain = InductorRunner(body, Chunks(body), 4, None)
        replayed = InductorRunner(body, Chunks(body), 4, recorder)
        windows = [sequence[:7] for sequence in body.inputs.sequences], [s[7:] for s in body.inputs.sequences]
        kept = []
        for runner in (plain, replayed):
            first = runner.advance(state, windows[0], 0, 7, lambda: False)
            held = [leaf.clone() for leaf in (*first.state, *first.kept)]
            second = runner.advance(first.state, windows[1], 7, 7, lambda: False)
            assert all(torch.equal(a, b) for a, b in zip(held, (*first.state, *first.kept), strict=True))
            third = runner.advance(state, windows[0], 0, 7, lambda: False)  # from the start again
            assert all(torch.equal(a, b) for a, b in zip(held, (*third.state, *third.kept), strict=True))
            kept.append([*held, *second.state, *second.kept])
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(state, given, strict=True))
    assert sorted(recorder.replays for recorder in recorders) == [3, 9]  # chunks of 4, and of 1 for what is left
    assert list(replayed.chunks.compiled) == [1]  # a longer chunk is the same compiled step, recorded several times


@pytest.mark.usefixtures("quick")
def test_recorded_chunks_are_measured_and_compile_nothing() -> None:
    system = Leaky()
    body, state = body_of(system), list(system.init_state())
    runner = InductorRunner(body, Chunks(body), None, Again)
    with torch.no_grad():
        found = runner.advance(state, [], 0, 3000, lambda: False)
        before = graphs()
        with torch._dynamo.config.patch(error_on_recompile=True):
            runner.advance(found.state, [], 3000, 1000, lambda: False)
        assert graphs() == before and list(runner.chunks.compiled) == [1]
        assert len(runner.chunks.paces[True].seconds) > 1 and not runner.chunks.paces[False].seconds
        expected = InductorRunner(body, Chunks(body), 1, None).advance(state, [], 0, 3000, lambda: False)
    assert all(torch.equal(a, b) for a, b in zip(found.state, expected.state, strict=True))


class Wandering(Leaky):
    """Draws from torch's own generator."""

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> Any:
        x, n = state
        return (self.gain * x + torch.rand_like(x), n + 1), x


@pytest.mark.usefixtures("quick")
def test_recording_draws_no_numbers_that_the_run_would_miss() -> None:
    system = Wandering()
    body, state = body_of(system), list(system.init_state())
    runs = []
    for recorder in (None, Again):
        runner = InductorRunner(body, Chunks(body), 4, recorder)
        with torch.no_grad():
            for _ in range(2):  # the first compiles, which leaves the generator where it happens to
                torch.manual_seed(5)
                found = runner.advance(state, [], 0, 10, lambda: False)
        runs.append([*found.state, *found.kept])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_recorded_runs_with_a_warning() -> None:
    system = Leaky()
    body = body_of(system)
    state = list(system.init_state())
    with (
        torch.no_grad(),
        pytest.warns(UserWarning, match="runs without CUDA graphs, which cannot record: operation not"),
    ):
        found = InductorRunner(body, Chunks(body), 2, Failing).advance(state, [], 0, 5, lambda: False)
    with torch.no_grad():
        expected = InductorRunner(body, Chunks(body), 2, None).advance(state, [], 0, 5, lambda: False)
    assert all(torch.equal(a, b) for a, b in zip(found.state, expected.state, strict=True))


class FakeCuda:
    """Notes what is asked of `torch.cuda`, and on which device and stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[str] = []
        self.device, self.stream = 0, "main"
        monkeypatch.setattr(torch.cuda, "device", lambda device: self.within("device", device.index))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: self.within("stream", stream.name))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: FakeStream(self, self.stream))
        monkeypatch.setattr(torch.cuda, "Stream", lambda: FakeStream(self, "aside"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(self))
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 7))

    def note(self, what: str) -> None:
        self.notes.append(f"{what} on {self.device}, {self.stream}")

    @contextlib.contextmanager
    def within(self, name: str, value: Any) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, value)
        yield
        setattr(self, name, before)

    @contextlib.contextmanager
    def graph(self, graph: Any, *, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert isinstance(graph, FakeGraph) and pool == (0, 7)
        assert capture_error_mode == "thread_local"  # else another thread that pins memory breaks the recording
        with self.within("stream", "capture"):
            self.note("begin")
            yield
            self.note("end")


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Any) -> None:
        self.cuda.note(f"{self.name} waits for {other.name}")


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        cuda.note("new graph")

    def replay(self) -> None:
        self.cuda.note("replay")


def test_cuda_graphs_are_recorded_on_the_device_of_the_system_after_a_warm_up_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda(monkeypatch)
    system = Leaky()
    body = body_of(system)
    body.tried = []  # it has no such device to be tried on
    monkeypatch.setattr(Leaky, "device", torch.device("cuda", 1))
    state = list(system.init_state())
    with_gradient = Inductor().start(body, state)
    body.differentiable = False
    runner, plain = (Inductor(cuda_graphs=graphs).start(body, state) for graphs in (True, False))
    assert isinstance(with_gradient, InductorRunner) and with_gradient.recorder is None
    assert isinstance(plain, InductorRunner) and plain.recorder is None
    assert isinstance(runner, InductorRunner) and runner.recorder is not None
    recorder = runner.recorder()
    assert isinstance(recorder, CudaRecorder)
    recorder.capture(lambda: cuda.note("run") or [])  # type: ignore[func-returns-value]
    recorder.replay()
    assert cuda.notes == [
        "new graph on 1, main",
        "aside waits for main on 1, main",
        "run on 1, aside",
        "run on 1, aside",
        "main waits for aside on 1, main",
        "begin on 1, capture",
        "run on 1, capture",
        "end on 1, capture",
        "replay on 1, main",
    ]


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
