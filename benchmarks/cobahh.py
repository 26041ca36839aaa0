"""Network B: the wiring of network A with Hodgkin-Huxley cells.

Source: Brette et al. (2007), benchmark 3, doi:10.1007/s10827-007-0038-6; cells after Traub & Miles (1991),
doi:10.1017/CBO9780511895401.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bdtorch as bt
from benchmarks import balanced

DT = 0.1
"""Step, ms."""
DRIVE = 0.0
"""External current, pA."""


def build(neurons: int = 4000, seed: int = 1) -> bt.Network:
    """The network of ``neurons`` cells, with the wiring that ``seed`` names; weights in nS."""

    def cells(count: int) -> bt.neurons.Refractory:
        return bt.neurons.Refractory(bt.neurons.TraubMiles(count, v_init=bt.init.Normal(-65.0, 5.0)), period=3.0)

    return balanced.build(neurons, seed, cells, excitation=6.0, inhibition=67.0)


def initial_state(net: bt.Network, seed: int = 0) -> dict:
    """The state at t = 0, with random conductances: ``max(0, 10 (a xi + b))`` nS with standard normal ``xi``."""
    state = bt.initial_state(net, dt=DT, seed=seed)
    draws = ((balanced.EXCITATION, 1.5, 4.0), (balanced.INHIBITION, 12.0, 20.0))
    for number, (name, spread, offset) in enumerate(draws):
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
    return [*membrane, *(state[name]["synapse"].g for name in (balanced.EXCITATION, balanced.INHIBITION))]
