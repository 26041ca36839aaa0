"""`Drive`: what synapses and inputs do to a membrane, affine in its voltage."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

Part = Tensor | float | None


def _plus(a: Part, b: Part) -> Part:
    if a is None:
        return b
    return a if b is None else a + b


class Drive(NamedTuple):
    """The current into a membrane at voltage ``v``: ``current - conductance * v``, and a jump of ``v`` at the step's start.

    Because it is affine in ``v`` and adds, current- and conductance-based synapses need no separate neuron models, and
    the slope that exponential integrators use is known in closed form. Absent parts are None and cost nothing.
    """

    current: Part = None
    conductance: Part = None
    jump: Part = None

    @classmethod
    def of(cls, inputs: Any) -> Drive:
        """A drive as it is; a number or tensor as a current; None as no drive."""
        return inputs if isinstance(inputs, cls) else cls(current=inputs)

    def plus(self, other: Drive) -> Drive:
        """The sum of two drives."""
        return Drive(*(_plus(a, b) for a, b in zip(self, other, strict=True)))

    def at(self, v: Tensor) -> Tensor | float:
        """The current at voltage ``v``."""
        if self.conductance is None:
            return 0.0 if self.current is None else self.current
        outward = self.conductance * v
        return -outward if self.current is None else self.current - outward

    @property
    def slope(self) -> Tensor | float:
        """The derivative of `at` with respect to ``v``."""
        return 0.0 if self.conductance is None else -self.conductance
