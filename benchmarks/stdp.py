"""Network D: inputs whose synapses compete by spike-timing dependent plasticity.

Source: Song, Miller & Abbott (2000), doi:10.1038/78829.
"""

from __future__ import annotations

import bdtorch as bt

DRIVE = None
"""There is no input but the spikes."""
RATE = 15.0
"""Rate of the inputs, Hz."""
W_MAX = 0.01
"""Upper bound of the weights, in units of the leak."""


def build(neurons: int = 1000, inputs: int = 1000, order: str = "post", seed: int = 0) -> bt.Network:
    """Poisson inputs to integrate-and-fire neurons, all to all, with the pair rule."""
    cell = bt.neurons.LIF(neurons, tau=10.0, v_rest=-74.0, v_reset=-60.0, v_th=-54.0, v_init=-60.0)
    rule = bt.plasticity.PairSTDP(0.01 * W_MAX, 1.05 * 0.01 * W_MAX, w_max=W_MAX)
    projection = bt.Projection(
        bt.connect.AllToAll(order=order),
        weight=bt.init.Uniform(0.0, W_MAX),
        synapse=bt.synapses.Exponential(5.0),
        receptor=bt.synapses.Conductance(0.0),
        plasticity=rule,
    )
    return bt.Network(
        {"input": bt.stimuli.Poisson(inputs, RATE), "cell": cell}, {("input", "cell"): projection}, seed=seed
    )


def initial_state(net: bt.Network, seed: int = 0) -> dict:
    """The state at t = 0: what `bdtorch.simulate` starts from by itself."""
    return bt.initial_state(net, dt=0.1, seed=seed)
