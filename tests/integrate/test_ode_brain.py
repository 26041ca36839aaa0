"""Neuron models through `odeint`, against SciPy and what was published of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from bdtorch.integrate import DOP853, Event, ExponentialRK2, Rodas4, Tsit5, odeint


def _hodgkin_huxley(t: Tensor, y: Tensor) -> Tensor:
    """The squid's membrane, rest at -65 mV, 10 uA/cm2; Hodgkin & Huxley (1952), doi:10.1113/jphysiol.1952.sp004764."""
    v, m, h, n = y.unbind(-1)
    a_m, b_m = 0.1 * (v + 40.0) / -torch.expm1(-(v + 40.0) / 10.0), 4.0 * torch.exp(-(v + 65.0) / 18.0)
    a_h, b_h = 0.07 * torch.exp(-(v + 65.0) / 20.0), 1.0 / (1.0 + torch.exp(-(v + 35.0) / 10.0))
    a_n, b_n = 0.01 * (v + 55.0) / -torch.expm1(-(v + 55.0) / 10.0), 0.125 * torch.exp(-(v + 65.0) / 80.0)
    current = 10.0 - 120.0 * m**3 * h * (v - 50.0) - 36.0 * n**4 * (v + 77.0) - 0.3 * (v + 54.387)
    return torch.stack([current, a_m * (1 - m) - b_m * m, a_h * (1 - h) - b_h * h, a_n * (1 - n) - b_n * n], -1)


def _morris_lecar(t: Tensor, y: Tensor) -> Tensor:
    """Barnacle muscle, Hopf parameters, 100 uA/cm2; Morris & Lecar (1981), doi:10.1016/S0006-3495(81)84782-0."""
    v, w = y.unbind(-1)
    m = 0.5 * (1 + torch.tanh((v + 1.2) / 18.0))
    rest, rate = 0.5 * (1 + torch.tanh((v - 2.0) / 30.0)), 0.04 * torch.cosh((v - 2.0) / 60.0)
    current = 100.0 - 4.4 * m * (v - 120.0) - 8.0 * w * (v + 84.0) - 2.0 * (v + 60.0)
    return torch.stack([current / 20.0, rate * (rest - w)], -1)


def _fitzhugh_nagumo(t: Tensor, y: Tensor) -> Tensor:
    """FitzHugh (1961), doi:10.1016/S0006-3495(61)86902-6."""
    v, w = y.unbind(-1)
    return torch.stack([v - v**3 / 3.0 - w + 0.5, 0.08 * (v + 0.7 - 0.8 * w)], -1)


def _hindmarsh_rose(t: Tensor, y: Tensor) -> Tensor:
    """Bursts at I = 2; Hindmarsh & Rose (1984), doi:10.1098/rspb.1984.0024."""
    x, u, z = y.unbind(-1)
    return torch.stack([u - x**3 + 3.0 * x**2 - z + 2.0, 1.0 - 5.0 * x**2 - u, 0.006 * (4.0 * (x + 1.6) - z)], -1)


MODELS: dict[str, tuple[Any, list[float], float]] = {
    "Hodgkin-Huxley": (_hodgkin_huxley, [-65.0, 0.0529, 0.5961, 0.3177], 30.0),
    "Morris-Lecar": (_morris_lecar, [-40.0, 0.0], 150.0),
    "FitzHugh-Nagumo": (_fitzhugh_nagumo, [-1.0, 1.0], 100.0),
    "Hindmarsh-Rose": (_hindmarsh_rose, [-1.6, -10.0, 2.0], 60.0),
}


@pytest.mark.parametrize("method", [Tsit5(), DOP853()], ids=["Tsit5", "DOP853"])
@pytest.mark.parametrize("name", MODELS)
def test_models_beside_scipy(name: str, method: Any) -> None:
    f, start, duration = MODELS[name]
    times = np.linspace(0.0, duration, 21)

    def right(t: float, y: np.ndarray) -> np.ndarray:
        return f(torch.tensor(t, dtype=torch.float64), torch.tensor(y)).numpy()

    reference = solve_ivp(right, (0.0, duration), start, t_eval=times, rtol=1e-10, atol=1e-11, method="LSODA").y.T
    solution = odeint(f, torch.tensor(start, dtype=torch.float64), times, method=method, rtol=1e-9, atol=1e-9)
    assert np.abs(solution.y.numpy() - reference).max() < 1e-5 * np.abs(reference).max()


def test_hodgkin_huxley_fires_at_about_68_hz() -> None:
    # At 10 uA/cm2 and 6.3 degrees the membrane fires every 14.6 ms.
    crossing = Event(lambda t, y: y[0], direction=1)
    start = torch.tensor(MODELS["Hodgkin-Huxley"][1], dtype=torch.float64)
    (spikes,) = odeint(_hodgkin_huxley, start, [0.0, 100.0], rtol=1e-7, atol=1e-8, events=crossing).events
    assert float(spikes.t.diff()[2:].mean()) == pytest.approx(14.6, abs=0.1)


def test_stiff_and_exponential_methods_agree_on_hodgkin_and_huxley() -> None:
    start = torch.tensor(MODELS["Hodgkin-Huxley"][1], dtype=torch.float64)
    fine = odeint(_hodgkin_huxley, start, [0.0, 10.0], method=DOP853(), rtol=1e-10, atol=1e-10).y[-1]
    stiff = odeint(_hodgkin_huxley, start, [0.0, 10.0], method=Rodas4(), rtol=1e-5, atol=1e-6).y[-1]
    torch.testing.assert_close(stiff, fine, rtol=1e-3, atol=1e-4)
    errors = []
    for dt in (0.05, 0.025):
        y = odeint(_hodgkin_huxley, start, [0.0, 10.0], method=ExponentialRK2(), dt=dt).y[-1]  # its linear part by jvp
        errors.append(float((y - fine).abs().max()))
    assert errors[1] < errors[0] / 3 and errors[1] < 0.1
