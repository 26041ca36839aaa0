"""`simulate`: the one front door to the time loop."""

from __future__ import annotations

import difflib
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, initial_state, whole_steps
from bdtorch._types import State
from bdtorch.simulate._body import Body
from bdtorch.simulate._interrupt import Interrupt
from bdtorch.simulate.inputs import count_steps, resolve
from bdtorch.simulate.loops import Inductor, Loop, LoopError, Native, Reference
from bdtorch.simulate.loops._loop import Advance, Runner
from bdtorch.simulate.records import Record, Spikes
from bdtorch.simulate.solution import Solution

LOOPS = {"reference": Reference, "inductor": Inductor, "native": Native}
_PERIOD = 0.25  # seconds between returns to Python: for the progress bar, Ctrl-C and the check for NaN
_CHUNK_BYTES = 1 << 27  # what the observed values of one chunk may take


def simulate(
    system: DynamicalSystem,
    inputs: Any = None,
    *,
    dt: float,
    duration: float | None = None,
    state: State | None = None,
    t0: float = 0.0,
    batch_shape: tuple[int, ...] | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    record: Mapping[str, Record | Callable[[State, Any], Any]] | None = None,
    keep_out: bool | None = None,
    loop: str | Loop = "auto",
    progress: bool | None = None,
    check_finite: bool = True,
) -> Solution:
    """Run a system through time.

    Args:
        system: What to run.
        inputs: Input of each step, in any pytree that the system takes. A number or 0-d tensor is constant, as is a
            tensor in `Constant`; any other tensor has a leading axis time; a function maps the time (0-d float64
            tensor, ms) to the input, in torch operations.
        dt: Step, ms.
        duration: ms, a multiple of ``dt``; may be left out where an input has a leading axis time.
        state: State to start from; default a fresh one from ``batch_shape`` and ``seed``.
        t0: Time of ``state``, ms, a multiple of ``dt``.
        batch_shape: Batch of the fresh state; default what the inputs imply.
        parameters: Tensors that stand in for parameters and buffers of ``system`` in every step, by their names in its
            ``state_dict``: for `torch.func.grad` and `torch.func.vmap` over parameters.
        seed: Names the fresh state's random initial values and noise; the same seed gives the same run.
        record: What to keep, by name: `trace`, `spikes`, `Record`, or a function of state and output.
        keep_out: Whether to stack the outputs into ``sol.out``; default where nothing is recorded.
        loop: ``"auto"``, ``"reference"``, ``"inductor"``, ``"native"``, or a loop object. ``"auto"`` takes native on the
            CPU and inductor elsewhere, and reference under `torch.func` transforms. Where a loop cannot run the system,
            a warning says why and which comes next. A second derivative needs reference.
        progress: Show a bar; default in terminals and notebooks where the run takes longer than a few seconds.
        check_finite: Stop with an error that names variable, element and time where a state variable becomes NaN or
            infinite.

    Returns:
        The `Solution`. After Ctrl-C it holds what was done until then, with ``interrupted`` set.

    Raises:
        TypeError, ValueError, KeyError: An argument is not as described; the message names it.
        FloatingPointError: A state variable became NaN or infinite; its ``solution`` attribute holds the run so far.
        LoopError: The loop that was asked for cannot run this system.
    """
    _check_arguments(system, dt, loop, record)
    resolved = resolve(inputs, system)
    steps = count_steps(resolved, dt, duration)
    start = whole_steps(t0, dt, "simulate(t0=...)")
    if start < 0:
        raise ValueError(f"`simulate(t0=...)`: expected at least 0 ms, got {t0:g}")
    if state is None:
        batch = resolved.batch_shape(max(1, len(system.size))) if batch_shape is None else tuple(batch_shape)
        state = initial_state(system, batch, dt=dt, seed=seed)
    elif batch_shape is not None:
        raise ValueError(
            "`simulate(batch_shape=...)`: expected None where a state is given, since the state has its own"
        )
    flat = _checked_state(system, state)
    records = {name: item if isinstance(item, Record) else Record(item) for name, item in (record or {}).items()}
    keep_out = not records if keep_out is None else keep_out
    if keep_out:
        records = {**records, _OUT: Record(lambda after, out: out)}
    body = Body(system, resolved, records, state, float(dt), _checked_parameters(system, parameters))
    if steps or not resolved.sequences:
        body.try_out(flat, start)
    run = _Run(body, flat, start, steps, check_finite)
    return run.to_the_end(_chosen(loop, system, body, flat), progress)


_OUT = "out (kept)"


def _check_arguments(system: Any, dt: Any, loop: Any, record: Any) -> None:
    if not isinstance(system, DynamicalSystem):
        raise TypeError(f"`simulate(system=...)`: expected a DynamicalSystem, got {type(system).__name__}")
    if isinstance(dt, bool) or not isinstance(dt, (int, float)) or not 0 < dt < math.inf:
        raise ValueError(f"`simulate(dt=...)`: expected a finite number of ms above 0, got {dt!r}")
    if not isinstance(loop, Loop) and loop != "auto" and loop not in LOOPS:
        close = difflib.get_close_matches(str(loop), ["auto", *LOOPS], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`simulate(loop=...)`: expected 'auto', {', '.join(map(repr, LOOPS))}, got {loop!r}{hint}")
    if record is not None and not isinstance(record, Mapping):
        raise TypeError(f"`simulate(record=...)`: expected a dict of records by name, got {type(record).__name__}")


def _checked_state(system: DynamicalSystem, state: State) -> list[Tensor]:
    flat: list[Tensor] = []
    for name, leaf in tree.named_leaves(state):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"`simulate(state=...)`: expected tensors only, got {type(leaf).__name__} for {name!r}")
        if leaf.device != system.device:
            raise ValueError(f"`simulate(state=...)`: expected device {system.device}, got {leaf.device} for {name!r}")
        if leaf.is_floating_point() and leaf.dtype != system.dtype:
            raise TypeError(f"`simulate(state=...)`: expected dtype {system.dtype}, got {leaf.dtype} for {name!r}")
        flat.append(leaf)
    return flat


def _checked_parameters(system: DynamicalSystem, parameters: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    if not parameters:
        return None
    known = {**dict(system.named_parameters()), **dict(system.named_buffers())}
    for name in parameters:
        if name not in known:
            names = ", ".join(repr(key) for key in known if not key.endswith("_anchor"))
            raise ValueError(f"`simulate(parameters=...)`: expected names among {names or 'none'}, got {name!r}")
    return dict(parameters)


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()


def _chosen(loop: str | Loop, system: DynamicalSystem, body: Body, state: list[Tensor]) -> tuple[Loop, Runner]:
    """The loop that was asked for, made ready; "auto" falls back by name, never in silence."""
    if isinstance(loop, Loop) or loop != "auto":
        chosen = loop if isinstance(loop, Loop) else LOOPS[loop]()
        if isinstance(chosen, Native) and _transformed():
            raise LoopError("the native loop runs outside torch.func transforms; use loop='reference' within")
        return chosen, chosen.start(body, state)
    order: list[Loop] = [Native(), Inductor(), Reference()]
    if _transformed():
        order = [Reference()]
    elif system.device.type != "cpu":
        order = [Inductor(), Reference()]
    elif body.differentiable:
        order = [Native(), Reference()]  # what inductor compiles for a gradient takes minutes
    for candidate, following in zip(order, [*order[1:], None], strict=True):
        try:
            return candidate, _ready(candidate, body, state)
        except LoopError as error:
            if following is None:
                raise
            warnings.warn(f"{error}; falling back to the {following.name} loop", stacklevel=3)
    raise AssertionError("the reference loop takes everything")


def _ready(loop: Loop, body: Body, state: list[Tensor]) -> Runner:
    """Start a loop, and let inductor, which compiles at its first step, say at once whether it can."""
    runner = loop.start(body, state)
    if isinstance(loop, Inductor):
        runner.advance(state, [sequence[:1] for sequence in body.inputs.sequences], 0, 1, lambda: False)
    return runner


class _Run:
    """The chunks of one simulation, and what they left."""

    def __init__(self, body: Body, state: list[Tensor], start: int, steps: int, check_finite: bool) -> None:
        self.body = body
        self.state = state
        self.start = start
        self.steps = steps
        self.check_finite = check_finite and not _transformed()
        self.done = 0
        self.kept: list[list[Any]] = [[] for _ in body.observed]
        self.pieces: list[tuple[Tensor, ...]] = []
        self.interrupted = False
        self.loop = ""

    def to_the_end(self, chosen: tuple[Loop, Runner], progress: bool | None) -> Solution:
        loop, runner = chosen
        self.loop = loop.name
        largest = max(1, _CHUNK_BYTES // max(1, sum(x.numel() * x.element_size() for x in self.body.observed)))
        chunk = runner.fixed_chunk or min(64, largest)
        with Interrupt() as interrupt, _Bar(self.steps, self.body.dt, progress) as bar:
            while self.done < self.steps and not self.interrupted:
                began = time.perf_counter()
                taken = self._advance(runner, min(chunk, self.steps - self.done), interrupt.requested)
                elapsed = time.perf_counter() - began
                bar.update(taken)
                self.interrupted = interrupt.requested() and self.done < self.steps
                # The pace of this chunk sets the length of the next, which grows at most fourfold.
                chunk = runner.fixed_chunk or max(1, min(4 * chunk, int(taken * _PERIOD / max(elapsed, 1e-6)), largest))
        if self.interrupted:
            t = (self.start + self.done) * self.body.dt
            warnings.warn(f"simulate was interrupted at t = {t:g} ms; the solution holds what was done", stacklevel=3)
        return self.solution()

    def _advance(self, runner: Runner, count: int, stop: Callable[[], bool]) -> int:
        before, first = self.state, self.start + self.done
        window = self._window(count, runner.fixed_chunk)
        result = runner.advance(before, window, first, count, stop)
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
        body = self.body
        merged = [self._merged(number) for number in range(len(body.observed))]
        results: dict[str, Any] = {}
        position = 0
        for (name, record), structure in zip(body.records.items(), body.structures, strict=True):
            flat = merged[position : position + structure.num_leaves]
            position += structure.num_leaves
            results[name] = flat[0] if record.sparse else tree.unflatten(flat, structure)
        outputs = results.pop(_OUT, None)
        state = tree.unflatten(self.state, body.spec)
        every = {name: record.every for name, record in body.records.items()}
        return Solution(
            state, results, body.dt, self.start, self.done, self.loop, self.interrupted, outputs=outputs, every=every
        )

    def _merged(self, number: int) -> Any:
        example, kept = self.body.observed[number], self.kept[number]
        if not self.body.sparse[number]:
            return torch.cat(kept) if kept else example.new_empty((0, *example.shape))
        *batch_shape, size = example.shape
        none = torch.empty(0, dtype=torch.int64, device=example.device)
        step = torch.cat([step for step, _ in kept]) if kept else none
        flat = torch.cat([index for _, index in kept]) if kept else none
        batch: list[Tensor] = []
        index, rest = flat % size, flat // size
        for extent in reversed(batch_shape):
            batch.insert(0, rest % extent)
            rest = rest // extent
        columns = torch.stack(batch, 1) if batch else flat.new_empty((flat.numel(), 0))
        stop = self.start + self.done
        return Spikes(step, index, columns, size, tuple(batch_shape), self.body.dt, self.start, stop)


def _finite(state: list[Tensor]) -> bool:
    return all(bool(leaf.detach().isfinite().all()) for leaf in state if leaf.is_floating_point())


def _watched() -> bool:
    """Whether somebody sees what is printed: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class _Bar:
    """A progress bar that appears once a run proves long."""

    def __init__(self, steps: int, dt: float, wanted: bool | None) -> None:
        self.steps, self.dt, self.wanted = steps, dt, wanted
        self.bar: Any = None
        self.done = 0
        self.began = time.perf_counter()

    def __enter__(self) -> _Bar:
        return self

    def update(self, steps: int) -> None:
        self.done += steps
        elapsed = time.perf_counter() - self.began
        remaining = elapsed * (self.steps - self.done) / self.done
        lengthy = elapsed > 1.0 and remaining > 2.0 and _watched()
        if self.bar is None and (self.wanted or (self.wanted is None and lengthy)):
            from tqdm.auto import tqdm  # imported where a bar appears: it takes a while

            self.bar = tqdm(total=self.steps * self.dt, unit="ms", desc="simulate", initial=self.done * self.dt)
        if self.bar is not None:
            self.bar.n = self.done * self.dt
            self.bar.refresh()

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
