"""The general compiled loop: `torch.compile` of a chunk of steps, on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import Advance, Loop, LoopError, Runner, keep


@dataclass(frozen=True)
class Inductor(Loop):
    """Compile ``chunk`` steps as one graph; what is left over runs through a graph of one step.

    Args:
        chunk: Steps per graph. More steps run faster and compile longer.
    """

    chunk: int = 10
    name = "inductor"

    def __post_init__(self) -> None:
        if not isinstance(self.chunk, int) or self.chunk < 1:
            raise ValueError(f"`Inductor(chunk=...)`: expected a positive integer, got {self.chunk!r}")

    def start(self, body: Body, state: list[Tensor]) -> Runner:
        return _Inductor(body, self.chunk)


class _Inductor(Runner):
    def __init__(self, body: Body, chunk: int) -> None:
        self.body = body
        self.chunk = chunk
        self.compiled: dict[int, Callable[..., Any]] = {}

    def _steps(self, count: int) -> Callable[..., Any]:
        if count not in self.compiled:
            body = self.body

            def steps(state: list[Tensor], slices: list[list[Tensor]], times: list[Tensor]) -> Any:
                columns: list[list[Tensor]] = [[] for _ in body.observed]
                for k in range(count):
                    state, values = body(state, slices[k], times[k])
                    for column, value in zip(columns, values, strict=True):
                        column.append(value)
                return state, columns

            # Dynamo keeps its cache, and counts recompilations, by code object: each model gets one of its own.
            steps.__code__ = steps.__code__.replace(co_name=f"steps_{count}")
            self.compiled[count] = torch.compile(steps, fullgraph=True, dynamic=False)
        return self.compiled[count]

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        body = self.body
        numbers = torch.arange(first, first + count, dtype=torch.float64, device=body.system.device)
        times = list((numbers * body.dt).unbind())
        columns = [sequence.unbind() for sequence in sequences]
        slices = [[column[k] for column in columns] for k in range(count)]
        observed: list[list[Tensor]] = [[] for _ in body.observed]
        done = 0
        while done < count and not (done and stop()):
            size = self.chunk if count - done >= self.chunk else 1
            window = slice(done, done + size)
            try:
                state, values = self._steps(size)(state, slices[window], times[window])
            except torch._dynamo.exc.TorchDynamoException as error:
                raise LoopError(f"the inductor loop cannot compile this model: {error}") from error
            for column, more in zip(observed, values, strict=True):
                column.extend(more)
            done += size
        return Advance(state, done, [keep(body, number, values, first) for number, values in enumerate(observed)])
