"""The Wilson-Cowan model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch._drive import Drive
from bdtorch._flow import Flow
from bdtorch._types import Initialiser, Size, State, Value
from bdtorch.ops.random import fold


class WilsonCowan(Flow):
    r"""Excitatory and inhibitory populations.

    $$\tau_e \dot e = -e + (1 - r e)\,S_e(w_{ee} e - w_{ei} i + I_e), \qquad
    \tau_i \dot i = -i + (1 - r i)\,S_i(w_{ie} e - w_{ii} i + I_i)$$
    $$S(x) = \frac{1}{1 + e^{-a (x - \theta)}} - \frac{1}{1 + e^{a \theta}}$$

    The input is the current into ``e``, or a pair of the currents into ``e`` and ``i``. The output is the state.

    Args:
        size: Number (shape) of independent E/I pairs.
        tau_e: Time constant of ``e``, ms.
        tau_i: Time constant of ``i``, ms.
        w_ee: Weight from ``e`` to ``e``.
        w_ei: Weight from ``i`` to ``e``.
        w_ie: Weight from ``e`` to ``i``.
        w_ii: Weight from ``i`` to ``i``.
        a_e: Slope of the excitatory response.
        theta_e: Its threshold.
        a_i: Slope of the inhibitory response.
        theta_i: Its threshold.
        r: Refractory fraction.
        e_init: Initial ``e``.
        i_init: Initial ``i``.
        **options: ``integrator``, ``dtype``, ``device`` of `bdtorch.Flow`.

    Source: Wilson & Cowan (1972), doi:10.1016/S0006-3495(72)86068-5.
    """

    class State(NamedTuple):
        e: Tensor
        """Active fraction of the excitatory population."""
        i: Tensor
        """Active fraction of the inhibitory population."""

    def __init__(
        self,
        size: Size,
        *,
        tau_e: Value | Initialiser = 1.0,
        tau_i: Value | Initialiser = 1.0,
        w_ee: Value | Initialiser = 12.0,
        w_ei: Value | Initialiser = 4.0,
        w_ie: Value | Initialiser = 13.0,
        w_ii: Value | Initialiser = 11.0,
        a_e: Value | Initialiser = 1.2,
        theta_e: Value | Initialiser = 2.8,
        a_i: Value | Initialiser = 1.0,
        theta_i: Value | Initialiser = 4.0,
        r: Value | Initialiser = 1.0,
        e_init: Value | Initialiser = 0.1,
        i_init: Value | Initialiser = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(size, **options)
        self.declare("tau_e", tau_e, positive=True)
        self.declare("tau_i", tau_i, positive=True)
        for name, value in (("w_ee", w_ee), ("w_ei", w_ei), ("w_ie", w_ie), ("w_ii", w_ii), ("r", r)):
            self.declare(name, value)
        for name, value in (("a_e", a_e), ("theta_e", theta_e), ("a_i", a_i), ("theta_i", theta_i)):
            self.declare(name, value)
        self.declare_initial("e_init", e_init)
        self.declare_initial("i_init", i_init)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> State:
        return self.State(
            e=self.fill(batch_shape, self.e_init, seed=seed),
            i=self.fill(batch_shape, self.i_init, seed=fold(seed, "i")),
        )

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        into_e, into_i = _currents(inputs)
        e, i = state
        excited = _response(self.w_ee * e - self.w_ei * i + into_e, self.a_e, self.theta_e)
        inhibited = _response(self.w_ie * e - self.w_ii * i + into_i, self.a_i, self.theta_i)
        return self.State(
            e=((1.0 - self.r * e) * excited - e) / self.tau_e, i=((1.0 - self.r * i) * inhibited - i) / self.tau_i
        )


def _response(x: Tensor, a: Value, theta: Value) -> Tensor:
    offset = torch.sigmoid(torch.as_tensor(-a * theta, dtype=x.dtype, device=x.device))
    return torch.sigmoid(a * (x - theta)) - offset


def _currents(inputs: Any) -> tuple[Value, Value]:
    if isinstance(inputs, Drive):
        inputs = inputs.current
    into_e, into_i = inputs if isinstance(inputs, (tuple, list)) else (inputs, None)
    return (0.0 if into_e is None else into_e), (0.0 if into_i is None else into_i)
