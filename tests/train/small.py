"""A small task for the trainer: a rate network, sequences, losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bdtorch as bt
from bdtorch.train import BPTT

STEPS, SAMPLES, N_IN = 12, 20, 3


def small_model(seed: int = 0) -> bt.Sequential:
    cell = bt.rates.LeakyRate(6, tau=5.0, dtype=torch.float64)
    return bt.Sequential(bt.Recurrent(cell, N_IN, seed=seed), bt.Readout(6, 2, seed=seed, dtype=torch.float64))


def small_data(time: bool) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, STEPS, N_IN, generator=generator, dtype=torch.float64)
    y = torch.stack([x.cumsum(1).mean(-1), x[..., 0]], -1)
    return TensorDataset(x, y if time else y[:, -1])


def last_error(out: Tensor, y: Tensor) -> Tensor:
    return (out[:, -1] - y).square().mean()


def mean_error(out: Tensor, y: Tensor) -> Tensor:
    return (out - y).square().mean()


def weights_of(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def small_trainer(model: Any, loss: Any = last_error, **options: Any) -> BPTT:
    return BPTT(model, loss, torch.optim.Adam(model.parameters(), lr=0.02), dt=1.0, **options)


class NoisyReadout(bt.DynamicalSystem):
    """A readout of an Ornstein-Uhlenbeck process added to the input: every update draws anew."""

    def __init__(self) -> None:
        super().__init__(2)
        self.noise = bt.stimuli.OrnsteinUhlenbeck(2)
        self.layer = nn.Linear(N_IN, 2)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> Any:
        return self.noise.init_state(batch_shape, seed=seed)

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> tuple[Any, Tensor]:
        state, noise = self.noise.step(state, None, t, dt)
        return state, self.layer(inputs) + noise
