"""Polynomial readouts: those of scikit-learn on products of features."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge as ScikitRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from bdtorch.train import Lasso, Logistic, Polynomial, Ridge, accuracy, one_hot, polynomial_features


def _samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 3, generator=generator, dtype=torch.float64)
    y = torch.stack([x[:, 0] * x[:, 1] - 2.0 * x[:, 2] + 3.0, x[:, 2] ** 3], -1)
    return x, y + 0.1 * torch.randn(120, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_equals_scikit_learn_in_pieces(degree: int) -> None:
    x, y = _samples()
    fit = Polynomial(Ridge(0.3), range(1, degree + 1))
    for part in (slice(0, 50), slice(50, 51), slice(51, 120)):
        fit.add(x[part], y[part])
    want = make_pipeline(PolynomialFeatures(degree, include_bias=False), ScikitRidge(0.3)).fit(x.numpy(), y.numpy())
    new = 2.0 * torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prediction = fit.solve()(new).detach()
    expected = torch.as_tensor(want.predict(new.reshape(-1, 3).numpy())).reshape(5, 4, 2)
    torch.testing.assert_close(prediction, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("degrees", [(1,), (2,), (0, 1, 2, 3), (3, 1)])
def test_the_terms_are_scikit_learns(degrees: tuple[int, ...]) -> None:
    x, _ = _samples()
    features = PolynomialFeatures(max(degrees)).fit(x.numpy())
    terms = features.transform(x.numpy())
    rank = features.powers_.sum(1)
    want = torch.cat([torch.as_tensor(terms[:, rank == degree]) for degree in degrees], 1)
    torch.testing.assert_close(polynomial_features(x, degrees), want, rtol=1e-13, atol=1e-13)


def test_the_lasso_finds_the_products_that_matter() -> None:
    x, y = _samples()
    fit = Polynomial(Lasso(0.05), (1, 2))
    fit.add(x, y[:, :1])
    weight = fit.solve()[1].weight[0]  # x0, x1, x2, x0x0, x0x1, x0x2, x1x1, x1x2, x2x2
    assert weight.nonzero().flatten().tolist() == [2, 4]


def test_a_circle_is_classified_by_squares_of_whole_numbers() -> None:
    x = torch.cartesian_prod(torch.arange(-4, 5), torch.arange(-4, 5))
    labels = (x.square().sum(1) < 10).long()
    found = {}
    for degrees in ((1,), (1, 2)):
        fit = Polynomial(Logistic(1e-3), degrees)
        fit.add(x, one_hot(labels, 2))
        found[degrees] = accuracy(fit.solve()(x.float()), labels)
    assert found[(1, 2)] == 1.0
    assert found[(1,)] < 0.8


def test_bad_arguments_are_named() -> None:
    x, y = _samples()
    with pytest.raises(TypeError, match=r"`Polynomial\(fit=...\)`: expected a rule such as Ridge\(\), got 'ridge'"):
        Polynomial("ridge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`Polynomial\(degrees=...\)`: expected distinct whole numbers"):
        Polynomial(Ridge(), (2, 2))
    used = Ridge()
    used.add(x, y)
    with pytest.raises(ValueError, match=r"`Polynomial\(fit=...\)`: expected a rule that has no samples"):
        Polynomial(used)
    for wrong in (2, None, ["1"]):
        with pytest.raises(ValueError, match=r"`Polynomial\(degrees=...\)`: expected distinct whole numbers"):
            Polynomial(Ridge(), wrong)  # type: ignore[arg-type]
    fit = Polynomial(Ridge(1.0))
    fit.add(x, y)
    with pytest.raises(ValueError, match=r"`Monomials\(x\)`: expected 3 features on the last axis, got \(120, 2\)"):
        fit.solve()(x[:, :2])
    with pytest.raises(ValueError, match="expected samples; call add first"):
        Polynomial(Ridge()).solve()
