"""The Ornstein-Uhlenbeck process."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import DynamicalSystem
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.ops import random


class OrnsteinUhlenbeck(DynamicalSystem):
    r"""Coloured Gaussian noise, by its exact update, so its statistics do not depend on the step.

    $$\tau\,dx = (\mu - x)\,dt + \sigma \sqrt{2 \tau}\,dW$$

    Its stationary mean is ``mean``, its standard deviation ``sigma`` and its autocorrelation $e^{-|s|/\tau}$.

    Args:
        size: Shape of the population.
        mean: Stationary mean, in the unit of what it drives.
        sigma: Stationary standard deviation.
        tau: Correlation time, ms.
        dtype: Floating dtype of the process.
        device: Its device.

    Source: Gillespie (1996), doi:10.1103/PhysRevE.54.2084.
    """

    takes_input = False

    class State(NamedTuple):
        x: Tensor
        """Value at the start of the step; starts in the stationary distribution."""
        key: Tensor
        """The random stream, int64, shape ``(*batch,)``."""
        counter: Tensor
        """Draws taken, int64, shape ``(*batch,)``."""

    def __init__(
        self,
        size: Size,
        *,
        mean: Value | Initialiser = 0.0,
        sigma: Value | Initialiser = 1.0,
        tau: Value | Initialiser = 10.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(size, dtype=dtype, device=device)
        self.declare("mean", mean)
        self.declare("sigma", sigma)
        self.declare("tau", tau, positive=True)
        if bool((torch.as_tensor(self.sigma) < 0).any()):
            raise ValueError(f"`OrnsteinUhlenbeck(sigma=...)`: expected at least 0, got {sigma!r}")

    def _noise(self, key: Tensor, counter: Tensor) -> Tensor:
        return random.normal(key, counter, self.count, dtype=self.dtype).reshape(*key.shape, *self.size)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        key = random.make_key(seed, batch_shape, device=self.device)
        counter = torch.zeros_like(key)
        return self.State(x=self.mean + self.sigma * self._noise(key, counter), key=key, counter=counter + 1)

    def _factors(self, dt: float) -> tuple[Value, Value]:
        """What remains of a deviation after a step, and the relative spread of what joins it."""
        if isinstance(self.tau, Tensor):
            return torch.exp(-dt / self.tau), torch.sqrt(-torch.expm1(-2.0 * dt / self.tau))
        return math.exp(-dt / self.tau), math.sqrt(-math.expm1(-2.0 * dt / self.tau))

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        keep, spread = self._factors(dt)
        noise = self._noise(state.key, state.counter)
        x = self.mean + (state.x - self.mean) * keep + self.sigma * spread * noise
        return self.State(x=x, key=state.key, counter=state.counter + 1), state.x
