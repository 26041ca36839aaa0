"""Chunks of the inductor loop that are recorded once and replayed over buffers of their own, as CUDA graphs are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch.simulate.loops._chunks import Chunks
from bdtorch.simulate.loops._replay import CudaRecorder, Recorder
from bdtorch.simulate.loops.inductor import Inductor, InductorRunner
from tests.simulate.chunked import Again, Leaky, body_of, graphs

pytestmark = pytest.mark.usefixtures("fresh")


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
