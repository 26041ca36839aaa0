"""Exponential, Poisson and binomial numbers: laws, extremes, invariances, transforms, errors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bdtorch import ops

KEY, STEP = ops.make_key(31), torch.tensor(9)
F64 = torch.float64
DRAWS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "exponential32": lambda key, counter, n: ops.exponential(key, counter, n, dtype=torch.float32),
    "exponential64": lambda key, counter, n: ops.exponential(key, counter, n, dtype=F64),
    "poisson, inversion": lambda key, counter, n: ops.poisson(key, counter, torch.tensor(0.7), n),
    "poisson, rejection": lambda key, counter, n: ops.poisson(key, counter, torch.tensor(25.0), n),
    "binomial, inversion": lambda key, counter, n: ops.binomial(key, counter, 12, torch.tensor(0.4), n),
    "binomial, rejection": lambda key, counter, n: ops.binomial(key, counter, 90, torch.tensor(0.7), n),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
LAWS = [
    *((f"poisson {rate}", stats.poisson(rate), lambda step, n, r=rate: ops.poisson(KEY, step, torch.tensor(r, dtype=F64), n))
      for rate in (0.02, 0.9, 9.99, 10.0, 31.4, 1234.5)),
    *((f"binomial {trials} {p}", stats.binom(trials, p),
       lambda step, n, t=trials, p=p: ops.binomial(KEY, step, t, torch.tensor(p, dtype=F64), n))
      for trials, p in ((1, 0.3), (10, 0.5), (40, 0.9), (25, 0.4), (100, 0.5), (1000, 0.03), (5000, 0.8))),
]  # fmt: skip


def p_value_of_counts(counts: np.ndarray, law: Any) -> float:
    """Chi-square over cells of about equal probability, at least 50 expected in each."""
    edges = np.unique(law.ppf(np.linspace(0, 1, 41)[1:-1]))
    cells = np.searchsorted(edges, counts)
    probability = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]]))
    kept = probability * len(counts) > 50
    observed = np.bincount(cells, minlength=len(probability))
    observed = np.append(observed[kept], observed[~kept].sum())
    expected = np.append(probability[kept], probability[~kept].sum()) * len(counts)
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / expected[:-1].sum()
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


@pytest.mark.parametrize(("law", "draw"), [case[1:] for case in LAWS], ids=[case[0] for case in LAWS])
def test_counts_have_their_law(law: Any, draw: Callable[[Tensor, int], Tensor]) -> None:
    n = 6_000
    draws = [draw(torch.tensor(step), n).numpy() for step in range(20)]
    p_values = [p_value_of_counts(counts, law) for counts in draws]
    counts = np.concatenate(draws)
    assert counts.min() >= 0
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4
    assert p_value_of_counts(counts, law) > 1e-4
    assert abs(counts.mean() - law.mean()) < 5 * law.std() / math.sqrt(counts.size)
    for tail in (1e-2, 1e-3):
        bound = law.isf(tail)
        assert stats.binomtest(int((counts > bound).sum()), counts.size, law.sf(bound)).pvalue > 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_exponential_has_its_law(dtype: torch.dtype) -> None:
    p_values = []
    for step in range(20):
        x = ops.exponential(KEY, torch.tensor(step), 50_000, dtype=dtype).double().numpy()
        assert x.min() >= 0
        p_values.append(stats.kstest(x, "expon").pvalue)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def test_large_means_approach_the_normal_law() -> None:
    for rate in (1e6, 2.0**31):
        z = (ops.poisson(KEY, STEP, torch.tensor(rate, dtype=F64), 20_000) - rate) / math.sqrt(rate)
        assert stats.kstest(z.numpy(), "norm").pvalue > 1e-4
    trials, p = 2**31 - 1, 0.25
    k = ops.binomial(KEY, STEP, trials, torch.tensor(p, dtype=F64), 20_000)
    z = (k - trials * p) / math.sqrt(trials * p * (1 - p))
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-4


def test_degenerate_and_invalid_parameters() -> None:
    rate = torch.tensor([0.0, -1.0, torch.nan, torch.inf, 2.0**31 * 1.01, 1e-300], dtype=F64)
    assert ops.poisson(KEY, STEP, rate, 6).tolist() == [0, -1, -1, -1, -1, 0]
    p = torch.tensor([0.0, 1.0, -0.1, 1.1, torch.nan], dtype=F64)
    assert ops.binomial(KEY, STEP, 50, p, 5).tolist() == [0, 50, -1, -1, -1]
    assert ops.binomial(KEY, STEP, 0, p[:2], 2).tolist() == [0, 0]
    many = ops.binomial(KEY, STEP, 3, torch.tensor(0.5), 10_000)
    assert many.min() == 0 and many.max() == 3


@every_draw
def test_numbers_depend_on_key_counter_and_index_alone(draw: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    n, threads = 5003, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = draw(KEY, STEP, n)
        torch.set_num_threads(3)
        assert torch.equal(draw(KEY, STEP, n), whole)
    finally:
        torch.set_num_threads(threads)
    for shorter in (0, 1, 5, 63):
        assert torch.equal(draw(KEY, STEP, shorter), whole[:shorter])
    keys, counters = ops.make_key(3, (2, 3)), torch.arange(6).reshape(2, 3)
    batch = draw(keys, counters, 17)
    assert torch.equal(batch[1, 2], draw(keys[1, 2], counters[1, 2], 17))
    mapped = torch.func.vmap(torch.func.vmap(lambda k, c: draw(k, c, 17)))(keys, counters)
    assert torch.equal(mapped, batch)
    assert not torch.equal(draw(KEY, STEP + 1, 50), draw(KEY, STEP, 50))
    compiled = torch.compile(lambda k, c: draw(k, c, 17) + 0, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(keys, counters), batch)


def test_parameters_of_every_shape() -> None:
    keys, rate, p = ops.make_key(1, (3,)), torch.rand(3, 20) * 30, torch.rand(3, 20)
    for b in range(3):
        for i in (0, 7, 19):
            single = ops.poisson(keys[b], STEP, rate[b, i], 20)[i]
            assert single == ops.poisson(keys, STEP, rate, 20)[b, i] == ops.poisson(keys, STEP, rate[b], 20)[b, i]
            single = ops.binomial(keys[b], STEP, 40, p[b, i], 20)[i]
            assert single == ops.binomial(keys, STEP, 40, p, 20)[b, i] == ops.binomial(keys, STEP, 40, p[b], 20)[b, i]
    mapped = torch.func.vmap(lambda q: ops.binomial(KEY, STEP, 40, q, 20))(p)
    assert torch.equal(mapped, torch.stack([ops.binomial(KEY, STEP, 40, q, 20) for q in p]))
    mapped = torch.func.vmap(lambda r: ops.poisson(keys, STEP, r, 20))(rate.T[:4, 0])
    assert torch.equal(mapped, torch.stack([ops.poisson(keys, STEP, r, 20) for r in rate.T[:4, 0]]))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_opcheck(batch: tuple[int, ...]) -> None:
    key, op = ops.make_key(0, batch), torch.ops.bdtorch
    torch.library.opcheck(op.random_exponential.default, (key, STEP, 9, torch.float32))
    torch.library.opcheck(op.random_poisson.default, (key, STEP, torch.rand(9), 9))
    torch.library.opcheck(op.random_binomial.default, (key, STEP, 5, torch.tensor(0.3), 9))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.exponential(KEY, STEP, 3, dtype=torch.float16), TypeError, r"exponential\(dtype=.*float16"),
        (lambda: ops.poisson(KEY, STEP, torch.tensor(3), 3), TypeError, r"poisson\(rate=.*int64"),
        (lambda: ops.poisson(KEY, STEP, torch.rand(4), 3), ValueError, r"poisson\(rate=.*\(3,\).*\(4,\)"),
        (lambda: ops.binomial(KEY, STEP, -1, torch.rand(3), 3), ValueError, r"binomial\(trials=.*got -1"),
        (lambda: ops.binomial(KEY, STEP, 2**31, torch.rand(3), 3), ValueError, r"binomial\(trials=.*2147483648"),
        (lambda: ops.binomial(KEY, STEP, 3, torch.rand(2), 3), ValueError, r"binomial\(p=.*\(2,\)"),
        (lambda: ops.poisson(KEY.int(), STEP, torch.rand(3), 3), TypeError, r"poisson\(key=.*int32"),
        (lambda: torch.ops.bdtorch.random_binomial(KEY, STEP, -1, torch.rand(3), 3), RuntimeError, "trials"),
        (lambda: torch.ops.bdtorch.random_poisson(KEY, STEP, torch.rand(2), 3), RuntimeError, "rate="),
    ],
)
def test_errors_name_the_argument(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
