"""A shell that keeps a state between calls, for notebooks and closed loops."""

from __future__ import annotations

from typing import Any

import torch

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State


class Stateful:
    """Call a system step by step; the shell keeps the state and counts the time.

    Attributes:
        state: The current state; may be read and replaced.
        steps: Number of steps taken.

    Args:
        system: The system to step.
        dt: Step, ms.
        batch_shape: Batch of the initial state.
        seed: Seed of the initial state and its noise.
    """

    def __init__(self, system: DynamicalSystem, *, dt: float, batch_shape: tuple[int, ...] = (), seed: int = 0) -> None:
        if not isinstance(system, DynamicalSystem):
            raise TypeError(f"`Stateful(system=...)`: expected a DynamicalSystem, got {type(system).__name__}")
        if not 0 < dt < float("inf"):
            raise ValueError(f"`Stateful(dt=...)`: expected a finite number of ms above 0, got {dt!r}")
        self.system = system
        self.dt = float(dt)
        self.batch_shape = tuple(batch_shape)
        self.seed = seed
        self.reset()

    def reset(self) -> None:
        """Go back to a fresh state at t = 0."""
        self.state: State = initial_state(self.system, self.batch_shape, dt=self.dt, seed=self.seed)
        self.steps = 0

    @property
    def t(self) -> float:
        """The time of `state`, ms."""
        return self.steps * self.dt

    def __call__(self, inputs: Any = None) -> Any:
        """Take one step and return its output."""
        t = torch.full((), self.t, dtype=torch.float64, device=self.system.device)
        self.state, out = self.system(self.state, inputs, t, self.dt)
        self.steps += 1
        return out

    def detach(self) -> None:
        """Cut the state from the graph that made it, as truncated backpropagation does."""
        self.state = tree.map(torch.Tensor.detach, self.state)
