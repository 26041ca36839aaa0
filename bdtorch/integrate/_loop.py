"""Loops over steps, as solvers see them: a protocol, a plain Python loop that fulfils it, and the drive through a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State

Step = Callable[[State, Any, Tensor], tuple[State, Any]]
"""``step(state, slices, number) -> (state, out)``: pure; ``slices`` are the rows of the sequences that belong to this
step, in the structure of the sequences; ``number`` is the number of the step, a 0-d float64 tensor, so that a fixed-step
method computes its time as ``t0 + number * dt``, without accumulating rounding errors."""

_PERIOD = 0.25  # seconds between looks at the progress bar
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
_LONGEST = 1 << 14  # steps per chunk


class Prepared(Protocol):
    """A loop made ready for one step function and one structure of state."""

    def __call__(self, state: State, slices: Any, first: int, count: int) -> tuple[State, Any]:
        """Take ``count`` steps from number ``first`` on.

        Args:
            state: State before them; not written to.
            slices: The sequences' rows of these steps, each leaf with a leading axis of length ``count``.
            first: Number of the first step.
            count: Number of steps, at least 1.

        Returns:
            The state after them, and what ``step`` put out, stacked along a new leading axis; of every ``every``-th
            step only, counted from step 0.
        """


class TimeLoop(Protocol):
    """Something that runs steps: `PythonLoop`, or a loop object of bdtorch, such as ``bdtorch.Native()``."""

    def prepare(
        self, step: Step, state: State, sequences: Any = (), *, every: int = 1, lends: bool = False
    ) -> Prepared:
        """Make ready: trace and compile where the loop does.

        Args:
            step: A step.
            state: A state as an example: its structure, shapes and dtypes stay the same.
            sequences: Pytree of tensors with a leading axis of steps; one row as an example is enough.
            every: Keep what every so-manieth step puts out.
            lends: Whether what the steps put out is only lent, until the next call, which may write over it.
        """


@dataclass(frozen=True)
class PythonLoop:
    """Call the step from Python, operation by operation: works under every `torch.func` transform and with autograd."""

    def prepare(
        self, step: Step, state: State, sequences: Any = (), *, every: int = 1, lends: bool = False
    ) -> Prepared:
        device = next((leaf.device for leaf in tree.tensors(state)), None)

        def advance(state: State, slices: Any, first: int, count: int) -> tuple[State, Any]:
            numbers = torch.arange(first, first + count, dtype=torch.float64, device=device).unbind()
            flat, spec = tree.flatten(slices)
            columns = [leaf.unbind() for leaf in flat]
            outs: list[Any] = []
            out: Any = None
            for k in range(count):
                state, out = step(state, tree.unflatten([column[k] for column in columns], spec), numbers[k])
                if (first + k + 1) % every == 0:
                    outs.append(out)
            return state, stacked(outs, out)

        return advance


def stacked(outs: list[Any], example: Any) -> Any:
    """Stack equal pytrees along a new leading axis; no rows of the form of ``example`` where there are none."""
    if not outs:
        return tree.map(lambda leaf: leaf.new_empty((0, *leaf.shape)), example)
    return tree.map(lambda *leaves: torch.stack(leaves), outs[0], *outs[1:])


class Pace:
    """How fast a prepared loop has proved, so that a later run need not begin with a short chunk to find out."""

    def __init__(self) -> None:
        self.seconds = 0.0  # per step, as last seen; 0 before that
        self.density = 0.0  # trials of the last adaptive run per unit of time

    def chunk(self, longest: int) -> int:
        """Steps that take about as long as the progress bar may wait."""
        return max(1, min(longest, int(_PERIOD / self.seconds))) if self.seconds else min(64, longest)

    def report(self, count: int, seconds: float) -> None:
        """Note that so many steps took so long."""
        self.seconds = max(seconds / count, 1e-9)


def iterate(
    prepared: Prepared,
    state: State,
    steps: int,
    *,
    sequences: Any = (),
    first: int = 0,
    progress: bool | None = None,
    description: str = "integrate",
    pace: Pace | None = None,
) -> tuple[State, Any]:
    """Run ``steps`` steps in chunks, with a progress bar where that takes long.

    Args:
        prepared: What `TimeLoop.prepare` returned.
        state: State to start from.
        steps: Number of steps, at least 1.
        sequences: Pytree of tensors with a leading axis of length ``steps``.
        first: Number of the first step.
        progress: Show a bar; default where the run takes longer than a few seconds.
        description: What the bar says.
        pace: What is known of the speed of ``prepared`` from earlier runs.

    Returns:
        The final state, and what the steps put out, stacked.
    """
    if torch.compiler.is_compiling():  # a graph has no clock
        return prepared(state, sequences, first, steps)
    pace = pace or Pace()
    done, chunk = 0, pace.chunk(_LONGEST)
    parts: list[Any] = []
    with Progress(steps, progress, description) as bar:
        while done < steps:
            count = min(chunk, steps - done)
            begin, end, began = done, done + count, time.perf_counter()
            window = tree.map(lambda leaf, begin=begin, end=end: leaf[begin:end], sequences)
            state, out = prepared(state, window, first + done, count)
            parts.append(out)
            done += count
            bar.update(done)
            pace.report(count, time.perf_counter() - began)
            chunk = pace.chunk(min(4 * chunk, _LONGEST))
    return state, parts[0] if len(parts) == 1 else tree.map(lambda *leaves: torch.cat(leaves), parts[0], *parts[1:])


class Progress:
    """A progress bar that appears once a run proves long.

    Args:
        total: Amount of work.
        wanted: Whether to show the bar; None shows it where more than two seconds remain after the first.
        description: What the bar says.
    """

    def __init__(self, total: float, wanted: bool | None, description: str) -> None:
        self.total, self.wanted, self.description = total, wanted, description
        self.bar: Any = None
        self.began = self.refreshed = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def update(self, done: float) -> None:
        """Note that so much of the total is done."""
        now = time.perf_counter()
        elapsed = now - self.began
        long = elapsed > 1.0 and elapsed * (self.total - done) > 2.0 * done
        if self.bar is None and (self.wanted or (self.wanted is None and long)):
            from tqdm.auto import tqdm  # imported where a bar appears: it takes a while

            self.bar = tqdm(total=self.total, desc=self.description, bar_format=_FORMAT)
        if self.bar is not None and (now - self.refreshed > _PERIOD or done >= self.total):
            self.refreshed = now
            self.bar.n = done
            self.bar.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
