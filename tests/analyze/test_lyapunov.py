"""Lyapunov exponents against closed forms, identities and published values."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import pytest
import torch

import bdtorch as bt
from bdtorch.analyze import lyapunov_spectrum

matplotlib.use("Agg")
F64 = torch.float64


def lorenz(x: torch.Tensor) -> torch.Tensor:
    a, b, c = x.unbind(-1)
    return torch.stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - 8.0 / 3.0 * c], -1)


def henon(x: torch.Tensor) -> torch.Tensor:
    a, b = x.unbind(-1)
    return torch.stack([1.0 - 1.4 * a * a + b, 0.3 * a], -1)


def test_lorenz() -> None:
    """Sprott (2003): 0.9056, 0, -14.5723; dimension 2.062."""
    begin = torch.tensor([1.0, 1.0, 20.0], dtype=F64) + torch.randn(8, 3, dtype=F64)
    found = lyapunov_spectrum(lorenz, begin, duration=200.0, transient=20.0, dt=0.01)
    mean = found.exponents.mean(0)
    assert torch.allclose(mean, torch.tensor([0.9056, 0.0, -14.5723], dtype=F64), atol=0.03)
    assert torch.allclose(found.exponents.sum(-1), torch.tensor(-41.0 / 3.0, dtype=F64), atol=1e-4)  # the trace
    assert torch.allclose(found.kaplan_yorke_dimension.mean(), torch.tensor(2.062, dtype=F64), atol=0.003)
    assert found.history.shape == (200, 8, 3) and torch.allclose(found.times[-1], torch.tensor(200.0, dtype=F64))
    assert torch.allclose(found.history[-1], found.exponents)
    assert float(found.drift.max()) < 0.2
    found.plot()


def test_henon() -> None:
    """Sprott (2003): 0.41922, and the sum is ln 0.3."""
    found = lyapunov_spectrum(henon, torch.tensor([0.1, 0.1], dtype=F64), duration=40000, transient=500, discrete=True)
    assert math.isclose(float(found.exponents[0]), 0.41922, abs_tol=0.005)
    assert math.isclose(float(found.exponents.sum()), math.log(0.3), abs_tol=1e-8)
    assert math.isclose(float(found.kaplan_yorke_dimension), 1.258, abs_tol=0.004)


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_a_linear_flow_has_the_real_parts_of_its_eigenvalues(loop: str) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([0.3, 0.1, -0.2, -0.5], dtype=F64)
    basis = torch.randn(4, 4, dtype=F64, generator=generator)
    matrix = basis @ torch.diag(values) @ torch.linalg.inv(basis)
    begin = torch.full((4,), 1e-9, dtype=F64)
    found = lyapunov_spectrum(lambda x: x @ matrix.T, begin, duration=20.0, transient=60.0, dt=0.2, k=3, loop=loop)
    assert torch.allclose(found.exponents, values[:3], atol=1e-6)
    assert float(found.kaplan_yorke_dimension) == pytest.approx(math.nan, nan_ok=True)  # three do not tell


def test_a_ring_attractor_has_the_exponents_of_its_modes() -> None:
    """A ring that keeps its bump: one exponent 0, then the modes -1/2 and -3/4 of Fung, Wong & Wu (2010), over tau."""
    ring = bt.rates.ContinuousAttractor(64, k=0.1, j0=32.0, dtype=F64)
    begin = ring.State(u=ring.bump(0.4, ring.bump_height))
    found = lyapunov_spectrum(ring, begin, duration=20.0, transient=60.0, dt=0.2, k=3)
    assert torch.allclose(found.exponents, torch.tensor([0.0, -0.5, -0.75], dtype=F64), atol=5e-3)


def test_exponents_of_a_system_per_ms_and_per_step() -> None:
    cell = bt.rates.LeakyRate(2, tau=torch.tensor([5.0, 10.0], dtype=F64), dtype=F64)
    options: Any = {"duration": 2.0, "transient": 100.0, "dt": 0.5, "inputs": 1.0, "loop": "reference"}
    found, steps = (lyapunov_spectrum(cell, torch.ones(2, dtype=F64), discrete=d, **options) for d in (False, True))
    assert torch.allclose(found.exponents, torch.tensor([-0.1, -0.2], dtype=F64), atol=1e-4)
    assert torch.allclose(steps.exponents, 0.5 * found.exponents) and steps.discrete and steps.times[-1] == 4


def test_many_exponents_go_by_lapack() -> None:
    slopes = torch.linspace(0.5, 0.95, 40, dtype=F64)
    found = lyapunov_spectrum(
        lambda x: x * slopes, torch.ones(40, dtype=F64), duration=20, transient=300, discrete=True, every=1
    )
    assert torch.allclose(found.exponents, slopes.log().flip(0), atol=0.02)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"duration": 0.0}, ValueError, "duration"),
        ({"duration": 0.123}, ValueError, "multiple"),
        ({"duration": math.inf}, ValueError, "duration"),
        ({"transient": -1.0}, ValueError, "transient"),
        ({"dt": None}, ValueError, "dt"),
        ({"dt": 0.0}, ValueError, "dt"),
        ({"k": 4}, ValueError, "k="),
        ({"k": 0}, ValueError, "k="),
        ({"every": 0}, ValueError, "every"),
        ({"start": torch.tensor([math.nan, 0.0, 0.0], dtype=F64)}, ValueError, "row 0"),
        ({"start": torch.zeros(0, 3, dtype=F64)}, ValueError, "at least one"),
        ({"system": 3}, TypeError, "system"),
        ({"system": lambda x: x + torch.rand_like(x)}, ValueError, "randomness"),
        ({"system": bt.rates.LeakyRate(3, dtype=F64), "dt": None}, ValueError, "dt"),
        ({"system": bt.rates.LeakyRate(3, dtype=F64), "integrator": bt.integrate.RK4()}, ValueError, "integrator"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: Any, message: str) -> None:
    arguments: dict[str, Any] = {
        "system": lorenz, "start": torch.ones(3, dtype=F64), "duration": 1.0, "transient": 0.0, "dt": 0.01,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        lyapunov_spectrum(**{**arguments, **change})


def test_a_trajectory_that_diverges_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="x"):
        lyapunov_spectrum(
            lambda x: x * x, torch.full((1,), 3.0, dtype=F64), duration=50, transient=0, discrete=True, loop="native"
        )
    with pytest.raises(FloatingPointError):
        lyapunov_spectrum(
            lambda x: 3 * x, torch.ones(1, dtype=F64), duration=5000, transient=0, discrete=True, loop="native"
        )


def test_an_exponent_of_minus_infinity_is_said() -> None:
    start = torch.tensor([0.3, 0.2], dtype=torch.float64)

    def flattened(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([0.5 * x[..., 0], 0.0 * x[..., 1]], -1)

    with pytest.raises(FloatingPointError, match="minus infinity: ask for fewer exponents"):
        lyapunov_spectrum(flattened, start, duration=20, transient=0, discrete=True)
    one = lyapunov_spectrum(flattened, start, duration=20, transient=5, discrete=True, k=1)
    assert float(one.exponents) == pytest.approx(math.log(0.5))
