"""Network B: the wiring of network A with Hodgkin-Huxley cells.

Source: Brette et al. (2007), benchmark 3, doi:10.1007/s10827-007-0038-6; cells after Traub & Miles (1991),
doi:10.1017/CBO9780511895401.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bdtorch as bt

DT = 0.1
"""Step, ms."""
DRIVE = 0.0
"""External current, pA."""
_EXCITATION, _INHIBITION = "E->E+I", "I->E+I"


def build(neurons: int = 4000, seed: int = 1) -> bt.Network:
    """The network: 80 % excitatory cells, each ordered pair connected with probability 80 / ``neurons``.

    Args:
        neurons: Number of cells, at least 80.
        seed: Names the wiring.
    """
    connect = bt.connect.FixedProbability(80.0 / neurons)

    def cells(count: int) -> bt.neurons.Refractory:
        return bt.neurons.Refractory(bt.neurons.TraubMiles(count, v_init=bt.init.Normal(-65.0, 5.0)), period=3.0)

    def project(weight: float, tau: float, e_rev: float) -> bt.Projection:
        synapse, receptor = bt.synapses.Exponential(tau), bt.synapses.Conductance(e_rev)
        return bt.Projection(connect, weight=weight, synapse=synapse, receptor=receptor)

    excitatory = round(0.8 * neurons)
    return bt.Network(
        {"E": cells(excitatory), "I": cells(neurons - excitatory)},
        {
            ("E", ("E", "I")): project(weight=6.0, tau=5.0, e_rev=0.0),
            ("I", ("E", "I")): project(weight=67.0, tau=10.0, e_rev=-80.0),
        },
        seed=seed,
    )


def initial_state(net: bt.Network, seed: int = 0) -> dict:
    """The state at t = 0, with random conductances: ``max(0, 10 (a xi + b))`` nS with standard normal ``xi``."""
    state = bt.initial_state(net, dt=DT, seed=seed)
    for number, (name, spread, offset) in enumerate(((_EXCITATION, 1.5, 4.0), (_INHIBITION, 12.0, 20.0))):
        g = state[name]["synapse"].g
        draw = bt.init.Normal(10.0 * offset, 10.0 * spread)
        drawn = draw(tuple(g.shape), seed=bt.ops.fold(seed, number), dtype=g.dtype, device=g.device)
        state[name]["synapse"] = state[name]["synapse"]._replace(g=torch.relu(drawn))
    return state


def variables(state: dict) -> list[Tensor]:
    """v, m, h, n, g_e and g_i of all neurons, excitatory ones first."""
    cells = [state[name].neuron for name in ("E", "I")]
    membrane = [
        torch.cat([cell.v for cell in cells]),
        torch.cat([cell.channels["Na"].m for cell in cells]),
        torch.cat([cell.channels["Na"].h for cell in cells]),
        torch.cat([cell.channels["K"].n for cell in cells]),
    ]
    return [*membrane, state[_EXCITATION]["synapse"].g, state[_INHIBITION]["synapse"].g]
