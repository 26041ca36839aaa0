"""`Ridge` against scikit-learn, NumPy's least squares and its own defining equations."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as Reference
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bdtorch.train import ReadoutFit, Ridge


def data(samples=200, features=12, targets=3, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, features, dtype=torch.float64)
    x = torch.randn(samples, features, generator=generator, dtype=torch.float64) * scale + 5.0
    w = torch.randn(features, targets, generator=generator, dtype=torch.float64)
    y = x @ w + torch.randn(samples, targets, generator=generator, dtype=torch.float64) - 2.0
    return x.to(dtype), y.to(dtype)


def fitted(x, y, **options):
    fit = Ridge(**options)
    fit.add(x, y)
    return fit


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e4])
def test_equals_scikit_learn(intercept, standardise, penalty):
    x, y = data()
    readout = fitted(x, y, intercept=intercept, standardise=standardise).solve(penalty)
    reference = Reference(alpha=penalty, fit_intercept=intercept)
    if standardise:
        reference = make_pipeline(StandardScaler(with_mean=intercept), reference)
    expected = reference.fit(x.numpy(), y.numpy()).predict(x.numpy())
    np.testing.assert_allclose(readout(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    assert (readout.bias is not None) == intercept


def test_more_features_than_samples():
    x, y = data(samples=20, features=60)
    expected = Reference(alpha=0.5).fit(x.numpy(), y.numpy())
    readout = fitted(x, y).solve(0.5)
    np.testing.assert_allclose(readout.weight.detach().numpy(), expected.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(readout.bias.detach().numpy(), expected.intercept_, rtol=1e-8)


def test_penalty_zero_is_least_squares_of_smallest_norm_also_with_collinear_columns():
    x, y = data(features=6)
    x = torch.cat([x, x[:, :2] + x[:, 2:4], x[:, :1]], 1)
    centred = x - x.mean(0)
    expected = np.linalg.lstsq(centred.numpy(), (y - y.mean(0)).numpy(), rcond=None)[0]
    weight = fitted(x, y).solve(0.0).weight.detach().numpy()
    np.testing.assert_allclose(weight, expected.T, rtol=1e-7, atol=1e-9)


def test_constant_features_get_no_weight_and_do_not_disturb():
    x, y = data(features=4)
    constant = torch.tensor([0.1, -0.3], dtype=x.dtype).repeat(len(x), 1)
    for standardise in (False, True):
        with_them = fitted(torch.cat([x, constant], 1), y, standardise=standardise).solve(0.0)
        without = fitted(x, y, standardise=standardise).solve(0.0)
        assert with_them.weight[:, 4:].abs().max() < 1e-14
        torch.testing.assert_close(with_them.weight[:, :4], without.weight)
    alone = fitted(constant, y).solve(0.0)
    assert alone.weight.abs().max() == 0.0
    torch.testing.assert_close(alone.bias, y.mean(0))


def test_unit_of_a_feature_does_not_matter_where_standardised():
    x, y = data()
    units = torch.logspace(-6, 6, x.shape[1], dtype=x.dtype)
    plain, scaled = (fitted(z, y, standardise=True).solve(10.0) for z in (x, x * units))
    torch.testing.assert_close(plain(x), scaled(x * units), rtol=1e-8, atol=1e-8)


def test_streaming_merging_and_axes_make_no_difference():
    x, y = data(samples=240)
    whole = fitted(x, y).solve(0.3)
    pieces, left, right = Ridge(), Ridge(), Ridge()
    for start, stop in ((0, 1), (1, 7), (7, 7), (7, 100), (100, 240)):
        pieces.add(x[start:stop], y[start:stop])
    left.add(x[:90], y[:90])
    right.add(x[90:].reshape(5, 30, -1), y[90:].reshape(5, 30, -1))
    merged = left.merge(right)
    assert (pieces.samples, merged.samples, left.samples) == (240, 240, 90)
    for other in (pieces, merged, Ridge().merge(left).merge(right), right.merge(left)):
        torch.testing.assert_close(other.solve(0.3).weight, whole.weight, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(other.solve(0.3).bias, whole.bias, rtol=1e-10, atol=1e-10)
    before = merged.solve(1.0).weight
    left.add(x, y)  # a merged fit shares no memory with its parts
    assert torch.equal(merged.solve(1.0).weight, before)


@given(cuts=st.lists(st.integers(0, 240), max_size=12), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_any_split_gives_the_one_shot_solution(cuts, seed):
    x, y = data(samples=240, seed=seed)
    whole, pieces = fitted(x, y).solve(0.3), Ridge()
    for start, stop in itertools.pairwise([0, *sorted(cuts), 240]):
        pieces.add(x[start:stop], y[start:stop])
    torch.testing.assert_close(pieces.solve(0.3).weight, whole.weight, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(pieces.solve(0.3).bias, whole.bias, rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_samples():
    x, y = data(samples=20_000, features=3, targets=1, dtype=torch.float32)
    fit = Ridge()
    sizes = set()
    for _ in range(3):
        fit.add(x, y)
        sizes.add(sum(v.numel() for v in vars(fit._moments).values() if isinstance(v, torch.Tensor)))
    assert sizes == {3 + 1 + 9 + 3 + 1}
    assert fit.samples == 60_000


def test_large_means_lose_no_digits():
    x, y = data(features=5)
    torch.testing.assert_close(fitted(x + 1e6, y).solve(1.0).weight, fitted(x, y).solve(1.0).weight, rtol=1e-7, atol=0)


def test_float32_features_are_accumulated_in_double_precision():
    x, y = data(dtype=torch.float32)
    readout = fitted(x, y).solve(1e-3)
    expected = Reference(alpha=1e-3).fit(x.double().numpy(), y.double().numpy())
    assert readout.weight.dtype == torch.float32
    np.testing.assert_allclose(readout.weight.detach().numpy(), expected.coef_, rtol=1e-6, atol=1e-7)


def test_spike_counts_and_a_single_target():
    counts = torch.randint(0, 9, (50, 4), generator=torch.Generator().manual_seed(1))
    y = counts.float() @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 3.0
    readout = fitted(counts, y).solve()
    assert readout.weight.dtype == torch.get_default_dtype()
    assert readout.weight.shape == (1, 4)
    torch.testing.assert_close(readout(counts.float())[:, 0], y)


def test_readout_is_an_ordinary_linear_layer():
    x, y = data(dtype=torch.float32)
    state = torch.get_rng_state()
    readout = fitted(x, y).solve(1.0)
    assert torch.equal(torch.get_rng_state(), state)
    twin = torch.nn.Linear(12, 3)
    twin.load_state_dict(readout.state_dict())
    assert torch.equal(twin(x), readout(x))
    assert readout.to(torch.float64).weight.dtype == torch.float64
    readout(x.double()).sum().backward()
    assert readout.weight.grad is not None


def test_path_equals_separate_solutions_and_the_normal_equations():
    x, y = data()
    fit = fitted(x, y)
    penalties = [0.0, 0.1, 10.0]
    for penalty, readout in zip(penalties, fit.path(penalties), strict=True):
        assert torch.equal(readout.weight, fit.solve(penalty).weight)
        residual = y - readout(x)
        gradient = residual.mT @ (x - x.mean(0)) - penalty * readout.weight
        assert gradient.abs().max() < 1e-7
        assert residual.sum(0).abs().max() < 1e-7


@pytest.mark.parametrize("bias", [True, False])
def test_mean_squared_error_from_moments_equals_that_of_the_data(bias):
    x, y = data()
    readout = torch.nn.Linear(12, 3, bias=bias, dtype=torch.float64)
    direct = ((readout(x) - y) ** 2).mean().item()
    assert fitted(x, y).mean_squared_error(readout) == pytest.approx(direct, rel=1e-10)


def test_another_rule_needs_only_accumulate_and_solve():
    class Mean(ReadoutFit):
        rows = 0

        def accumulate(self, x, y):
            self.rows += len(x)

        def solve(self):
            return torch.nn.Linear(self.features, self.targets)

    rule = Mean()
    rule.add(torch.zeros(2, 3, 4), torch.zeros(2, 3))
    assert rule.rows == 6
    assert rule.solve().weight.shape == (1, 4)


X, Y = data(samples=10, features=3, targets=2)


def poisoned(x, value):
    x = x.clone()
    x[4, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, Y[:9], ValueError, r"Ridge.add\(y=...\).*\(10,\) or \(10, targets\).*got \(9, 2\)"),
        (X, Y[None], ValueError, r"Ridge.add\(y=...\)"),
        (poisoned(X, float("nan")), Y, ValueError, r"Ridge.add\(x=...\).*finite.*nan at \(4, 1\)"),
        (X, poisoned(Y, float("inf")), ValueError, r"Ridge.add\(y=...\).*finite.*inf at \(4, 1\)"),
        (X.numpy(), Y, TypeError, r"Ridge.add\(x=...\).*tensor, got ndarray"),
        (X, Y.to(torch.complex64), TypeError, r"Ridge.add\(y=...\).*real"),
        (X[:, :0], Y, ValueError, r"Ridge.add\(x=...\).*at least one feature"),
        (torch.tensor(1.0), torch.tensor(1.0), ValueError, r"Ridge.add\(x=...\).*at least one feature"),
    ],
)
def test_bad_samples_are_named(x, y, error, message):
    with pytest.raises(error, match=message):
        Ridge().add(x, y)


def test_bad_use_is_named():
    fit = fitted(X, Y)
    with pytest.raises(ValueError, match=r"Ridge.add\(x=...\).*3 features as before, got 2"):
        fit.add(X[:, :2], Y)
    with pytest.raises(ValueError, match=r"Ridge.add\(y=...\).*2 targets as before, got 1"):
        fit.add(X, Y[:, 0])
    assert fit.samples == 10
    for penalty in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"Ridge.solve\(penalty=...\).*at least 0"):
            fit.solve(penalty)
        with pytest.raises(ValueError, match=r"Ridge\(penalty=...\).*at least 0"):
            Ridge(penalty)
    with pytest.raises(ValueError, match="call add first"):
        Ridge().solve(1.0)
    with pytest.raises(ValueError, match=r"merge\(other=...\).*\(3, 2\) features and targets, got \(2, 2\)"):
        fit.merge(fitted(X[:, :2], Y))
    with pytest.raises(ValueError, match=r"merge\(other=...\).*intercept=True"):
        fit.merge(Ridge(intercept=False))
    with pytest.raises(TypeError, match=r"merge\(other=...\).*got int"):
        fit.merge(3)
    with pytest.raises(ValueError, match=r"mean_squared_error\(readout=...\).*\(3, 2\).*got \(4, 2\)"):
        fit.mean_squared_error(torch.nn.Linear(4, 2))
