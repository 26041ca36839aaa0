"""Rate models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import root

import bdtorch as bt
from bdtorch.rates import WilsonCowan


def _response(x: float, a: float, theta: float) -> float:
    return 1.0 / (1.0 + np.exp(-a * (x - theta))) - 1.0 / (1.0 + np.exp(a * theta))


def _slope(into_e: float, into_i: float) -> Any:
    def slope(t: float, y: np.ndarray) -> np.ndarray:
        e, i = y
        de = -e + (1.0 - e) * _response(12.0 * e - 4.0 * i + into_e, 1.2, 2.8)
        di = -i + (1.0 - i) * _response(13.0 * e - 11.0 * i + into_i, 1.0, 4.0)
        return np.array([de, di / 2.0])

    return slope


@pytest.mark.parametrize(("into_e", "into_i"), [(0.0, 0.0), (3.0, 0.5)])
def test_settles_at_the_fixed_point(into_e: float, into_i: float) -> None:
    cell = WilsonCowan(1, tau_i=2.0, dtype=torch.float64)
    end = bt.simulate(cell, (into_e, into_i), dt=0.1, duration=400.0, record={}, loop="native").state
    solved = root(lambda y: _slope(into_e, into_i)(0.0, y), [float(end.e), float(end.i)], tol=1e-13)
    assert solved.success
    np.testing.assert_allclose([float(end.e), float(end.i)], solved.x, atol=1e-9)


def test_trajectory_against_scipy() -> None:
    want = solve_ivp(_slope(1.5, 0.2), (0.0, 30.0), [0.1, 0.05], rtol=1e-11, atol=1e-12, dense_output=True).sol
    sol = bt.simulate(
        WilsonCowan(1, tau_i=2.0, dtype=torch.float64), (1.5, 0.2), dt=0.05, duration=30.0, loop="reference"
    )
    np.testing.assert_allclose(sol.out.e[:, 0], want(sol.t.numpy())[0], rtol=1e-6)
    np.testing.assert_allclose(sol.out.i[:, 0], want(sol.t.numpy())[1], rtol=1e-6)


def test_one_input_goes_to_the_excitatory_population() -> None:
    cell = WilsonCowan(2)
    alone = bt.simulate(cell, 1.0, dt=0.5, duration=10.0, loop="reference").out
    pair = bt.simulate(cell, (1.0, 0.0), dt=0.5, duration=10.0, loop="reference").out
    drive = bt.simulate(cell, bt.Drive(torch.tensor(1.0)), dt=0.5, duration=10.0, loop="reference").out
    for out in (pair, drive):
        assert torch.equal(out.e, alone.e) and torch.equal(out.i, alone.i)


def test_wong_wang_rate_is_smooth_where_its_formula_is_not_defined() -> None:
    system = bt.rates.WongWang(1, dtype=torch.float64)
    y = torch.tensor([-1.0, -0.0100001, -0.0099999, -1e-9, 0.0, 1e-9, 0.0099999, 0.0100001, 3.0], dtype=torch.float64)
    x = (y / system.d + system.b) / system.a
    want = [1.0 if v == 0 else v / -np.expm1(-v) for v in y.tolist()]
    np.testing.assert_allclose(system._rate(x) * system.d, want, rtol=1e-13)


def test_the_mean_field_of_quadratic_neurons_rests_where_theory_says() -> None:
    # Stationary: v = -delta / (2 pi r), and then one equation for r (Montbrio et al. 2015, equation 13).
    system = bt.rates.MontbrioPazoRoxin(1, eta=-4.0, j=10.0, dtype=torch.float64)
    end = bt.simulate(system, dt=0.01, duration=60.0, record={}, loop="reference").state
    r, v = float(end.r), float(end.v)
    assert v == pytest.approx(-1.0 / (2 * np.pi * r), rel=1e-8)
    assert v**2 - 4.0 + 10.0 * r - (np.pi * r) ** 2 == pytest.approx(0.0, abs=1e-7)


def test_a_ring_holds_a_bump_of_the_height_of_theory_at_every_angle() -> None:
    ring = bt.rates.ContinuousAttractor(256, k=0.1, j0=8.0, dtype=torch.float64)
    angles = torch.tensor([-3.1, -1.0, 0.3, 2.0], dtype=torch.float64)
    start = ring.State(u=ring.bump(angles, 0.9 * ring.bump_height))
    end = bt.simulate(ring, dt=0.1, duration=30.0, state=start, record={}, loop="reference").state
    # The range is finite, which the closed form is not: exp(-pi^2 / (4 a^2)) is left out.
    torch.testing.assert_close(end.u, ring.bump(angles, ring.bump_height), rtol=0, atol=2e-4 * ring.bump_height)
    torch.testing.assert_close(ring.decode(end.u), angles, rtol=0, atol=1e-6)


def test_a_bump_follows_a_stimulus_and_dies_above_the_critical_inhibition() -> None:
    ring = bt.rates.ContinuousAttractor(128, k=0.1, j0=16.0, dtype=torch.float64)
    start = ring.State(u=ring.bump(0.0, ring.bump_height))
    pulled = bt.simulate(
        ring,
        bt.Constant(ring.bump(1.0, 0.5 * ring.bump_height)),
        dt=0.1,
        duration=40.0,
        state=start,
        record={},
        loop="reference",
    ).state
    assert float(ring.decode(pulled.u)) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match="k of at most") as caught:
        _ = bt.rates.ContinuousAttractor(128, k=1e6, j0=16.0).bump_height
    critical = float(str(caught.value).split("at most ")[1].split(",")[0])
    for k, lasts in ((0.97 * critical, True), (1.03 * critical, False)):
        ring = bt.rates.ContinuousAttractor(128, k=k, j0=16.0, dtype=torch.float64)
        height = bt.rates.ContinuousAttractor(128, k=0.97 * critical, j0=16.0).bump_height
        end = bt.simulate(
            ring, dt=0.2, duration=400.0, state=ring.State(u=ring.bump(0.0, height)), record={}, loop="reference"
        ).state
        assert (float(end.u.max()) > 0.5 * height) == lasts
