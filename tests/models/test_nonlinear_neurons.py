"""AdEx, ExpIF and Izhikevich against SciPy's integrators with events, and against published numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import bdtorch as bt
from bdtorch.integrate import RK4
from bdtorch.neurons import AdEx, ExpIF, Izhikevich, Refractory

Slope = Callable[[float, np.ndarray], np.ndarray]


def _with_events(
    slope: Slope, y: Any, peak: float, reset: Slope, duration: float
) -> tuple[list[float], Callable[..., Any]]:
    """Integrate with resets where y[0] reaches ``peak``; spike times, and the solution as a function of time."""

    def reached(t: float, y: np.ndarray) -> float:
        return float(y[0] - peak)

    reached.terminal, reached.direction = True, 1.0  # type: ignore[attr-defined]
    t, spikes, parts = 0.0, [], []
    while t < duration:
        part = solve_ivp(
            slope, (t, duration), y, method="DOP853", events=reached, rtol=1e-11, atol=1e-11, dense_output=True
        )
        parts.append((part.t[-1], part.sol))
        t, y = part.t[-1], part.y[:, -1]
        if part.status == 1:
            spikes.append(t)
            y = reset(t, y)

    def at(when: float) -> Any:
        return next(sol(when) for end, sol in parts if when <= end)

    return spikes, at


def _adex(t: float, y: np.ndarray) -> np.ndarray:
    v, w = y
    dv = (-11.0 * (v + 70.0) + 22.0 * np.exp((v + 50.0) / 2.0) - w + 420.0) / 200.0
    return np.array([dv, (3.0 * (v + 70.0) - w) / 300.0])


def test_adex_against_scipy_and_nest() -> None:
    # The parameters of NEST, testsuite/pytests/test_aeif_lsodar.py (I 420 pA, b 0, V_peak 0), whose reference gives the
    # points below, before the first spike. In the upstroke (2.8 mV/ms) the tolerance allows its times 1 us.
    times, at = _with_events(_adex, np.array([-70.0, 5.0]), 0.0, lambda t, y: np.array([-58.0, y[1]]), 60.0)
    assert at(3.258843)[0] == pytest.approx(-63.80932, abs=5e-4) and at(3.258843)[1] == pytest.approx(
        5.049492, rel=1e-4
    )
    assert at(9.477423)[0] == pytest.approx(-54.66745, abs=5e-4)
    assert at(17.892549)[0] == pytest.approx(-44.05061, abs=3e-3) and at(17.892549)[1] == pytest.approx(
        7.14798, rel=1e-4
    )
    cell = AdEx(
        1, c=200.0, g_l=11.0, e_l=-70.0, v_t=-50.0, delta_t=2.0, a=3.0, b=0.0, tau_w=300.0, v_reset=-58.0, v_peak=0.0,
        w_init=5.0, integrator=RK4(), dtype=torch.float64,
    )  # fmt: skip
    record = {"v": bt.trace("v"), "w": bt.trace("w"), "s": bt.spikes()}
    sol = bt.simulate(cell, 420.0, dt=1e-3, duration=60.0, record=record, loop="native")
    # A spike falls on the next point of the grid: each adds a lag of at most one step.
    assert len(times) == len(sol["s"]) >= 3
    lags = sol["s"].times.numpy() - np.array(times)
    assert lags.min() > 0.0 and np.diff(lags, prepend=0.0).max() < 1.5e-3
    for t in (3.2, 9.4, 15.0, 17.5):
        k = round(t / 1e-3) - 1
        assert float(sol["v"][k, 0]) == pytest.approx(at(t)[0], abs=5e-4)
        assert float(sol["w"][k, 0]) == pytest.approx(at(t)[1], rel=1e-4)


def test_adex_spike_times_agreed_by_three_simulators() -> None:
    # PyNN, test/system/scenarios/test_cell_types.py: the default cell at 1 nA from -65 mV, refractory 2 ms, dt
    # 0.01 ms; NEST, NEURON and Brian2 agree within 1 %.
    want = [10.015, 25.515, 43.168, 63.41, 86.649, 113.112, 142.663, 174.76]
    cell = Refractory(AdEx(1, v_init=-65.0, dtype=torch.float64), 2.0)
    spikes = bt.simulate(cell, 1000.0, dt=0.01, duration=180.0, record={"s": bt.spikes()}, loop="native")["s"]
    assert spikes.times.tolist() == pytest.approx(want, rel=0.01)


def test_izhikevich_regular_spiking_against_scipy() -> None:
    def slope(t: float, y: np.ndarray) -> np.ndarray:
        v, u = y
        return np.array([0.04 * v * v + 5.0 * v + 140.0 - u + 10.0, 0.02 * (0.2 * v - u)])

    times, at = _with_events(slope, np.array([-65.0, -13.0]), 30.0, lambda t, y: np.array([-65.0, y[1] + 8.0]), 120.0)
    cell = Izhikevich(1, integrator=RK4(), dtype=torch.float64)
    record = {"v": bt.trace("v"), "u": bt.trace("u"), "s": bt.spikes()}
    sol = bt.simulate(cell, 10.0, dt=1e-3, duration=120.0, record=record, loop="native")
    assert len(times) == len(sol["s"]) >= 3
    np.testing.assert_allclose(sol["s"].times.numpy(), times, atol=0.02)
    for k in (1000, 2000, 3000):  # before the first spike
        assert times[0] > k * 1e-3
        assert float(sol["v"][k - 1, 0]) == pytest.approx(at(k * 1e-3)[0], abs=1e-7)
        assert float(sol["u"][k - 1, 0]) == pytest.approx(at(k * 1e-3)[1], abs=1e-9)


def test_expif_against_scipy() -> None:
    def slope(t: float, y: np.ndarray) -> np.ndarray:
        return (-65.0 - y + 3.48 * np.exp((y + 59.9) / 3.48) + 12.0) / 10.0

    times, at = _with_events(slope, np.array([-65.0]), -30.0, lambda t, y: np.array([-68.0]), 80.0)
    cell = ExpIF(1, integrator=RK4(), dtype=torch.float64)
    record = {"v": bt.trace("v"), "s": bt.spikes()}
    sol = bt.simulate(cell, 12.0, dt=1e-3, duration=80.0, record=record, loop="native")
    assert len(times) == len(sol["s"]) >= 3
    np.testing.assert_allclose(sol["s"].times.numpy(), times, atol=1.5e-3 * len(times))
    k = round(0.9 * times[0] / 1e-3)
    assert float(sol["v"][k - 1, 0]) == pytest.approx(at(k * 1e-3)[0], abs=1e-7)


@pytest.mark.parametrize("make", [AdEx, ExpIF, Izhikevich], ids=lambda make: make.__name__)
def test_default_integrator_converges_to_the_fine_one(make: Any) -> None:
    # The closed-form slopes of exponential Euler are right if its error falls in proportion to the step.
    current = {"AdEx": 300.0, "ExpIF": 2.0, "Izhikevich": 2.0}[make.__name__]
    fine = bt.simulate(
        make(1, integrator=RK4(), dtype=torch.float64), current, dt=0.01, duration=8.0, record={}, loop="native"
    ).state
    errors = []
    for dt in (0.1, 0.05, 0.025):
        state = bt.simulate(make(1, dtype=torch.float64), current, dt=dt, duration=8.0, record={}, loop="native").state
        errors.append(float((state.v - fine.v).abs().max()))
    assert errors[0] < 0.5
    assert np.polyfit(np.log2([1.0, 2.0, 4.0]), np.log2(errors), 1)[0] < -0.85


def test_reset_touches_only_those_that_spiked() -> None:
    cell = AdEx(2, dtype=torch.float64)
    before = cell.State(v=torch.tensor([-40.0, -41.0]).double(), w=torch.tensor([3.0, 3.0]).double())
    after, spike = cell.emit(before, before)
    assert spike.tolist() == [True, False]  # at the threshold itself it spikes
    assert after.v.tolist() == [-70.6, -41.0] and after.w.tolist() == [83.5, 3.0]
