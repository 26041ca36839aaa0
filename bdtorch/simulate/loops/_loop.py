"""What a time loop is."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch._types import State
from bdtorch.integrate import Prepared, Step
from bdtorch.simulate._body import Body
from bdtorch.simulate._functorch import levels_of


class LoopError(RuntimeError):
    """A loop cannot run this model; the message names the operation and the line."""


@dataclass(eq=False)
class Advance:
    """The result of some steps.

    Attributes:
        state: Flat state after them.
        steps: How many were taken, at least 1 and perhaps fewer than asked for.
        kept: For every observed tensor: its kept values ``(k, ...)``, or ``(step, flat index)`` where it is sparse.
    """

    state: list[Tensor]
    steps: int
    kept: list[Tensor | tuple[Tensor, Tensor]]


class Runner(abc.ABC):
    """A loop made ready for one body.

    Attributes:
        fixed_chunk: Steps of each advance, where its results depend on them to the last bit; None where any number will do.
        lends: Whether its records need last only until the next advance, which may write over them.
        ahead: Steps to come, those of the next advance included, where the records of all of them stay in memory.
    """

    fixed_chunk: int | None = None
    lends = False
    ahead = 0

    def bytes_per_step(self, body: Body) -> float:
        """Memory that the records of a step take until the end of its advance; here all that is observed is held."""
        return sum(example.numel() * example.element_size() for example in body.observed)

    @abc.abstractmethod
    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        """Take up to ``count`` steps from step number ``first``.

        Args:
            state: Flat state; not written to.
            sequences: Input slices of these steps, each with a leading axis of length ``count``.
            first: Number of the first step, counted from t = 0.
            count: Number of steps, at least 1.
            stop: Asked between steps where that is cheap; True ends the advance early.
        """


class Loop(abc.ABC):
    """A way to run the time loop."""

    name: str

    @abc.abstractmethod
    def start(self, body: Body, state: list[Tensor]) -> Runner:
        """Make ready: trace and compile where the loop does.

        Raises:
            LoopError: the body holds something that this loop cannot run.
        """

    def prepare(
        self, step: Step, state: State, sequences: Any = (), *, every: int = 1, lends: bool = False
    ) -> Prepared:
        """Make ready for a solver's step; see `bdtorch.integrate.TimeLoop`."""
        from bdtorch.simulate.loops._prepare import prepare  # it needs this module

        return prepare(self, step, state, sequences, every, lends)


def expect_pure(body: Body, name: str) -> None:
    """Refuse a step that does more than return its results: a compiled loop would do the rest once, and never again.

    Raises:
        LoopError: it does; the message says what and where.
    """
    if body.effects:
        raise LoopError(
            f"the {name} loop cannot run this model: its step {', and '.join(body.effects)}, which a compiled loop would do "
            "once, when it traces the step; keep what evolves in the state, and let `record` keep what is to be seen"
        )


def expect_repeatable(body: Body, state: list[Tensor], name: str, results: list[Tensor] | None = None) -> None:
    """Refuse a step whose results change where it is taken again from the same state.

    It then depends on something that has changed meanwhile, and that a compiled loop would see once. Where the results
    differ from those of the trial, the step is taken twice more, for other kernels of torch may have made them.

    Args:
        body: The body, tried out.
        state: The state that it was tried out from.
        name: Name of the loop.
        results: What the step has given since.

    Raises:
        LoopError: it has other results.
    """
    tried, body.tried = body.tried, []
    if not tried or (results is not None and _equal(tried, results)):
        return
    first, second = (_again(body, state) for _ in range(2))
    if _equal(first, second):
        return
    number = next(k for k, (x, y) in enumerate(zip(first, second, strict=True)) if not _equal([x], [y]))
    what = f"the state variable {body.names[number]!r}" if number < len(body.names) else "what is recorded"
    raise LoopError(
        f"the {name} loop cannot run this model: its step, taken again from the same state at the same time, gives another "
        f"value to {what}, so it depends on something that changes outside; keep what evolves in the state"
    )


def _again(body: Body, state: list[Tensor]) -> list[Tensor]:
    t = torch.full((), body.start * body.dt, dtype=torch.float64, device=body.system.device)
    devices: list[int] | None = [] if body.system.device.type == "cpu" else None
    with torch.no_grad(), body.alone, torch.random.fork_rng(devices):  # whose draws inductor makes anew
        after, observed = body([x.detach().clone() for x in state], body.inputs.example(), t)
    return [x.clone() for x in (*after, *observed)]


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(_alike(x, y) for x, y in zip(some, others, strict=True))


def _alike(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors are equal, which is quickly found where nothing is NaN."""
    if x.shape != y.shape:
        return False
    return (x.dtype == y.dtype and torch.equal(x, y)) or bool(((x == y) | ((x != x) & (y != y))).all())


def keep(body: Body, number: int, values: list[Tensor], first: int) -> Tensor | tuple[Tensor, Tensor]:
    """Reduce observed tensor ``number``, given at each of some steps from ``first`` on, to what its record keeps."""
    expect_shape(body, number, values)
    if body.sparse[number]:
        stacked = torch.stack(values)
        if levels_of(stacked):
            raise LoopError("under torch.func.vmap the reference loop keeps no sparse records; use loop='auto'")
        where = stacked.reshape(len(values), -1).nonzero()
        return where[:, 0] + (first + 1), where[:, 1]
    every = body.every[number]
    chosen = values[(-(first + 1)) % every :: every]
    return torch.stack(chosen) if chosen else values[0].new_empty((0, *values[0].shape))


def expect_shape(body: Body, number: int, values: list[Tensor]) -> None:
    """Refuse a record whose shape changes from step to step.

    Raises:
        ValueError: it does.
    """
    expected = body.observed[number].shape
    for value in values:
        if value.shape != expected:
            raise ValueError(
                f"step and records must keep the shapes of what they show: it was {tuple(expected)} in the first step, and "
                f"became {tuple(value.shape)}; instead of the elements that meet a condition, take all, with zeros for the others"
            )
