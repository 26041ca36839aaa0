"""Reservoirs against their formulas in NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.reservoirs import EchoState, NextGeneration, polynomial_count, polynomial_features


def _inputs(n: int, steps: int = 30) -> Tensor:
    return torch.randn(steps, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sparse", [False, True])
def test_echo_state_is_its_formula(sparse: bool) -> None:
    rules = {"connect": bt.connect.FixedProbability(0.4), "connect_in": bt.connect.FixedNumberPost(2)} if sparse else {}
    reservoir = EchoState(9, 3, leak=0.4, bias=bt.init.Normal(0.0, 0.3), seed=2, dtype=torch.float64, **rules)
    u = _inputs(3)
    got = bt.simulate(reservoir, u, dt=1.0).out.numpy()
    w = reservoir.recurrent.connect.to_dense(reservoir.recurrent.weight).numpy()
    w_in = reservoir.input.connect.to_dense(reservoir.input.weight).numpy()
    x = np.zeros(9)
    for step, row in enumerate(u.numpy()):
        x = 0.6 * x + 0.4 * np.tanh(row @ w_in + x @ w + reservoir.bias.numpy())
        np.testing.assert_allclose(got[step], x, rtol=1e-10, atol=1e-12)
    assert np.abs(np.linalg.eigvals(w)).max() == pytest.approx(0.9, rel=1e-9)


def test_echo_states_forget_where_they_started() -> None:
    reservoir = EchoState(50, 1, spectral_radius=0.8, leak=1.0, dtype=torch.float64)
    u = _inputs(1, 300)
    ends = [
        bt.simulate(
            reservoir, u, dt=1.0, state=EchoState.State(x=torch.full((50,), start, dtype=torch.float64))
        ).state.x
        for start in (-1.0, 1.0)
    ]
    assert (ends[0] - ends[1]).abs().max() < 1e-9


def test_weights_are_constants_unless_they_are_parameters() -> None:
    assert not list(EchoState(4, 2).parameters())
    weight = torch.nn.Parameter(torch.eye(4))
    trained = EchoState(4, 2, weight=weight)
    assert next(iter(trained.parameters())) is weight
    assert torch.equal(weight, torch.eye(4))


def test_polynomial_features_are_all_products() -> None:
    x = _inputs(4, 5)
    got = polynomial_features(x, (2, 0, 1, 3))
    columns = [x[:, i] * x[:, j] for i, j in itertools.combinations_with_replacement(range(4), 2)]
    columns += [torch.ones(5, dtype=torch.float64), *x.unbind(1)]
    columns += [x[:, i] * x[:, j] * x[:, k] for i, j, k in itertools.combinations_with_replacement(range(4), 3)]
    torch.testing.assert_close(got, torch.stack(columns, 1))
    assert got.shape[1] == polynomial_count(4, (2, 0, 1, 3)) == math.comb(5, 2) + 1 + 4 + math.comb(6, 3)


@pytest.mark.parametrize(("delay", "stride"), [(1, 1), (2, 1), (3, 4)])
def test_next_generation_reads_delayed_inputs(delay: int, stride: int) -> None:
    system = NextGeneration(2, delay=delay, stride=stride, dtype=torch.float64)
    u = _inputs(2)
    out = bt.simulate(system, u, dt=1.0).out
    assert system.warm_up == (delay - 1) * stride
    padded = torch.cat([torch.zeros(system.warm_up, 2, dtype=torch.float64), u])
    linear = torch.cat([padded[system.warm_up - k * stride :][: len(u)] for k in range(delay)], 1)
    torch.testing.assert_close(out, polynomial_features(linear, (0, 1, 2)))


def test_bad_arguments_are_named() -> None:
    for make, message in (
        (lambda: EchoState(4, 2, leak=0.0), r"`EchoState\(leak=...\)`: expected a number in \(0, 1\], got 0.0"),
        (
            lambda: EchoState(4, 2, spectral_radius=-1.0),
            r"`EchoState\(spectral_radius=...\)`: expected a finite number",
        ),
        (lambda: EchoState(4, 2, weight=bt.init.Normal(0.0, 0.0)), "expected recurrent weights with a cycle"),
        (lambda: EchoState(4, 2, weight=torch.eye(3)), r"`EchoState.recurrent\(weight=...\)`: expected one weight per"),
        (lambda: NextGeneration(2, delay=0), r"`NextGeneration\(delay=...\)`: expected a positive integer"),
        (
            lambda: NextGeneration(2, degrees=(1, 1)),
            r"`NextGeneration\(degrees=...\)`: expected distinct whole numbers",
        ),
        (lambda: polynomial_features(torch.ones(2, 0), (1,)), r"`polynomial_features\(x=...\)`: expected features"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"`polynomial_features\(x=...\)`: expected a floating tensor"):
        polynomial_features(torch.ones(2, 2, dtype=torch.int64), (1,))
