"""Delay equations: the order of every method, on solutions that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bdtorch import integrate
from bdtorch.integrate import Integrator, RungeKutta, ddeint, methods

F64 = torch.float64
NAMES = [method.name for method in methods("DDE")]
_RATE, _LAG = -0.8, -1.1  # y' = _RATE y + _LAG y(t - 1)


def method_named(name: str) -> Integrator:
    method: Integrator = getattr(integrate, name)()
    return method


def slope(steps: list[int], errors: list[float]) -> float:
    """The order that errors show."""
    return -float(np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


def by_steps(end: int) -> Callable[[float], float]:
    """y' = a y + b y(t - 1) with y = 1 before 0, by the method of steps: in each unit interval a polynomial times e^{as}."""
    # In interval m, y(m + s) = c + e^{as} p(s) in general; here with c_m following from c_{m-1}: 0 = a c_m + b c_{m-1}.
    constants, polynomials = [1.0], [np.array([0.0])]
    for _ in range(end):
        before, past = polynomials[-1], constants[-1]
        value = past + math.exp(_RATE) * np.polyval(before, 1.0) if len(polynomials) > 1 else 1.0
        constant = -_LAG * past / _RATE
        growth = np.polyint(_LAG * before)  # p' = b p(before)
        growth[-1] += value - constant
        constants.append(constant)
        polynomials.append(growth)

    def solution(t: float) -> float:
        m = min(math.floor(t), end - 1)
        s = t - m
        return float(constants[m + 1] + math.exp(_RATE * s) * np.polyval(polynomials[m + 1], s))

    return solution


def test_the_reference_itself() -> None:
    # The method of steps by hand for two intervals of y' = a y + b, y' = a y + b y1(t - 1).
    exact = by_steps(3)
    a, b = _RATE, _LAG
    first = lambda s: -b / a + (1.0 + b / a) * math.exp(a * s)  # noqa: E731
    assert exact(0.5) == pytest.approx(first(0.5), abs=1e-14)
    h = 1e-5
    for t in (1.3, 2.6):
        derivative = (exact(t + h) - exact(t - h)) / (2 * h)
        assert derivative == pytest.approx(a * exact(t) + b * exact(t - 1.0), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("aligned", [True, False], ids=["multiples", "breaks-between-steps"])
def test_order_with_breaks(name: str, aligned: bool) -> None:
    # History 1 does not satisfy the equation, so derivatives jump at 0, 1, 2 ...; steps that divide the delay meet these
    # by themselves, others (of 1 / (n - 0.37)) only because they are cut there.
    method = method_named(name)
    end = 2.7 if isinstance(method, RungeKutta) else 1.7
    exact = by_steps(3)(end)
    steps = [10, 20, 40] if method.order > 2 else [20, 40, 80]
    f = lambda t, y, past: _RATE * y + _LAG * past[0]  # noqa: E731
    errors = []
    for n in steps:
        dt = 1.0 / n if aligned else 1.0 / (n - 0.37)
        found = ddeint(f, torch.ones(1, dtype=F64), [0.0, end], delays=1.0, dt=dt, method=method)
        errors.append(abs(float(found.y[-1]) - exact))
    assert slope(steps, errors) > method.order - 0.15


def _shifted(t: Tensor, phase: Tensor) -> Tensor:
    return torch.sin(t + phase)


_PHASE = torch.tensor([0.3, 1.0], dtype=F64)


@pytest.mark.parametrize("name", NAMES)
def test_order_of_a_nonlinear_forced_system(name: str) -> None:
    # y_i = sin(t + phase_i) solves it; the delay is no multiple of the step, and everything is smooth across the start.
    method = method_named(name)

    def f(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
        target, before = _shifted(t, _PHASE), _shifted(t - 0.7, _PHASE)
        coupling = y.flip(-1) ** 2 - target.flip(-1) ** 2
        return torch.cos(t + _PHASE) + (past[0] ** 2 - before**2) - (y - target) - 0.5 * coupling

    # ROS3P reaches its order late here.
    steps = [40, 80, 160] if name == "ROS3P" else [8, 16, 32] if method.order == 5 else [10, 20, 40]
    t = torch.tensor([0.0, 0.5, 1.0, 1.5], dtype=F64)
    errors = []
    for n in steps:
        found = ddeint(f, lambda s: _shifted(s, _PHASE), t, delays=0.7, dt=0.5 / n, method=method, levels=0)
        errors.append(float((found.y - _shifted(t.unsqueeze(-1), _PHASE)).abs().max()))
    assert slope(steps, errors) > method.order - 0.15


@pytest.mark.parametrize("name", ["Euler", "Heun", "Kutta3", "RK4", "Tsit5", "DormandPrince5", "Trapezoidal"])
def test_order_of_a_neutral_equation(name: str) -> None:
    # y = sin t; the slopes of the history's polynomials must be as exact as the method.
    method = method_named(name)

    def f(t: Tensor, y: Tensor, past: tuple[Tensor, ...], slopes: tuple[Tensor, ...]) -> Tensor:
        late = 0.5 * (slopes[0] - torch.cos(t - 0.75)) - 0.3 * (past[0] - torch.sin(t - 1.1))
        return torch.cos(t) + late - 0.2 * (y - torch.sin(t))

    steps = [20, 40, 80] if method.order < 5 else [3, 6, 12]
    t = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=F64)
    errors = []
    for n in steps:
        found = ddeint(
            f, lambda s: torch.sin(s).reshape(1), t, delays=1.1, neutral=0.75, dt=1.0 / n, method=method, levels=0
        )
        errors.append(float((found.y[:, 0] - torch.sin(t)).abs().max()))
    assert slope(steps, errors) > method.order - 0.15


@pytest.mark.parametrize("name", ["Heun", "RK4", "Tsit5"])
def test_order_with_a_delay_that_depends_on_the_state(name: str) -> None:
    method = method_named(name)
    delay = lambda t, y: 1.2 + 0.3 * y**2  # noqa: E731
    f = lambda t, y, past: torch.cos(t) + past[0] - torch.sin(t - delay(t, y))  # noqa: E731
    steps = [20, 40, 80] if method.order < 5 else [3, 6, 12]
    t = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=F64)
    errors = []
    for n in steps:
        found = ddeint(f, lambda s: torch.sin(s).reshape(1), t, delays=delay, max_delay=1.5, dt=1.0 / n, method=method)
        errors.append(float((found.y[:, 0] - torch.sin(t)).abs().max()))
    assert slope(steps, errors) > method.order - 0.15


@pytest.mark.parametrize(("rate", "lag"), [(-0.5, -1.0), (0.2, -0.7), (-1.0, 0.6)])
def test_growth_rate_is_the_rightmost_characteristic_root(rate: float, lag: float) -> None:
    # z = a + b e^{-z} has the rightmost root a + W0(b e^{-a}); the growth over whole periods shows it (a = y, b = y(t - 1)).
    scipy_special = pytest.importorskip("scipy.special")
    root = complex(rate + scipy_special.lambertw(lag * math.exp(-rate), 0))
    f = lambda t, y, past: rate * y + lag * past[0]  # noqa: E731
    t = torch.arange(0.0, 30.0 + 1e-9, 0.05, dtype=F64)
    y = ddeint(f, torch.ones(1, dtype=F64), t, delays=1.0, dt=0.05).y[:, 0].numpy()
    # The slowest pair of modes obeys y(t + 2h) = 2 e^{xh} cos(wh) y(t + h) - e^{2xh} y(t) once the others have died out.
    h, late = 20, y[300:]
    matrix = np.stack([late[h:-h], -late[: -2 * h]], 1)
    found = np.linalg.lstsq(
        matrix / np.abs(matrix).max(1, keepdims=True), late[2 * h :] / np.abs(matrix).max(1), rcond=None
    )[0]
    if abs(root.imag) > 1e-9:
        assert math.log(found[1]) / (2 * h * 0.05) == pytest.approx(root.real, abs=1e-4)
    else:
        assert math.log(late[-1] / late[-1 - h]) / (h * 0.05) == pytest.approx(root.real, abs=1e-4)
