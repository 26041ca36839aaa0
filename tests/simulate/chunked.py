"""A small system in chunks of the inductor loop, and a recorder of chunks for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

import bdtorch as bt
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops._replay import Recorder
from bdtorch.simulate.records import Record


def graphs() -> int:
    """How many graphs Dynamo has compiled."""
    return int(counters["stats"]["unique_graphs"])


class Leaky(bt.DynamicalSystem):
    """x' = gain x + w . input + time, with a step of its own, whose output is the state before."""

    def __init__(self, gain: float = 0.5) -> None:
        super().__init__((3,), dtype=torch.float64)
        self.gain = gain
        self.w = torch.nn.Parameter(torch.linspace(0.5, 1.5, 3, dtype=torch.float64))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        return torch.ones(*batch_shape, 3, dtype=torch.float64), torch.zeros(*batch_shape, 3, dtype=torch.int64)

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> Any:
        x, n = state
        return (self.gain * x + self.w * inputs + t, n + (x > 1.0)), x


def body_of(system: bt.DynamicalSystem, inputs: Any = 0.5) -> Body:
    state = system.init_state()
    records = {"x": bt.trace("0"), "out": Record(lambda state, out: out, every=2)}
    body = Body(system, resolve(inputs, system), records, state, 0.5)
    body.try_out(list(state), 0)
    return body


class Again(Recorder):
    """Re-executes what was recorded, on the CPU, and leaves undefined what the real one leaves so."""

    def __init__(self) -> None:
        self.replays = 0

    def capture(self, function: Callable[[], list[Tensor]]) -> list[Tensor]:
        self.function = function
        function()
        self.results = [torch.full_like(result, 77) for result in function()]
        return self.results

    def replay(self) -> None:
        self.replays += 1
        for mine, new in zip(self.results, self.function(), strict=True):
            mine.copy_(new)
