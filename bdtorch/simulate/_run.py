"""One simulation: its chunks, and what they left."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch.integrate._equation import surely_finite
from bdtorch.simulate._body import OUT, Body
from bdtorch.simulate._functorch import transformed
from bdtorch.simulate._interrupt import Interrupt
from bdtorch.simulate._memory import joined
from bdtorch.simulate._progress import Bar
from bdtorch.simulate.loops import Loop
from bdtorch.simulate.loops._loop import Advance, Runner
from bdtorch.simulate.records import Spikes
from bdtorch.simulate.solution import Solution
from bdtorch.simulate.stream import Stream

_BRIEF = 1.0  # seconds of a run that Ctrl-C, where it comes too late to stop it, was hardly meant to
_PERIOD = 0.25  # seconds between returns to Python: for the progress bar, Ctrl-C and the check for NaN
_GROWTH = 16  # times the length of a chunk that the next may have
_CHUNK_BYTES = 1 << 27  # what the observed values of one chunk may take
_STREAMED_BYTES = 1 << 24  # the same where they go to a file


class Run:
    """The chunks of one simulation, and what they left.

    Args:
        body: The body of the time loop, tried out.
        state: Flat initial state.
        start: Number of steps between t = 0 and it.
        steps: Number of steps to take.
        check_finite: Whether to look for NaN and infinity.
        stream: Takes the records where they are to go to a file.
        chunk: Steps of the first chunk; its pace sets the length of the next.
    """

    def __init__(
        self,
        body: Body,
        state: list[Tensor],
        start: int,
        steps: int,
        check_finite: bool,
        stream: Stream | None = None,
        chunk: int = 64,
    ) -> None:
        self.body = body
        self.state = state
        self.start = start
        self.steps = steps
        self.check_finite = check_finite and not transformed()
        self.stream = stream
        self.chunk = chunk
        self.done = 0
        self.kept: list[list[Any]] = [[] for _ in body.observed]
        self.pieces: list[tuple[Tensor, ...]] = []
        self.interrupted = False
        self.loop = ""

    def to_the_end(self, chosen: tuple[Loop, Runner], progress: bool | None) -> Solution:
        loop, runner = chosen
        self.loop = loop.name
        if self.stream is not None:
            self.stream.loop = loop.name
        most = _CHUNK_BYTES if self.stream is None else _STREAMED_BYTES
        largest = max(1, int(most / max(1.0, runner.bytes_per_step(self.body))))
        chunk = runner.fixed_chunk or min(self.chunk, largest)
        entered = time.perf_counter()
        with Interrupt() as interrupt, Bar(self.steps, self.body.dt, progress) as bar:
            while self.done < self.steps and not self.interrupted:
                began = time.perf_counter()
                taken = self._advance(runner, min(chunk, self.steps - self.done), interrupt.requested)
                elapsed = time.perf_counter() - began
                bar.update(taken)
                self.interrupted = interrupt.requested() and self.done < self.steps
                # The pace of this chunk sets the length of the next, which grows within bounds: a pace may be a burst's.
                longest = min(_GROWTH * chunk, largest)
                chunk = runner.fixed_chunk or max(1, min(longest, int(taken * _PERIOD / max(elapsed, 1e-6))))
            if not self.interrupted and (time.perf_counter() - entered < _BRIEF or self.chunk >= self.steps):
                interrupt.pass_on()
        if self.interrupted and self.body.differentiable:
            raise KeyboardInterrupt
        if self.interrupted:
            if self.stream is not None:
                self.stream.ended = "interrupted"
            t = (self.start + self.done) * self.body.dt
            warnings.warn(f"simulate was interrupted at t = {t:g} ms; the solution holds what was done", stacklevel=3)
        return self.solution()

    def _advance(self, runner: Runner, count: int, stop: Callable[[], bool]) -> int:
        before, first = self.state, self.start + self.done
        runner.ahead = self.steps - self.done if self.stream is None else 0
        window = self._window(count, runner.fixed_chunk)
        result = runner.advance(before, window, first, count, stop)
        # A step that Python takes may change shapes late.
        self.body.check_state(before, tree.unflatten(result.state, self.body.spec))
        if self.check_finite and not _finite(result.state):
            self._report_nonfinite(runner, before, window, first, result.steps)
        self._take(result)
        return result.steps

    def _window(self, count: int, chunk: int | None) -> list[Tensor]:
        """The input slices of the next steps."""
        sequences = self.body.inputs.sequences
        if not chunk or self.done % chunk:
            return [sequence[self.done : self.done + count] for sequence in sequences]
        # Going back through slices would cost the whole length for each of them; through a split, once for all.
        self.pieces = self.pieces or [sequence.split(chunk) for sequence in sequences]
        return [piece[self.done // chunk] for piece in self.pieces]

    def _take(self, result: Advance) -> None:
        self.state = result.state
        self.done += result.steps
        if self.stream is not None:
            self.stream.take(result.kept, result.steps)
            return
        for kept, more in zip(self.kept, result.kept, strict=True):
            kept.append(more)

    def _report_nonfinite(
        self, runner: Runner, state: list[Tensor], window: list[Tensor], first: int, steps: int
    ) -> None:
        """Take the last chunk again, step by step, up to the one that went wrong."""
        for k in range(steps):
            result = runner.advance(state, [sequence[k : k + 1] for sequence in window], first + k, 1, lambda: False)
            if not _finite(result.state):
                error = FloatingPointError(self._nonfinite_message(result.state, first + k + 1))
                error.solution = self.solution()  # type: ignore[attr-defined]
                raise error
            self._take(result)
            state = result.state
        raise FloatingPointError(
            "`simulate`: a state variable became NaN or infinite in a step that cannot be found again"
        )

    def _nonfinite_message(self, state: list[Tensor], number: int) -> str:
        name, leaf = next((n, x) for n, x in zip(self.body.names, state, strict=True) if not _finite([x]))
        where = (~leaf.isfinite()).nonzero()[0].tolist()
        value = leaf[tuple(where)].item()
        element = where[0] if len(where) == 1 else tuple(where)
        return (
            f"`simulate`: {name!r} of element {element} became {value} at t = {number * self.body.dt:g} ms "
            f"(step {number}); the step dt={self.body.dt:g} ms may be too large for the model, or its input out of range"
        )

    def solution(self) -> Solution:
        """What the run has left so far."""
        body = self.body
        state = tree.unflatten(self.state, body.spec)
        every = {name: record.every for name, record in body.records.items()}
        results, outputs = self._results() if self.stream is None else (self.stream.records(), None)
        return Solution(
            state, results, body.dt, self.start, self.done, self.loop, self.interrupted, outputs=outputs, every=every
        )

    def _results(self) -> tuple[dict[str, Any], Any]:
        """The records, and the outputs where they are kept."""
        body = self.body
        merged = [self._merged(number) for number in range(len(body.observed))]
        results: dict[str, Any] = {}
        position = 0
        for (name, record), structure in zip(body.records.items(), body.structures, strict=True):
            flat = merged[position : position + structure.num_leaves]
            position += structure.num_leaves
            results[name] = flat[0] if record.sparse else tree.unflatten(flat, structure)
        outputs = results.pop(OUT, None)
        return results, outputs

    def _merged(self, number: int) -> Any:
        example, kept = self.body.observed[number], self.kept[number]
        if not self.body.sparse[number]:
            if len(kept) == 1 and not kept[0].requires_grad:
                return kept[0]
            return torch.cat(kept) if kept else example.new_empty((0, *example.shape))
        none = torch.empty(0, dtype=torch.int64, device=example.device)
        step = joined([step for step, _ in kept]) if kept else none
        train = joined([index for _, index in kept]) if kept else none
        return Spikes.of_trains(step, train, tuple(example.shape), self.body.dt, self.start, self.start + self.done)


def _finite(state: list[Tensor]) -> bool:
    leaves = (leaf.detach() for leaf in state if leaf.is_floating_point())
    return all(_surely_finite(leaf) or bool(leaf.isfinite().all()) for leaf in leaves)


def _surely_finite(leaf: Tensor) -> bool:
    """As `surely_finite`, in this thread alone, where NumPy can.

    PyTorch's threads, where they have helped with a sum, stay busy for milliseconds, waiting for more to do, on the cores
    where those of the next chunk are to run.
    """
    if leaf.device.type != "cpu" or leaf.dtype not in (torch.float32, torch.float64):
        return surely_finite(leaf)
    with np.errstate(all="ignore"):
        return math.isfinite(leaf.numpy().sum())
