"""The next-generation reservoir: delayed inputs and their products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import DynamicalSystem, checked_size
from bdtorch._types import State
from bdtorch.reservoirs.polynomial import checked_degrees, polynomial_count, polynomial_features


class NextGeneration(DynamicalSystem):
    """Nonlinear vector autoregression: the monomials of the last inputs, taken every ``stride`` steps.

    The linear features are the current input and those ``stride``, ``2 stride``, ... steps ago, newest first; the output
    is `polynomial_features` of them. Before the first input all are 0, so outputs mean something from step
    `warm_up` on.

    Args:
        n_in: Number of inputs.
        delay: Number of times, the current one included.
        stride: Steps between them.
        degrees: Degrees of the monomials, in order; 0 stands for the constant 1.
        dtype: Floating dtype.
        device: Device.

    Raises:
        ValueError: a number is not positive, or ``degrees`` are not distinct whole numbers.

    Source: Gauthier, Bollt, Griffith & Barbosa (2021), doi:10.1038/s41467-021-25801-2.
    """

    class State(NamedTuple):
        past: Tensor
        """The inputs of the last ``(delay - 1) * stride`` steps, oldest first, ``(*batch, steps, n_in)``."""

    def __init__(
        self,
        n_in: int,
        *,
        delay: int = 2,
        stride: int = 1,
        degrees: Sequence[int] = (0, 1, 2),
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        for name, value in (("n_in", n_in), ("delay", delay), ("stride", stride)):
            checked_size(value, f"NextGeneration({name}=...)")
        chosen = checked_degrees(degrees, "NextGeneration")
        super().__init__(polynomial_count(n_in * delay, chosen), dtype=dtype, device=device)
        self.n_in, self.delay, self.stride, self.degrees = n_in, delay, stride, chosen

    @property
    def warm_up(self) -> int:
        """Steps until all features come from inputs."""
        return (self.delay - 1) * self.stride

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        shape = (*batch_shape, self.warm_up, self.n_in)
        return self.State(past=torch.zeros(shape, dtype=self.dtype, device=self.device))

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        current = torch.as_tensor(inputs).expand(*state.past.shape[:-2], self.n_in)
        window = torch.cat([state.past, current.unsqueeze(-2)], -2)
        taps = [window[..., self.warm_up - k * self.stride, :] for k in range(self.delay)]
        return self.State(past=window[..., 1:, :]), polynomial_features(torch.cat(taps, -1), self.degrees)
