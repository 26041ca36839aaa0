"""Network C: sparse excitation and inhibition through delta synapses with a delay.

Source: after Brunel (2000), doi:10.1023/A:1008925309027.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bdtorch as bt

DT = 0.1
"""Step, ms."""
DRIVE = 30.0
"""Constant drive of every neuron, mV."""


def build(neurons: int = 10_000, seed: int = 1) -> bt.Network:
    """The network: 80 % excitatory cells, each ordered pair connected with probability 1000 / ``neurons``.

    Args:
        neurons: Number of cells, at least 1000.
        seed: Names the wiring.
    """
    connect = bt.connect.FixedProbability(1000.0 / neurons)

    def cells(count: int) -> bt.neurons.Refractory:
        lif = bt.neurons.LIF(count, tau=20.0, v_rest=0.0, v_reset=10.0, v_th=20.0, v_init=bt.init.Uniform(0.0, 20.0))
        return bt.neurons.Refractory(lif, period=2.0)

    def project(weight: float) -> bt.Projection:
        return bt.Projection(connect, weight=weight, receptor=bt.synapses.Jump(), delay=1.5)

    excitatory = round(0.8 * neurons)
    return bt.Network(
        {"E": cells(excitatory), "I": cells(neurons - excitatory)},
        {("E", ("E", "I")): project(0.2), ("I", ("E", "I")): project(-6 * 0.2)},
        seed=seed,
    )


def initial_state(net: bt.Network, seed: int = 0) -> dict:
    """The state at t = 0."""
    return bt.initial_state(net, dt=DT, seed=seed)


def variables(state: dict) -> list[Tensor]:
    """The potential of all neurons, excitatory ones first."""
    return [torch.cat([state[name].neuron.v for name in ("E", "I")])]
