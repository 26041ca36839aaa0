"""The orders of convergence of every stochastic method: of paths, and of expectations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bdtorch.integrate import Additive, Calculus, Diagonal, Noise, StochasticEquation, StochasticIntegrator, methods
from bdtorch.integrate._stochastic import Kick
from bdtorch.integrate.sde import own_slopes
from tests.integrate.sde_problems import ITO, METHODS, PROBLEMS, STRATONOVICH, suits

CASES = [(m, p) for m, method in METHODS.items() for p, problem in PROBLEMS.items() if suits(method, problem)]


def test_every_listed_method_is_measured() -> None:
    listed = {method.name: method for method in methods("SDE")}
    assert set(listed) == set(METHODS)
    for name, method in METHODS.items():
        worst = min(method.strong_order(PROBLEMS[p].noise) for m, p in CASES if m == name)
        assert (listed[name].order, listed[name].weak_order) == (worst, method.weak_order)


@pytest.mark.parametrize(("method", "problem"), CASES)
def test_strong_order(method: str, problem: str) -> None:
    expected = METHODS[method].strong_order(PROBLEMS[problem].noise)
    slope = PROBLEMS[problem].strong_slope(METHODS[method], range(1, 5))
    assert abs(slope - expected) < 0.2, f"measured {slope:.2f}, expected {expected}"


# Expectations without sampling: the noise of one step is replaced by the nodes of a Gauss-Hermite rule in increment and
# area, so moments of linear equations are known to rounding error.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_FIRST, _SECOND = (torch.tensor(axis.ravel()) for axis in np.meshgrid(_NODES, _NODES))
_RULE = torch.tensor(np.outer(_WEIGHTS, _WEIGHTS).ravel() / _WEIGHTS.sum() ** 2)


def _steps(
    method: StochasticIntegrator,
    f: Callable[[Tensor], Tensor],
    g: Callable[[Tensor], Tensor],
    y: float,
    h: float,
    noise: Noise,
    calculus: Calculus,
) -> Tensor:
    """The results of one step from ``y``, one for each node."""
    equation = StochasticEquation(
        lambda y, t: f(y), lambda y, t: g(y), lambda y, t: own_slopes(lambda y, t: f(y), y, t), noise, calculus
    )
    kick = Kick(math.sqrt(h) * _FIRST, math.sqrt(h / 12) * _SECOND)
    return method.step(equation, torch.full_like(_FIRST, y), torch.zeros((), dtype=torch.float64), h, kick)


def _mean(values: Tensor) -> float:
    return float((_RULE * values).sum())


def _slope(steps: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


def _geometric_error(method: StochasticIntegrator, calculus: Calculus, h: float) -> float:
    """Error of E[y(1)^2] of geometric Brownian motion."""
    mu, sigma = 0.3, 0.5
    after = _steps(method, lambda y: mu * y, lambda y: sigma * y, 1.0, h, Diagonal(), calculus)
    exponent = 2.0 * mu + sigma**2 * (1.0 if calculus is ITO else 2.0)
    return abs(_mean(after.square()) ** round(1.0 / h) - math.exp(exponent))


def _ornstein_uhlenbeck_error(method: StochasticIntegrator, h: float) -> float:
    """Error of E[y(1)^2] of an Ornstein-Uhlenbeck process from y = 2."""
    a, b, noise = -1.5, 0.7, Additive()
    calculus = method.calculi[0]
    zero, one = (
        _steps(method, lambda y: a * y, lambda y: torch.full_like(y, b), y, h, noise, calculus) for y in (0.0, 1.0)
    )
    factor, spread, moment = float((one - zero)[0]), _mean(zero.square()), 4.0
    for _ in range(round(1.0 / h)):
        moment = factor**2 * moment + spread
    return abs(moment - (4.0 * math.exp(2.0 * a) + b**2 * math.expm1(2.0 * a) / (2.0 * a)))


_STEPS = [1 / 16, 1 / 32, 1 / 64, 1 / 128]
_FIRST_ORDER = [
    (name, calculus)
    for name in METHODS
    for calculus in (ITO, STRATONOVICH)
    if METHODS[name].weak_order == 1.0 and calculus in METHODS[name].calculi
]


@pytest.mark.parametrize(("name", "calculus"), _FIRST_ORDER)
def test_weak_order_on_geometric_brownian_motion(name: str, calculus: Calculus) -> None:
    errors = [_geometric_error(METHODS[name], calculus, h) for h in _STEPS]
    assert abs(_slope(_STEPS, errors) - 1.0) < 0.2


@pytest.mark.parametrize("name", ["EulerMaruyama", "EulerHeun", "Milstein", "DerivativeFreeMilstein"])
def test_weak_order_1_on_the_ornstein_uhlenbeck_process(name: str) -> None:
    errors = [_ornstein_uhlenbeck_error(METHODS[name], h) for h in _STEPS]
    assert abs(_slope(_STEPS, errors) - 1.0) < 0.2


@pytest.mark.parametrize("name", ["StochasticHeun", "SRA1", "SRA2", "SRA3"])
def test_weak_order_2_on_the_ornstein_uhlenbeck_process(name: str) -> None:
    # Heun's, of weak order 1 in general, is its deterministic self plus exact noise here.
    errors = [_ornstein_uhlenbeck_error(METHODS[name], h) for h in _STEPS]
    assert abs(_slope(_STEPS, errors) - 2.0) < 0.2


def test_exponential_euler_gives_an_ornstein_uhlenbeck_process_its_variance_whatever_the_step() -> None:
    for h in (1.0, 0.5, 0.125):
        assert _ornstein_uhlenbeck_error(METHODS["ExponentialEulerMaruyama"], h) < 1e-14


@pytest.mark.parametrize("name", ["SRI1", "SRI2"])
def test_weak_order_of_the_methods_for_diagonal_noise(name: str) -> None:
    # One step of dy = mu y dt + sqrt(sigma^2 y^2 + c) dW, whose second moment has the equation m' = lambda m + c; the
    # local error is of an order more. Stages that know sqrt(h) leave terms of half orders, which short steps show.
    mu, square, c = 0.6, 0.64, 0.5
    growth = 2.0 * mu + square
    steps, errors = [2.0**-k for k in range(9, 13)], []
    for h in steps:
        after = _steps(METHODS[name], lambda y: mu * y, lambda y: (square * y * y + c).sqrt(), 1.0, h, Diagonal(), ITO)
        errors.append(abs(_mean(after.square() - 1.0) - (1.0 + c / growth) * math.expm1(growth * h)))
    assert abs(_slope(steps, errors) - 1.0 - METHODS[name].weak_order) < 0.2
