"""Poisson spike sources."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.ops import random


class Poisson(DynamicalSystem):
    """Independent Poisson processes: in each step a source spikes with probability ``rate * dt``.

    Where the step has an input, it is the rate (Hz) during that step and takes the place of ``rate``.

    Args:
        size: Shape of the population.
        rate: Rate, Hz: float, tensor or initialiser.
        dtype: Floating dtype of rates.
        device: Device of the sources.

    Raises:
        ValueError: ``rate`` is negative, or too high for the step (``rate * dt`` above 1).
    """

    takes_input = False

    class State(NamedTuple):
        key: Tensor
        """The random stream, int64, shape ``(*batch,)``."""
        counter: Tensor
        """Steps taken, int64, shape ``(*batch,)``."""

    def __init__(
        self,
        size: Size,
        rate: Value | Initialiser = 0.0,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(size, dtype=dtype, device=device)
        self.declare("rate", rate)
        if bool((torch.as_tensor(self.rate) < 0).any()):
            raise ValueError(f"`Poisson(rate=...)`: expected rates of at least 0 Hz, got {rate!r}")

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        highest = float(torch.as_tensor(self.rate).max())
        if dt is not None and highest * dt > 1000.0:
            raise ValueError(f"`Poisson(rate=...)`: expected at most 1 spike per step of {dt:g} ms, got {highest:g} Hz")
        key = random.make_key(seed, batch_shape, device=self.device)
        return self.State(key=key, counter=torch.zeros_like(key))

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.zeros((*batch_shape, *self.size), dtype=torch.bool, device=self.device)

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        rate = Drive.of(inputs).current
        probability = (self.rate if rate is None else rate) * (dt * 1e-3)
        if not isinstance(probability, Tensor):
            probability = torch.full((), probability, dtype=self.dtype, device=self.device)
        batch_shape = tuple(state.key.shape)
        if probability.dim():
            rows = torch.broadcast_to(probability, (*probability.shape[: -len(self.size)], *self.size))
            probability = rows.reshape(*rows.shape[: -len(self.size)], self.count)
        spikes = random.bernoulli(state.key, state.counter, probability, self.count)
        after = self.State(key=state.key, counter=state.counter + 1)
        return after, spikes.reshape(*batch_shape, *self.size)
