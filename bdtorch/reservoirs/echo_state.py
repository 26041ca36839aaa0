"""The echo state network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._system import DynamicalSystem, checked_size
from bdtorch._types import Initialiser, State, Value
from bdtorch.connect import Connectivity, Rule, Weights
from bdtorch.init import Uniform
from bdtorch.ops.random import fold


class EchoState(DynamicalSystem):
    r"""A fixed random network of leaky units.

    $$x(n) = (1 - \alpha)\,x(n - 1) + \alpha\,\phi\bigl(u(n) W^{in} + x(n - 1) W + b\bigr)$$

    Time is counted in steps: ``dt`` has no influence. The output is ``x``. Weights are constants unless given as
    `nn.Parameter`.

    Args:
        size: Number of units.
        n_in: Number of inputs.
        leak: $\alpha$, in (0, 1].
        spectral_radius: Scale drawn recurrent weights so that their largest eigenvalue has this modulus; None leaves
            them as drawn. Weights that are given as a tensor are always left as they are.
        connect: Recurrent connectivity; default all to all.
        connect_in: Input connectivity; default all to all.
        weight: Recurrent weights of the connectivity's ``weight_shape``: tensor or initialiser; default Gaussian with
            variance 1 / (mean in-degree).
        weight_in: Input weights, likewise; default uniform in [-1, 1).
        bias: $b$: number, tensor or initialiser.
        activation: $\phi$, in torch operations.
        x_init: Initial activity.
        seed: Names the wiring and drawn weights.
        dtype: Floating dtype.
        device: Device.

    Raises:
        TypeError, ValueError: An argument is not as described.

    Source: Jaeger (2001), GMD report 148; Lukosevicius (2012), doi:10.1007/978-3-642-35289-8_36.
    """

    class State(NamedTuple):
        x: Tensor
        """Activity."""

    def __init__(
        self,
        size: int,
        n_in: int,
        *,
        leak: float = 0.3,
        spectral_radius: float | None = 0.9,
        connect: Rule | Connectivity | None = None,
        connect_in: Rule | Connectivity | None = None,
        weight: Tensor | Initialiser | None = None,
        weight_in: Tensor | Initialiser | None = None,
        bias: Value | Initialiser = 0.0,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        x_init: Value | Initialiser = 0.0,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(size, dtype=dtype, device=device)
        checked_size(n_in, "EchoState(n_in=...)")
        if not 0.0 < leak <= 1.0:
            raise ValueError(f"`EchoState(leak=...)`: expected a number in (0, 1], got {leak!r}")
        self.leak = float(leak)
        self.activation = activation
        options: dict[str, Any] = {"trained": False, "dtype": self.dtype, "device": self.device}
        self.input = Weights(
            n_in,
            self.count,
            connect=connect_in,
            weight=Uniform(-1.0, 1.0) if weight_in is None else weight_in,
            label="EchoState.input",
            seed=fold(seed, "in"),
            **options,
        )
        self.recurrent = Weights(
            self.count,
            self.count,
            connect=connect,
            weight=weight,
            label="EchoState.recurrent",
            seed=fold(seed, "rec"),
            **options,
        )
        if spectral_radius is not None and not isinstance(weight, Tensor):
            self.recurrent.weight *= self._scale(spectral_radius)
        self.declare("bias", bias, seed=seed)
        self.declare_initial("x_init", x_init)

    def _scale(self, wanted: float) -> float:
        if not 0.0 < wanted < math.inf:
            raise ValueError(f"`EchoState(spectral_radius=...)`: expected a finite number above 0, got {wanted!r}")
        radius = spectral_radius(self.recurrent)
        if radius == 0.0:
            raise ValueError(
                "`EchoState(spectral_radius=...)`: expected recurrent weights with a cycle, got only eigenvalues 0"
            )
        return wanted / radius

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(x=self.fill(batch_shape, self.x_init, seed=seed))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        drive = self.input(inputs) + self.recurrent(state.x) + self.bias
        x = (1.0 - self.leak) * state.x + self.leak * self.activation(drive)
        return self.State(x=x), x


def spectral_radius(weights: Weights) -> float:
    """The largest modulus of an eigenvalue of square weights."""
    matrix = weights.connect.to_dense(weights.weight.detach().double())
    return float(torch.linalg.eigvals(matrix).abs().max())
