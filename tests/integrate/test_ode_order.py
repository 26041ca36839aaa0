"""The order of every fixed-step method, measured on problems with known solutions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import bdtorch.integrate as integrate
from bdtorch.integrate import Method, methods, odeint
from tests.integrate.problems import (
    FORCED,
    SPIRAL,
    OdeProblem,
    lotka_volterra,
    lotka_volterra_invariant,
    lotka_volterra_linear,
)

ODE_METHODS = methods("ODE")
_STEPS = {1: (240, 480), 2: (192, 384), 3: (96, 192), 4: (144, 288), 5: (144, 288), 8: (36, 48)}
_OWN = {  # whose leading term rules later, and those whose steps are dear
    "ExponentialRK2": (384, 768), "ExponentialRosenbrock": (48, 96), "ROS3P": (48, 96), "Rodas4": (48, 96), "Kvaerno3": (48, 96),
    "Kvaerno5": (36, 72),
}  # fmt: skip
_ROWS = 7  # outputs, over which the largest error counts: at a single time leading terms of the error may cancel


def _steps(entry: Method, problem: OdeProblem | None = None) -> tuple[int, ...]:
    if entry.name == "DOP853" and problem is FORCED:
        return (48, 60)
    return _OWN.get(entry.name, _STEPS[int(entry.order or 0)])


def _slope(steps: tuple[int, ...], errors: list[float]) -> float:
    return -float(np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


def _solve(method: Any, f: Any, linear: Any, y0: torch.Tensor, duration: float, steps: int) -> torch.Tensor:
    times = torch.linspace(0.0, duration, _ROWS, dtype=torch.float64)
    return odeint(f, y0, times, method=method, dt=duration / steps, linear=linear).y


def _is_exact(entry: Method, problem: OdeProblem) -> bool:
    return entry.name == "ExponentialRosenbrock" and problem is SPIRAL


@pytest.mark.parametrize("problem", [SPIRAL, FORCED], ids=lambda problem: problem.name)
@pytest.mark.parametrize("entry", ODE_METHODS, ids=lambda entry: entry.name)
def test_order_on_a_known_solution(entry: Method, problem: OdeProblem) -> None:
    method, steps = getattr(integrate, entry.name)(), _steps(entry, problem)
    exact = torch.stack([problem.exact(t) for t in np.linspace(0.0, problem.duration, _ROWS)])
    errors = [
        float((_solve(method, problem.f, problem.linear, problem.y0, problem.duration, n) - exact).abs().max())
        for n in steps
    ]
    if _is_exact(entry, problem):
        assert max(errors) < 1e-13
    else:
        assert abs(_slope(steps, errors) - entry.order) < 0.15, errors


@pytest.mark.parametrize("entry", ODE_METHODS, ids=lambda entry: entry.name)
def test_drift_of_the_invariant_of_lotka_and_volterra(entry: Method) -> None:
    method = getattr(integrate, entry.name)()
    steps = _steps(entry)
    y0 = torch.tensor([1.5, 0.8], dtype=torch.float64)
    paths = [_solve(method, lotka_volterra, lotka_volterra_linear, y0, 6.0, n) for n in steps]
    drifts = [float((lotka_volterra_invariant(y) - lotka_volterra_invariant(y0)).abs().max()) for y in paths]
    assert abs(_slope(steps, drifts) - entry.order) < 0.15, drifts


@pytest.mark.parametrize("entry", ODE_METHODS, ids=lambda entry: entry.name)
def test_the_list_says_what_the_methods_are(entry: Method) -> None:
    method = getattr(integrate, entry.name)()
    assert method.order == entry.order and "doi:" in entry.source
    assert method == getattr(integrate, entry.name)() and hash(method) is not None
    if isinstance(method, integrate.RungeKutta):
        assert len(method.a) == entry.stages
    assert (entry.embedded_order is not None) == (getattr(method, "error_order", 0) > 0)


def test_every_exported_method_is_listed() -> None:
    found = set()
    for name, item in list(vars(integrate).items()):
        if callable(item) and not name.startswith("_"):
            try:
                made = item()
            except (TypeError, ValueError):
                continue
            if isinstance(made, integrate.Integrator):
                found.add(name)
    assert found == {entry.name for entry in ODE_METHODS}


_TREES = {  # density, and the elementary weight as a function of the tableau: rooted trees of order 1 to 5
    1: [(1, lambda b, A, c: b.sum())],
    2: [(2, lambda b, A, c: b @ c)],
    3: [(3, lambda b, A, c: b @ c**2), (6, lambda b, A, c: b @ A @ c)],
    4: [
        (4, lambda b, A, c: b @ c**3),
        (8, lambda b, A, c: (b * c) @ A @ c),
        (12, lambda b, A, c: b @ A @ c**2),
        (24, lambda b, A, c: b @ A @ A @ c),
    ],
    5: [
        (5, lambda b, A, c: b @ c**4),
        (10, lambda b, A, c: (b * c**2) @ A @ c),
        (15, lambda b, A, c: (b * c) @ A @ c**2),
        (30, lambda b, A, c: (b * c) @ A @ A @ c),
        (20, lambda b, A, c: b @ (A @ c) ** 2),
        (20, lambda b, A, c: b @ A @ c**3),
        (40, lambda b, A, c: b @ A @ (c * (A @ c))),
        (60, lambda b, A, c: b @ A @ A @ c**2),
        (120, lambda b, A, c: b @ A @ A @ A @ c),
    ],
}


def _square(rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    A = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        A[i, : len(row)] = row
    return A


@pytest.mark.parametrize(
    "entry", [entry for entry in ODE_METHODS if entry.kind in ("explicit", "implicit")], ids=lambda entry: entry.name
)
def test_order_conditions_of_the_tableaus(entry: Method) -> None:
    method = getattr(integrate, entry.name)()
    A, b = _square(method.a), np.array(method.b)
    c = A.sum(1)
    for order in range(1, min(method.order, 5) + 1):
        for density, weight in _TREES[order]:
            assert weight(b, A, c) == pytest.approx(1.0 / density, abs=1e-10)
    for row in method.error:
        error = np.array(row)
        A, c = _square(method.a), _square(method.a).sum(1)
        # The slope at the end of the step is a stage like the others, with the weights b as its row.
        if len(error) > len(b):
            A, c = np.pad(A, ((0, 1), (0, 1))), np.append(c, 1.0)
            A[-1, : len(b)] = b
        for order in range(1, min(method.error_order, 4)):
            for _, weight in _TREES[order]:
                assert weight(error, A, c) == pytest.approx(0.0, abs=1e-10)


def test_exponential_functions_of_matrices_against_their_series() -> None:
    from bdtorch.integrate.exponential import matrix_phis, phi2

    matrix = torch.tensor([[-2.0, 1.0], [0.3, -0.4]], dtype=torch.float64)
    term, first, second = torch.eye(2, dtype=torch.float64), torch.zeros_like(matrix), torch.zeros_like(matrix)
    for k in range(40):
        first, second = first + term / float(math.factorial(k + 1)), second + term / float(math.factorial(k + 2))
        term = term @ matrix
    torch.testing.assert_close(torch.stack(matrix_phis(matrix)), torch.stack([first, second]), rtol=1e-12, atol=1e-13)
    z = torch.linspace(-30.0, 3.0, 5000, dtype=torch.float64)
    series = sum(
        torch.linspace(-1.5, 1.5, 50, dtype=torch.float64) ** k / float(math.factorial(k + 2)) for k in range(40)
    )
    torch.testing.assert_close(phi2(torch.linspace(-1.5, 1.5, 50, dtype=torch.float64)), series, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(phi2(z) * z * z + z + 1.0, z.exp(), rtol=1e-9, atol=1e-13)
    assert phi2(0.0) == 0.5


@pytest.mark.parametrize("steps", [1, 4])
def test_propagators_are_exact_for_linear_systems_with_a_ramp(steps: int) -> None:
    # dy/dt = A y + b + c t: the ramp is one more pair of variables, whose exponential is the reference.
    matrix = torch.tensor([[-3.0, 1.0], [5.0, -40.0]], dtype=torch.float64)
    b, c = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)
    y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
    whole = torch.zeros(4, 4, dtype=torch.float64)
    whole[:2, :2], whole[:2, 2], whole[:2, 3], whole[3, 2] = matrix, b, c, 1.0
    one = torch.ones(1, dtype=torch.float64)
    exact = torch.linalg.matrix_exp(2.0 * whole) @ torch.cat([y0, one, 0.0 * one])
    method = integrate.ExponentialRosenbrock()
    y = odeint(lambda t, y: matrix @ y + b + c * t, y0, [0.0, 2.0], method=method, dt=2.0 / steps).y[-1]
    torch.testing.assert_close(y, exact[:2], rtol=1e-11, atol=1e-12)
