"""Online rules: recursive least squares is ridge regression, LMS is its formula, FORCE learns to run on its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.train import LMS, RLS, Force, FullForce, OnlineReadout, OnlineRule, Ridge, fit_online


def _samples(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(80, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    return x, x @ weight + 0.1 * torch.randn(80, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("loop", ["reference", "native", "auto"])
def test_recursive_least_squares_is_ridge_regression_after_every_sample(loop: str) -> None:
    x, y = _samples()
    for count in (1, 4, 80):
        ridge = Ridge(0.3, intercept=False)
        ridge.add(x[:count], y[:count])
        fit = fit_online(x[:count], y[:count], RLS(0.3), bias=False, loop=loop)
        torch.testing.assert_close(fit.readout.weight, ridge.solve().weight, rtol=1e-9, atol=1e-11)
    # A prediction is made before its sample is learnt: that of the ridge on all samples before.
    ridge = Ridge(0.3, intercept=False)
    ridge.add(x[:79], y[:79])
    torch.testing.assert_close(fit.predictions[79], ridge.solve()(x[79]).detach(), rtol=1e-9, atol=1e-11)


def test_forgetting_weighs_samples_exponentially() -> None:
    x, y = _samples()
    keep, alpha = 0.95, 0.2
    decay = keep ** torch.arange(79, -1, -1, dtype=torch.float64)
    gram = (x * decay[:, None]).mT @ x + alpha * keep**80 * torch.eye(6, dtype=torch.float64)
    want = torch.linalg.solve(gram, (x * decay[:, None]).mT @ y)
    fit = fit_online(x, y, RLS(alpha, forgetting=keep), bias=False)
    torch.testing.assert_close(fit.readout.weight.mT, want, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("samples", "features"), [(1, 7), (64, 7), (65, 7), (200, 7), (170, 650)])
def test_blocks_of_samples_are_learnt_as_if_one_by_one(samples: int, features: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(samples, features, generator=generator, dtype=torch.float64)
    y = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    blocks, steps = (fit_online(x, y, RLS(0.3), bias=bias, loop=loop) for loop in ("auto", "reference"))
    torch.testing.assert_close(blocks.predictions, steps.predictions, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(blocks.readout.weight, steps.readout.weight, rtol=1e-9, atol=1e-11)


def test_rounding_that_spoils_recursive_least_squares_is_said() -> None:
    x = torch.ones(300, 40) + 1e-4 * torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    with pytest.raises(FloatingPointError, match=r"double precision|diverged"):
        fit_online(x, x[:, :1], RLS(1e-9))


def test_a_rule_that_diverges_is_named() -> None:
    x, y = _samples()
    with pytest.raises(FloatingPointError, match="`fit_online`: LMS diverged; nothing was learnt"):
        fit_online(100.0 * x.repeat(5, 1), y.repeat(5, 1), LMS(1.0))


@pytest.mark.parametrize("normalised", [False, True])
def test_lms_is_its_formula(normalised: bool) -> None:
    x, y = _samples()
    fit = fit_online(x, y, LMS(0.05, normalised=normalised), bias=True)
    weight = torch.zeros(7, 2, dtype=torch.float64)
    for row, target in zip(torch.cat([x, torch.ones(80, 1, dtype=torch.float64)], 1), y, strict=True):
        scale = float(row @ row) + 1e-12 if normalised else 1.0
        weight -= 0.05 / scale * torch.outer(row, row @ weight - target)
    torch.testing.assert_close(fit.readout.weight.mT, weight[:6], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fit.readout.bias, weight[6], rtol=1e-10, atol=1e-12)


def test_a_users_rule_takes_two_functions() -> None:
    class Signed(OnlineRule):
        def init_state(self, like: Tensor) -> Any:
            return {"seen": torch.zeros(like.shape[:-1], dtype=like.dtype)}

        def update(self, state: Any, x: Tensor, error: Tensor) -> tuple[Any, Tensor]:
            step = 0.1 / torch.sqrt(1.0 + state["seen"])
            change = -step[..., None, None] * x.unsqueeze(-2) * torch.sign(error).unsqueeze(-1)
            return {"seen": state["seen"] + 1.0}, change

    x, y = _samples()
    fits = [
        fit_online(x.repeat(5, 1), y.repeat(5, 1), Signed(), bias=False, loop=loop) for loop in ("reference", "native")
    ]
    torch.testing.assert_close(fits[0].readout.weight, fits[1].readout.weight)
    assert (fits[0].readout(x) - y).abs().mean() < 0.2 * y.abs().mean()


def test_a_batch_learns_each_readout_by_itself() -> None:
    data = [_samples(seed) for seed in (0, 1, 2)]
    system = OnlineReadout(6, 2, RLS(0.5))
    x, y = (torch.stack(parts, 1) for parts in zip(*data, strict=True))
    sol = bt.simulate(system, (x, y), dt=1.0)
    for number, (one_x, one_y) in enumerate(data):
        single = fit_online(one_x, one_y, RLS(0.5), bias=False)
        torch.testing.assert_close(sol.state.weight[number], single.readout.weight, rtol=1e-9, atol=1e-11)


def _wave(first: int, count: int) -> Tensor:
    t = torch.arange(first, first + count, dtype=torch.float64)
    return ((torch.sin(2 * math.pi * t / 300) + 0.5 * torch.sin(4 * math.pi * t / 300)) / 1.5)[:, None]


@pytest.mark.parametrize("kind", [Force, FullForce])
def test_force_learns_a_wave_and_then_runs_on_its_own(kind: type[Force]) -> None:
    cell = bt.rates.LeakyRate(200, tau=10.0, x_init=bt.init.Normal(0.0, 0.5), dtype=torch.float64)
    net = kind(cell, 1, every=2, seed=1)
    sol = bt.simulate(net, {"target": _wave(0, 9000)}, dt=1.0)
    assert (sol.out - _wave(0, 9000))[-300:].abs().mean() < 0.04
    free = bt.simulate(net, None, dt=1.0, duration=300.0, state=sol.state, t0=sol.t_end)
    assert (free.out - _wave(9000, 300)).abs().mean() < 0.1
    # Without learning the weights rest.
    assert torch.equal(free.state.readout.weight, sol.state.readout.weight)
    untrained = bt.simulate(net, None, dt=1.0, duration=300.0)
    assert (untrained.out - _wave(9000, 300)).abs().mean() > 0.3


@pytest.mark.parametrize("kind", [Force, FullForce])
def test_force_in_a_batch_with_inputs_equals_singles_and_the_reference_loop(kind: type[Force]) -> None:
    cell = bt.rates.LeakyRate(12, tau=10.0, x_init=bt.init.Normal(0.0, 0.5), dtype=torch.float64)
    net = kind(cell, 2, n_in=1, every=3, seed=1)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(40, 3, 1, generator=generator, dtype=torch.float64)
    target = torch.randn(40, 3, 2, generator=generator, dtype=torch.float64)
    state = bt.initial_state(net, (3,), dt=1.0, seed=4)
    batch = bt.simulate(net, {"input": u, "target": target}, dt=1.0, state=state, loop="native")
    reference = bt.simulate(net, {"input": u, "target": target}, dt=1.0, state=state, loop="reference")
    torch.testing.assert_close(batch.out, reference.out, rtol=1e-9, atol=1e-11)
    for number in range(3):
        one = torch.utils._pytree.tree_map(lambda leaf, n=number: leaf[n], state)
        single = bt.simulate(net, {"input": u[:, number], "target": target[:, number]}, dt=1.0, state=one)
        torch.testing.assert_close(batch.out[:, number], single.out, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [Force, FullForce])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"target": torch.zeros(9, 2)}, r"`inputs\['target'\]`: expected \(\*batch, n_out=1\), got \(2,\)"),
        ({"target": torch.zeros(9)}, r"`inputs\['target'\]`: expected \(\*batch, n_out=1\), got \(\)"),
        ({"input": torch.zeros(9, 3)}, r"`inputs\['input'\]`: expected \(\*batch, n_in=2\), got \(3,\)"),
        ({"input": torch.zeros(8, 2)}, r"expected equal leading axes time, got 9 and 8"),
        (torch.zeros(9, 1), r"`inputs`: expected a dict of 'input' and 'target', got Tensor"),
    ],
)
def test_wrong_targets_and_inputs_of_force_are_named(kind: type[Force], inputs: Any, message: str) -> None:
    net = kind(bt.rates.LeakyRate(5), n_in=2)
    good = {"target": torch.zeros(9, 1), "input": torch.zeros(9, 2)}
    bt.simulate(net, good, dt=1.0, loop="reference")
    with pytest.raises(ValueError, match=message):
        bt.simulate(net, {**good, **inputs} if isinstance(inputs, dict) else inputs, dt=1.0, loop="reference")


def test_bad_arguments_are_named() -> None:
    cell = bt.rates.LeakyRate(5)
    for make, message in (
        (lambda: RLS(0.0), r"`RLS\(alpha=...\)`: expected a finite number above 0, got 0.0"),
        (lambda: RLS(forgetting=1.5), r"`RLS\(forgetting=...\)`: expected a number in \(0, 1\], got 1.5"),
        (lambda: LMS(-1.0), r"`LMS\(rate=...\)`: expected a finite number above 0, got -1.0"),
        (lambda: Force(cell, gain=0.0), r"`Force\(gain=...\)`: expected a finite number above 0, got 0.0"),
        (lambda: Force(cell, n_in=-1), r"`Force\(n_in=...\)`: expected a whole number of at least 0, got -1"),
        (lambda: Force(cell, every=0), r"`Force\(every=...\)`: expected a positive integer"),
        (lambda: Force(cell, w_feedback=torch.zeros(2, 5)), r"`Force.feedback\(weight=...\)`: expected one weight per"),
        (
            lambda: bt.simulate(Force(cell), {"targets": 0.0}, dt=1.0, duration=3.0),
            r"expected 'input' and 'target', got",
        ),
        (
            lambda: bt.simulate(Force(cell, n_in=2), None, dt=1.0, duration=3.0),
            r"`inputs\['input'\]`: expected 2 inputs",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    x, y = _samples()
    system = OnlineReadout(6, 2, LMS())
    for values, message in (
        ((x[:, :5], y), r"`OnlineReadout\(x\)`: expected n_in=6 on the last axis, got \(5,\)"),
        ((x, y[:, :1]), r"`OnlineReadout\(target\)`: expected n_out=2 on the last axis, got \(1,\)"),
        ((x, y[:, 0]), r"`OnlineReadout\(target\)`: expected n_out=2 on the last axis, got \(\)"),
    ):
        with pytest.raises(ValueError, match=message):
            bt.simulate(system, values, dt=1.0, batch_shape=())
    with pytest.raises(TypeError, match=r"`OnlineReadout\(rule=...\)`: expected a rule such as"):
        OnlineReadout(2, 1, "rls")  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"`Force\(rule=...\)`: expected a rule such as bdtorch.train.RLS\(\), got 'rls'"
    ):
        Force(cell, rule="rls")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`fit_online\(rule=...\)`: expected a rule such as"):
        fit_online(x, y, "rls")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`fit_online\(x=...\)`: expected at least one sample, got shape \(0, 6\)"):
        fit_online(x[:0], y[:0], RLS())
    with pytest.raises(ValueError, match=r"`fit_online\(y=...\)`: expected shape \(80,\) or \(80, targets\)"):
        fit_online(x, y[:79], RLS())
    with pytest.raises(TypeError, match=r"`Force\(cell=...\)`: expected a population with one axis"):
        Force(bt.rates.LeakyRate((2, 3)))


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("forgetting", [1.0, 0.97])
def test_intervals_without_learning_are_passed_over_whatever_their_targets(loop: str, forgetting: float) -> None:
    x, y = _samples()
    learn = (torch.arange(80) // 7) % 2 == 0
    hidden = torch.where(learn[:, None], y, torch.nan)  # no target there
    system = OnlineReadout(6, 2, RLS(0.3, forgetting=forgetting))
    sol = bt.simulate(system, (x, hidden, learn), dt=1.0, loop=loop)
    only = fit_online(x[learn], y[learn], RLS(0.3, forgetting=forgetting), bias=False)
    torch.testing.assert_close(sol.state.weight, only.readout.weight.detach(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(sol.out[learn], only.predictions, rtol=1e-8, atol=1e-10)


def test_members_of_a_batch_may_learn_at_different_times() -> None:
    (x, y), learn = _samples(), torch.stack([torch.arange(80) < 50, torch.arange(80) % 3 == 0], 1)
    system = OnlineReadout(6, 2, RLS(0.3))
    sol = bt.simulate(system, (x[:, None].expand(80, 2, 6), y[:, None].expand(80, 2, 2), learn), dt=1.0)
    for member in range(2):
        only = fit_online(x[learn[:, member]], y[learn[:, member]], RLS(0.3), bias=False)
        torch.testing.assert_close(sol.state.weight[member], only.readout.weight.detach(), rtol=1e-9, atol=1e-11)


def test_single_precision_is_as_exact_as_ridge_regression_can_be() -> None:
    """Over thousands of samples, held against the closed form in double precision."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4000, 40, generator=generator)
    y = x @ torch.randn(40, 3, generator=generator) + 0.1 * torch.randn(4000, 3, generator=generator)
    ridge = Ridge(1.0, intercept=False)
    ridge.add(x.double(), y.double())
    want = ridge.solve().weight.detach()
    for loop in ("native", "auto"):
        found = fit_online(x, y, RLS(1.0), bias=False, loop=loop).readout.weight.detach()
        assert float((found.double() - want).norm() / want.norm()) < 2e-6
