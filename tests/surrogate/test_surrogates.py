"""Surrogates: an exact step forward, the chosen slope backward, under every transform."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate as quadrature

from bdtorch.surrogate import Arctan, Sigmoid, SuperSpike, Surrogate, Triangle

SURROGATES = [SuperSpike(10.0), Sigmoid(3.0), Arctan(2.0), Triangle(0.5, 1.5)]
_GRID = torch.tensor([-2.0, -0.3, -0.0, 0.0, 1e-9, 0.4, 3.0], dtype=torch.float64)


def _closed_form(surrogate: Surrogate, x: float) -> float:
    if isinstance(surrogate, SuperSpike):
        return (1.0 + surrogate.alpha * abs(x)) ** -2
    if isinstance(surrogate, Sigmoid):
        return surrogate.alpha / (4.0 * math.cosh(0.5 * surrogate.alpha * x) ** 2)
    if isinstance(surrogate, Arctan):
        return 0.5 * surrogate.alpha / (1.0 + (0.5 * math.pi * surrogate.alpha * x) ** 2)
    assert isinstance(surrogate, Triangle)
    return max(0.0, surrogate.gamma * (1.0 - abs(x) / surrogate.width))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_forward_is_the_step_with_and_without_gradients(surrogate: Surrogate) -> None:
    want = (_GRID >= 0).double()
    x = _GRID.clone().requires_grad_()
    assert torch.equal(surrogate(x).detach(), want)
    with torch.no_grad():
        assert torch.equal(surrogate(x), want)
    large = torch.tensor([1e30, -1e30, 3.4e38], requires_grad=True)
    assert torch.equal(surrogate(large).detach(), torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_backward_is_the_closed_form(surrogate: Surrogate) -> None:
    x = _GRID.clone().requires_grad_()
    want = torch.tensor([_closed_form(surrogate, v) for v in _GRID.tolist()], dtype=torch.float64)
    (reverse,) = torch.autograd.grad(surrogate(x).sum(), x)
    torch.testing.assert_close(reverse, want, rtol=1e-12, atol=1e-15)
    _, forward = torch.func.jvp(surrogate, (_GRID,), (torch.ones_like(_GRID),))
    torch.testing.assert_close(forward, want, rtol=1e-12, atol=1e-15)
    with torch.no_grad():
        _, tangent = torch.func.jvp(surrogate, (_GRID,), (torch.ones_like(_GRID),))
    torch.testing.assert_close(tangent, want, rtol=1e-12, atol=1e-15)
    each = torch.func.vmap(torch.func.grad(surrogate))(_GRID)
    torch.testing.assert_close(each, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("surrogate", [Sigmoid(3.0), Arctan(2.0)], ids=str)
def test_slope_stands_for_a_unit_pulse(surrogate: Surrogate) -> None:
    area, _ = quadrature.quad(
        lambda x: float(surrogate.slope(torch.tensor(x, dtype=torch.float64))), -math.inf, math.inf
    )
    assert area == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    for surrogate in SURROGATES:
        assert surrogate(torch.zeros(3, dtype=dtype, requires_grad=True)).dtype == dtype


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(SuperSpike, "alpha"), (Sigmoid, "alpha"), (Arctan, "alpha"), (Triangle, "gamma"), (Triangle, "width")],
)
def test_bad_parameters_are_named(kind: type, name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"`{kind.__name__}\({name}=...\)`: expected a finite number above 0, got"):
        kind(**{name: bad})
