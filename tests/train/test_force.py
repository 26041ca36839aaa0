"""FORCE and full-FORCE against loops written by hand, with several outputs, inputs and textbook least squares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.train import RLS, Force, FullForce

CELLS, OUTS, STEPS, BATCH, TAU = 15, 2, 60, 3, 8.0
DOUBLE = {"dtype": torch.float64}


class _Squares:
    """Recursive least squares as in the papers, for one sequence: P is kept as it stands."""

    def __init__(self, features: int, targets: int, alpha: float, forgetting: float) -> None:
        self.p = torch.eye(features, **DOUBLE) / alpha
        self.weight = torch.zeros(features, targets, **DOUBLE)
        self.forgetting = forgetting

    def learn(self, r: Tensor, error: Tensor) -> None:
        spread = self.p @ r
        gain = spread / (self.forgetting + r @ spread)
        self.p = (self.p - torch.outer(gain, spread)) / self.forgetting
        self.weight = self.weight - torch.outer(gain, error)


def _relax(x: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    """A step of leaky rate cells with a current that is held: state and rate."""
    keep = torch.exp(torch.tensor(-1.0 / TAU, **DOUBLE))
    x = keep * x + (1.0 - keep) * current
    return x, torch.tanh(x)


def _force(net: Any, rule: RLS, x: Tensor, u: Tensor, target: Tensor) -> Tensor:
    squares = _Squares(CELLS, OUTS, rule.alpha, rule.forgetting)
    rate, y, outs = torch.zeros(CELLS, **DOUBLE), torch.zeros(OUTS, **DOUBLE), []
    for k in range(STEPS):
        x, rate = _relax(x, rate @ net.recurrent.weight + y @ net.feedback.weight + u[k] @ net.input.weight)
        y = rate @ squares.weight
        outs.append(y)
        if k % net.every == 0:
            squares.learn(rate, y - target[k])
    return torch.stack(outs)


def _full_force(net: Any, rule: RLS, x: Tensor, u: Tensor, target: Tensor, teacher: Tensor) -> Tensor:
    squares = _Squares(CELLS, CELLS + OUTS, rule.alpha, rule.forgetting)
    rate, teacher_rate, outs = torch.zeros(CELLS, **DOUBLE), torch.zeros(CELLS, **DOUBLE), []
    for k in range(STEPS):
        learnt = rate @ squares.weight
        wanted = teacher_rate @ net.recurrent.weight + target[k] @ net.feedback.weight
        if k % net.every == 0:
            squares.learn(rate, learnt - torch.cat([wanted, target[k]]))
        driven = u[k] @ net.input.weight
        teacher, teacher_rate = _relax(teacher, wanted + driven)
        x, rate = _relax(x, learnt[:CELLS] + driven)
        outs.append(learnt[CELLS:])
    return torch.stack(outs)


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", [Force, FullForce])
def test_outputs_are_those_of_a_loop_by_hand(kind: type[Force], every: int, loop: str) -> None:
    cell = bt.rates.LeakyRate(CELLS, tau=TAU, x_init=bt.init.Normal(0.0, 0.5), activation=torch.tanh, **DOUBLE)
    rule = RLS(0.4, forgetting=0.99)
    net = kind(cell, OUTS, n_in=1, rule=rule, every=every, seed=2)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(STEPS, BATCH, 1, generator=generator, **DOUBLE)
    target = torch.randn(STEPS, BATCH, OUTS, generator=generator, **DOUBLE)
    state = bt.initial_state(net, (BATCH,), dt=1.0, seed=5)
    sol = bt.simulate(net, {"input": u, "target": target}, dt=1.0, state=state, loop=loop)
    for member in range(BATCH):
        start = [state.cell[0][member]] + ([state.teacher[0][member]] if kind is FullForce else [])
        by_hand = _full_force if kind is FullForce else _force
        want = by_hand(net, rule, start[0], u[:, member], target[:, member], *start[1:])
        assert want[-1].abs().max() > 0.05
        torch.testing.assert_close(sol.out[:, member], want, rtol=1e-8, atol=1e-9)
