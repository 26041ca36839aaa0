"""Stochastic delay equations: strong order on refined paths, moments in closed form, loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch
from bdtorch.integrate import (
    Additive,
    BrownianPath,
    Calculus,
    DerivativeFreeMilstein,
    Diagonal,
    EulerHeun,
    EulerMaruyama,
    ExponentialEulerMaruyama,
    Heun,
    Milstein,
    StochasticHeun,
    ddeint,
    sddeint,
)

F64 = torch.float64
_PATHS = 400


def _drift(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return -0.5 * y + 1.5 * past[0]


def _multiplicative(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return 0.8 * y


def _delayed(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return 0.8 * past[0] * torch.cos(y)


def _constant(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return torch.full_like(y, 0.8)


_ITO, _STRATONOVICH = Calculus.ITO, Calculus.STRATONOVICH
CASES: dict[str, tuple[Any, Any, Any, Any, float]] = {
    "EulerMaruyama": (EulerMaruyama(), _multiplicative, Diagonal(), _ITO, 0.5),
    "EulerMaruyama, delayed": (EulerMaruyama(), _delayed, Diagonal(), _ITO, 0.5),
    "EulerMaruyama, additive": (EulerMaruyama(), _constant, Additive(), _ITO, 1.0),
    "ExponentialEulerMaruyama": (ExponentialEulerMaruyama(), _multiplicative, Diagonal(), _ITO, 0.5),
    "Milstein": (Milstein(), _multiplicative, Diagonal(), _ITO, 1.0),
    "DerivativeFreeMilstein": (DerivativeFreeMilstein(), _multiplicative, Diagonal(), _ITO, 1.0),
    "StochasticHeun": (StochasticHeun(), _multiplicative, Diagonal(), _STRATONOVICH, 1.0),
    "EulerHeun": (EulerHeun(), _multiplicative, Diagonal(), _STRATONOVICH, 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_strong_order(name: str) -> None:
    method, diffusion, noise, calculus, order = CASES[name]
    steps = [16, 32, 64, 128]
    path = BrownianPath(1 / 16, 3, (_PATHS,))
    start = torch.ones(_PATHS, 1, dtype=F64)
    # The same method cannot judge itself where it converges to another process: Milstein's method with 1,024 steps can.
    fine = Milstein() if diffusion is not _delayed else method

    def end(method: Any, n: int) -> Tensor:
        found = sddeint(
            _drift, diffusion, start, [0.0, 2.0], delays=1.0, dt=1 / n, method=method, noise=noise, calculus=calculus,
            path=path, loop=bdtorch.Native() if n > 128 else None,
        )  # fmt: skip
        return found.y[-1]

    exact = end(fine, 1024)
    errors = [float((end(method, n) - exact).square().mean().sqrt()) for n in steps]
    assert abs(-np.polyfit(np.log2(steps), np.log2(errors), 1)[0] - order) < 0.2


def test_the_mean_obeys_the_delay_equation() -> None:
    # The equation is linear, so its mean is the solution without noise, also where the noise multiplies the past.
    t = torch.tensor([0.0, 0.5, 1.5, 2.0], dtype=F64)
    paths = 20_000
    found = sddeint(
        _drift, lambda t, y, past: 0.5 * past[0], torch.ones(paths, 1, dtype=F64), t, delays=1.0, dt=0.02,
        batch_shape=(paths,), loop=bdtorch.Native(), seed=5,
    )  # fmt: skip
    mean, deviation = found.y.mean(1)[:, 0], found.y.std(1)[:, 0]
    exact = ddeint(_drift, torch.ones(1, dtype=F64), t, delays=1.0, dt=0.02).y[:, 0]
    bias = 0.02 * exact.abs()  # of the Euler step
    assert bool(((mean - exact).abs() <= 4.0 * deviation / math.sqrt(paths) + bias).all())


def test_stationary_variance() -> None:
    # dX = -b X(t - r) dt + s dW has the variance s^2 (1 + sin br) / (2 b cos br), doi:10.1080/17442509208833780.
    b, r, s, paths = 0.8, 1.0, 0.7, 4000
    t = torch.arange(0.0, 60.0 + 1e-9, 2.0, dtype=F64)
    found = sddeint(
        lambda t, y, past: -b * past[0], lambda t, y, past: torch.full_like(y, s), torch.zeros(paths, 1, dtype=F64), t,
        delays=r, dt=0.01, noise=Additive(), batch_shape=(paths,), loop=bdtorch.Native(), seed=1,
    )  # fmt: skip
    late = found.y[10:, :, 0]
    each = late.square().mean(0)  # one estimate for each independent path
    exact = s**2 * (1.0 + math.sin(b * r)) / (2.0 * b * math.cos(b * r))
    assert abs(float(each.mean()) - exact) < 4.0 * float(each.std()) / math.sqrt(paths) + 0.01 * exact


def test_same_seed_same_paths_in_any_loop_and_batch() -> None:
    options: dict[str, Any] = {"delays": 1.0, "dt": 0.125, "seed": 7}
    start = torch.ones(3, 2, dtype=F64)
    plain, native = (
        sddeint(_drift, _delayed, start, [0.0, 1.0, 3.0], batch_shape=(3,), loop=loop, **options)
        for loop in (None, bdtorch.Native())
    )
    torch.testing.assert_close(native.y, plain.y, rtol=1e-12, atol=1e-13)
    path = BrownianPath(0.125, plain.path.key[0])
    single = sddeint(_drift, _delayed, start[0], [0.0, 3.0], path=path, delays=1.0, dt=0.125)
    torch.testing.assert_close(single.y[-1], plain.y[-1, 0], rtol=1e-12, atol=0)


def test_without_noise_it_is_the_delay_equation() -> None:
    quiet = sddeint(
        _drift, lambda t, y, past: 0.0 * y, torch.ones(2, dtype=F64), [0.0, 2.0], delays=(1.0,), dt=0.05,
        method=StochasticHeun(), calculus=Calculus.STRATONOVICH,
    )  # fmt: skip
    twin = ddeint(_drift, torch.ones(2, dtype=F64), [0.0, 2.0], delays=1.0, dt=0.05, method=Heun())
    torch.testing.assert_close(quiet.y, twin.y, rtol=0, atol=1e-3)
    assert torch.equal(quiet.y[-1], quiet.history(2.0))
