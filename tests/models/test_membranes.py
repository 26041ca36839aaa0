"""Channels and the membranes made of them: singular points, rest, and SciPy's integrators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import bdtorch as bt
from bdtorch.channels import Leak, PotassiumHH, PotassiumTM, SodiumHH, SodiumTM, exprel, linoid
from bdtorch.integrate import RK4
from bdtorch.neurons import ConductanceBased, HodgkinHuxley, TraubMiles

SINGULAR = [
    (SodiumHH, "m", 0, -40.0, 1.0),
    (PotassiumHH, "n", 0, -55.0, 0.1),
    (SodiumTM, "m", 0, -50.0, 1.28),
    (SodiumTM, "m", 1, -23.0, 1.4),
    (PotassiumTM, "n", 0, -48.0, 0.16),
]


def _hh_rates(v: float) -> dict[str, tuple[float, float]]:
    return {
        "m": (0.1 * (v + 40.0) / (1.0 - math.exp(-(v + 40.0) / 10.0)), 4.0 * math.exp(-(v + 65.0) / 18.0)),
        "h": (0.07 * math.exp(-(v + 65.0) / 20.0), 1.0 / (1.0 + math.exp(-(v + 35.0) / 10.0))),
        "n": (0.01 * (v + 55.0) / (1.0 - math.exp(-(v + 55.0) / 10.0)), 0.125 * math.exp(-(v + 65.0) / 80.0)),
    }


def _tm_rates(v: float) -> dict[str, tuple[float, float]]:
    u = v + 63.0
    return {
        "m": (0.32 * (13.0 - u) / math.expm1((13.0 - u) / 4.0), 0.28 * (u - 40.0) / math.expm1((u - 40.0) / 5.0)),
        "h": (0.128 * math.exp((17.0 - u) / 18.0), 4.0 / (1.0 + math.exp((40.0 - u) / 5.0))),
        "n": (0.032 * (15.0 - u) / math.expm1((15.0 - u) / 5.0), 0.5 * math.exp((10.0 - u) / 40.0)),
    }


def _slope(rates: Callable[[float], Any], g: tuple[float, ...], e: tuple[float, ...], c: float, current: float) -> Any:
    def slope(t: float, y: np.ndarray) -> np.ndarray:
        v, m, h, n = y
        flow = g[0] * m**3 * h * (e[0] - v) + g[1] * n**4 * (e[1] - v) + g[2] * (e[2] - v) + current
        gates = [a * (1.0 - x) - b * x for (a, b), x in zip(rates(v).values(), (m, h, n), strict=True)]
        return np.array([flow / c, *gates])

    return slope


def _hh(current: float) -> Any:
    return _slope(_hh_rates, (120.0, 36.0, 0.3), (50.0, -77.0, -54.387), 1.0, current)


def _tm(current: float) -> Any:
    return _slope(_tm_rates, (20_000.0, 6_000.0, 10.0), (50.0, -90.0, -60.0), 200.0, current)


def _at_rest(rates: Callable[[float], Any], v: float) -> np.ndarray:
    return np.array([v, *(a / (a + b) for a, b in rates(v).values())])


def test_exprel_is_smooth_through_zero() -> None:
    x = torch.tensor([-1e-3, -1e-9, 0.0, 1e-9, 1e-3], dtype=torch.float64)
    torch.testing.assert_close(exprel(x), 1.0 + x / 2 + x**2 / 6 + x**3 / 24, rtol=1e-13, atol=0.0)
    zero = torch.zeros((), dtype=torch.float64)
    assert torch.func.grad(exprel)(zero) == 0.5


def test_linoid_is_the_reciprocal_of_exprel() -> None:
    x = torch.tensor([-90.0, -3.0, -0.02, -1e-4, 0.0, 1e-4, 0.02, 3.0, 90.0], dtype=torch.float64)
    torch.testing.assert_close(linoid(x), 1.0 / exprel(x), rtol=1e-14, atol=0.0)
    single = linoid(x.float()).double()
    torch.testing.assert_close(single, linoid(x.float().double()), rtol=2e-7, atol=1e-37)
    slope = -(linoid(x) ** 2) * torch.func.vmap(torch.func.grad(exprel))(x)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(linoid))(x), slope, rtol=1e-11, atol=0.0)


@pytest.mark.parametrize(("channel", "gate", "which", "v", "value"), SINGULAR)
def test_rates_are_smooth_at_their_singular_points(channel: Any, gate: str, which: int, v: float, value: float) -> None:
    rate = lambda x: channel(dtype=torch.float64).rates(x)[gate][which]  # noqa: E731
    near = torch.tensor([v - 1e-5, v, v + 1e-5], dtype=torch.float64)
    values = rate(near)
    assert float(values[1]) == pytest.approx(value, rel=1e-14)
    assert float(values[0] + values[2]) == pytest.approx(2.0 * value, rel=1e-10)
    slopes = torch.func.vmap(torch.func.grad(rate))(near)
    assert float(slopes[1]) == pytest.approx(float(values[2] - values[0]) / 2e-5, rel=1e-6)
    single = channel().rates(torch.linspace(v - 1e-4, v + 1e-4, 101))[gate][which]
    assert single.isfinite().all() and float((single / value - 1.0).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("channels", "rates"), [((SodiumHH, PotassiumHH), _hh_rates), ((SodiumTM, PotassiumTM), _tm_rates)]
)
def test_rates_and_steady_states_are_the_papers(channels: Any, rates: Any) -> None:
    v = torch.tensor([-91.3, -65.0, -41.7, -20.1, 13.9], dtype=torch.float64)
    for channel in channels:
        made = channel(dtype=torch.float64)
        for gate, (alpha, beta) in made.rates(v).items():
            want = np.array([rates(float(x))[gate] for x in v])
            np.testing.assert_allclose(alpha, want[:, 0], rtol=1e-12)
            np.testing.assert_allclose(beta, want[:, 1], rtol=1e-12)
            steady = getattr(made.steady_state(v), gate)
            np.testing.assert_allclose(steady, want[:, 0] / want.sum(1), rtol=1e-12)


def test_gates_relax_exactly_at_a_clamped_potential() -> None:
    channel = SodiumHH(dtype=torch.float64)
    state = channel.init_state((), v=-65.0)
    sol = bt.simulate(channel, -20.0, state=state, dt=0.7, duration=7.0, loop="reference")
    for gate in ("m", "h"):
        alpha, beta = _hh_rates(-20.0)[gate]
        start, steady = float(getattr(state, gate)), alpha / (alpha + beta)
        want = steady + (start - steady) * torch.exp(-(alpha + beta) * sol.t)
        torch.testing.assert_close(getattr(sol.out, gate), want, rtol=1e-12, atol=0.0)


def test_the_conductances_are_powers_of_the_gates() -> None:
    half = torch.tensor(0.5, dtype=torch.float64)
    sodium, potassium = SodiumHH(dtype=torch.float64), PotassiumTM(dtype=torch.float64)
    drive = sodium.drive(sodium.State(m=half, h=half))
    assert float(drive.conductance) == 120.0 / 16 and float(drive.at(half * -130)) == pytest.approx(7.5 * 115.0)
    assert float(potassium.drive(potassium.State(n=half)).conductance) == 6_000.0 / 16
    assert Leak(0.3, -54.0).drive(Leak.State()).at(torch.tensor(-50.0)) == pytest.approx(-1.2)


@pytest.mark.parametrize(
    ("make", "slope", "rates", "current", "duration"),
    [(HodgkinHuxley, _hh, _hh_rates, 10.0, 2.0), (TraubMiles, _tm, _tm_rates, 500.0, 4.0)],
    ids=["HodgkinHuxley", "TraubMiles"],
)
def test_trajectory_against_scipy(make: Any, slope: Any, rates: Any, current: float, duration: float) -> None:
    want = solve_ivp(
        slope(current),
        (0.0, duration),
        _at_rest(rates, -65.0),
        method="Radau",
        rtol=1e-11,
        atol=1e-12,
        dense_output=True,
    ).sol
    cell = make(1, integrator=RK4(), dtype=torch.float64)
    record = {name: bt.trace(name) for name in ("v", "m", "h", "n")}
    sol = bt.simulate(cell, current, dt=0.005, duration=duration, record=record, loop="native")
    times = sol.t.numpy()[::20]
    for number, name in enumerate(record):
        np.testing.assert_allclose(sol[name].numpy()[::20, 0], want(times)[number], rtol=1e-6, err_msg=name)


def test_hodgkin_huxley_fires_at_the_known_rate() -> None:
    # About 68.5 Hz at 10 uA/cm2; the period is compared with SciPy's.
    def crossing(t: float, y: np.ndarray) -> float:
        return float(y[0])

    crossing.direction = 1.0  # type: ignore[attr-defined]
    run = solve_ivp(_hh(10.0), (0.0, 150.0), _at_rest(_hh_rates, -65.0), method="LSODA", events=crossing, rtol=1e-8)
    want = 1000.0 / np.diff(run.t_events[0][-4:]).mean()
    cell = HodgkinHuxley(1, dtype=torch.float64)
    spikes = bt.simulate(cell, 10.0, dt=0.01, duration=500.0, record={"s": bt.spikes()}, loop="native")["s"]
    rate = 1000.0 / np.diff(spikes.times.numpy()[-20:]).mean()
    assert want == pytest.approx(68.5, abs=0.5)
    assert rate == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize(
    ("make", "slope", "rates", "current"),
    # Without input the pyramidal cell of COBAHH has no equilibrium: it fires.
    [(HodgkinHuxley, _hh, _hh_rates, 0.0), (TraubMiles, _tm, _tm_rates, -100.0)],
    ids=["HodgkinHuxley", "TraubMiles"],
)
def test_rest_is_the_equilibrium(make: Any, slope: Any, rates: Any, current: float) -> None:
    v = brentq(lambda v: slope(current)(0.0, _at_rest(rates, v))[0], -80.0, -60.0, xtol=1e-12)
    cell = make(1, v_init=v, dtype=torch.float64)
    record = {"s": bt.spikes(), "v": bt.trace("v")}
    sol = bt.simulate(cell, current, dt=0.1, duration=200.0, record=record, loop="native")
    assert len(sol["s"]) == 0
    assert float((sol["v"] - v).abs().max()) < 1e-9


def test_a_spike_is_one_upward_crossing() -> None:
    # With exponential Euler and RK4, coarse and fine steps: as many spikes as SciPy's upward crossings, however broad.
    for options, dt in (({}, 0.05), ({}, 0.01), ({"integrator": RK4()}, 0.01)):
        cell = TraubMiles(1, dtype=torch.float64, **options)
        record = {"s": bt.spikes(), "v": bt.trace("v")}
        sol = bt.simulate(cell, 500.0, dt=dt, duration=100.0, record=record, loop="native")
        v = torch.cat([torch.tensor([[-65.0]], dtype=torch.float64), sol["v"]])[:, 0]
        crossings = ((v[:-1] < -20.0) & (v[1:] >= -20.0)).nonzero()[:, 0] + 1
        assert len(crossings) >= 3
        assert torch.equal(sol["s"].step, crossings)


def test_any_channels_make_a_membrane() -> None:
    # A membrane of nothing but a leak is an RC circuit.
    cell = ConductanceBased(
        1, {"L": Leak(10.0, -70.0, dtype=torch.float64)}, c=200.0, v_init=-50.0, dtype=torch.float64
    )
    sol = bt.simulate(cell, 100.0, dt=0.3, duration=30.0, record={"v": bt.trace("v")}, loop="reference")
    torch.testing.assert_close(sol["v"][:, 0], -60.0 + 10.0 * torch.exp(-sol.t / 20.0), rtol=1e-13, atol=0.0)
