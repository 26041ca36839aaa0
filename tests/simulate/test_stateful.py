"""The shell that keeps a state between calls."""

import pytest
import torch

import bdtorch as bt


def test_calls_equal_a_simulation():
    system = bt.neurons.Refractory(bt.neurons.LIF(4), 1.0)
    shell = bt.Stateful(system, dt=0.1, batch_shape=(2,))
    outs = torch.stack([shell(30.0) for _ in range(200)])
    sol = bt.simulate(system, 30.0, dt=0.1, duration=20.0, batch_shape=(2,), loop="reference")
    assert outs.any() and torch.equal(outs, sol.out)
    assert torch.equal(shell.state.neuron.v, sol.state.neuron.v)
    assert shell.t == pytest.approx(20.0)


def test_reset_and_detach():
    system = bt.neurons.LIF(2, tau=torch.nn.Parameter(torch.tensor(10.0)))
    shell = bt.Stateful(system, dt=0.1)
    shell(5.0)
    assert shell.state.v.requires_grad
    shell.detach()
    assert not shell.state.v.requires_grad
    shell(5.0)
    shell.state.v.sum().backward()  # the graph reaches back to `detach` alone
    shell.reset()
    assert shell.steps == 0 and torch.equal(shell.state.v, torch.zeros(2))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"`Stateful\(dt=...\)`: expected a finite number of ms above 0, got 0"):
        bt.Stateful(bt.neurons.LIF(2), dt=0)
    with pytest.raises(TypeError, match=r"`Stateful\(system=...\)`: expected a DynamicalSystem, got Linear"):
        bt.Stateful(torch.nn.Linear(1, 1), dt=0.1)
