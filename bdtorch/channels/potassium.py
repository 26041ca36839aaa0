r"""Delayed-rectifier potassium channels, $g\,n^4$."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._types import Initialiser, Value
from bdtorch.channels._channel import Channel, linoid


class _Potassium(Channel):
    class State(NamedTuple):
        n: Tensor
        """Activation."""

    def conductance(self, state: State) -> Tensor:
        squared = state.n * state.n
        return self.g * (squared * squared)


class PotassiumHH(_Potassium):
    r"""The potassium channel of the squid axon, with $x = v - v_{rest}$:

    $$\alpha_n = \frac{0.01 (10 - x)}{e^{(10 - x)/10} - 1},\qquad \beta_n = 0.125 e^{-x/80}$$

    Args:
        g: Maximal conductance, mS/cm2.
        e: Reversal potential, mV.
        v_rest: Potential that the rates are counted from, mV.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Hodgkin & Huxley (1952), doi:10.1113/jphysiol.1952.sp004764.
    """

    def __init__(
        self,
        g: Value | Initialiser = 36.0,
        e: Value | Initialiser = -77.0,
        *,
        v_rest: Value | Initialiser = -65.0,
        **options: Any,
    ) -> None:
        super().__init__(g, e, **options)
        self.declare("v_rest", v_rest)

    def rates(self, v: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        x = v - self.v_rest
        return {"n": (0.1 * linoid((10.0 - x) / 10.0), 0.125 * torch.exp(-x / 80.0))}


class PotassiumTM(_Potassium):
    r"""The potassium channel of the hippocampal pyramidal cell, with $x = v - v_T$:

    $$\alpha_n = \frac{0.032 (15 - x)}{e^{(15 - x)/5} - 1},\qquad \beta_n = 0.5 e^{(10 - x)/40}$$

    Args:
        g: Maximal conductance, nS.
        e: Reversal potential, mV.
        v_t: Potential that the rates are counted from, mV.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Traub & Miles (1991), doi:10.1017/CBO9780511895401, as given by Brette et al. (2007),
        doi:10.1007/s10827-007-0038-6.
    """

    def __init__(
        self,
        g: Value | Initialiser = 6_000.0,
        e: Value | Initialiser = -90.0,
        *,
        v_t: Value | Initialiser = -63.0,
        **options: Any,
    ) -> None:
        super().__init__(g, e, **options)
        self.declare("v_t", v_t)

    def rates(self, v: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        x = v - self.v_t
        return {"n": (0.032 * 5.0 * linoid((15.0 - x) * 0.2), 0.5 * torch.exp((10.0 - x) * 0.025))}
