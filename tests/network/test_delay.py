"""Delays are exact numbers of steps."""

from __future__ import annotations

import math

import pytest
import torch

import bdtorch as bt
from bdtorch.network import Delay


def _signals(steps: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn((steps, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
@pytest.mark.parametrize("dt", [0.1, 0.3, 1 / 3])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_a_signal_comes_out_exactly_m_steps_later(steps: int, dt: float, batch: tuple[int, ...]) -> None:
    line = Delay(steps * dt)
    signals = _signals(100, (*batch, 4))
    state = line.init_state(signals[0], dt=dt)
    for k in range(100):
        before = state.ring.clone()
        after, delayed = line(state, signals[k], dt)
        assert torch.equal(delayed, signals[k - steps] if k >= steps else torch.zeros_like(delayed))
        assert torch.equal(state.ring, before)
        state = after


def test_spikes_stay_spikes() -> None:
    line = Delay(1.0)
    state = line.init_state(torch.zeros(3, dtype=torch.bool), dt=0.5)
    assert state.ring.dtype == torch.bool and state.ring.shape == (2, 3)
    state, delayed = line(state, torch.tensor([True, False, True]), 0.5)
    assert delayed.dtype == torch.bool and not delayed.any()


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("steps", [0, 1, 3, 8])
def test_a_spike_of_step_k_acts_in_step_k_plus_1_plus_m(steps: int, loop: str) -> None:
    # The source spikes in step 3 (counted from 0), and the delta synapse moves the target at the start of a step.
    net = bt.Network(
        {"source": bt.stimuli.Poisson(1), "cell": bt.neurons.LIF(1, tau=1e9, v_th=100.0)},
        {
            ("source", "cell"): bt.Projection(
                bt.connect.OneToOne(), 1.0, receptor=bt.synapses.Jump(), delay=steps * 0.1 if steps else None
            )
        },
    )
    rates = torch.zeros(16, 1)
    rates[3] = 10_000.0
    v = bt.simulate(net, {"source": rates}, dt=0.1, record={"v": bt.trace("cell.v")}, loop=loop)["v"][:, 0]
    assert (v[: 4 + steps] == 0).all() and (v[4 + steps :] > 0.99).all()


def test_gradients_cross_a_delay() -> None:
    line = Delay(0.2)
    signal = torch.ones(2, requires_grad=True)
    state = line.init_state(signal, dt=0.1)
    state, _ = line(state, 3.0 * signal, 0.1)
    for _ in range(2):
        state, delayed = line(state, torch.zeros(2), 0.1)
    (gradient,) = torch.autograd.grad(delayed.sum(), signal)
    assert gradient.tolist() == [3.0, 3.0]


def test_bad_delays() -> None:
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"`Delay\(duration=...\)`: expected a .*number.*, got"):
            Delay(bad)
        with pytest.raises(ValueError, match=r"`Projection\(delay=...\)`: expected a .*number.*, got"):
            bt.Projection(bt.connect.OneToOne(), delay=bad)
    signal = torch.zeros(2)
    with pytest.raises(ValueError, match=r"`Delay\(duration=...\)`: expected at least dt=0.5 ms, got 0.3 ms"):
        Delay(0.3).init_state(signal, dt=0.5)
    with pytest.raises(ValueError, match=r"`Delay\(duration=...\)`: expected a multiple of dt=0.2 ms, got 0.5 ms"):
        Delay(0.5).init_state(signal, dt=0.2)
    with pytest.raises(ValueError, match=r"`init_state\(dt=...\)`: expected the step in ms"):
        Delay(0.5).init_state(signal, dt=None)
    line = Delay(0.6)
    state = line.init_state(signal, dt=0.1)
    with pytest.raises(ValueError, match=r"`step\(dt=...\)`: the state was made for a delay of 6 steps"):
        line(state, signal, 0.2)
