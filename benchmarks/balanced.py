"""The wiring that networks A and B share: sparse excitation and inhibition through conductances."""

from __future__ import annotations

from collections.abc import Callable

import bdtorch as bt

EXCITATION, INHIBITION = "E->E+I", "I->E+I"
"""Names of the projections."""


def build(
    neurons: int, seed: int, cells: Callable[[int], bt.DynamicalSystem], excitation: float, inhibition: float
) -> bt.Network:
    """80 % excitatory cells, each ordered pair connected with probability 80 / ``neurons``.

    Args:
        neurons: Number of cells, at least 80.
        seed: Names the wiring.
        cells: Makes a population of so many cells.
        excitation: What a spike adds to the excitatory conductance (5 ms, 0 mV), in the cells' units.
        inhibition: What it adds to the inhibitory one (10 ms, -80 mV).
    """
    connect = bt.connect.FixedProbability(80.0 / neurons)

    def project(weight: float, tau: float, e_rev: float) -> bt.Projection:
        synapse, receptor = bt.synapses.Exponential(tau), bt.synapses.Conductance(e_rev)
        return bt.Projection(connect, weight=weight, synapse=synapse, receptor=receptor)

    excitatory = round(0.8 * neurons)
    return bt.Network(
        {"E": cells(excitatory), "I": cells(neurons - excitatory)},
        {
            ("E", ("E", "I")): project(excitation, tau=5.0, e_rev=0.0),
            ("I", ("E", "I")): project(inhibition, tau=10.0, e_rev=-80.0),
        },
        seed=seed,
    )
