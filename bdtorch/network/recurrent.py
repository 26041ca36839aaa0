"""Layers of trained networks: a population with input and recurrent weights, and a readout."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import Initialiser, State, Value
from bdtorch.connect import Connectivity, Rule, Weights
from bdtorch.ops.random import fold

Wiring = Rule | Connectivity


class Recurrent(DynamicalSystem):
    r"""A population that hears an input and itself: $I_j(t) = \sum_i W^{in}_{ij} x_i(t) + \sum_i W^{rec}_{ij} z_i(t - dt) + b_j$.

    The output is the cell's (spikes or rates). Weights are trained parameters with rows for sources.

    Args:
        cell: The population, one axis, whose input is a current and whose output is one tensor of its size. A spiking
            neuron needs a surrogate to be trained by gradients.
        n_in: Number of inputs.
        connect_in: How inputs reach the cells; default all to all.
        connect_rec: How cells reach each other; default all to all, each itself included.
        w_in: Input weights, of the connectivity's ``weight_shape``: tensor, `nn.Parameter` or initialiser; default
            Gaussian with variance 1 / fan-in.
        w_rec: Recurrent weights, likewise.
        bias: Bias current per cell: number, tensor, `nn.Parameter` or initialiser; None for none.
        seed: Names the wiring and drawn weights.

    Raises:
        TypeError, ValueError: An argument is not as described.
    """

    bias: Any

    class State(NamedTuple):
        cell: Any
        out: Tensor
        """The cell's last output, which the recurrent weights read."""

    def __init__(
        self,
        cell: DynamicalSystem,
        n_in: int,
        *,
        connect_in: Wiring | None = None,
        connect_rec: Wiring | None = None,
        w_in: Tensor | Initialiser | None = None,
        w_rec: Tensor | Initialiser | None = None,
        bias: Value | Initialiser | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(cell, DynamicalSystem) or len(cell.size) != 1:
            raise TypeError(f"`Recurrent(cell=...)`: expected a population with one axis, got {cell!r}")
        super().__init__(cell.size, dtype=cell.dtype, device=cell.device)
        self.cell = cell
        options: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        self.input = Weights(
            n_in, self.count, connect=connect_in, weight=w_in, label="Recurrent.input", seed=fold(seed, "in"), **options
        )
        self.recurrent = Weights(
            self.count,
            self.count,
            connect=connect_rec,
            weight=w_rec,
            label="Recurrent.recurrent",
            seed=fold(seed, "rec"),
            **options,
        )
        if bias is None:
            self.bias = None
        else:
            self.declare("bias", bias, seed=seed)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        return self.State(
            cell=initial_state(self.cell, batch_shape, dt=dt, seed=seed), out=self.cell.init_out(batch_shape)
        )

    def init_out(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return self.cell.init_out(batch_shape)

    def current(self, inputs: Tensor, out: Tensor) -> Tensor:
        """The current into every cell, ``(*batch, cells)``, from the inputs and the cells' last output."""
        current: Tensor = self.input(inputs) + self.recurrent(out)
        current = current.to(self.cell.dtype)
        return current if self.bias is None else current + self.bias

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        cell, out = self.cell(state.cell, Drive(current=self.current(inputs, state.out)), t, dt)
        return self.State(cell=cell, out=out), out


class Readout(DynamicalSystem):
    r"""Weighted sums of a population's output, through a leak: $y(t) = \kappa\,y(t - dt) + z(t) W + b$, with
    $\kappa = e^{-dt/\tau}$.

    Args:
        n_in: Size of the population that is read.
        n_out: Number of readouts.
        tau: Time constant of the leak, ms; None for none ($\kappa = 0$).
        weight: ``(n_in, n_out)``, trained: tensor, `nn.Parameter` or initialiser; default Gaussian with variance
            1 / ``n_in``.
        bias: Whether to add a trained bias, zero at first.
        seed: Names drawn weights.
        dtype: Floating dtype.
        device: Device.
    """

    class State(NamedTuple):
        y: Tensor
        """The readouts."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        tau: float | None = None,
        weight: Tensor | Initialiser | None = None,
        bias: bool = False,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(n_out, dtype=dtype, device=device)
        self.tau = tau
        if tau is not None:
            self.declare("tau", float(tau), positive=True)
        self.output = Weights(
            n_in,
            n_out,
            weight=weight,
            label="Readout",
            seed=fold(seed, "out"),
            dtype=self.dtype,
            device=self.device,
        )
        zeros = torch.zeros(n_out, dtype=self.dtype, device=self.device)
        self.bias: nn.Parameter | None
        self.register_parameter("bias", nn.Parameter(zeros) if bias else None)

    def keep(self, dt: float) -> float:
        r"""What a step leaves of the readouts, $\kappa$."""
        return 0.0 if self.tau is None else math.exp(-dt / self.tau)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(y=self.fill(batch_shape, 0.0))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Tensor]:
        y = self.output(inputs).to(self.dtype)
        if self.tau is not None:
            y = self.keep(dt) * state.y + y
        if self.bias is not None:
            y = y + self.bias
        return self.State(y=y), y
