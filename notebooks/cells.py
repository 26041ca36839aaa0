"""The cell and the excitatory-inhibitory network that several scripts share."""

from __future__ import annotations

import bdtorch as bt

V_T = -63.0  # mV, from which the rates of the channels are counted


def neuron(size: int, v_init: float | None = None) -> bt.neurons.ConductanceBased:
    """A Traub-Miles neuron put together from its channels: conductances in mS/cm2, currents in uA/cm2."""
    return bt.neurons.ConductanceBased(
        size,
        {
            "Na": bt.channels.SodiumTM(100.0, 50.0, v_t=V_T),
            "K": bt.channels.PotassiumTM(30.0, -90.0, v_t=V_T),
            "L": bt.channels.Leak(0.05, -60.0),
        },
        c=1.0,
        v_th=0.0,
        v_init=bt.init.Uniform(-70.0, -50.0) if v_init is None else v_init,
    )


def project(probability: float, weight: float, inhibitory: bool = False, delay: float | None = None) -> bt.Projection:
    """Conductance synapses: excitatory 5 ms and 0 mV, inhibitory 10 ms and -80 mV."""
    return bt.Projection(
        bt.connect.FixedProbability(probability),
        weight=weight,
        synapse=bt.synapses.Exponential(10.0 if inhibitory else 5.0),
        receptor=bt.synapses.Conductance(-80.0 if inhibitory else 0.0),
        delay=delay,
    )
