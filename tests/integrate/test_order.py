"""The order of convergence of every integrator, measured against closed forms."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from bdtorch.integrate import RK4, Euler, ExponentialEuler, Heun, Integrator, Midpoint
from bdtorch.integrate.exponential import phi1

INTEGRATORS = [Euler(), Midpoint(), Heun(), RK4(), ExponentialEuler()]
_NAMES = ["Euler", "Midpoint", "Heun", "RK4", "ExponentialEuler"]


def _time(value: float) -> torch.Tensor:
    return torch.full((), value, dtype=torch.float64)


def _integrate(integrator: Integrator, problem: Any, y: Any, duration: float, steps: int) -> Any:
    derivative, linear = problem
    dt = duration / steps
    for k in range(steps):
        y = integrator.step(derivative, linear, y, _time(k * dt), dt)
    return y


def _slope(steps: list[int], errors: list[float]) -> float:
    return -float(np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


def _logistic(y: Any, t: torch.Tensor) -> Any:
    return {"y": y["y"] * (1.0 - y["y"])}


def _logistic_linear(y: Any, t: torch.Tensor) -> Any:
    return {"y": 1.0 - 2.0 * y["y"]}


def _forced(y: Any, t: torch.Tensor) -> Any:
    return (torch.cos(t) - y[0] + 0.5 * y[1], -y[0])


def _forced_linear(y: Any, t: torch.Tensor) -> Any:
    return (-1.0, 0.0)


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=_NAMES)
def test_order_of_an_autonomous_nonlinear_equation(integrator: Integrator) -> None:
    # The logistic equation, y(t) = 1 / (1 + (1 / y0 - 1) e^-t). Rosenbrock-Euler, whose slope is exact here, gains an
    # order on scalar autonomous equations; with a diagonal of a coupled system it has order 1 (next test).
    exact = 1.0 / (1.0 + 9.0 * math.exp(-3.0))
    steps = [32, 64, 128, 256, 512]
    problem = (_logistic, _logistic_linear)
    start = {"y": torch.tensor([0.1], dtype=torch.float64)}
    errors = [abs(float(_integrate(integrator, problem, start, 3.0, n)["y"]) - exact) for n in steps]
    expected = 2 if isinstance(integrator, ExponentialEuler) else integrator.order
    assert abs(_slope(steps, errors) - expected) < 0.15


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=_NAMES)
def test_order_of_a_forced_coupled_system(integrator: Integrator) -> None:
    # Stages of a wrong time show only where the equation depends on t. Reference: the linear system solved exactly, as
    # the real part of a particular solution z e^{it} plus the homogeneous one.
    matrix = np.array([[-1.0, 0.5], [-1.0, 0.0]])
    particular = np.linalg.solve(1j * np.eye(2) - matrix, np.array([1.0, 0.0]))
    values, vectors = np.linalg.eig(matrix)
    y0 = np.array([0.3, -0.2])
    weights = np.linalg.solve(vectors, y0 - particular.real)
    exact = (vectors @ (weights * np.exp(2.0 * values))).real + (particular * np.exp(2.0j)).real
    steps = [40, 80, 160, 320]
    errors = []
    for n in steps:
        start = tuple(torch.tensor([y], dtype=torch.float64) for y in y0)
        y = _integrate(integrator, (_forced, _forced_linear), start, 2.0, n)
        errors.append(float(np.abs(np.array([float(part) for part in y]) - exact).max()))
    assert abs(_slope(steps, errors) - integrator.order) < 0.15


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_exponential_euler_is_exact_for_affine_equations(steps: int) -> None:
    a = torch.tensor([-3.0, 0.0, 1e-13, 2.0], dtype=torch.float64)
    y0 = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    problem = (lambda y, t: [a * y[0] + 5.0], lambda y, t: [a])
    (y,) = _integrate(ExponentialEuler(), problem, [y0], 2.0, steps)
    exact = [
        float(y) * math.exp(2.0 * rate) + 5.0 * (math.expm1(2.0 * rate) / rate if rate else 2.0)
        for rate, y in zip(a.tolist(), y0, strict=True)
    ]
    torch.testing.assert_close(y, torch.tensor(exact, dtype=torch.float64), rtol=1e-13, atol=0.0)


def test_phi1_is_smooth_through_zero() -> None:
    z = torch.tensor([-1e-3, -1e-12, 0.0, 1e-300, 1e-12, 1e-3], dtype=torch.float64, requires_grad=True)
    series = 1.0 + z / 2 + z**2 / 6 + z**3 / 24
    torch.testing.assert_close(phi1(z), series, rtol=1e-13, atol=0.0)
    assert phi1(0.0) == 1.0 and phi1(-1e-3) == pytest.approx(float(series[0].detach()), rel=1e-13)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.float64, 1e-11)], ids=str)
def test_phi1_keeps_the_digits_of_its_gradient(dtype: torch.dtype, rtol: float) -> None:
    sizes = torch.logspace(-12, 0.5, 80, dtype=torch.float64)
    z = torch.cat([-sizes, torch.zeros(1, dtype=torch.float64), sizes]).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(phi1(z).sum(), z)
    x = [Fraction(float(value)) for value in z.detach()]  # d/dz phi1 is the sum of n z^(n - 1) / (n + 1)!
    exact = [float(sum(Fraction(n, math.factorial(n + 1)) * v ** (n - 1) for n in range(1, 40))) for v in x]
    torch.testing.assert_close(gradient, torch.tensor(exact, dtype=dtype), rtol=rtol, atol=0.0)


def test_integrators_are_values() -> None:
    assert RK4() == RK4() and hash(RK4()) == hash(RK4()) and Heun() != Midpoint()
    for method in INTEGRATORS[:4]:
        assert sum(method.b) == pytest.approx(1.0, abs=1e-15)


def test_step_keeps_the_structure_and_writes_to_nothing() -> None:
    y = {"b": torch.ones(2, dtype=torch.float64), "a": (torch.zeros(3, dtype=torch.float64),)}
    before = {"b": y["b"].clone(), "a": (y["a"][0].clone(),)}
    for method in INTEGRATORS:
        after = method.step(
            lambda y, t: {"b": -y["b"], "a": (y["a"][0] + 1.0,)},
            lambda y, t: {"b": -1.0, "a": (1.0,)},
            y,
            _time(0.0),
            0.1,
        )
        assert list(after) == list(y) and after["a"][0].shape == (3,)
        assert torch.equal(y["b"], before["b"]) and torch.equal(y["a"][0], before["a"][0])
