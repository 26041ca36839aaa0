"""What presynaptic dynamics are: from a source's spikes to the fraction of its receptors that are open."""

from __future__ import annotations

import abc

from bdtorch._system import DynamicalSystem


class Presynaptic(DynamicalSystem, abc.ABC):
    """An element-wise system from what sources release to gating variables, at the presynaptic side.

    Where the time course of a synapse is not linear in its events, gates cannot be summed before they have moved; but all
    synapses of a source move alike, so there is one gate for each source and the connectivity sums gates. ``step`` takes
    spikes, or what `ShortTerm` releases, as impulses at the start of a step, and returns the gates at that moment. It has
    no size: its state takes the shape ``batch_shape``, whose last axis is the presynaptic population.
    """
