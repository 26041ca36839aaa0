"""Connectivity rules: exact numbers, exclusion of autapses, edge cases, and two-level statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from bdtorch.connect import CSR, AllToAll, Dense, FixedNumberPost, FixedNumberPre, FixedProbability, Identity, OneToOne

DRAWS = 250


def _uniform(values: Callable[[int], float]) -> float:
    """The level above: over many draws, the p-values of a true hypothesis are uniform."""
    return float(stats.kstest([values(seed) for seed in range(DRAWS)], "uniform").pvalue)


def _dense(rule: Any, n_pre: int, n_post: int, seed: int, **options: Any) -> np.ndarray:
    matrix: np.ndarray = rule.build(n_pre, n_post, seed=seed, **options).to_dense().numpy()
    return matrix


@pytest.mark.parametrize("p", [0.03, 0.4, 0.97])
def test_probability_statistics(p: float) -> None:
    rule = FixedProbability(p)

    def p_value(axis: int) -> Callable[[int], float]:
        def of(seed: int) -> float:
            degrees = _dense(rule, 60, 80, seed).sum(axis)
            trials = 80 if axis == 1 else 60
            squares = ((degrees - trials * p) ** 2 / (trials * p * (1.0 - p))).sum()
            return float(stats.chi2.cdf(squares, len(degrees)))

        return of

    # Degrees are independent binomials; with 80 trials the sum of their squares is chi-square but for a small excess.
    for axis in (0, 1):
        if 0.1 < p < 0.9:
            assert _uniform(p_value(axis)) > 1e-3
    totals = [_dense(rule, 60, 80, seed).sum() for seed in range(DRAWS)]
    below = stats.binom.cdf(totals, 4800, p) - 0.5 * stats.binom.pmf(totals, 4800, p)
    assert stats.kstest(below, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("p", [0.03, 0.4, 0.97])
def test_every_pair_is_as_likely(p: float) -> None:
    counts = sum(_dense(FixedProbability(p), 12, 9, seed) for seed in range(2 * DRAWS))
    squares = ((counts - 2 * DRAWS * p) ** 2 / (2 * DRAWS * p * (1.0 - p))).sum()
    assert 1e-3 < stats.chi2.cdf(squares, 12 * 9) < 1.0 - 1e-3


@pytest.mark.parametrize(
    ("rule", "n", "axis"), [(FixedNumberPre, 5, 0), (FixedNumberPre, 45, 0), (FixedNumberPost, 5, 1)]
)
def test_fixed_numbers_statistics(rule: Any, n: int, axis: int) -> None:
    # The other side's degrees: negatively correlated within a row, so the sum of squares has 49 degrees of freedom when
    # scaled by the variance of sampling without replacement.
    def p_value(seed: int) -> float:
        degrees = _dense(rule(n), 50, 50, seed).sum(axis)
        p = n / 50
        squares = ((degrees - n) ** 2).sum() / (50 * p * (1.0 - p)) * 49 / 50
        return float(stats.chi2.cdf(squares, 49))

    assert _uniform(p_value) > 1e-3


@pytest.mark.parametrize(("n_pre", "n_post", "n"), [(40, 30, 0), (40, 30, 1), (40, 30, 7), (40, 30, 29), (40, 30, 30)])
def test_fixed_numbers_are_exact_and_distinct(n_pre: int, n_post: int, n: int) -> None:
    for seed in range(5):
        out = _dense(FixedNumberPre(n), n_pre, n_post, seed)
        assert (out.sum(1) == n).all() and out.max(initial=0.0) <= 1.0
        into = _dense(FixedNumberPost(n), n_post, n_pre, seed)
        assert (into.sum(0) == n).all() and into.max(initial=0.0) <= 1.0


@pytest.mark.parametrize(
    "rule",
    [FixedProbability(0.9, autapses=False), FixedProbability(1.0, False), FixedNumberPre(11, False),
     FixedNumberPre(3, False), FixedNumberPost(3, False), FixedNumberPost(9, False), AllToAll(False)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("offset", [0, 4, 8])
def test_autapses_are_excluded_where_targets_are_concatenated(rule: Any, offset: int) -> None:
    # 10 sources that are the targets offset ... offset + 9 of 18.
    matrix = np.zeros((10, 18))
    for seed in range(60):
        matrix += _dense(rule, 10, 18, seed, self_offset=offset)
    own = np.zeros((10, 18), dtype=bool)
    own[np.arange(10), np.arange(10) + offset] = True
    assert (matrix[own] == 0).all()
    assert (matrix[~own] > 0).all()  # and nobody else is
    if isinstance(rule, (FixedNumberPre, FixedNumberPost)):
        degrees = matrix.sum(1 if isinstance(rule, FixedNumberPre) else 0)
        assert (degrees == 60 * rule.n).all()


@pytest.mark.parametrize("rule", [FixedProbability(1.0), FixedNumberPre(6), FixedNumberPost(6), AllToAll()], ids=str)
def test_autapses_stay_where_they_are_wanted(rule: Any) -> None:
    assert (_dense(rule, 6, 6, 0, self_offset=0) == 1).all()


def test_without_its_own_population_nobody_is_excluded() -> None:
    assert (_dense(FixedProbability(1.0, False), 6, 6, 0) == 1).all()
    assert (_dense(AllToAll(False), 6, 6, 0) == 1).all()


def test_edge_cases() -> None:
    assert FixedProbability(0.0).build(5, 7).synapses == 0
    assert (_dense(FixedProbability(1.0), 5, 7, 0) == 1).all()
    assert FixedProbability(1e-300).build(1000, 1000).synapses == 0
    assert FixedProbability(1.0 - 1e-16).build(50, 50).synapses >= 2499
    assert _dense(FixedProbability(0.5), 1, 1, 3).shape == (1, 1)
    assert isinstance(OneToOne().build(4, 4), Identity) and isinstance(AllToAll().build(4, 5), Dense)
    assert (_dense(OneToOne(), 4, 4, 0) == np.eye(4)).all()


@pytest.mark.parametrize(
    "rule", [FixedProbability(0.3), FixedNumberPre(4), FixedNumberPost(4), FixedNumberPost(17)], ids=str
)
def test_a_seed_names_a_draw(rule: Any) -> None:
    one, again, other = (rule.build(20, 20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.indices, again.indices) and torch.equal(one.indptr, again.indptr)
    assert not torch.equal(one.to_dense(), other.to_dense())


def test_large_draws_have_the_right_size() -> None:
    drawn = FixedProbability(0.02).build(4000, 4000, seed=1)
    assert abs(drawn.synapses - 320_000) < 4.0 * (320_000 * 0.98) ** 0.5
    assert isinstance(drawn, CSR) and drawn.indices.dtype == torch.int32


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_bad_probabilities(bad: float) -> None:
    with pytest.raises(ValueError, match=r"`FixedProbability\(p=...\)`: expected a probability in \[0, 1\], got"):
        FixedProbability(bad)


@pytest.mark.parametrize("rule", [FixedNumberPre, FixedNumberPost])
def test_bad_numbers(rule: Any) -> None:
    for bad in (-1, 1.5, True, None):
        with pytest.raises(ValueError, match=rf"`{rule.__name__}\(n=...\)`: expected a non-negative integer, got"):
            rule(bad)
    with pytest.raises(ValueError, match=rf"`{rule.__name__}\(n=...\)`: expected at most 5 distinct partners, got 6"):
        rule(6).build(5, 5)
    with pytest.raises(ValueError, match=rf"`{rule.__name__}\(n=...\)`: expected at most 4 distinct partners, got 5"):
        rule(5, autapses=False).build(5, 5, self_offset=0)
    with pytest.raises(ValueError, match=r"`OneToOne`: expected populations of equal size, got 4 and 5"):
        OneToOne().build(4, 5)
