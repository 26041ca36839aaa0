r"""Fast sodium channels, $g\,m^3 h$."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._types import Initialiser, Value
from bdtorch.channels._channel import Channel, linoid


class _Sodium(Channel):
    class State(NamedTuple):
        m: Tensor
        """Activation."""
        h: Tensor
        """Inactivation."""

    def conductance(self, state: State) -> Tensor:
        return self.g * (state.m * state.m * state.m) * state.h


class SodiumHH(_Sodium):
    r"""The sodium channel of the squid axon, with $x = v - v_{rest}$:

    $$\alpha_m = \frac{0.1 (25 - x)}{e^{(25 - x)/10} - 1},\quad \beta_m = 4 e^{-x/18},\quad
    \alpha_h = 0.07 e^{-x/20},\quad \beta_h = \frac{1}{e^{(30 - x)/10} + 1}$$

    Args:
        g: Maximal conductance, mS/cm2.
        e: Reversal potential, mV.
        v_rest: Potential that the rates are counted from, mV.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Hodgkin & Huxley (1952), doi:10.1113/jphysiol.1952.sp004764.
    """

    def __init__(
        self,
        g: Value | Initialiser = 120.0,
        e: Value | Initialiser = 50.0,
        *,
        v_rest: Value | Initialiser = -65.0,
        **options: Any,
    ) -> None:
        super().__init__(g, e, **options)
        self.declare("v_rest", v_rest)

    def rates(self, v: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        x = v - self.v_rest
        return {
            "m": (linoid((25.0 - x) / 10.0), 4.0 * torch.exp(-x / 18.0)),
            "h": (0.07 * torch.exp(-x / 20.0), 1.0 / (torch.exp((30.0 - x) / 10.0) + 1.0)),
        }


class SodiumTM(_Sodium):
    r"""The sodium channel of the hippocampal pyramidal cell, with $x = v - v_T$:

    $$\alpha_m = \frac{0.32 (13 - x)}{e^{(13 - x)/4} - 1},\quad \beta_m = \frac{0.28 (x - 40)}{e^{(x - 40)/5} - 1},\quad
    \alpha_h = 0.128 e^{(17 - x)/18},\quad \beta_h = \frac{4}{e^{(40 - x)/5} + 1}$$

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
        g: Value | Initialiser = 20_000.0,
        e: Value | Initialiser = 50.0,
        *,
        v_t: Value | Initialiser = -63.0,
        **options: Any,
    ) -> None:
        super().__init__(g, e, **options)
        self.declare("v_t", v_t)

    def rates(self, v: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        x = v - self.v_t
        return {
            "m": (0.32 * 4.0 * linoid((13.0 - x) / 4.0), 0.28 * 5.0 * linoid((x - 40.0) * 0.2)),
            "h": (0.128 * torch.exp((17.0 - x) * (1 / 18)), 4.0 / (torch.exp((40.0 - x) * 0.2) + 1.0)),
        }
