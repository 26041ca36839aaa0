"""What `simulate` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State


@dataclass(eq=False)
class Solution:
    """A finished, or interrupted, simulation.

    Attributes:
        state: The state at the end; pass it to `simulate` with ``t0=sol.t_end`` to go on.
        records: Results by name; ``sol["name"]`` is short for ``sol.records["name"]``. Where the run was streamed to a
            file, a `StoredRecords`.
        dt: Step, ms.
        start: Number of steps between t = 0 and the start of this run.
        steps: Number of steps taken.
        loop: Name of the loop that ran.
        interrupted: Whether Ctrl-C ended the run early.
        outputs: The stacked outputs, or None where they were not kept.
    """

    state: State
    records: Mapping[str, Any]
    dt: float
    start: int
    steps: int
    loop: str
    interrupted: bool = False
    outputs: Any = field(default=None, repr=False)
    every: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def out(self) -> Any:
        """The output of every step, of shape ``(time, *batch, ...)``."""
        if self.outputs is None:
            raise ValueError("`Solution.out`: the outputs were not kept; pass `keep_out=True` to simulate")
        return self.outputs

    @property
    def t(self) -> Tensor:
        """The time at the end of each step, ms, float64: outputs, records and spikes bear these stamps."""
        return torch.arange(self.start + 1, self.start + self.steps + 1, dtype=torch.float64) * self.dt

    @property
    def t_end(self) -> float:
        """The time of `state`, ms."""
        return (self.start + self.steps) * self.dt

    @property
    def detached_state(self) -> State:
        """`state`, cut from the graph that made it, as truncated backpropagation hands it to the next piece."""
        return tree.map(Tensor.detach, self.state)

    def whole(self) -> Solution:
        """This solution, where it is to be used to the end.

        Raises:
            KeyboardInterrupt: Ctrl-C ended the run early.
        """
        if self.interrupted:
            raise KeyboardInterrupt
        return self

    def time(self, name: str) -> Tensor:
        """The times at which the record ``name`` was taken, ms, float64."""
        every = self.every[name]
        number = torch.arange(self.start + 1, self.start + self.steps + 1)
        return number[number % every == 0].double() * self.dt

    def __getitem__(self, name: str) -> Any:
        if name not in self.records:
            known = ", ".join(map(repr, self.records)) or "none"
            raise KeyError(f"{name!r} was not recorded; records: {known}")
        return self.records[name]
