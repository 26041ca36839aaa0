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
