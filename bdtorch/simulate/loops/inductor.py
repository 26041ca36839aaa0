"""The general compiled loop: `torch.compile` of a chunk of steps, on any device."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate._site import site_in
from bdtorch.simulate.loops._chunks import Chunks, chunks_of, forget
from bdtorch.simulate.loops._direct import Direct
from bdtorch.simulate.loops._loop import Advance, Loop, LoopError, Runner, expect_pure, expect_repeatable
from bdtorch.simulate.loops._replay import CudaRecorder, Recorder, Replays


@dataclass(frozen=True)
class Inductor(Loop):
    """Compile ``chunk`` steps as one graph; what is left over runs through a graph of one step.

    What is compiled stays with the system: later runs that differ in values alone compile nothing.

    Args:
        chunk: Steps per graph. More steps run faster and compile longer. By default it is measured: a chunk of 1 step
            is compiled, then 4, 16 and 64, each when the run has lasted as long as that compilation is expected to
            take, and only as long as the longer chunks prove faster. So a run never spends much more time on compiling
            than on running.
        cuda_graphs: On a CUDA device, record chunks as CUDA graphs over buffers of their own, where no gradient is
            needed. Then one step is compiled, and recorded as often as a chunk has steps.
    """

    chunk: int | None = None
    cuda_graphs: bool = True
    name = "inductor"

    def __post_init__(self) -> None:
        if self.chunk is not None and (not isinstance(self.chunk, int) or self.chunk < 1):
            raise ValueError(f"`Inductor(chunk=...)`: expected a positive integer or None, got {self.chunk!r}")

    def start(self, body: Body, state: list[Tensor]) -> Runner:
        expect_pure(body, self.name)
        expect_repeatable(body, state, self.name)
        import torch._inductor.compile_fx  # a few seconds, which are no part of what a chunk takes to compile

        recorder: Callable[[], Recorder] | None = None
        if body.system.device.type == "cuda" and self.cuda_graphs and not body.differentiable:
            recorder = functools.partial(CudaRecorder, body.system.device, torch.cuda.graph_pool_handle())
        return InductorRunner(body, chunks_of(body, state), self.chunk, recorder)


class InductorRunner(Runner):
    """Runs compiled chunks.

    Args:
        body: The body at hand.
        chunks: Its compiled chunks.
        chunk: Steps per chunk, or None where that is to be measured.
        recorder: Makes recorders, where chunks are to be recorded and replayed.
    """

    def __init__(self, body: Body, chunks: Chunks, chunk: int | None, recorder: Callable[[], Recorder] | None) -> None:
        self.body = body
        self.chunks = chunks
        self.chunk = chunk
        self.recorder = recorder
        self.replays: Replays | None = None
        self.direct: dict[int, Direct | None] = {}
        self.latest: Direct | None = None

    def bytes_per_step(self, body: Body) -> float:
        sizes = (example.numel() * example.element_size() for example in body.observed)
        return sum(size / every for size, every in zip(sizes, body.every, strict=True))

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        parts: list[list[Tensor]] = [[] for _ in self.body.observed]
        done = 0
        self.direct, self.latest = {}, None  # what the graphs depend on may have changed since
        self._begin_replays(state, sequences)
        loaded = False  # whether the buffers of the replays hold the state
        # Objects of their own, which `Direct` tells from others: a state may be lent from the system's constants.
        state = [leaf.view_as(leaf) for leaf in state]
        while done < count and not (done and stop()):
            pace = self.chunks.paces[self.replays is not None]
            size = self._size(count - done)
            windows = [sequence[done : done + size] for sequence in sequences]
            began = time.perf_counter()
            if self.replays is not None and size not in self.replays.chunks:
                state, loaded = self.replays.state() if loaded else state, False
                self._record(size, windows)
            if self.replays is None:
                state, observed = self._steps(size, state, windows, first + done)
                observed = [x[some] for x, some in zip(observed, self._kept(first + done), strict=True)]
            else:
                if not loaded:
                    self.replays.load(state)
                observed = self.replays.chunks[size](windows, first + done, self._kept(first + done))
                loaded = True
            if self.chunk is None and not pace.settled():
                if self.body.system.device.type == "cuda":
                    torch.cuda.synchronize(self.body.system.device)  # or only the launches would be timed
                pace.note(size, time.perf_counter() - began)
            for column, more in zip(parts, observed, strict=True):
                column.append(more)
            done += size
        if self.replays is not None and loaded:
            state = self.replays.state()
        return Advance(state, done, [self._merged(number, column, first) for number, column in enumerate(parts)])

    def _steps(
        self, size: int, state: list[Tensor], windows: list[Tensor], first: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Take a compiled chunk; what it observed has an axis time in front."""
        number = torch.full((), first, dtype=torch.int64, device=self.body.system.device)
        direct = self.direct.get(size)
        if direct is not None and direct.takes(windows) and (direct is self.latest or direct.fits(state)):
            after, observed = direct(state, windows, number)
            self.latest = direct
        else:
            after, observed = self._checked_steps(size, state, windows, number)
            self.latest = None
        return after, [x.unsqueeze(0) for x in observed] if size == 1 else observed

    def _checked_steps(
        self, size: int, state: list[Tensor], windows: list[Tensor], number: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The same by way of Dynamo, which compiles where it has to."""
        try:
            with self.body.alone, warnings.catch_warnings():
                # Dynamo looks at the gradient of each tensor that it is given, which the state between two chunks has not.
                warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
                self.chunks.take_values_of(self.body)
                try:
                    steps, tap = self.chunks.of(size)
                    after, observed = steps(state, windows, number)
                except torch._dynamo.exc.FailOnRecompileLimitHit:  # the system has changed too often
                    forget(self.chunks)
                    steps, tap = self.chunks.of(size)
                    after, observed = steps(state, windows, number)
                self.direct[size] = Direct.of(tap.take(), state, windows, number, after, observed)
                return after, observed
        except torch._dynamo.exc.TorchDynamoException as error:
            what, _, where = str(error).partition("from user code:")
            raise LoopError(
                f"the inductor loop cannot compile this model: {what.strip().splitlines()[0]} ({site_in(where)})"
            ) from error  # which says more

    def _begin_replays(self, state: list[Tensor], sequences: list[Tensor]) -> None:
        """Compile the step that is to be recorded, and try out whether it can be."""
        if self.recorder is None or self.replays is not None:
            return
        windows = [sequence[:1] for sequence in sequences]
        self._steps(1, state, windows, 0)  # compiles, or says why it cannot
        self.replays = Replays(self.chunks.of(1)[0], state, self.recorder)
        try:
            self._record(1, windows)
        except RuntimeError as error:
            cause = first_cause(error)
            warnings.warn(f"the inductor loop runs without CUDA graphs, which cannot record: {cause}", stacklevel=5)
            self.recorder = self.replays = None

    def _record(self, size: int, windows: list[Tensor]) -> None:
        """Record a chunk. Its trial runs draw no numbers of torch's generators that the run would miss."""
        assert self.replays is not None, "what records has been made"
        device = self.body.system.device
        with self.body.alone, torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.chunks.take_values_of(self.body)
            self.replays.record(size, windows, device)
            self.chunks.of(1)[1].take()

    def _size(self, left: int) -> int:
        """Steps of the next chunk."""
        if self.chunk is not None:
            return self.chunk if left >= self.chunk else 1
        return self.chunks.paces[self.replays is not None].size(left)

    def _kept(self, first: int) -> list[slice]:
        """Which of some steps from number ``first`` on each record keeps."""
        every = zip(self.body.every, self.body.sparse, strict=True)
        return [slice(None) if sparse else slice((-(first + 1)) % every, None, every) for every, sparse in every]

    def _merged(self, number: int, parts: list[Tensor], first: int) -> Tensor | tuple[Tensor, Tensor]:
        values = parts[0] if len(parts) == 1 else torch.cat(parts)
        if not self.body.sparse[number]:
            return values
        where = values.reshape(len(values), self.body.observed[number].numel()).nonzero()
        return where[:, 0] + (first + 1), where[:, 1]


def first_cause(error: BaseException) -> BaseException:
    """The error that began it: after a failure within a recording its end fails too, and says nothing of it."""
    while error.__context__ is not None:
        error = error.__context__
    return error
