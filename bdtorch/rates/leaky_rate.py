"""The leaky rate unit, the cell of rate networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value


class LeakyRate(Flow):
    r"""A leaky integrator whose rate is a nonlinear function of its activation.

    $$\tau \dot x = -x + I, \qquad r = \phi(x)$$

    The output is the rate ``r`` of the new activation.

    Args:
        size: Shape of the population.
        tau: Time constant, ms.
        activation: $\phi$, in torch operations that act on each element alone, such as `torch.tanh` or `torch.relu`.
        x_init: Initial activation.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Raises:
        TypeError: ``activation`` cannot be called.

    Source: Sompolinsky, Crisanti & Sommers (1988), doi:10.1103/PhysRevLett.61.259.
    """

    class State(NamedTuple):
        x: Tensor
        """Activation."""

    def __init__(
        self,
        size: Size,
        *,
        tau: Value | Initialiser = 10.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        x_init: Value | Initialiser = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        if not callable(activation):
            raise TypeError(f"`LeakyRate(activation=...)`: expected a function such as torch.tanh, got {activation!r}")
        self.declare("tau", tau, positive=True)
        self.declare_initial("x_init", x_init)
        self.activation = activation

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(x=self.fill(batch_shape, self.x_init, seed=seed))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(x=(Drive.of(inputs).at(state.x) - state.x) / self.tau)

    def linear(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(x=(Drive.of(inputs).slope - 1.0) / self.tau)

    def emit(self, before: State, after: State) -> tuple[State, Tensor]:
        return after, self.activation(after.x)
