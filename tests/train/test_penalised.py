"""Readouts by scikit-learn's solvers: at their solutions the objectives in the docstrings are least."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bdtorch.train import ElasticNet, Lasso, Logistic, accuracy, one_hot


def _regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    weight[3:6] = 0.0
    return x, x @ weight + 1.5 + 0.1 * torch.randn(200, 2, generator=generator, dtype=torch.float64)


def _least(readout: nn.Linear, objective: object) -> None:
    """No step in a random direction makes the objective smaller."""
    generator = torch.Generator().manual_seed(1)
    best = objective(readout.weight.detach(), readout.bias.detach())  # type: ignore[operator]
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            weight = readout.weight.detach() + size * torch.randn(readout.weight.shape, generator=generator)
            bias = readout.bias.detach() + size * torch.randn(readout.bias.shape, generator=generator)
            assert objective(weight, bias) > best  # type: ignore[operator]


@pytest.mark.parametrize("mix", [0.3, 1.0])
def test_elastic_net_minimises_its_objective(mix: float) -> None:
    x, y = _regression()
    fit = Lasso(0.1) if mix == 1.0 else ElasticNet(0.1, mix=mix)
    for part in (slice(0, 50), slice(50, 200)):
        fit.add(x[part], y[part])
    readout = fit.solve()

    def objective(weight: Tensor, bias: Tensor) -> float:
        error = (y - x @ weight.mT - bias).square().sum() / (2 * len(x))
        return float(error + 0.1 * mix * weight.abs().sum() + 0.05 * (1 - mix) * weight.square().sum())

    _least(readout, objective)
    if mix == 1.0:
        assert (readout.weight[:, 3:6] == 0).all()
        assert (readout.weight != 0).sum() >= 8


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_minimises_its_objective(classes: int) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, classes, (300,), generator=generator)
    centres = torch.randn(classes, 3, generator=generator, dtype=torch.float64)
    x = centres[labels] * 2.0 + torch.randn(300, 3, generator=generator, dtype=torch.float64)
    fit = Logistic(0.7)
    fit.add(x, one_hot(labels, classes))
    readout = fit.solve()

    def objective(weight: Tensor, bias: Tensor) -> float:
        loss = nn.functional.cross_entropy(x @ weight.mT + bias, labels, reduction="sum")
        # The bias has no penalty, so logits may shift together; random directions shift them too, without effect.
        return float(loss + 0.35 * weight.square().sum())

    best = objective(readout.weight.detach(), readout.bias.detach())
    for size in (1e-1, 1e-2):
        for _ in range(20):
            weight = readout.weight.detach() + size * torch.randn(readout.weight.shape, generator=generator)
            assert objective(weight, readout.bias.detach()) > best
    assert accuracy(readout(x), labels) > 0.8


def test_scikit_learn_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"`Lasso` needs scikit-learn: pip install 'bdtorch\[readouts\]'"):
        Lasso()


def test_bad_arguments_are_named() -> None:
    x, y = _regression()
    with pytest.raises(ValueError, match=r"`Lasso\(penalty=...\)`: expected a finite number above 0, got 0"):
        Lasso(0.0)
    with pytest.raises(ValueError, match=r"`ElasticNet\(mix=...\)`: expected a number in \[0, 1\], got 2"):
        ElasticNet(1.0, mix=2.0)
    with pytest.raises(ValueError, match="expected samples, but nothing was added"):
        Lasso().solve()
    fit = ElasticNet(1e-9, mix=0.5, iterations=1)
    fit.add(x, y)
    with pytest.raises(RuntimeError, match="no convergence in iterations=1"):
        fit.solve()
    logistic = Logistic()
    logistic.add(x, y)
    with pytest.raises(ValueError, match="expected one-hot targets"):
        logistic.solve()
    lonely = Logistic()
    lonely.add(x, one_hot(torch.zeros(200, dtype=torch.int64), 3))
    with pytest.raises(ValueError, match=r"expected samples of every class, got none of \[1, 2\]"):
        lonely.solve()


@pytest.mark.parametrize("intercept", [True, False])
def test_solutions_are_exact_to_eight_digits(intercept: bool) -> None:
    from sklearn import linear_model

    x, y = _regression()
    options = {"fit_intercept": intercept, "max_iter": 100_000}
    pairs = [
        (Lasso(0.05, intercept=intercept), linear_model.Lasso(alpha=0.05, tol=1e-14, **options)),
        (
            ElasticNet(0.1, mix=0.3, intercept=intercept),
            linear_model.ElasticNet(0.1, l1_ratio=0.3, tol=1e-14, **options),
        ),
    ]
    for fit, reference in pairs:
        fit.add(x, y)
        want, readout = reference.fit(x.numpy(), y.numpy()), fit.solve()
        assert abs(readout.weight.detach().numpy() - want.coef_).max() < 1e-8
        if intercept:
            assert abs(readout.bias.detach().numpy() - want.intercept_).max() < 1e-8
    labels = (y[:, 0] > y[:, 0].median()).long() + (y[:, 0] > y[:, 0].quantile(0.8)).long()
    for classes in (2, 3):
        fit = Logistic(0.5, intercept=intercept)
        fit.add(x, one_hot(labels.clamp(max=classes - 1), classes, dtype=torch.float64))
        readout = fit.solve()
        if classes == 3:  # scikit-learn has the same objective; of two classes it has one logit
            options = {"C": 2.0, "fit_intercept": intercept, "tol": 1e-12, "max_iter": 100_000}
            model = linear_model.LogisticRegression(**options).fit(x.numpy(), labels.numpy())
            assert abs(readout.weight.detach().numpy() - model.coef_).max() < 1e-6
            if intercept:
                assert abs(readout.bias.detach().numpy() - model.intercept_).max() < 1e-6
        # The gradient of the objective vanishes.
        error = readout(x).softmax(-1) - one_hot(labels.clamp(max=classes - 1), classes, dtype=torch.float64)
        assert (error.mT @ x + 0.5 * readout.weight).abs().max() < 1e-7
