"""Statistics of spikes against closed forms of regular trains and Poisson processes, and against plain NumPy loops."""

import math

import numpy as np
import pytest
import torch

from bdtorch import analyze, stimuli
from bdtorch.simulate import Spikes, simulate, spikes


def recorded(dense, *, dt=1.0, start=0):
    """The `Spikes` of a boolean array ``(time, *batch, size)``."""
    where = dense.nonzero()
    return Spikes(
        where[:, 0] + start + 1,
        where[:, -1],
        where[:, 1:-1],
        dense.shape[-1],
        tuple(dense.shape[1:-1]),
        dt,
        start,
        start + len(dense),
    )


@pytest.fixture
def irregular():
    return torch.rand(400, 2, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.05


@pytest.fixture
def clock():
    """Neuron k spikes at every (k+1) * 10th step."""
    steps = torch.arange(1, 1201)
    return torch.stack([steps % 10 == 0, steps % 20 == 0, steps % 30 == 0], 1)


def test_binned_counts_equal_a_reshape(irregular):
    spikes = recorded(irregular, dt=0.5, start=30)
    counts, edges = spikes.binned(10.0, per_neuron=True)
    assert torch.equal(counts, irregular.reshape(20, 20, 2, 3, 5).sum(1))
    assert torch.equal(spikes.binned(10.0).counts, counts.sum(-1))
    assert torch.equal(edges, 15.0 + 10.0 * torch.arange(21, dtype=torch.float64))


def test_a_last_bin_that_is_narrower_keeps_its_spikes(irregular):
    spikes = recorded(irregular)
    counts, edges = spikes.binned(150.0)
    assert edges.tolist() == [0.0, 150.0, 300.0, 400.0]
    assert counts.sum() == len(spikes) == irregular.sum()
    assert torch.equal(counts[-1], irregular[300:].sum((0, -1)))


@pytest.mark.parametrize("bin", [0.0, -1.0, 0.25, 1e-9, float("nan"), float("inf")])
def test_bad_bins_are_named(irregular, bin):
    with pytest.raises(ValueError, match=r"binned\(bin=...\)"):
        recorded(irregular).binned(bin)


def test_no_steps_give_no_bins():
    assert recorded(torch.zeros(0, 4, dtype=torch.bool)).binned(5.0).counts.shape == (0,)


def test_population_rate(irregular):
    times, rate = analyze.population_rate(recorded(irregular, dt=0.5), 60.0)
    assert times.tolist() == [30.0, 90.0, 150.0, 190.0]
    expected = irregular[360:].double().mean((0, -1)) / 0.5e-3  # the last bin holds 40 steps
    torch.testing.assert_close(rate[-1], expected)
    weights = torch.tensor([60.0, 60.0, 60.0, 20.0], dtype=torch.float64) / 200.0
    torch.testing.assert_close(
        (rate * weights[:, None, None]).sum(0), analyze.firing_rates(recorded(irregular, dt=0.5)).mean(-1)
    )


def test_firing_rates(clock):
    rates = analyze.firing_rates(recorded(clock, dt=0.1))
    torch.testing.assert_close(rates, torch.tensor([1000.0, 500.0, 1000.0 / 3.0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"firing_rates\(spikes=...\).*at least one step"):
        analyze.firing_rates(recorded(clock[:0]))


def test_intervals_equal_a_loop_over_trains(irregular):
    interval, train = analyze.intervals(recorded(irregular, dt=0.5))
    flat = irregular.reshape(400, -1).numpy()
    expected = [(0.5 * gap, k) for k in range(flat.shape[1]) for gap in np.diff(np.flatnonzero(flat[:, k]))]
    assert list(zip(interval.tolist(), train.tolist(), strict=True)) == expected


def test_interval_cv_equals_numpy(irregular):
    irregular[:, 0, 0, 0] = False
    irregular[2:, 0, 0, 1] = False
    irregular[:2, 0, 0, 1] = True
    cv = analyze.interval_cv(recorded(irregular))
    assert cv.shape == (2, 3, 5)
    assert cv[0, 0, :2].isnan().all()  # no spike, and one interval
    gaps = np.diff(np.flatnonzero(irregular[:, 1, 2, 3].numpy()))
    assert cv[1, 2, 3].item() == pytest.approx(gaps.std(ddof=1) / gaps.mean(), rel=1e-12)
    assert cv.isnan().sum() == 2


def test_fano_factor_equals_numpy(irregular):
    irregular[:, 0, 0, 0] = False
    fano = analyze.fano_factor(recorded(irregular, dt=0.5, start=7), 30.0)
    counts = irregular[:360].reshape(6, 60, 2, 3, 5).sum(1).numpy()  # the last 40 steps fill no window
    with np.errstate(invalid="ignore"):
        expected = counts.var(0, ddof=1) / counts.mean(0)
    assert math.isnan(fano[0, 0, 0])
    np.testing.assert_allclose(fano.numpy(), expected, rtol=1e-12)


def test_a_clock_does_not_vary(clock):
    spikes = recorded(clock)
    assert analyze.interval_cv(spikes).abs().max() < 1e-12
    assert analyze.fano_factor(spikes, 60.0).abs().max() < 1e-12
    assert sorted(set(analyze.intervals(spikes).interval.tolist())) == [10.0, 20.0, 30.0]


def test_bernoulli_process_meets_its_closed_forms():
    # A Poisson process in discrete time: geometric intervals, binomial counts, so that CV = sqrt(1 - p), Fano = 1 - p.
    p, steps, neurons = 0.02, 20_000, 200
    dense = torch.rand(steps, neurons, generator=torch.Generator().manual_seed(5)) < p
    spikes = recorded(dense)
    cv, fano = analyze.interval_cv(spikes), analyze.fano_factor(spikes, 100.0)
    rate = analyze.firing_rates(spikes)
    assert rate.mean().item() == pytest.approx(1000 * p, abs=4 * 1000 * math.sqrt(p / steps / neurons))
    assert cv.mean().item() == pytest.approx(math.sqrt(1 - p), abs=0.01)
    # The sampling error of a variance of 200 counts is about sqrt(2 / 199) for each neuron.
    assert fano.mean().item() == pytest.approx(1 - p, abs=4 * math.sqrt(2 / 199 / neurons))
    assert fano.std().item() == pytest.approx(math.sqrt(2 / 199), rel=0.25)


def test_a_simulated_poisson_population_meets_them_too():
    sources = stimuli.Poisson(100, rate=20.0)
    sol = simulate(sources, dt=1.0, duration=5000.0, batch_shape=(2,), record={"s": spikes()}, loop="reference")
    rate = analyze.firing_rates(sol["s"])
    assert rate.shape == (2, 100)
    assert rate.mean().item() == pytest.approx(20.0, abs=4 * math.sqrt(20.0 / 5.0 / 200))
    assert analyze.population_rate(sol["s"], 100.0).rate.shape == (50, 2)
    # Short trains favour short intervals, hence a bias of order 1 / (spikes in a train).
    assert analyze.interval_cv(sol["s"]).mean().item() == pytest.approx(math.sqrt(0.98), abs=0.03)
    assert analyze.fano_factor(sol["s"], 50.0).mean().item() == pytest.approx(0.98, abs=4 * math.sqrt(2 / 99 / 200))


def test_a_batch_equals_its_elements(irregular):
    spikes = recorded(irregular)
    one = spikes.of(1, 2)
    for statistic in (analyze.firing_rates, analyze.interval_cv, lambda s: analyze.fano_factor(s, 50.0)):
        torch.testing.assert_close(statistic(spikes)[1, 2], statistic(one), equal_nan=True)
    torch.testing.assert_close(
        analyze.population_rate(spikes, 50.0).rate[:, 1, 2], analyze.population_rate(one, 50.0).rate
    )


def test_silence():
    spikes = recorded(torch.zeros(100, 4, dtype=torch.bool))
    assert analyze.intervals(spikes).interval.shape == (0,)
    assert analyze.firing_rates(spikes).tolist() == [0.0] * 4
    assert analyze.interval_cv(spikes).isnan().all()
    assert analyze.fano_factor(spikes, 10.0).isnan().all()


def test_bad_input_is_named(irregular):
    spikes = recorded(irregular)
    for window in (0.0, 0.5, 201.0, float("nan")):
        with pytest.raises(ValueError, match=r"fano_factor\(window=...\)"):
            analyze.fano_factor(spikes, window)
    for name in ("firing_rates", "intervals"):
        with pytest.raises(TypeError, match=rf"{name}\(spikes=...\).*got Tensor"):
            getattr(analyze, name)(irregular)
