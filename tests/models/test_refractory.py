"""Refractoriness: whole steps, exactly, and for those variables that are held."""

from __future__ import annotations

import pytest
import torch

import bdtorch as bt
from bdtorch.neurons import LIF, AdEx, ExpIF, HodgkinHuxley, Izhikevich, Refractory, TraubMiles


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("dt", [0.1, 0.3, 1 / 3])
def test_held_for_exactly_m_steps_under_any_drive(steps: int, dt: float, loop: str) -> None:
    # Each neuron would spike in every step, so the interval between spikes is m + 1 steps, also after many thousands.
    cell = Refractory(LIF(3, v_reset=torch.tensor([-5.0, 0.0, 19.0])), steps * dt)
    sol = bt.simulate(cell, 1e6, dt=dt, duration=3000 * dt, record={"s": bt.spikes(), "v": bt.trace("v")}, loop=loop)
    want = torch.arange(1, 3001, steps + 1)
    for neuron in range(3):
        assert torch.equal(sol["s"].step[sol["s"].index == neuron], want)
    # It is reset at the end of the step in which it spikes, and stays there.
    assert (sol["v"] == cell.neuron.v_reset).all()


def test_no_period_is_no_refractoriness() -> None:
    drive = 60.0 + 50.0 * torch.sin(torch.arange(300.0))[:, None].expand(300, 2)
    plain = bt.simulate(LIF(2), drive, dt=0.5, loop="reference").out
    wrapped = bt.simulate(Refractory(LIF(2), 0.0), drive, dt=0.5, loop="reference").out
    assert plain.any() and torch.equal(plain, wrapped)


@pytest.mark.parametrize("make", [AdEx, Izhikevich, ExpIF], ids=lambda make: make.__name__)
def test_only_the_potential_is_held(make: type) -> None:
    cell = Refractory(make(1), 1.0)
    state = cell.init_state()
    raised = state.neuron._replace(v=torch.full((1,), 35.0))  # above every threshold
    state, spike = cell.step(state._replace(neuron=raised), 0.0, torch.zeros((), dtype=torch.float64), 0.1)
    assert spike.all() and state.countdown.tolist() == [10]
    drive = bt.Drive(torch.tensor(1e4), jump=torch.tensor(100.0))
    for k in range(10):
        after, spike = cell.step(state, drive, torch.zeros((), dtype=torch.float64), 0.1)
        assert torch.equal(after.neuron.v, state.neuron.v) and not spike.any() and after.countdown.tolist() == [9 - k]
        for name in set(after.neuron._fields) - {"v"}:
            assert not torch.equal(getattr(after.neuron, name), getattr(state.neuron, name))
        state = after
    after, _ = cell.step(state, 3.0, torch.zeros((), dtype=torch.float64), 0.1)
    assert not torch.equal(after.neuron.v, state.neuron.v)


@pytest.mark.parametrize("make", [HodgkinHuxley, TraubMiles], ids=lambda make: make.__name__)
def test_membranes_go_on_and_only_their_spikes_are_barred(make: type) -> None:
    drive = {"HodgkinHuxley": 20.0, "TraubMiles": 500.0}[make.__name__]
    record = {"v": bt.trace("v"), "s": bt.spikes()}
    free = bt.simulate(make(1, dtype=torch.float64), drive, dt=0.05, duration=100.0, record=record, loop="native")
    steps = free["s"].step
    interval = int(steps.diff().max())
    assert len(steps) >= 5
    # A little longer than the interval: every second spike goes; the trajectory stays.
    cell = Refractory(make(1, dtype=torch.float64), (interval + 1) * 0.05)
    barred = bt.simulate(cell, drive, dt=0.05, duration=100.0, record=record, loop="native")
    torch.testing.assert_close(barred["v"], free["v"], rtol=1e-12, atol=1e-12)
    assert torch.equal(barred["s"].step, steps[::2])


def test_surrogate_spikes_are_barred_too() -> None:
    cell = Refractory(LIF(1, surrogate=bt.surrogate.Sigmoid()), 1.0)
    drive = torch.full((40, 1), 1e4, requires_grad=True)
    out = bt.simulate(cell, drive, dt=0.5).out
    assert out[:, 0].tolist() == [1.0, 0.0, 0.0] * 13 + [1.0]
    (gradient,) = torch.autograd.grad(out.sum(), drive)
    assert gradient.isfinite().all()


def test_bad_periods() -> None:
    with pytest.raises(TypeError, match=r"`Refractory\(neuron=...\)`: expected a spiking neuron"):
        Refractory(bt.rates.WilsonCowan(1), 1.0)  # type: ignore[arg-type]
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"`Refractory\(period=...\)`: expected .*, got"):
            Refractory(LIF(1), bad)
    with pytest.raises(ValueError, match=r"`Refractory\(period=...\)`: expected a multiple of dt=0.1 ms, got 0.25 ms"):
        bt.simulate(Refractory(LIF(1), 0.25), 0.0, dt=0.1, duration=1.0)
