"""Neurons whose spikes are part of their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import bdtorch as bt


def _morris_lecar(t: float, y: np.ndarray, i: float) -> list[float]:
    v, w = y
    m = 0.5 * (1 + np.tanh((v + 1.2) / 18.0))
    w_inf = 0.5 * (1 + np.tanh((v - 2.0) / 30.0))
    dv = (i - 4.4 * m * (v - 120.0) - 8.0 * w * (v + 84.0) - 2.0 * (v + 60.0)) / 20.0
    return [dv, 0.04 * (w_inf - w) * np.cosh((v - 2.0) / 60.0)]


def test_morris_lecar_spikes_where_scipy_crosses() -> None:
    neuron = bt.neurons.MorrisLecar(1, v_init=-20.0, w_init=0.1, dtype=torch.float64)
    sol = bt.simulate(
        neuron, 120.0, dt=0.05, duration=500.0, loop="native", record={"s": bt.spikes(), "v": bt.trace("v")}
    )
    want = solve_ivp(_morris_lecar, (0, 500), [-20.0, 0.1], args=(120.0,), rtol=1e-10, atol=1e-10, dense_output=True)
    t = np.arange(1, 10001) * 0.05
    v = want.sol(t)[0]
    np.testing.assert_allclose(sol["v"].numpy()[:, 0], v, atol=1e-4)
    crossings = t[1:][(v[1:] >= 10.0) & (v[:-1] < 10.0)]
    assert len(crossings) > 3
    np.testing.assert_allclose(sol["s"].times, crossings, atol=0.051)


def test_bursts_have_pauses_much_longer_than_their_intervals() -> None:
    neuron = bt.neurons.HindmarshRose(1, r=0.006, i_ext=2.0, x_r=-1.6, dtype=torch.float64)
    spikes = bt.simulate(neuron, dt=0.05, duration=2000.0, loop="native", record={"s": bt.spikes()})["s"]
    gaps = np.diff(spikes.times.numpy())
    assert len(gaps) > 10 and gaps.max() > 5 * np.median(gaps)


def test_a_drive_acts_on_the_membrane_variable() -> None:
    neuron = bt.neurons.HindmarshRose(1, dtype=torch.float64)
    state = neuron.init_state()
    jumped = neuron.step(state, bt.Drive(jump=torch.tensor(0.5, dtype=torch.float64)), torch.tensor(0.0), 1e-9)[0]
    assert float(jumped.x - state.x) == pytest.approx(0.5, abs=1e-6) and float(jumped.z) == pytest.approx(0.0, abs=1e-6)
