"""Network A: sparse excitation and inhibition through conductances, in an irregular state of its own making.

Source: Vogels & Abbott (2005), doi:10.1523/JNEUROSCI.3508-05.2005; in the form of Brette et al. (2007), benchmark 1,
doi:10.1007/s10827-007-0038-6. Conductances are in units of the leak.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bdtorch as bt

DT = 0.1
"""Step, ms."""
DRIVE = 20.0
"""Constant drive of every neuron, mV: what `bdtorch.simulate` takes as inputs."""


def build(neurons: int = 4000, seed: int = 0) -> bt.Network:
    """The network: 80 % excitatory cells, each ordered pair connected with probability 80 / ``neurons``.

    Args:
        neurons: Number of cells, at least 80.
        seed: Names the wiring.
    """
    connect = bt.connect.FixedProbability(80.0 / neurons)

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

    def project(weight: float, tau: float, e_rev: float) -> bt.Projection:
        synapse, receptor = bt.synapses.Exponential(tau), bt.synapses.Conductance(e_rev)
        return bt.Projection(connect, weight=weight, synapse=synapse, receptor=receptor)

    excitatory = round(0.8 * neurons)
    return bt.Network(
        {"E": cells(excitatory), "I": cells(neurons - excitatory)},
        {
            ("E", ("E", "I")): project(weight=0.6, tau=5.0, e_rev=0.0),
            ("I", ("E", "I")): project(weight=6.7, tau=10.0, e_rev=-80.0),
        },
        seed=seed,
    )


def initial_state(net: bt.Network, seed: int = 0) -> dict:
    """The state at t = 0: what `bdtorch.simulate` starts from by itself."""
    return bt.initial_state(net, dt=DT, seed=seed)


def variables(state: dict) -> list[Tensor]:
    """v, g_e and g_i of all neurons, excitatory ones first."""
    v = torch.cat([state[name].neuron.v for name in ("E", "I")])
    return [v, state["E->E+I"]["synapse"].g, state["I->E+I"]["synapse"].g]
