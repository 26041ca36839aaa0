"""Surrogates: an exact step forward, the chosen slope backward, under every transform."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate as quadrature
from scipy import stats

from bdtorch import surrogate as surrogates
from bdtorch.surrogate import Surrogate


def _density(x: float, mean: float, std: float) -> float:
    return float(stats.norm.pdf(x, mean, std))


# The slopes as their papers (or, where there is none, their integrals) give them, at the parameters beside them.
FORMULAS: list[tuple[Surrogate, Callable[[float], float]]] = [
    (surrogates.SuperSpike(10.0), lambda x: (1.0 + 10.0 * abs(x)) ** -2),
    (surrogates.SoftSign(2.0), lambda x: 2.0 / (2.0 * (1.0 + abs(2.0 * x)) ** 2)),
    (surrogates.Sigmoid(3.0), lambda x: 3.0 / (4.0 * math.cosh(1.5 * x) ** 2)),
    (surrogates.Arctan(2.0), lambda x: 1.0 / (1.0 + (math.pi * x) ** 2)),
    (surrogates.Erf(1.5), lambda x: 1.5 / math.sqrt(math.pi) * math.exp(-2.25 * x * x)),
    (surrogates.Gaussian(0.4, 0.7), lambda x: 0.7 * _density(x, 0.0, 0.4)),
    (
        surrogates.MultiGaussian(0.2, 5.0, 0.4, 0.6),
        lambda x: 0.6 * (1.2 * _density(x, 0, 0.4) - 0.2 * _density(x, 0.4, 2.0) - 0.2 * _density(x, -0.4, 2.0)),
    ),
    (surrogates.Slayer(1.3), lambda x: math.exp(-1.3 * abs(x))),
    (surrogates.PiecewiseExp(1.3), lambda x: 0.65 * math.exp(-1.3 * abs(x))),
    (surrogates.QPseudoSpike(1.7), lambda x: (1.0 + 2.0 * abs(x) / 2.7) ** -1.7),
    (surrogates.NonzeroSignLog(2.0), lambda x: 1.0 / (0.5 + abs(x))),
    (surrogates.Triangle(0.5, 1.5), lambda x: max(0.0, 0.5 * (1.0 - abs(x) / 1.5))),
    (surrogates.PiecewiseQuadratic(0.8), lambda x: max(0.0, 0.8 - 0.64 * abs(x))),
    (surrogates.PiecewiseLeakyRelu(0.02, 0.4), lambda x: 1.25 if abs(x) <= 0.4 else 0.02),
    (surrogates.LeakyRelu(0.1, 0.9), lambda x: 0.1 if x < 0 else 0.9),
    (surrogates.LogTailedRelu(0.05), lambda x: 0.05 if x <= 0 else 1.0 if x <= 1 else 1.0 / x),
    (surrogates.S2NN(3.0, 0.7), lambda x: 3.0 / (4.0 * math.cosh(1.5 * x) ** 2) if x < 0 else 0.7 / (x + 1.0)),
    (
        surrogates.SquarewaveFourierSeries(3, 5.0),
        lambda x: 0.8 * sum(math.cos(2.0 * math.pi * (2 * i - 1) * x / 5.0) for i in (1, 2, 3)),
    ),
]
SURROGATES = [surrogate for surrogate, _ in FORMULAS]
_OF_UNIT_AREA = (
    surrogates.SoftSign(2.0),
    surrogates.Sigmoid(3.0),
    surrogates.Arctan(2.0),
    surrogates.Erf(1.5),
    surrogates.Gaussian(0.4, 1.0),
    surrogates.PiecewiseExp(1.3),
    surrogates.PiecewiseQuadratic(0.8),
)
_GRID = torch.tensor([-2.0, -0.4, -0.3, -0.0, 0.0, 1e-9, 0.4, 1.0, 3.0], dtype=torch.float64)


def test_every_surrogate_has_a_formula_here() -> None:
    exported = {kind for kind in vars(surrogates).values() if isinstance(kind, type) and kind is not Surrogate}
    assert exported == {type(surrogate) for surrogate in SURROGATES}


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_forward_is_the_step_with_and_without_gradients(surrogate: Surrogate) -> None:
    want = (_GRID >= 0).double()
    x = _GRID.clone().requires_grad_()
    assert torch.equal(surrogate(x).detach(), want)
    with torch.no_grad():
        assert torch.equal(surrogate(x), want)
    large = torch.tensor([1e30, -1e30, 3.4e38], requires_grad=True)
    assert torch.equal(surrogate(large).detach(), torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.parametrize(("surrogate", "formula"), FORMULAS, ids=[str(surrogate) for surrogate in SURROGATES])
def test_backward_is_the_closed_form(surrogate: Surrogate, formula: Callable[[float], float]) -> None:
    x = _GRID.clone().requires_grad_()
    want = torch.tensor([formula(v) for v in _GRID.tolist()], dtype=torch.float64)
    (reverse,) = torch.autograd.grad(surrogate(x).sum(), x)
    torch.testing.assert_close(reverse, want, rtol=1e-12, atol=1e-15)
    _, forward = torch.func.jvp(surrogate, (_GRID,), (torch.ones_like(_GRID),))
    torch.testing.assert_close(forward, want, rtol=1e-12, atol=1e-15)
    with torch.no_grad():
        _, tangent = torch.func.jvp(surrogate, (_GRID,), (torch.ones_like(_GRID),))
    torch.testing.assert_close(tangent, want, rtol=1e-12, atol=1e-15)
    each = torch.func.vmap(torch.func.grad(surrogate))(_GRID)
    torch.testing.assert_close(each, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("surrogate", _OF_UNIT_AREA, ids=str)
def test_slope_stands_for_a_unit_pulse(surrogate: Surrogate) -> None:
    area, _ = quadrature.quad(
        lambda x: float(surrogate.slope(torch.tensor(x, dtype=torch.float64))), -math.inf, math.inf
    )
    assert area == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    for surrogate in SURROGATES:
        assert surrogate(torch.zeros(3, dtype=dtype, requires_grad=True)).dtype == dtype


_PARAMETERS = [(type(surrogate), field.name) for surrogate in SURROGATES for field in dataclasses.fields(surrogate)]
_MAY_BE_ZERO = {("MultiGaussian", "h"), ("PiecewiseLeakyRelu", "c"), ("LeakyRelu", "alpha"), ("LogTailedRelu", "alpha")}


@pytest.mark.parametrize(
    ("kind", "name"), _PARAMETERS, ids=lambda part: part if isinstance(part, str) else part.__name__
)
def test_bad_parameters_are_named(kind: type, name: str) -> None:
    for bad in (0.0, -1.0, math.nan, math.inf):
        if bad == 0.0 and (kind.__name__, name) in _MAY_BE_ZERO:
            kind(**{name: bad})
            continue
        with pytest.raises(ValueError, match=rf"`{kind.__name__}\({name}=...\)`: expected .*, got"):
            kind(**{name: bad})
