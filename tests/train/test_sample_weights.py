"""Weights of samples: a weight of k is a sample taken in k times, and scikit-learn's are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn import linear_model
from torch import Tensor, nn

from bdtorch.train import ElasticNet, Lasso, Logistic, Polynomial, ReadoutFit, Ridge, one_hot

RULES: dict[str, Callable[[bool], ReadoutFit]] = {
    "ridge": lambda intercept: Ridge(0.3, intercept=intercept),
    "standardised ridge": lambda intercept: Ridge(0.3, intercept=intercept, standardise=True),
    "lasso": lambda intercept: Lasso(0.05, intercept=intercept),
    "elastic net": lambda intercept: ElasticNet(0.1, mix=0.3, intercept=intercept),
    "logistic": lambda intercept: Logistic(0.5, intercept=intercept),
    "polynomial": lambda intercept: Polynomial(Ridge(0.3, intercept=intercept), (1, 2)),
}


def _samples(classes: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 5, generator=generator, dtype=torch.float64) + 1.0
    y = x @ torch.randn(5, 3, generator=generator, dtype=torch.float64) + torch.randn(90, 3, generator=generator)
    y = one_hot(y.argmax(1), 3, dtype=torch.float64) if classes else y
    return x, y, torch.randint(0, 4, (90,), generator=generator).double()


def _parameters(readout: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in readout.parameters()]


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_a_weight_counts_a_sample_so_many_times(rule: str, intercept: bool) -> None:
    x, y, weight = _samples(rule == "logistic")
    weighted, repeated = RULES[rule](intercept), RULES[rule](intercept)
    for part in (slice(0, 40), slice(40, 41), slice(41, 90)):
        weighted.add(x[part], y[part], weight[part])
    times = weight.long()
    repeated.add(x.repeat_interleave(times, 0), y.repeat_interleave(times, 0))
    for one, other in zip(_parameters(weighted.solve()), _parameters(repeated.solve()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("rule", ["ridge", "lasso", "elastic net", "logistic"])
def test_weighted_solutions_are_scikit_learns(rule: str, intercept: bool) -> None:
    x, y, weight = _samples(rule == "logistic")
    weight = weight * 0.37
    options = {"fit_intercept": intercept, "tol": 1e-13}
    reference: Any = {
        "ridge": linear_model.Ridge(0.3, **options),
        "lasso": linear_model.Lasso(0.05, **options),
        "elastic net": linear_model.ElasticNet(0.1, l1_ratio=0.3, **options),
        "logistic": linear_model.LogisticRegression(C=2.0, max_iter=10_000, **options),
    }[rule]
    reference.fit(x.numpy(), (y.argmax(1) if rule == "logistic" else y).numpy(), sample_weight=weight.numpy())
    fit = RULES[rule](intercept)
    fit.add(x.reshape(9, 10, 5), y.reshape(9, 10, 3), weight.reshape(9, 10))
    readout = fit.solve()
    tolerance = {"rtol": 1e-6, "atol": 1e-6 if rule == "logistic" else 1e-8}
    torch.testing.assert_close(readout.weight.detach(), torch.as_tensor(reference.coef_), **tolerance)
    if intercept:
        torch.testing.assert_close(readout.bias.detach(), torch.as_tensor(reference.intercept_), **tolerance)


def test_merged_and_weighed_moments_know_their_error() -> None:
    x, y, weight = _samples()
    parts = [Ridge(0.3), Ridge(0.3)]
    parts[0].add(x[:30], y[:30], weight[:30])
    parts[1].add(x[30:], y[30:], weight[30:])
    both = parts[0].merge(parts[1])
    assert both.samples == int((weight > 0).sum())
    readout = both.solve()
    error = ((readout(x) - y).square().mean(1) * weight).sum() / weight.sum()
    assert both.mean_squared_error(readout) == pytest.approx(float(error.detach()), rel=1e-10)


def test_bad_weights_are_named() -> None:
    class Plain(ReadoutFit):
        def accumulate(self, x: Tensor, y: Tensor) -> None: ...

        def solve(self) -> nn.Module:
            return nn.Identity()

    x, y, weight = _samples()
    for wrong, message in (
        (weight[:-1], r"`Ridge.add\(weight=...\)`: expected shape \(90,\), got \(89,\)"),
        (weight[:, None], r"`Ridge.add\(weight=...\)`: expected shape \(90,\), got \(90, 1\)"),
        (-weight, r"`Ridge.add\(weight=...\)`: expected finite numbers of at least 0"),
        (weight * torch.nan, r"`Ridge.add\(weight=...\)`: expected finite numbers of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Ridge().add(x, y, wrong)
    with pytest.raises(TypeError, match=r"`Ridge.add\(weight=...\)`: expected a tensor of real numbers, got float"):
        Ridge().add(x, y, 2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`Plain.add\(weight=...\)`: expected None, since this rule takes no weights"):
        Plain().add(x, y, weight)
    nothing = Ridge()
    nothing.add(x, y, torch.zeros(90))
    assert nothing.samples == 0
    with pytest.raises(ValueError, match="call add first"):
        nothing.solve()
