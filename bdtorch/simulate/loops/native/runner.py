"""Running a compiled loop: addresses in, chunks of records out."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import Advance, Runner
from bdtorch.simulate.loops.native.graph import Graph
from bdtorch.simulate.loops.native.plan import Plan

# Positions in loop::Frame, see csrc/include/bdtorch/frame.h.
_BUFFERS, _FIRST, _COUNT, _THREADS, _BACKWARD, _DONE, _ERROR, _KEPT = 0, 1, 2, 3, 4, 8, 11, 32
_SPARSE_ENTRIES = 1 << 16  # room of a sparse record beyond one step's worst case
_HUGE_PAGE, _MADV_HUGEPAGE = 1 << 21, 14  # bytes; a constant of Linux


class Crew:
    """How many threads take the steps: of the numbers allowed, the one that has proved the fastest.

    Results do not depend on it, so it may change on the way. Meeting at barriers pays only where every thread has a
    core of its own, which other programs may take away; so a slower number is tried again, ever more seldom.

    Args:
        sizes: Numbers of threads.
    """

    def __init__(self, *sizes: int) -> None:
        self.pace = dict.fromkeys(sizes, 0.0)  # seconds per step, as last seen
        self.chunks = 0

    def shifts(self, count: int) -> Iterator[tuple[int, int]]:
        """Cut ``count`` steps into shifts: ``(threads, number of the step to end before)``."""
        self.chunks += 1
        trial = count // 16
        if trial and self.chunks & (self.chunks - 1) == 0:  # in chunks 1, 2, 4, 8 ...
            for turn, threads in enumerate(list(self.pace)[1:], 1):
                yield threads, turn * trial
        yield min(self.pace, key=self.pace.__getitem__), count

    def report(self, threads: int, pace: float) -> None:
        """Note the ``pace``, s per step, of so many ``threads``."""
        self.pace[threads] = pace


class NativeRunner(Runner):
    """Hands a compiled loop its memory, and takes its records."""

    backward = False  # whether steps are taken from the last to the first
    with_room = 0  # how many of the records, the last ones, leave room in memory for a row in front of theirs

    def __init__(self, body: Body, graph: Graph, plan: Plan, library: ctypes.CDLL, crew: Crew) -> None:
        self.body = body
        self.graph = graph
        self.plan = plan
        self.crew = crew
        self.function = library.bdtorch_loop
        self.function.argtypes = [ctypes.c_void_p]
        self.function.restype = ctypes.c_int
        self.fixed = [self._fixed(buffer) for buffer in plan.buffers]
        self.room = [
            example.numel() + max(example.numel(), _SPARSE_ENTRIES) if sparse else 0
            for example, sparse in zip(body.observed, body.sparse, strict=True)
        ]

    def _fixed(self, buffer: Any) -> Tensor | None:
        """Memory that stays the same from call to call; states and sequences come with each."""
        if buffer.role == "constant":
            return buffer.source.detach()
        if buffer.role == "temporary":
            return torch.zeros(buffer.numel, dtype=buffer.dtype)  # kernels that add find it clear, and leave it so
        if buffer.role == "threads":
            return torch.zeros(buffer.numel * max(self.crew.pace), dtype=buffer.dtype)
        return None

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        after = [leaf.detach().clone(memory_format=torch.contiguous_format) for leaf in state]
        slices = [sequence.detach().contiguous() for sequence in sequences]
        targets = self._targets(first, count)
        capacities = torch.tensor([room for room in self.room if room] or [0])
        memory = [self._memory(number, after, slices) for number in range(len(self.plan.buffers))]
        memory += [tensor for pair in targets for tensor in pair] + [capacities]
        addresses = torch.tensor([tensor.data_ptr() for tensor in memory])
        frame = torch.zeros(_KEPT + len(capacities), dtype=torch.int64)
        frame[_BUFFERS], frame[_FIRST] = addresses.data_ptr(), first
        frame[_BACKWARD] = count if self.backward else 0
        self._run(frame, count)
        done = int(frame[_DONE])
        if error := int(frame[_ERROR + (done - 1) % 2]):
            node = next(node for node in self.graph.nodes if node.number == error)
            raise IndexError(f"an index is out of range in step {first + done}: {node.op} ({node.site})")
        return Advance(after, done, self._kept(targets, frame[_KEPT:].tolist(), first, done))

    def _memory(self, number: int, state: list[Tensor], slices: list[Tensor]) -> Tensor:
        buffer = self.plan.buffers[number]
        fixed = self.fixed[number]
        if fixed is not None:
            return fixed
        if buffer.role == "state":
            return state[buffer.source]
        return slices[buffer.source] if buffer.role == "sequence" else torch.empty(0)  # the time has no memory

    def _run(self, frame: Tensor, count: int) -> None:
        for threads, until in self.crew.shifts(count):
            before, began = int(frame[_DONE]), time.perf_counter()
            frame[_THREADS], frame[_COUNT] = threads, until
            self._call(frame.data_ptr(), threads)
            done = int(frame[_DONE])
            self.crew.report(threads, (time.perf_counter() - began) / (done - before))
            if done < until:
                return

    def _call(self, frame: int, threads: int) -> None:
        """Take steps, without the interpreter's lock."""
        if error := self.function(frame):
            raise OSError(error, f"the native loop cannot begin {threads} threads: {os.strerror(error)}")

    def _targets(self, first: int, count: int) -> list[tuple[Tensor, Tensor]]:
        targets = []
        plain = len(self.room) - self.with_room
        for number, (example, every, room) in enumerate(
            zip(self.body.observed, self.body.every, self.room, strict=True)
        ):
            if room:
                targets.append((torch.empty(room, dtype=torch.int64), torch.empty(room, dtype=torch.int64)))
            else:
                rows = (first + count) // every - first // every
                front = int(number >= plain)
                values = _in_huge_pages(torch.empty((front + rows, *example.shape), dtype=example.dtype))
                targets.append((values[front:], torch.empty(0)))
        return targets

    def _kept(
        self, targets: list[tuple[Tensor, Tensor]], counts: list[int], first: int, done: int
    ) -> list[Tensor | tuple[Tensor, Tensor]]:
        kept: list[Tensor | tuple[Tensor, Tensor]] = []
        slots = iter(counts)
        for (values, positions), every, sparse in zip(targets, self.body.every, self.body.sparse, strict=True):
            if sparse:
                count = next(slots)
                kept.append((values[:count].clone(), positions[:count].clone()))
            else:
                kept.append(values[: (first + done) // every - first // every])
        return kept


def _in_huge_pages(memory: Tensor) -> Tensor:
    """Ask for large pages: writing to fresh memory takes less time than the faults of its small ones."""
    size = memory.numel() * memory.element_size()
    if size >= 2 * _HUGE_PAGE and sys.platform.startswith("linux"):
        first = -(-memory.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        length = (memory.data_ptr() + size - first) // _HUGE_PAGE * _HUGE_PAGE
        # Advice only: a kernel that does not take it leaves the memory as it was.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return memory
