"""Cross-validation against scikit-learn and explicit refits; the coding of classes."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Reference
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bdtorch.train import Ridge, accuracy, choose_penalty, cross_validate, one_hot

PENALTIES = (0.01, 1.0, 30.0, 1000.0)


@pytest.fixture
def noisy():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(63, 15, generator=generator, dtype=torch.float64)
    w = torch.randn(15, 2, generator=generator, dtype=torch.float64)
    return x, x @ w + 4.0 * torch.randn(63, 2, generator=generator, dtype=torch.float64)


@pytest.fixture
def classes():
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 3, (90,), generator=generator)
    centres = torch.randn(3, 8, generator=generator)
    return centres[labels] + 1.5 * torch.randn(90, 8, generator=generator), labels


def grid(x, y, folds, *, standardise=False, intercept=True):
    """scikit-learn's own cross-validation, which refits on the data."""
    model = Reference(fit_intercept=intercept)
    name = "alpha"
    if standardise:
        model, name = make_pipeline(StandardScaler(with_mean=intercept), model), "ridge__alpha"
    search = GridSearchCV(model, {name: list(PENALTIES)}, cv=folds, scoring="neg_mean_squared_error")
    search.fit(x.numpy(), y.numpy())
    results = search.cv_results_
    scores = np.stack([results[f"split{k}_test_score"] for k in range(search.n_splits_)], 1)
    return search.best_params_[name], scores


@pytest.mark.parametrize("options", [{}, {"standardise": True}, {"intercept": False}])
def test_contiguous_folds_equal_scikit_learn(noisy, options):
    x, y = noisy
    best, scores = grid(x, y, KFold(5), **options)
    result = cross_validate(x, y, PENALTIES, folds=5, **options)
    np.testing.assert_allclose(result.scores.numpy(), scores, rtol=1e-9)
    assert result.penalty == best
    assert result.penalties == PENALTIES


def test_given_folds_equal_scikit_learn(noisy):
    x, y = noisy
    folds = torch.arange(63) * 7 % 4
    best, scores = grid(x, y, PredefinedSplit(folds.numpy()))
    result = cross_validate(x, y, PENALTIES, folds=folds)
    np.testing.assert_allclose(result.scores.numpy(), scores, rtol=1e-9)
    assert result.penalty == best


def test_moments_of_folds_equal_arrays(noisy):
    x, y = noisy
    fits = [Ridge() for _ in range(3)]
    for start in range(0, 63, 5):  # a stream of small pieces, each of which belongs to one fold
        fits[start // 5 % 3].add(x[start : start + 5], y[start : start + 5])
    folds = torch.arange(63) // 5 % 3
    streamed, direct = choose_penalty(fits, PENALTIES), cross_validate(x, y, PENALTIES, folds=folds)
    torch.testing.assert_close(streamed.scores, direct.scores)
    assert streamed.penalty == direct.penalty


def test_score_sees_what_an_explicit_refit_predicts(classes):
    x, labels = classes
    y = one_hot(labels, 3)
    result = cross_validate(x, y, PENALTIES, folds=3, score=accuracy)
    for k, mine in enumerate(torch.arange(90).chunk(3)):
        rest = torch.ones(90, dtype=torch.bool).index_fill(0, mine, False)
        for row, penalty in zip(result.scores, PENALTIES, strict=True):
            model = Reference(alpha=penalty).fit(x[rest].double().numpy(), y[rest].double().numpy())
            expected = (model.predict(x[mine].double().numpy()).argmax(1) == labels[mine].numpy()).mean()
            assert row[k].item() == pytest.approx(expected)


def test_default_score_through_predictions_equals_moments(noisy):
    x, y = noisy
    score = cross_validate(x, y, PENALTIES, folds=4, score=lambda p, t: -((p - t) ** 2).mean().item())
    torch.testing.assert_close(score.scores, cross_validate(x, y, PENALTIES, folds=4).scores)


def test_time_steps_of_a_sample_stay_together(noisy):
    x, y = noisy
    shapes = []
    cross_validate(
        x.reshape(21, 3, 15), y.reshape(21, 3, 2), [1.0], folds=3, score=lambda p, t: shapes.append(p.shape) or 0.0
    )
    assert shapes == [(7, 3, 2)] * 3
    blocks = cross_validate(x.reshape(21, 3, 15), y.reshape(21, 3, 2), PENALTIES, folds=3)
    torch.testing.assert_close(blocks.scores, cross_validate(x, y, PENALTIES, folds=3).scores)


def test_of_equal_scores_the_largest_penalty_wins(noisy):
    x, y = noisy
    assert cross_validate(x, y, [1.0, 9.0, 3.0], score=lambda prediction, target: 0.5).penalty == 9.0


def test_bad_input_is_named(noisy):
    x, y = noisy
    cases = [
        ({"folds": 64}, r"folds=...\).*2 to 63 folds.*got 64"),
        ({"folds": 1}, r"folds=...\).*got 1"),
        ({"folds": torch.zeros(63, dtype=torch.int64)}, r"folds=...\).*without gaps, got \[0\]"),
        ({"folds": torch.arange(63) % 2 * 2}, r"folds=...\).*without gaps, got \[0, 2\]"),
        ({"folds": torch.arange(60) % 3}, r"folds=...\).*63 samples"),
        ({"penalties": []}, r"penalties=...\).*at least one"),
        ({"penalties": [1.0, -1.0]}, r"penalties=...\).*at least 0, got -1.0"),
        ({"y": y[:60]}, r"cross_validate\(y=...\)"),
        ({"x": x[0], "y": y[0, :1].squeeze()}, r"cross_validate\(x=...\).*axis of samples"),
        ({"score": lambda prediction, target: float("nan")}, r"score=...\).*got NaN"),
    ]
    for change, message in cases:
        arguments = {"x": x, "y": y, "penalties": PENALTIES, **change}
        with pytest.raises(ValueError, match=message):
            cross_validate(**arguments)


def test_what_is_no_list_of_penalties_is_named(noisy):
    with pytest.raises(TypeError, match=r"`cross_validate\(penalties=...\)`: expected numbers, got 3.0"):
        cross_validate(*noisy, 3.0)
    fit = Ridge()
    fit.add(*noisy)
    with pytest.raises(TypeError, match=r"`Ridge.path\(penalties=...\)`: expected numbers, got 3.0"):
        fit.path(3.0)


def test_bad_folds_of_moments_are_named(noisy):
    x, y = noisy
    fit = Ridge()
    fit.add(x, y)
    with pytest.raises(ValueError, match=r"choose_penalty\(folds=...\).*at least 2 folds, got 1"):
        choose_penalty([fit], PENALTIES)
    with pytest.raises(ValueError, match=r"choose_penalty\(folds=...\).*none in fold 1"):
        choose_penalty([fit, Ridge()], PENALTIES)
    with pytest.raises(TypeError, match=r"choose_penalty\(folds=...\).*got str at 1"):
        choose_penalty([fit, "fold"], PENALTIES)


def test_one_hot():
    labels = torch.tensor([[2, 0], [1, 2]])
    coded = one_hot(labels, 3)
    assert coded.dtype == torch.get_default_dtype()
    assert torch.equal(coded.argmax(-1), labels)
    assert torch.equal(coded.sum(-1), torch.ones(2, 2))
    assert one_hot(labels, 4, dtype=torch.float64).shape == (2, 2, 4)
    with pytest.raises(ValueError, match=r"one_hot\(labels=...\).*\[0, 2\), got 0 to 2"):
        one_hot(labels, 2)
    for classes in ("3", 3.0, 0):
        with pytest.raises(ValueError, match=r"`one_hot\(classes=...\)`: expected a positive integer"):
            one_hot(labels, classes)
    with pytest.raises(TypeError, match=r"one_hot\(labels=...\).*float32"):
        one_hot(labels.float(), 3)


def test_accuracy():
    prediction = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    labels = torch.tensor([1, 0, 0, 0])
    assert accuracy(prediction, labels) == 0.75
    assert accuracy(prediction, one_hot(labels, 2)) == 0.75
    with pytest.raises(ValueError, match=r"accuracy\(prediction, target\).*\(4, 2\) and \(3,\)"):
        accuracy(prediction, labels[:3])
    with pytest.raises(TypeError, match=r"`accuracy\(prediction, target\)`: expected tensors"):
        accuracy(prediction, labels.tolist())
    with pytest.raises(ValueError, match="at least one sample"):
        accuracy(prediction[:0], labels[:0])
    with pytest.raises(TypeError, match=r"accuracy\(target=...\).*float32"):
        accuracy(prediction, labels.float())
