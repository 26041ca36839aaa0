"""What a synapse is: a linear filter of weighted events, at the postsynaptic side."""

from __future__ import annotations

from bdtorch._system import DynamicalSystem


class Synapse(DynamicalSystem):
    """An element-wise system from summed, weighted events to a conductance or current ``g``.

    Events are impulses at the start of a step. The output is ``g`` at that moment, events included; the state moves on
    by the exact solution, so the result does not depend on the step. A synapse has no size: its state takes the shape
    ``batch_shape``, whose last axis is the postsynaptic population.
    """
