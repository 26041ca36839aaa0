"""Distributions of the random numbers, and independence of their streams. Seeds are fixed."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from bdtorch import ops

KEY = ops.make_key(20)
STEP = torch.tensor(7)
P_VALUE = 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distributions(dtype: torch.dtype) -> None:
    n = 200_000
    p_uniform, p_normal, p_cells = [], [], []
    for step in range(20):
        u = ops.uniform(KEY, torch.tensor(step), n, dtype=dtype).double().numpy()
        z = ops.normal(KEY, torch.tensor(step), n, dtype=dtype).double().numpy()
        assert u.min() >= 0 and u.max() < 1
        p_uniform.append(stats.kstest(u, "uniform").pvalue)
        p_normal.append(stats.kstest(z, "norm").pvalue)
        p_cells.append(stats.chisquare(np.bincount((u * 1000).astype(int), minlength=1000)).pvalue)
        assert abs(z.mean()) < 5 / np.sqrt(n)
        assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
        assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    # p-values of a true null are uniform; one small value among many is not suspicious, a trend is
    for p_values in (p_uniform, p_normal, p_cells):
        assert stats.kstest(p_values, "uniform").pvalue > P_VALUE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_tails(dtype: torch.dtype) -> None:
    n = 4_000_000
    z = ops.normal(KEY, STEP, n, dtype=dtype).abs()
    for bound in (3.0, 4.0, 4.5):
        count = int((z > bound).sum())
        assert stats.binomtest(count, n, 2 * stats.norm.sf(bound)).pvalue > P_VALUE


@pytest.mark.parametrize("p", [0.001, 0.02, 0.5, 0.97])
def test_bernoulli_counts(p: float) -> None:
    n = 500_000
    events = int(ops.bernoulli(KEY, STEP, torch.tensor(p), n).sum())
    assert stats.binomtest(events, n, p).pvalue > P_VALUE


def test_streams_steps_and_neighbours_are_uncorrelated() -> None:
    n, n_streams = 20_000, 24
    one = torch.tensor(5)
    arrangements = {
        "batch elements": ops.normal(ops.make_key(0, (n_streams,)), one, n, dtype=torch.float64),
        "seeds": torch.stack([ops.normal(ops.make_key(s), one, n, dtype=torch.float64) for s in range(n_streams)]),
        "steps": ops.normal(KEY, torch.arange(n_streams), n, dtype=torch.float64),
        "consecutive keys": ops.normal(torch.arange(n_streams), one, n, dtype=torch.float64),
        "neighbours": ops.normal(KEY, one, n * n_streams, dtype=torch.float64).reshape(n, n_streams).T,
    }
    pairs = n_streams * (n_streams - 1) / 2
    for name, streams in arrangements.items():
        correlation = torch.corrcoef(streams).fill_diagonal_(0)
        squares = float((correlation**2).sum() / 2) * n  # chi-square with one degree of freedom for each pair
        assert stats.chi2.sf(squares, pairs) > P_VALUE, name
        assert stats.chi2.cdf(squares, pairs) > P_VALUE, name


def test_bytes_of_folded_seeds_are_uniform() -> None:
    seeds = [ops.fold(s, *words) for s in range(50) for words in itertools.product(("E", "I"), range(50))]
    counts = np.bincount(np.array(seeds, dtype=np.int64).view(np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > P_VALUE
