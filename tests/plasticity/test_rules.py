"""Every rule against sums over pairs and triplets of spikes, or a closed form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from bdtorch.plasticity import Clopath, Events, PairSTDP, RewardModulatedSTDP, TripletSTDP, VogelsSprekeler
from tests.plasticity.spike_trains import DT, connectivity, on_matrix, run, trains

INF = math.inf
F64 = torch.float64
LAYOUTS = ["sparse", "pre", "post", "identity"]
N_PRE, N_POST, STEPS = 6, 5, 160


def _sizes(layout: str) -> tuple[int, int]:
    return (N_PRE, N_PRE) if layout == "identity" else (N_PRE, N_POST)


def _changes(rule: object, layout: str, oracle: object) -> None:
    """Compare the change of every weight with that of an oracle over the times of its two trains."""
    n_pre, n_post = _sizes(layout)
    connect = connectivity(layout, n_pre, n_post)
    pre, post = trains(n_pre, STEPS, 0.06, 1), trains(n_post, STEPS, 0.06, 2)
    weight = torch.zeros(connect.weight_shape, dtype=F64)
    got = on_matrix(connect, run(rule, connect, weight, pre, post) + 1.0) - 1.0
    times = torch.arange(STEPS, dtype=F64) * DT
    coincident = 0
    for i in range(n_pre):
        for j in range(n_post):
            if not got[i, j].isnan():
                coincident += int((pre[:, i] & post[:, j]).sum())
                want = oracle(times[pre[:, i]].tolist(), times[post[:, j]].tolist())
                assert got[i, j] == pytest.approx(want, rel=1e-9, abs=1e-11)
    assert coincident > 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_all_to_all(layout: str) -> None:
    rule = PairSTDP(0.3, 0.4, tau_plus=9.0, tau_minus=15.0, w_min=-INF, dtype=F64)

    def oracle(pre: list[float], post: list[float]) -> float:
        lags = [b - a for a in pre for b in post]
        return sum(0.3 * math.exp(-lag / 9.0) if lag >= 0 else -0.4 * math.exp(lag / 15.0) for lag in lags)

    _changes(rule, layout, oracle)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nearest_pairs(layout: str) -> None:
    rule = PairSTDP(0.3, 0.4, tau_plus=9.0, tau_minus=15.0, w_min=-INF, nearest=True, dtype=F64)

    def oracle(pre: list[float], post: list[float]) -> float:
        change = 0.0
        for b in post:
            before = [a for a in pre if a <= b]
            change += 0.3 * math.exp(-(b - max(before)) / 9.0) if before else 0.0
        for a in pre:
            before = [b for b in post if b < a]
            change -= 0.4 * math.exp(-(a - max(before)) / 15.0) if before else 0.0
        return change

    _changes(rule, layout, oracle)


@pytest.mark.parametrize("lag", [-30.0, -4.5, -0.5, 0.0, 0.5, 12.0])
def test_one_pair_gives_the_window(lag: float) -> None:
    pre, post = torch.zeros(100, 1, dtype=torch.bool), torch.zeros(100, 1, dtype=torch.bool)
    pre[70 - round(lag / DT) if lag >= 0 else 70] = True
    post[70 if lag >= 0 else 70 + round(lag / DT)] = True
    weight = run(
        PairSTDP(0.01, 0.0105, w_min=-1.0, dtype=F64),
        connectivity("pre", 1, 1),
        torch.zeros(1, 1, dtype=F64),
        pre,
        post,
    )
    want = 0.01 * math.exp(-lag / 20.0) if lag >= 0 else -0.0105 * math.exp(lag / 20.0)
    assert weight.item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("soft", [False, True])
def test_bounds(layout: str, soft: bool) -> None:
    """One event after the other, on matrices, each change cut or scaled on its own."""
    n_pre, n_post = _sizes(layout)
    connect = connectivity(layout, n_pre, n_post)
    pre, post = trains(n_pre, STEPS, 0.2, 3), trains(n_post, STEPS, 0.2, 4)
    start = torch.linspace(0.1, 0.9, connect.synapses, dtype=F64).reshape(connect.weight_shape)
    rule = PairSTDP(0.5, 0.3, tau_plus=5.0, tau_minus=7.0, w_min=0.1, w_max=0.9, soft=soft, dtype=F64)
    got = on_matrix(connect, run(rule, connect, start, pre, post))
    w = on_matrix(connect, start)
    x, y = torch.zeros(n_pre, dtype=F64), torch.zeros(n_post, dtype=F64)
    for k in range(STEPS):
        for i in pre[k].nonzero().flatten():
            w[i] = (w[i] - 0.3 * y * (w[i] - 0.1 if soft else 1.0)).clamp(0.1, 0.9)
        x = x + pre[k]
        for j in post[k].nonzero().flatten():
            w[:, j] = (w[:, j] + 0.5 * x * (0.9 - w[:, j] if soft else 1.0)).clamp(0.1, 0.9)
        y = y + post[k]
        x, y = x * math.exp(-DT / 5.0), y * math.exp(-DT / 7.0)
    torch.testing.assert_close(got, w, rtol=1e-12, atol=1e-14, equal_nan=True)
    assert float((got - on_matrix(connect, start)).nan_to_num().abs().max()) > 0.1


TRIPLET = {"a2_plus": 0.1, "a3_plus": 0.2, "a2_minus": 0.3, "a3_minus": 0.15}
TAUS = {"tau_plus": 6.0, "tau_x": 20.0, "tau_minus": 9.0, "tau_y": 25.0}


def _trace(times: list[float], t: float, tau: float, *, now: bool = False, nearest: bool = False) -> float:
    """The trace at ``t`` of the spikes before it, or up to it."""
    past = [s for s in times if s < t or (now and s == t)]
    past = past[-1:] if nearest else past
    return sum(math.exp(-(t - s) / tau) for s in past)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nearest", [False, True])
def test_triplets(layout: str, nearest: bool) -> None:
    rule = TripletSTDP(**TRIPLET, **TAUS, w_min=-INF, nearest=nearest, dtype=F64)

    def oracle(pre: list[float], post: list[float]) -> float:
        change = 0.0
        for t in pre:
            o1 = _trace(post, t, TAUS["tau_minus"], nearest=nearest)
            change -= o1 * (0.3 + 0.15 * _trace(pre, t, TAUS["tau_x"], nearest=nearest))
        for t in post:
            r1 = _trace(pre, t, TAUS["tau_plus"], now=True, nearest=nearest)
            change += r1 * (0.1 + 0.2 * _trace(post, t, TAUS["tau_y"], nearest=nearest))
        return change

    _changes(rule, layout, oracle)


def _pairing(frequency: float, lag: float, pairs: int = 20) -> float:
    """The mean change by one of several pairs with the default constants, in steps of 5 ms."""
    period, shift = round(200.0 / frequency), round(lag / 5.0)
    pre, post = (torch.zeros((pairs + 1) * period, 1, dtype=torch.bool) for _ in range(2))
    pre[2 : 2 + pairs * period : period] = True
    post[2 + shift : 2 + shift + pairs * period : period] = True
    rule = TripletSTDP(w_min=-INF, dtype=F64)
    change = run(rule, connectivity("pre", 1, 1), torch.zeros(1, 1, dtype=F64), pre, post, dt=5.0)
    return change.item() / pairs


def test_pairing_depends_on_frequency() -> None:
    """The finding of Sjostrom, Turrigiano & Nelson (2001) that the rule was made for: timing decides at low frequency,
    and at 50 Hz both orders potentiate. Pairs far apart have a closed form.
    """
    assert _pairing(1.0, -10.0) == pytest.approx(-7.1e-3 * math.exp(-10.0 / 33.7), rel=1e-3)
    assert 0.0 < _pairing(1.0, 10.0) < 1e-5
    assert _pairing(50.0, 10.0) > _pairing(50.0, -10.0) > 2e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inhibitory_pairs(layout: str) -> None:
    rule = VogelsSprekeler(0.2, rate=8.0, tau=11.0, w_min=-INF, dtype=F64)

    def oracle(pre: list[float], post: list[float]) -> float:
        pairs = sum(math.exp(-abs(a - b) / 11.0) for a in pre for b in post)
        return 0.2 * (pairs - 2.0 * 0.008 * 11.0 * len(pre))

    _changes(rule, layout, oracle)


def test_inhibition_balances_at_the_target_rate() -> None:
    """Independent Poisson trains: the mean change is eta * r_pre * 2 tau * (r_post - rho_0) per ms, so 0 at the target."""
    steps, n = 12_000, 60
    connect = connectivity("pre", n, 2)
    pre = trains(n, steps, 0.005, 7)
    post = torch.stack([trains(1, steps, p, s)[:, 0] for p, s in ((0.01, 8), (0.02, 9))], 1)
    rule = VogelsSprekeler(1.0, rate=20.0, tau=20.0, w_min=-INF, dtype=F64)
    change = run(rule, connect, torch.zeros(n, 2, dtype=F64), pre, post).mean(0) / (steps * DT)
    rates = post.double().mean(0) / DT
    want = pre.double().mean() / DT * 2 * 20.0 * (rates - 0.02)
    torch.testing.assert_close(change, want, rtol=0.08, atol=0.0004)


def _clopath(rule: Clopath, pre: Tensor, v: Tensor, dt: float) -> float:
    connect = connectivity("pre", 1, 1)
    post = torch.zeros_like(pre)
    return run(rule, connect, torch.zeros(1, 1, dtype=F64), pre, post, dt=dt, v=v).item()


def test_voltage_rule_depresses_by_the_filtered_potential() -> None:
    """A potential stepped to -50 mV: its filter is known, and so is the depression by a spike 8 ms later."""
    pre = torch.zeros(40, 1, dtype=torch.bool)
    pre[16] = True
    got = _clopath(Clopath(w_min=-INF, dtype=F64), pre, torch.full((40, 1), -50.0, dtype=F64), DT)
    filtered = -50.0 + (-70.6 + 50.0) * math.exp(-8.0 / 10.0)
    assert got == pytest.approx(-14e-5 * (filtered + 70.6), rel=1e-12)


def test_voltage_rule_potentiates_by_the_integral() -> None:
    """A spike, then a depolarisation to 20 mV: potentiation is an integral, met with order one in the step."""
    rule = Clopath(w_min=-INF, a_ltd=0.0, dtype=F64)

    def integrand(t: float) -> float:
        return 8e-5 * math.exp(-t / 15.0) / 15.0 * 65.3 * (90.6 * (1.0 - math.exp(-t / 7.0)))

    want, _ = quad(integrand, 0.0, 20.0)
    errors = []
    for dt in (0.1, 0.05, 0.025):
        steps = round(20.0 / dt)
        pre = torch.zeros(steps, 1, dtype=torch.bool)
        pre[0] = True
        errors.append(abs(_clopath(rule, pre, torch.full((steps, 1), 20.0, dtype=F64), dt) - want))
    assert errors[0] < 0.02 * want
    for coarse, fine in itertools.pairwise(errors):
        assert 0.85 < math.log2(coarse / fine) < 1.15


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reward_turns_tags_into_changes(layout: str) -> None:
    """Pre then post 5 ms later; reward 30 ms after: the change is the tag's integral against the dopamine's decay."""
    n_pre, n_post = _sizes(layout)
    connect = connectivity(layout, n_pre, n_post)
    pre, post = torch.zeros(400, n_pre, dtype=torch.bool), torch.zeros(400, n_post, dtype=torch.bool)
    pre[10], post[20] = True, True
    third = torch.zeros(400, dtype=F64)
    third[80] = 0.5
    pair = PairSTDP(1.0, 1.0, w_min=-INF, dtype=F64)
    rule = RewardModulatedSTDP(pair, tau_c=50.0, tau_d=25.0, w_min=-INF, dtype=F64)
    got = run(rule, connect, torch.zeros(connect.weight_shape, dtype=F64), pre, post, third=third)
    tag = math.exp(-5.0 / 20.0) * math.exp(-30.0 / 50.0)
    rate = 1 / 50.0 + 1 / 25.0
    want = 0.5 * tag * (1.0 - math.exp(-rate * 320 * DT)) / rate
    torch.testing.assert_close(got, torch.full_like(got, want), rtol=1e-10, atol=0.0)


def test_reward_as_a_level() -> None:
    connect = connectivity("pre", 2, 3)
    pre, post = torch.zeros(100, 2, dtype=torch.bool), torch.zeros(100, 3, dtype=torch.bool)
    pre[0], post[0] = True, True
    level = torch.where(torch.arange(100) >= 40, -2.0, 0.0).double()
    rule = RewardModulatedSTDP(PairSTDP(1.0, 1.0, w_min=-INF, dtype=F64), tau_c=30.0, tau_d=None, w_min=-INF, dtype=F64)
    got = run(rule, connect, torch.zeros(2, 3, dtype=F64), pre, post, third=level)
    want = -2.0 * 30.0 * (math.exp(-20.0 / 30.0) - math.exp(-50.0 / 30.0))
    torch.testing.assert_close(got, torch.full_like(got, want), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_is_its_samples(layout: str) -> None:
    n_pre, n_post = _sizes(layout)
    connect = connectivity(layout, n_pre, n_post)
    pre = torch.stack([trains(n_pre, 60, 0.2, s) for s in (1, 2)], 1)
    post = torch.stack([trains(n_post, 60, 0.2, s) for s in (3, 4)], 1)
    third = torch.rand(60, 2, dtype=F64, generator=torch.Generator().manual_seed(6))
    weight = torch.linspace(0.0, 1.0, 2 * connect.synapses, dtype=F64).reshape(2, *connect.weight_shape)
    pair = PairSTDP(0.1, 0.1, w_min=-INF, dtype=F64)
    for rule in (PairSTDP(0.1, 0.12, w_max=0.8, dtype=F64), RewardModulatedSTDP(pair, w_max=0.8, dtype=F64)):
        batch = run(rule, connect, weight, pre, post, third=third)
        for b in range(2):
            assert torch.equal(batch[b], run(rule, connect, weight[b], pre[:, b], post[:, b], third=third[:, b]))


def test_bad_constants_are_named() -> None:
    with pytest.raises(ValueError, match=r"`PairSTDP\(tau_plus=...\)`: expected a finite number above 0, got 0.0"):
        PairSTDP(0.1, 0.1, tau_plus=0.0)
    with pytest.raises(
        ValueError, match=r"`PairSTDP\(w_min=..., w_max=...\)`: expected w_min < w_max, got 1.0 and 0.5"
    ):
        PairSTDP(0.1, 0.1, w_min=1.0, w_max=0.5)
    with pytest.raises(ValueError, match=r"`PairSTDP\(soft=True\)`: expected finite w_min and w_max, got 0.0 and inf"):
        PairSTDP(0.1, 0.1, soft=True)
    with pytest.raises(ValueError, match="expected a rule with w_min=-inf and w_max=inf"):
        RewardModulatedSTDP(PairSTDP(0.1, 0.1))
    with pytest.raises(TypeError, match=r"`RewardModulatedSTDP\(rule=...\)`: expected a Plasticity object, got 3"):
        RewardModulatedSTDP(3)  # type: ignore[arg-type]
    connect, flags, rule = connectivity("pre", 1, 1), torch.zeros(1, dtype=torch.bool), Clopath()
    with pytest.raises(ValueError, match="`Clopath`: expected targets with a potential"):
        rule.step(rule.init_state(connect), torch.zeros(1, 1), connect, Events(flags, flags), torch.tensor(0.0), 0.1)
