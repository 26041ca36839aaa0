"""Receptors: from the synaptic variable ``g`` and the potential to a `bdtorch.Drive`."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._system import Parametrised
from bdtorch._types import Value


class Receptor(Parametrised, abc.ABC):
    """A map from ``g`` (and, where `needs_voltage`, the postsynaptic ``v`` at the start of the step) to a drive."""

    needs_voltage: ClassVar[bool] = False

    @abc.abstractmethod
    def forward(self, g: Tensor, v: Tensor | None = None) -> Drive:
        """The drive of synaptic variables ``g`` of the postsynaptic population's shape."""


class Current(Receptor):
    """``I = g``: the weight is a current (pA, or mV for a membrane in mV)."""

    def forward(self, g: Tensor, v: Tensor | None = None) -> Drive:
        return Drive(current=g)


class Jump(Receptor):
    """``v`` jumps by ``g`` at the start of the step: delta synapses, with a weight in mV and no synapse model."""

    def forward(self, g: Tensor, v: Tensor | None = None) -> Drive:
        return Drive(jump=g)


class Conductance(Receptor):
    """``I = g (e_rev - v)``.

    Args:
        e_rev: Reversal potential, mV.
        **options: ``dtype``, ``device``.
    """

    def __init__(self, e_rev: Value, **options: Any) -> None:
        super().__init__((), **options)
        self.declare("e_rev", e_rev)

    def forward(self, g: Tensor, v: Tensor | None = None) -> Drive:
        return _towards(g, self.e_rev)


class MagnesiumBlock(Receptor):
    r"""NMDA: $I = g\,B(v)\,(e_{rev} - v)$ with $B(v) = 1 / (1 + \frac{[Mg]}{\beta}\,e^{-\alpha v})$.

    The block is taken at the potential at the start of the step.

    Args:
        e_rev: Reversal potential, mV.
        mg: Extracellular magnesium, mM.
        alpha: Steepness, 1/mV.
        beta: Half-block concentration at 0 mV, mM.
        **options: ``dtype``, ``device``.

    Source: Jahr & Stevens (1990), doi:10.1523/JNEUROSCI.10-09-03178.1990.
    """

    needs_voltage = True

    def __init__(
        self, e_rev: Value = 0.0, *, mg: Value = 1.0, alpha: Value = 0.062, beta: Value = 3.57, **options: Any
    ) -> None:
        super().__init__((), **options)
        self.declare("e_rev", e_rev)
        self.declare("mg", mg)
        self.declare("alpha", alpha, positive=True)
        self.declare("beta", beta, positive=True)
        if bool((torch.as_tensor(self.mg) < 0).any()):
            raise ValueError(f"`MagnesiumBlock(mg=...)`: expected at least 0 mM, got {mg!r}")

    def forward(self, g: Tensor, v: Tensor | None = None) -> Drive:
        if v is None:
            raise ValueError("`MagnesiumBlock(v=...)`: expected the postsynaptic potential, got None")
        open_g = g / (1.0 + (self.mg / self.beta) * torch.exp(-self.alpha * v))
        return _towards(open_g, self.e_rev)


def _towards(g: Tensor, e_rev: Any) -> Drive:
    """``g (e_rev - v)``, which for a reversal potential of 0 mV is a conductance and nothing else."""
    nothing = isinstance(e_rev, float) and e_rev == 0.0
    return Drive(current=None if nothing else g * e_rev, conductance=g)
