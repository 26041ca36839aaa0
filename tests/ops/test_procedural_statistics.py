"""The law of procedural matrices: degrees, pairs, gaps, weights and independence of rows. Keys are fixed.

A statistic is tested twice: chi-square for each draw, then Kolmogorov-Smirnov over the p-values of many draws.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bdtorch import ops
from bdtorch.ops import ProceduralMatrix

P_VALUE = 1e-3
N_KEYS = 30


def edges(matrix: ProceduralMatrix) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and x of every synapse."""
    indptr, targets, draws = ops.procedural_rows(torch.arange(matrix.n_pre), matrix)
    return torch.repeat_interleave(torch.arange(matrix.n_pre), indptr.diff()), targets.long(), draws


def assert_uniform(p_value_of: Callable[[int], float]) -> None:
    p_values = [p_value_of(ops.fold(11, key)) for key in range(N_KEYS)]
    assert min(p_values) > P_VALUE / N_KEYS
    assert stats.kstest(p_values, "uniform").pvalue > P_VALUE


def binomial_p_value(counts: Tensor, n: int, p: float) -> float:
    """Chi-square of counts against Binomial(n, p), in ten classes of about equal probability."""
    bounds = np.unique(stats.binom.ppf(np.linspace(0, 1, 11)[1:-1], n, p))
    expected = np.diff(np.concatenate([[0.0], stats.binom.cdf(bounds, n, p), [1.0]])) * len(counts)
    observed = np.bincount(np.searchsorted(bounds, counts.numpy()), minlength=len(bounds) + 1)
    return float(stats.chisquare(observed, expected).pvalue)


# Rows of one tile and of many.
@pytest.mark.parametrize(("n_pre", "n_post", "p"), [(2000, 1500, 0.03), (300, 30_000, 0.05), (3000, 40, 0.5)])
def test_degrees_of_a_probability_are_binomial(n_pre: int, n_post: int, p: float) -> None:
    def p_values(key: int) -> tuple[float, float]:
        rows, columns, _ = edges(ProceduralMatrix(n_pre, n_post, key, p=p))
        out_degrees, in_degrees = torch.bincount(rows, minlength=n_pre), torch.bincount(columns, minlength=n_post)
        return binomial_p_value(out_degrees, n_post, p), binomial_p_value(in_degrees, n_pre, p)

    both = {ops.fold(11, key): p_values(ops.fold(11, key)) for key in range(N_KEYS)}
    assert_uniform(lambda key: both[key][0])
    assert_uniform(lambda key: both[key][1])


@pytest.mark.parametrize(
    ("n_pre", "n_post", "n"), [(4000, 1500, 30), (3000, 40, 13), (20_000, 6, 5), (300, 100_003, 4000)]
)
def test_columns_of_a_fixed_number_are_equally_likely(n_pre: int, n_post: int, n: int) -> None:
    def p_value(key: int) -> float:
        _, columns, _ = edges(ProceduralMatrix(n_pre, n_post, key, number=n))
        in_degrees = torch.bincount(columns, minlength=n_post)
        # Columns of a row are drawn without replacement: the chi-square is a factor (n_post - n) / (n_post - 1) smaller.
        expected = n_pre * n / n_post
        square = float(((in_degrees - expected) ** 2).sum() / expected) * (n_post - 1) / (n_post - n)
        return float(stats.chi2.sf(square, n_post - 1))

    assert_uniform(p_value)


@pytest.mark.parametrize(("n_post", "n"), [(2, 1), (3, 2), (5, 2), (7, 3), (16, 2), (50, 2)])
def test_all_sequences_of_a_fixed_number_are_equally_likely(n_post: int, n: int) -> None:
    powers = n_post ** torch.arange(n)
    sequences = torch.tensor(list(itertools.permutations(range(n_post), n))) @ powers

    def p_value(key: int) -> float:
        _, columns, _ = edges(ProceduralMatrix(20_000, n_post, key, number=n))
        counts = torch.bincount(columns.reshape(-1, n) @ powers, minlength=n_post**n)
        return float(stats.chisquare(counts[sequences].numpy()).pvalue)

    assert_uniform(p_value)


@pytest.mark.parametrize(("n_post", "p"), [(3_000_000, 1e-4), (1_000_000, 0.01), (20_000, 0.5)])
def test_gaps_of_a_probability_are_geometric(n_post: int, p: float) -> None:
    matrix = ProceduralMatrix(10, n_post, 3, p=p)
    rows, columns, _ = edges(matrix)
    gaps = columns.diff()[rows.diff() == 0].numpy()
    bounds = np.unique(stats.geom.ppf(np.linspace(0, 1, 31)[1:-1], p))
    expected = np.diff(np.concatenate([[0.0], stats.geom.cdf(bounds, p), [1.0]])) * len(gaps)
    observed = np.bincount(np.searchsorted(bounds, gaps), minlength=len(bounds) + 1)
    assert stats.chisquare(observed, expected).pvalue > P_VALUE


@pytest.mark.parametrize("law", [{"p": 0.1}, {"number": 100}], ids=str)
def test_rows_are_independent(law: dict[str, Any]) -> None:
    n = 1000
    for rows in (torch.arange(60), torch.arange(60) * 4096, torch.arange(60) * 2**24):
        matrix = ProceduralMatrix(2**31 - 1, n, 5, **law)
        indptr, targets, _ = ops.procedural_rows(rows, matrix)
        dense = torch.zeros(60, n, dtype=torch.float64)
        dense[torch.repeat_interleave(torch.arange(60), indptr.diff()), targets.long()] = 1
        correlation = torch.corrcoef(dense).fill_diagonal_(0)
        square, pairs = float((correlation**2).sum() / 2) * (n - 1), 60 * 59 / 2
        assert P_VALUE < stats.chi2.sf(square, pairs) < 1 - P_VALUE


@pytest.mark.parametrize("law", [{"p": 0.1}, {"number": 100}], ids=str)
def test_weights_have_their_distribution_and_do_not_depend_on_place(law: dict[str, Any]) -> None:
    for draws, distribution in (("uniform", "uniform"), ("normal", "norm")):
        rows, columns, x = edges(ProceduralMatrix(400, 1000, 5, draws=draws, **law))
        assert stats.kstest(x.numpy(), distribution).pvalue > P_VALUE
        mean, variance = (0.5, 1 / 12) if draws == "uniform" else (0.0, 1.0)
        assert abs(float(x.mean()) - mean) < 4 * (variance / len(x)) ** 0.5
        excess = (1 / 180) if draws == "uniform" else 2.0  # variance of the square
        assert abs(float(x.double().var()) - variance) < 4 * (excess / len(x)) ** 0.5
        for place in (rows, columns):
            assert abs(np.corrcoef(place, x)[0, 1]) < 4 / len(x) ** 0.5
        neighbours = rows.diff() == 0
        assert abs(np.corrcoef(x[1:][neighbours], x[:-1][neighbours])[0, 1]) < 4 / len(x) ** 0.5


def test_keys_give_independent_matrices() -> None:
    def dense(key: int) -> Tensor:
        rows, columns, _ = edges(ProceduralMatrix(300, 300, key, p=0.2))
        return torch.zeros(300, 300, dtype=torch.float64).index_put((rows, columns), torch.ones(()).double()).flatten()

    correlation = torch.corrcoef(torch.stack([dense(key) for key in range(30)])).fill_diagonal_(0)
    square = float((correlation**2).sum() / 2) * (300 * 300 - 1)
    assert P_VALUE < stats.chi2.sf(square, 30 * 29 / 2) < 1 - P_VALUE
