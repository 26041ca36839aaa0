"""The plain Python loop: for debugging, for gradients, and the oracle of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import Advance, Loop, Runner, keep


@dataclass(frozen=True)
class Reference(Loop):
    """Call ``step`` from Python, operation by operation."""

    name = "reference"

    def start(self, body: Body, state: list[Tensor]) -> Runner:
        return _Reference(body)


class _Reference(Runner):
    def __init__(self, body: Body) -> None:
        self.body = body

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        body = self.body
        numbers = torch.arange(first, first + count, dtype=torch.float64, device=body.system.device)
        times = (numbers * body.dt).unbind()
        # Unbinding once, rather than indexing in each step, keeps the backward pass linear in the number of steps.
        slices = list(zip(*(sequence.unbind() for sequence in sequences), strict=True)) or [()] * count
        observed: list[list[Tensor]] = [[] for _ in body.observed]
        steps = 0
        for t, now in zip(times, slices, strict=True):
            with body.alone:
                state, values = body(state, list(now), t)
            for column, value in zip(observed, values, strict=True):
                column.append(value)
            steps += 1
            if stop():
                break
        return Advance(state, steps, [keep(body, number, values, first) for number, values in enumerate(observed)])
