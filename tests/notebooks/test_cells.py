"""The numbers of the scripts on channels, the neuron they make, and its network."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from notebooks import channels, cobahh_network

pytestmark = pytest.mark.slow


def _rate_by_scipy(current: float) -> float:
    """Upward crossings of 0 mV in 500 ms, of the neuron's equations written out."""

    def derivative(t: float, y: np.ndarray) -> list[float]:
        v, m, h, n = y
        x = v + 63.0
        a_m, b_m = 0.32 * (13 - x) / np.expm1((13 - x) / 4), 0.28 * (x - 40) / np.expm1((x - 40) / 5)
        a_h, b_h = 0.128 * np.exp((17 - x) / 18), 4 / (1 + np.exp((40 - x) / 5))
        a_n, b_n = 0.032 * (15 - x) / np.expm1((15 - x) / 5), 0.5 * np.exp((10 - x) / 40)
        i = 100 * m**3 * h * (50 - v) + 30 * n**4 * (-90 - v) + 0.05 * (-60 - v) + current
        return [i, a_m * (1 - m) - b_m * m, a_h * (1 - h) - b_h * h, a_n * (1 - n) - b_n * n]

    def crossing(t: float, y: np.ndarray) -> float:
        return y[0]

    crossing.direction = 1.0  # type: ignore[attr-defined]
    x = 3.0
    rates = [
        (0.32 * (13 - x) / np.expm1((13 - x) / 4), 0.28 * (x - 40) / np.expm1((x - 40) / 5)),
        (0.128 * np.exp((17 - x) / 18), 4 / (1 + np.exp((40 - x) / 5))),
        (0.032 * (15 - x) / np.expm1((15 - x) / 5), 0.5 * np.exp((10 - x) / 40)),
    ]
    start = [-60.0, *(a / (a + b) for a, b in rates)]
    found = solve_ivp(derivative, (0.0, 500.0), start, method="LSODA", rtol=1e-8, atol=1e-8, events=crossing)
    return len(found.t_events[0]) / 0.5


def test_channel_and_neuron() -> None:
    result = channels.main()
    assert result["clamp_error"] < 1e-12
    assert result["alpha_at_singularity"] == pytest.approx(0.16, rel=1e-12)
    assert -63.0 < result["rest"] < -60.0
    assert result["rate"] == pytest.approx(_rate_by_scipy(2.0), abs=2.1)
    assert 35.0 < result["peak"] < 55.0


def test_the_network_keeps_itself_irregularly_active() -> None:
    result = cobahh_network.main()
    assert 20.0 < result["rate_e"] < 50.0
    assert 20.0 < result["rate_i"] < 55.0
    assert result["cv"] > 0.7
