"""A state may be a single number: every method, family and loop takes a tensor without axes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import bdtorch
from bdtorch import integrate
from bdtorch.integrate import Additive, Adjoint, Calculus, Diagonal, Event, ddeint, fdeint, odeint, sddeint, sdeint

ONE = torch.tensor(1.0, dtype=torch.float64)


@pytest.mark.parametrize("entry", integrate.methods("ODE"), ids=lambda entry: entry.name)
def test_ordinary(entry: Any) -> None:
    method = getattr(integrate, entry.name)()
    y = odeint(lambda t, y: -y, ONE, [0.0, 1.0], method=method, dt=0.01).y
    assert y.shape == (2,) and float(y[-1]) == pytest.approx(math.exp(-1.0), abs=2e-3)
    if entry.embedded_order is not None:
        y = odeint(lambda t, y: -y, ONE, [0.0, 0.5, 1.0], method=method).y
        assert y.tolist() == pytest.approx([1.0, math.exp(-0.5), math.exp(-1.0)], rel=1e-3)


@pytest.mark.parametrize("entry", integrate.methods("SDE"), ids=lambda entry: entry.name)
def test_stochastic_is_the_vector_of_one(entry: Any) -> None:
    method = getattr(integrate, entry.name)()
    additive = method.noises == (Additive,)
    calculus = Calculus.ITO if Calculus.ITO in method.calculi else Calculus.STRATONOVICH
    options: dict[str, Any] = {"method": method, "noise": Additive() if additive else Diagonal(), "calculus": calculus}

    def solve(start: torch.Tensor) -> torch.Tensor:
        g = (lambda t, y: torch.full_like(y, 0.3)) if additive else (lambda t, y: 0.3 * y)
        return sdeint(lambda t, y: -y, g, start, [0.0, 0.5, 1.0], dt=0.125, seed=3, **options).y

    torch.testing.assert_close(solve(ONE), solve(ONE.reshape(1)).squeeze(-1), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("loop", [None, bdtorch.Native()], ids=["python", "native"])
def test_delayed_and_fractional(loop: Any) -> None:
    delayed = ddeint(lambda t, y, past: -past[0], ONE, [0.0, 1.0, 2.0], delays=1.0, dt=0.125, loop=loop).y
    assert delayed.tolist() == pytest.approx([1.0, 0.0, -0.5], abs=1e-12)
    fractional = fdeint(lambda t, y: -y, ONE, [0.0, 1.0], alpha=0.5, dt=2**-8, loop=loop).y
    assert float(fractional[-1]) == pytest.approx(math.e * math.erfc(1.0), abs=1e-4)
    noisy = sddeint(
        lambda t, y, past: -past[0], lambda t, y, past: 0.0 * y, ONE, [0.0, 1.0], delays=1.0, dt=0.125, loop=loop
    )
    assert float(noisy.y[-1]) == pytest.approx(0.0, abs=1e-12)


def test_events_adjoints_vmap_and_other_libraries() -> None:
    (crossing,) = odeint(lambda t, y: -y, ONE, [0.0, 3.0], events=Event(lambda t, y: y - 0.5)).events
    assert crossing.t.tolist() == pytest.approx([math.log(2.0)], abs=1e-7)
    start = ONE.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(odeint(lambda t, y: -y, start, [0.0, 1.0], gradient=Adjoint()).y[-1], start)
    assert float(gradient) == pytest.approx(math.exp(-1.0), rel=1e-6)
    many = torch.func.vmap(lambda y: odeint(lambda t, y: -y, y, [0.0, 1.0]).y[-1])(torch.tensor([1.0, 2.0]))
    assert many.tolist() == pytest.approx([math.exp(-1.0), 2.0 * math.exp(-1.0)], rel=1e-5)
    y = odeint(lambda t, y: -y, ONE, [0.0, 1.0], method=integrate.SciPy("LSODA")).y[-1]
    assert float(y) == pytest.approx(math.exp(-1.0), rel=1e-5)
