"""The general compiled loop: `torch.compile` of a chunk of steps, on any device."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate._site import site_in
from bdtorch.simulate.loops._chunks import Chunks, chunks_of, forget
from bdtorch.simulate.loops._loop import Advance, Loop, LoopError, Runner, expect_pure, expect_repeatable, keep
from bdtorch.simulate.loops._replay import CudaRecorder, Recorder, Replayed

_SIZES = (1, 4, 16, 64)  # steps of a chunk that are tried
_CALLS = 8  # of which the fastest tells the pace of a chunk
_GAIN = 0.9  # a longer chunk must take at most so much of the time of a shorter one


@dataclass(frozen=True)
class Inductor(Loop):
    """Compile ``chunk`` steps as one graph; what is left over runs through a graph of one step.

    What is compiled stays with the system: later runs that differ in values alone compile nothing.

    Args:
        chunk: Steps per graph. More steps run faster and compile longer. By default it is measured: a chunk of 1 step
            is compiled, then 4, 16 and 64, each when the run has lasted as long as that compilation is expected to
            take, and only as long as the longer chunks prove faster. So a run never spends much more time on compiling
            than on running.
        cuda_graphs: On a CUDA device, record each chunk as a CUDA graph over buffers of its own, where no gradient is
            needed.
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
        import torch._inductor.compile_fx  # noqa: F401  a few seconds, which are no part of what a chunk takes to compile

        on_cuda = body.system.device.type == "cuda" and self.cuda_graphs and not body.differentiable
        return InductorRunner(body, chunks_of(body, state), self.chunk, CudaRecorder if on_cuda else None)


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
        self.replayed: dict[int, Replayed] = {}

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        parts: list[list[Tensor]] = [[] for _ in self.body.observed]
        done = 0
        latest: Replayed | None = None  # holds the state, where the last chunk was replayed
        while done < count and not (done and stop()):
            size = self._size(count - done)
            windows = [sequence[done : done + size] for sequence in sequences]
            began = time.perf_counter()
            if latest is not None and self.replayed.get(size) is not latest:
                state, latest = latest.state(), None
            replayed = self._recorded(size, state, windows)
            if replayed is None:
                state, observed = self._steps(size, state, windows, first + done)
            else:
                if latest is None:
                    replayed.load(state)
                observed = replayed(windows, first + done)
            latest = replayed
            if self.chunk is None:
                if self.body.system.device.type == "cuda":
                    torch.cuda.synchronize(self.body.system.device)  # or only the launches would be timed
                self._note(size, time.perf_counter() - began)
            for column, more in zip(parts, observed, strict=True):
                column.append(more)
            done += size
        if latest is not None:
            state = latest.state()
        return Advance(state, done, [self._kept(number, column, first) for number, column in enumerate(parts)])

    def _steps(
        self, size: int, state: list[Tensor], windows: list[Tensor], first: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        number = torch.full((), first, dtype=torch.int64, device=self.body.system.device)
        try:
            with self.body.alone:
                self.chunks.take_values_of(self.body)
                try:
                    return self.chunks.of(size)(state, windows, number)
                except torch._dynamo.exc.FailOnRecompileLimitHit:  # the system has changed too often
                    forget(self.chunks)
                    return self.chunks.of(size)(state, windows, number)
        except torch._dynamo.exc.TorchDynamoException as error:
            what, _, where = str(error).partition("from user code:")
            raise LoopError(
                f"the inductor loop cannot compile this model: {what.strip().splitlines()[0]} ({site_in(where)})"
            ) from error  # which says more

    def _recorded(self, size: int, state: list[Tensor], windows: list[Tensor]) -> Replayed | None:
        """The recorded chunk, or None where chunks run as they are."""
        if self.recorder is None:
            return None
        if size not in self.replayed:
            self._steps(size, state, windows, 0)  # compiles, which no recording may contain
            try:
                self.replayed[size] = Replayed(self.chunks.of(size), state, windows, self.recorder())
            except RuntimeError as error:
                warnings.warn(f"the inductor loop runs without CUDA graphs, which cannot record: {error}", stacklevel=6)
                self.recorder = None
                return None
        return self.replayed[size]

    def _size(self, left: int) -> int:
        """Steps of the next chunk: of those that fit, the fastest, or one that is due to be tried."""
        if self.chunk is not None:
            return self.chunk if left >= self.chunk else 1
        pace, calls = self.chunks.pace, self.chunks.calls
        for size in self.chunks.seconds:  # compiled
            if calls.get(size, 0) < _CALLS and size <= left:
                return size
        known = [size for size in _SIZES if size in pace and size <= left]
        if not known:
            return 1
        longest = max(pace)
        following = next((size for size in _SIZES if size > longest), None)
        before = max((size for size in pace if size < longest), default=None)
        gains = before is None or pace[longest] < _GAIN * pace[before]
        if following is not None and following <= left and gains:
            expected = self.chunks.seconds[longest] * following / longest  # compilation takes time by the step
            if self.chunks.spent > expected:
                return following
        return min(known, key=pace.__getitem__)

    def _note(self, size: int, seconds: float) -> None:
        """Note how long a chunk took. The first run of each compiles."""
        chunks = self.chunks
        if size not in chunks.seconds:
            chunks.seconds[size] = seconds
            chunks.spent = 0.0
            return
        chunks.spent += seconds
        pace = seconds / size
        chunks.pace[size] = min(pace, chunks.pace.get(size, pace))
        chunks.calls[size] = chunks.calls.get(size, 0) + 1

    def _kept(self, number: int, parts: list[Tensor], first: int) -> Tensor | tuple[Tensor, Tensor]:
        return keep(self.body, number, [row for part in parts for row in part.unbind()], first)
