"""The layers of trained networks against loops written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import bdtorch as bt


def _x(n: int, steps: int = 15) -> torch.Tensor:
    return torch.randn(steps, 4, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sparse", [False, True])
def test_recurrent_and_readout_are_their_formulas(sparse: bool) -> None:
    rules = (
        {"connect_in": bt.connect.FixedProbability(0.6), "connect_rec": bt.connect.FixedProbability(0.4)}
        if sparse
        else {}
    )
    cell = bt.rates.LeakyRate(6, tau=5.0, activation=torch.relu, dtype=torch.float64)
    layer = bt.Recurrent(cell, 3, bias=0.2, seed=1, **rules)
    readout = bt.Readout(6, 2, tau=8.0, bias=True, dtype=torch.float64)
    with torch.no_grad():
        readout.bias += torch.tensor([0.1, -0.2])
    x = _x(3)
    got = bt.simulate(bt.Sequential(layer, readout), x, dt=0.5).out.detach()
    w_in, w_rec = (part.connect.to_dense(part.weight.detach()) for part in (layer.input, layer.recurrent))
    v, r, y = torch.zeros(4, 6).double(), torch.zeros(4, 6).double(), torch.zeros(4, 2).double()
    for k in range(len(x)):
        v = v + (x[k] @ w_in + r @ w_rec + 0.2 - v) * -math.expm1(-0.5 / 5.0)
        r = torch.relu(v)
        y = math.exp(-0.5 / 8.0) * y + r @ readout.output.weight.detach() + readout.bias.detach()
        torch.testing.assert_close(got[k], y, rtol=1e-10, atol=1e-12)


def test_default_weights_have_the_variance_of_the_fan_in() -> None:
    layer = bt.Recurrent(bt.rates.LeakyRate(400), 100, connect_rec=bt.connect.FixedNumberPost(25))
    assert layer.input.weight.std().item() == pytest.approx(1 / math.sqrt(100), rel=0.05)
    assert layer.recurrent.weight.std().item() == pytest.approx(1 / math.sqrt(25), rel=0.05)
    assert isinstance(layer.recurrent.weight, nn.Parameter)
    shared = nn.Parameter(torch.zeros(3, 2))
    assert bt.Readout(3, 2, weight=shared).output.weight is shared


def test_adaptation_raises_the_threshold_and_decays() -> None:
    neuron = bt.neurons.ALIF(1, tau=20.0, tau_a=100.0, beta=0.5, v_th=1.0, dtype=torch.float64)
    sol = bt.simulate(
        neuron, 3.0, dt=1.0, duration=300.0, record={"v": bt.trace("v"), "a": bt.trace("a"), "z": lambda s, o: o}
    )
    v = a = 0.0
    for k in range(300):
        v = v * math.exp(-1 / 20.0) - 3.0 * math.expm1(-1 / 20.0)
        a *= math.exp(-1 / 100.0)
        spike = v >= 1.0 + 0.5 * a
        v, a = v - 1.0 * spike, a + 1.0 * spike
        assert bool(sol["z"][k, 0]) == spike
        assert float(sol["v"][k, 0]) == pytest.approx(v, abs=1e-9)
        assert float(sol["a"][k, 0]) == pytest.approx(a, abs=1e-9)
    times = sol["z"][:, 0].nonzero()[:, 0].diff()
    assert len(times) > 5
    assert times[-1] > times[0]  # the interval lengthens


def test_plain_modules_join_in_a_sequence() -> None:
    linear = nn.Linear(3, 6, dtype=torch.float64)
    cell = bt.rates.LeakyRate(6, tau=5.0, dtype=torch.float64)
    model = bt.Sequential(linear, cell, nn.Tanh())
    x = _x(3)
    want = torch.tanh(bt.simulate(cell, linear(x), dt=1.0).out)
    torch.testing.assert_close(bt.simulate(model, x, dt=1.0).out, want, rtol=1e-10, atol=1e-12)
    assert set(bt.initial_state(model)) == {"1"}


def test_bad_arguments_are_named() -> None:
    cell = bt.rates.LeakyRate(6)
    with pytest.raises(TypeError, match=r"`Recurrent\(cell=...\)`: expected a population with one axis"):
        bt.Recurrent(bt.rates.LeakyRate((2, 3)), 3)
    with pytest.raises(
        ValueError, match=r"`Recurrent.recurrent\(weight=...\)`: expected one weight per synapse, \(6, 6\)"
    ):
        bt.Recurrent(cell, 3, w_rec=torch.zeros(5, 6))
    with pytest.raises(ValueError, match=r"`Recurrent.input\(connect=...\)`: expected connectivity of 3 sources and 6"):
        bt.Recurrent(cell, 3, connect_in=bt.connect.Dense(4, 6))
    with pytest.raises(TypeError, match=r"`Recurrent.input\(connect=...\)`: expected a rule or connectivity"):
        bt.Recurrent(cell, 3, connect_in="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`Recurrent.input\(x\)`: expected \(\*batch, 3\), got \(4, 5\)"):
        bt.simulate(bt.Recurrent(bt.rates.LeakyRate(5), 3), torch.zeros(9, 4, 5), dt=1.0)
    with pytest.raises(TypeError, match=r"`Sequential\(layers\[1\]\)`: expected a module, got 3"):
        bt.Sequential(cell, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected at least one DynamicalSystem"):
        bt.Sequential(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"expected one dtype, got torch.float32 and torch.float64"):
        bt.Sequential(cell, bt.Readout(6, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"`LeakyRate\(activation=...\)`: expected a function such as torch.tanh"):
        bt.rates.LeakyRate(3, activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Readout\(tau=...\)`: expected a finite number above 0, got -1.0"):
        bt.Readout(3, 2, tau=-1.0)
