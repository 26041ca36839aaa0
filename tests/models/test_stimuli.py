"""Stimuli: their statistics, their streams, and their values in time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import bdtorch as bt
from bdtorch.stimuli import OrnsteinUhlenbeck, Poisson, Ramp, Step


def _time(t: float) -> torch.Tensor:
    return torch.full((), t, dtype=torch.float64)


def test_poisson_rate_and_dispersion() -> None:
    rates = torch.tensor([5.0, 50.0, 400.0]).repeat_interleave(400)
    dt, duration = 0.1, 2000.0
    source = Poisson(1200, rate=rates)
    spikes = bt.simulate(source, dt=dt, duration=duration, record={"s": bt.spikes()}, loop="native", seed=4)["s"]
    counts = spikes.counts().double().reshape(3, 400)
    for rate, count in zip((5.0, 50.0, 400.0), counts, strict=True):
        p, n = rate * dt * 1e-3, round(duration / dt)
        mean, variance = n * p, n * p * (1.0 - p)
        assert abs(float(count.mean()) - mean) < 4.0 * math.sqrt(variance / 400)
        # The dispersion of 400 binomial counts is chi-square.
        assert 1e-4 < stats.chi2.cdf(float(count.var()) * 399 / variance, 399) < 1.0 - 1e-4


def test_poisson_intervals_are_geometric_and_sources_independent() -> None:
    source = Poisson(2, rate=100.0)
    out = bt.simulate(source, dt=1.0, duration=40_000.0, loop="native", seed=1).out
    steps = out[:, 0].nonzero()[:, 0]
    intervals = steps.diff().clamp(max=50)
    edges = np.arange(1, 51)
    expected = stats.geom.pmf(edges, 0.1)
    expected[-1] = stats.geom.sf(49, 0.1)
    observed = np.bincount(intervals.numpy(), minlength=51)[1:]
    assert stats.chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-4
    together = float((out[:, 0] & out[:, 1]).double().mean())
    assert abs(together - 0.01) < 4.0 * math.sqrt(0.01 * 0.99 / 40_000)


def test_poisson_takes_its_rate_from_the_input() -> None:
    source = Poisson((2, 3), rate=1000.0)
    rates = torch.zeros(4000, 2, 3)
    rates[:, 1, 2] = 250.0
    out = bt.simulate(source, rates, dt=1.0, loop="reference").out
    assert out.shape == (4000, 2, 3)
    assert abs(int(out[:, 1, 2].sum()) - 1000) < 4 * math.sqrt(750)
    out[:, 1, 2] = False
    assert not out.any()
    # A rate per step for all, and one per source.
    assert bt.simulate(source, 1000.0, dt=1.0, duration=3.0, loop="reference").out.all()
    alone = Poisson(3, rate=torch.tensor([0.0, 1000.0, 0.0]))
    assert bt.simulate(alone, dt=1.0, duration=3.0, loop="reference").out.tolist() == [[False, True, False]] * 3


def test_streams_are_named_by_seed_and_batch_element() -> None:
    source = Poisson(50, rate=300.0)

    def run(seed: int, batch: tuple[int, ...] = ()) -> torch.Tensor:
        out: torch.Tensor = bt.simulate(
            source, dt=1.0, duration=20.0, seed=seed, batch_shape=batch, loop="reference"
        ).out
        return out

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    batch = run(1, (3,))
    assert torch.equal(batch[:, 0], run(1)) and not torch.equal(batch[:, 0], batch[:, 1])
    assert torch.equal(run(1, (5,))[:, :3], batch)


def test_poisson_rejects_rates_beyond_one_spike_per_step() -> None:
    with pytest.raises(
        ValueError, match=r"`Poisson\(rate=...\)`: expected at most 1 spike per step of 0.5 ms, got 3000 Hz"
    ):
        bt.simulate(Poisson(1, rate=3000.0), dt=0.5, duration=1.0)


@pytest.mark.parametrize("dt", [0.5, 5.0, 40.0])
def test_ornstein_uhlenbeck_statistics_do_not_depend_on_the_step(dt: float) -> None:
    process = OrnsteinUhlenbeck(20_000, mean=3.0, sigma=1.5, tau=10.0, dtype=torch.float64)
    x = bt.simulate(process, dt=dt, duration=4 * dt, loop="reference", seed=2).out
    n = x.shape[1]
    for row in x:  # stationary from the first step on
        assert abs(float(row.mean()) - 3.0) < 4.0 * 1.5 / math.sqrt(n)
        assert stats.kstest(((row - 3.0) / 1.5).numpy(), "norm").pvalue > 1e-4
    for lag in (1, 3):
        correlation = float(np.corrcoef(x[0].numpy(), x[lag].numpy())[0, 1])
        want = math.exp(-lag * dt / 10.0)
        assert abs(correlation - want) < 4.5 * (1.0 - want**2) / math.sqrt(n) + 1e-12


def test_ornstein_uhlenbeck_without_noise_stands_still() -> None:
    process = OrnsteinUhlenbeck(2, mean=torch.tensor([1.0, -2.0]), sigma=0.0)
    out = bt.simulate(process, dt=1.0, duration=5.0, loop="reference").out
    assert out.tolist() == [[1.0, -2.0]] * 5


def test_step_and_ramp_are_half_open_and_linear() -> None:
    step = Step(2.0, start=1.0, stop=3.0, baseline=-1.0)
    assert [float(step(_time(t))) for t in (0.0, 0.999, 1.0, 2.999, 3.0, 9.0)] == [-1.0, -1.0, 2.0, 2.0, -1.0, -1.0]
    ramp = Ramp(torch.tensor([0.0, 1.0]), torch.tensor([10.0, 1.0]), start=2.0, stop=4.0)
    assert [ramp(_time(t)).tolist() for t in (0.0, 2.0, 2.5, 4.0, 5.0)] == [
        [0.0, 1.0], [0.0, 1.0], [2.5, 1.0], [10.0, 1.0], [10.0, 1.0],
    ]  # fmt: skip


@pytest.mark.parametrize("loop", ["reference", "native", bt.Inductor(chunk=2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stimulus", [Step(0.1), Ramp(0.0, 0.1, 0.0, 1e-9)], ids=["Step", "Ramp"])
def test_a_float_amplitude_is_exact_in_either_precision(stimulus: Any, dtype: torch.dtype, loop: Any) -> None:
    # 0.1 is not a float32: rounded through one, a double run would be off by 1.5e-9.
    cell = bt.neurons.LIF(2, dtype=dtype, integrator=bt.integrate.Euler(), tau=1.0)
    given = Step(0.1) if isinstance(stimulus, Step) else lambda t: stimulus(t + 1.0)
    v = bt.simulate(cell, given, dt=1.0, duration=2.0, record={"v": bt.trace("v")}, loop=loop)["v"]
    assert v.dtype == dtype
    assert torch.equal(v, torch.full((2, 2), 0.1, dtype=dtype))


def test_a_stimulus_drives_like_the_sequence_of_its_values() -> None:
    cell = bt.neurons.LIF(2, dtype=torch.float64)
    stimulus = Step(torch.tensor([50.0, 80.0], dtype=torch.float64), start=1.0, stop=4.0)
    sequence = torch.stack([stimulus(_time(k * 0.1)) for k in range(60)])
    a = bt.simulate(cell, stimulus, dt=0.1, duration=6.0, record={"v": bt.trace("v")}, loop="reference")["v"]
    b = bt.simulate(cell, sequence, dt=0.1, record={"v": bt.trace("v")}, loop="reference")["v"]
    assert torch.equal(a, b) and float(a.max()) > 5.0
