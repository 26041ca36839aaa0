"""Network A: sparse excitation and inhibition through conductances, in an irregular state of its own making.

Source: Vogels & Abbott (2005), doi:10.1523/JNEUROSCI.3508-05.2005; in the form of Brette et al. (2007), benchmark 1,
doi:10.1007/s10827-007-0038-6. Conductances are in units of the leak.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bdtorch as bt
from benchmarks import balanced

DT = 0.1
"""Step, ms."""
DRIVE = 20.0
"""Constant drive of every neuron, mV: what `bdtorch.simulate` takes as inputs."""


def build(neurons: int = 4000, seed: int = 0) -> bt.Network:
    """The network of ``neurons`` cells, with the wiring that ``seed`` names."""

    def cells(count: int) -> bt.neurons.Refractory:
        lif = bt.neurons.LIF(
            count,
            tau=20.0,
            v_rest=-60.0,
            v_reset=-60.0,
            v_th=-50.0,
            v_init=bt.init.Normal(-55.0, 2.0),
            integrator=bt.integrate.Euler(),
        )
        return bt.neurons.Refractory(lif, period=5.0)

    return balanced.build(neurons, seed, cells, excitation=0.6, inhibition=6.7)


def initial_state(net: bt.Network, seed: int = 0) -> dict:
    """The state at t = 0: what `bdtorch.simulate` starts from by itself."""
    return bt.initial_state(net, dt=DT, seed=seed)


def variables(state: dict) -> list[Tensor]:
    """v, g_e and g_i of all neurons, excitatory ones first."""
    v = torch.cat([state[name].neuron.v for name in ("E", "I")])
    return [v, *(state[name]["synapse"].g for name in (balanced.EXCITATION, balanced.INHIBITION))]
