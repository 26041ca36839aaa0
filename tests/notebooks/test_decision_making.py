"""The numbers of the script on decisions by slow reverberation."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom

from notebooks import decision_making

pytestmark = pytest.mark.slow


def test_accuracy_and_speed_follow_the_evidence_and_the_winner_outlives_it() -> None:
    result = decision_making.main()
    accuracy, times, trials = result["accuracy"], result["times"], result["trials"]
    low, high = binom.interval(0.999, trials, 0.5)
    assert low <= accuracy[0.0] * trials <= high
    assert accuracy[51.2] >= 0.9 and accuracy[25.6] >= 0.9
    assert accuracy[51.2] >= accuracy[6.4]
    assert 3.0 < result["alpha"] < 25.0
    assert times[51.2] < times[6.4] and times[51.2] < times[12.8]
    assert result["decided"][51.2] >= 0.9 and result["decided"][51.2] >= result["decided"][6.4] > 0.2

    assert all(1.0 < rate < 5.0 for rate in result["before"])
    first, second, third = result["ramp"]
    assert first < second < third < result["stimulus"][0]
    winner, loser = result["stimulus"]
    assert winner > 20.0 and loser < result["before"][1]
    winner, loser = result["delay"]
    assert winner > 8.0 and winner > 4.0 * loser

    fine, coarse, strong = result["memory"].values()  # 1 to 1.5 s after the stimulus
    assert fine[0] > 10.0 and fine[0] > 5.0 * fine[1]
    assert coarse[0] < 0.8 * fine[0]
    assert strong[0] > 30.0 and strong[1] < 2.0


def test_evidence_has_its_mean_and_deviation_within_the_stimulus_only() -> None:
    rates = decision_making.evidence(torch.tensor([25.6, -25.6]).repeat(500), seed=3)
    on, off = round(decision_making.ON / decision_making.DT), round(decision_making.OFF / decision_making.DT)
    assert not rates[:, :on].any() and not rates[:, off:].any()
    shown = rates[:, on:off].unflatten(1, (20, -1))
    assert torch.equal(shown, shown[:, :, :1].expand_as(shown))  # 50 ms each
    pieces = shown[:, :, 0]
    torch.testing.assert_close(pieces[0::2].mean((0, 1)), torch.tensor([50.24, 29.76]), rtol=0.0, atol=0.2)
    torch.testing.assert_close(pieces[1::2].mean((0, 1)), torch.tensor([29.76, 50.24]), rtol=0.0, atol=0.2)
    assert pieces[0::2].std((0, 1)) == pytest.approx([4.0, 4.0], abs=0.15)


def test_background_is_poisson() -> None:
    background = decision_making.Background((2000, 2000, 4000), 2400.0)
    state = background.init_state(seed=5)
    inputs, t, counts = torch.tensor([400.0, 0.0]), torch.zeros(()), []
    for _ in range(100):
        state, out = background.step(state, inputs, t, 0.1)
        counts.append(out)
    parts = torch.stack(counts).split(background.sizes, -1)
    for part, mean in zip(parts, (0.28, 0.24, 0.24), strict=True):
        error = (mean / part.numel()) ** 0.5
        assert float(part.double().mean()) == pytest.approx(mean, abs=5.0 * error)
        assert float(part.double().var()) == pytest.approx(mean, rel=0.02)  # a Poisson count's variance is its mean


def test_times_choices_and_fit_of_made_up_rates() -> None:
    bins = round(decision_making.END / decision_making.BIN)
    t = decision_making.BIN * (torch.arange(bins) + 0.5)  # middles of the bins
    ramp = ((t - decision_making.ON) * 0.05).clamp(min=0.0)  # Hz: 10 Hz after 200 ms
    flat = torch.full_like(t, 2.0)
    right, wrong = torch.stack([2.0 + ramp, flat], -1), torch.stack([flat, 2.0 + ramp], -1)
    never = torch.stack([flat + 1.0, flat], -1)
    found = decision_making.decisions(torch.stack([right, wrong, never])[None])
    assert found.correct.tolist() == [[True, False, True]]
    # The mean of the last 50 ms lags by 25 ms.
    assert found.times[0, :2].tolist() == [225.0, 225.0] and bool(found.times[0, 2].isnan())
    assert (found.rates[..., 0] >= found.rates[..., 1]).all()

    coherences = (0.0, 3.2, 6.4, 12.8, 25.6, 51.2)
    p = decision_making.weibull(torch.tensor(coherences, dtype=torch.float64), 9.0, 1.4)
    correct = torch.arange(20_000) < (20_000 * p).round()[:, None]
    assert decision_making.fitted(coherences, correct) == pytest.approx((9.0, 1.4), rel=1e-3)
