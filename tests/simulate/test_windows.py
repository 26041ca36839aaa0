"""Windows of a simulation that is made ready once."""

from __future__ import annotations

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate import Windows


@pytest.mark.parametrize("loop", ["reference", "native", "auto"])
def test_windows_are_the_whole_simulation_to_the_bit(loop: str) -> None:
    cell = bt.neurons.Refractory(bt.neurons.LIF(5, tau=7.0, v_th=1.0, v_reset=0.0), 2.0)
    system = bt.Recurrent(cell, 3, w_in=bt.init.Normal(2.0, 1.0), seed=1)
    x = torch.rand(50, 2, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = bt.simulate(system, x, dt=1.0, seed=4, loop=loop)
        state = bt.initial_state(system, (2,), dt=1.0, seed=4)
        run = Windows(system, x[:1], dt=1.0, state=state, loop=loop)
        outs = []
        for start, stop in ((0, 7), (7, 8), (8, 50)):
            sol = run(state, x[start:stop], start)
            state = sol.state
            outs.append(sol.out)
    assert run.loop == whole.loop
    assert sol.t_end == 50.0
    assert whole.out.sum() > 10
    assert torch.equal(torch.cat(outs), whole.out)
    for one, other in zip(*(torch.utils._pytree.tree_leaves(s) for s in (state, whole.state)), strict=True):
        assert torch.equal(one, other)


def test_noise_and_time_go_on_from_window_to_window() -> None:
    system = bt.stimuli.OrnsteinUhlenbeck(4, tau=5.0)
    state = bt.initial_state(system, (), dt=0.5, seed=2)
    whole = bt.simulate(system, lambda t: t * 0.0, dt=0.5, duration=20.0, state=state)
    x = torch.zeros(40)
    run = Windows(system, x[:1], dt=0.5, state=state)
    first = run(state, x[:15])
    second = run(first.state, x[15:], 15)
    assert torch.equal(torch.cat([first.out, second.out]), whole.out)


def test_a_state_that_is_no_longer_finite_is_named() -> None:
    system = bt.rates.LeakyRate(2, tau=5.0)
    state = bt.initial_state(system, (), dt=1.0)
    x = torch.zeros(6, 2)
    x[4, 1] = float("inf")
    run = Windows(system, x[:1], dt=1.0, state=state)
    first = run(state, x[:3])
    with pytest.raises(FloatingPointError, match="of element 1 became inf at t = 5 ms"):
        run(first.state, x[3:], 3)
