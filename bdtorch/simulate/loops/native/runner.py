"""Running a compiled loop: addresses in, chunks of records out."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from bdtorch.ops import native_kernel
from bdtorch.simulate._body import Body
from bdtorch.simulate._memory import cleared, copied, in_huge_pages, room
from bdtorch.simulate.loops._loop import Advance, Runner
from bdtorch.simulate.loops.native.made import Made
from bdtorch.simulate.loops.native.memory import Buffer, held
from bdtorch.simulate.loops.native.operations import DIVISOR

# Positions in loop::Frame, see csrc/include/bdtorch/frame.h.
_BUFFERS, _FIRST, _COUNT, _THREADS, _BACKWARD, _PROBLEM, _DONE, _ERROR, _KEPT = 0, 1, 2, 3, 4, 6, 8, 11, 16
_WORDS = 256  # bytes of what an exception says
_SPARSE_ENTRIES, _MOST_ENTRIES = 1 << 16, 1 << 23  # least and most room of a sparse record beyond one step's worst case
_MARGIN = 1.25  # room for as many entries as the last chunk lets expect, and a quarter more
_SHARE = 1 / 256  # of a sparse record's elements: how many are expected in a step where none have been seen
_GAIN = 1.1  # how many times faster more threads must be to be taken, for gains that small come and go
_NO_LIST = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)


class Crew:
    """How many threads take the steps: of the numbers allowed, the one that has proved the fastest.

    Results do not depend on it, so it may change on the way. Meeting at barriers pays only where every thread has a
    core of its own, which other programs may take away, and where these cores are close to one another, which the host
    of a virtual machine may change; so all numbers are tried again, ever more seldom, one right after the other, since
    the same network may be busier at another time.

    Args:
        sizes: Numbers of threads, ascending.
    """

    def __init__(self, *sizes: int) -> None:
        self.pace = dict.fromkeys(sizes, 0.0)  # seconds per step, as last seen
        self.chosen = min(sizes)
        self.chunks = 0

    def shifts(self, count: int) -> Iterator[tuple[int, int]]:
        """Cut ``count`` steps into shifts: ``(threads, number of the step to end before)``."""
        self.chunks += 1
        trial = count // 32
        due = self.chunks & (self.chunks - 1) == 0 or self._cheapest() != self.chosen  # in chunks 1, 2, 4, 8 ...
        if trial and due and len(self.pace) > 1:
            best = dict.fromkeys(self.pace, math.inf)
            for turn, threads in enumerate([*reversed(self.pace)] * 2, 1):  # twice, for one may be held up
                yield threads, turn * trial
                best[threads] = min(best[threads], self.pace[threads])
            self.pace = best
            self.chosen = self._cheapest()
        yield self.chosen, count

    def _cheapest(self) -> int:
        return min(self.pace, key=self._cost)

    def _cost(self, threads: int) -> float:
        """Seconds per step, and what else speaks against more than the fewest threads."""
        return self.pace[threads] * (_GAIN if threads > min(self.pace) else 1.0)

    def report(self, threads: int, pace: float) -> None:
        """Note the ``pace``, s per step, of so many ``threads``."""
        self.pace[threads] = pace


class NativeRunner(Runner):
    """Hands a compiled loop its memory, and takes its records.

    Args:
        body: The body at hand.
        loop: Its loop.
        constants: The constants of its traced step.
        crew: Chooses the number of threads.
    """

    backward = False  # whether steps are taken from the last to the first
    with_room = 0  # how many of the records, the last ones, leave room in memory for a row in front of theirs

    def __init__(self, body: Body, loop: Made, constants: list[Tensor], crew: Crew) -> None:
        self.body = body
        self.loop = loop
        self.crew = crew
        self.fixed = [self._fixed(buffer, constants) for buffer in loop.buffers]
        self.pace = [0.0 for sparse in body.sparse if sparse]  # entries of each sparse record in a step, as last seen
        self.lists = [_NO_LIST for _ in self.pace]  # what they are kept in until copied
        self.used = [0 for _ in self.pace]  # how much of each list holds entries that were given away
        self.lent: dict[int, Tensor] = {}  # the memory of other records, where those are lent

    def _fixed(self, buffer: Buffer, constants: list[Tensor]) -> Tensor | None:
        """Memory that stays the same from call to call; states and sequences come with each."""
        if buffer.role == "constant":
            return held(buffer, constants[buffer.source])
        if buffer.role == "temporary":
            return cleared(buffer.numel, buffer.dtype)  # kernels that add find it clear, and leave it so
        if buffer.role == "threads":
            return cleared(buffer.numel * max(self.crew.pace), buffer.dtype)
        return None

    def bytes_per_step(self, body: Body) -> float:
        return body.bytes_kept_per_step()

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        after = [copied(leaf.detach()) for leaf in state]
        slices = [sequence.detach().contiguous() for sequence in sequences]
        targets = self._targets(first, count)
        capacities = torch.tensor([len(positions) for _, positions in targets if len(positions)] or [0])
        memory = [self._memory(number, after, slices) for number in range(len(self.loop.buffers))]
        memory += [tensor for pair in targets for tensor in pair] + [capacities]
        addresses = torch.tensor([tensor.data_ptr() for tensor in memory])
        frame = torch.zeros(_KEPT + len(capacities), dtype=torch.int64).numpy()  # whose elements are quicker to reach
        frame[_BUFFERS], frame[_FIRST] = addresses.data_ptr(), first
        frame[_BACKWARD] = count if self.backward else 0
        problem = ctypes.create_string_buffer(_WORDS)
        frame[_PROBLEM] = ctypes.addressof(problem)
        self._run(frame, count)
        done = int(frame[_DONE])
        if error := int(frame[_ERROR + (done - 1) % 2]):
            raise self._error(error, first + done, problem.value)
        counts = frame[_KEPT:].tolist()
        self.pace = [count / max(1, done) for count, _ in zip(counts, self.pace, strict=False)]
        return Advance(after, done, self._kept(targets, counts, first, done))

    def _error(self, operation: int, step: int, problem: bytes) -> Exception:
        name, site = self.loop.sites[operation]
        if name == DIVISOR:
            return RuntimeError(f"ZeroDivisionError: integers are divided by 0 in step {step} ({site})")
        if native_kernel(name) is not None:
            text = problem.decode(errors="replace")
            return RuntimeError(f"the kernel of {name} raised an exception in step {step} ({site}): {text}")
        return IndexError(f"an index is out of range in step {step}: {name} ({site})")

    def _memory(self, number: int, state: list[Tensor], slices: list[Tensor]) -> Tensor:
        buffer = self.loop.buffers[number]
        fixed = self.fixed[number]
        if fixed is not None:
            return fixed
        if buffer.role == "state":
            return state[buffer.source]
        return slices[buffer.source] if buffer.role == "sequence" else torch.empty(0)  # the time has no memory

    def _run(self, frame: np.ndarray, count: int) -> None:
        for threads, until in self.crew.shifts(count):
            before, began = int(frame[_DONE]), time.perf_counter()
            frame[_THREADS], frame[_COUNT] = threads, until
            self._call(frame.ctypes.data, threads)
            done = int(frame[_DONE])
            self.crew.report(threads, (time.perf_counter() - began) / (done - before))
            if done < until:
                return

    def _call(self, frame: int, threads: int) -> None:
        """Take steps, without the interpreter's lock."""
        if error := self.loop.function(frame):
            raise OSError(error, f"the native loop cannot begin {threads} threads: {os.strerror(error)}")

    def _targets(self, first: int, count: int) -> list[tuple[Tensor, Tensor]]:
        """Memory for the records of a chunk: values and nothing or, of a sparse one, numbers of steps and positions."""
        targets = []
        plain = len(self.body.observed) - self.with_room
        number_of_list = itertools.count()
        for number, (example, every, sparse) in enumerate(
            zip(self.body.observed, self.body.every, self.body.sparse, strict=True)
        ):
            if sparse:
                targets.append(self._list(next(number_of_list), example.numel(), count))
            else:
                rows = (first + count) // every - first // every
                front = int(number >= plain)
                values = self._rows(number, front + rows, example)
                targets.append((values[front:], torch.empty(0)))
        return targets

    def _rows(self, number: int, rows: int, example: Tensor) -> Tensor:
        """Memory for so many rows of a record: what was lent before, where that is large enough."""
        size = rows * example.numel()
        memory = self.lent.get(number)
        if memory is None or memory.numel() < size:
            memory = in_huge_pages(torch.empty(size, dtype=example.dtype))
            if self.lends:
                self.lent[number] = memory
        return memory[:size].view((rows, *example.shape))

    def _list(self, number: int, worst: int, count: int) -> tuple[Tensor, Tensor]:
        """A sparse record's memory for ``count`` steps, each of which may add ``worst`` entries. A full one ends the chunk."""
        expected = min(int(_MARGIN * self.pace[number] * count), _MOST_ENTRIES)
        entries = worst + max(worst, _SPARSE_ENTRIES, expected)
        if len(self.lists[number][0]) - self.used[number] < entries:
            pace = self.pace[number] or worst * _SHARE
            # What is not written takes no memory of the machine's, so there may be room for the rest of the run.
            entries += min(int(_MARGIN * pace * self.ahead), _MOST_ENTRIES)
            self.lists[number], self.used[number] = (room(entries, torch.int64), room(entries, torch.int64)), 0
        step, position = self.lists[number]
        return step[self.used[number] :], position[self.used[number] :]

    def _kept(
        self, targets: list[tuple[Tensor, Tensor]], counts: list[int], first: int, done: int
    ) -> list[Tensor | tuple[Tensor, Tensor]]:
        kept: list[Tensor | tuple[Tensor, Tensor]] = []
        slots = enumerate(counts)
        for (values, positions), every, sparse in zip(targets, self.body.every, self.body.sparse, strict=True):
            if sparse:
                number, count = next(slots)
                if self.ahead:  # entries of the next chunks are to lie behind these
                    kept.append((values[:count], positions[:count]))
                    self.used[number] += count
                elif 2 * count < len(values):
                    kept.append((copied(values[:count]), copied(positions[:count])))
                else:  # given away: another list takes no more memory than a copy, and less time
                    kept.append((values[:count], positions[:count]))
                    self.lists[number], self.used[number] = _NO_LIST, 0
            else:
                kept.append(values[: (first + done) // every - first // every])
        return kept
