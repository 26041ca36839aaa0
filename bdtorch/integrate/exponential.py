"""Exponential Euler: exact for every variable that is linear in itself while the others stand still."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, Integrator


@dataclass(frozen=True)
class ExponentialEuler(Integrator):
    r"""The exponential Euler (Rosenbrock-Euler) method with a diagonal linear part.

    $$y_i' = y_i + \Delta t\,\varphi_1(\Delta t\,a_i)\,f_i(y, t), \qquad a_i = \partial f_i / \partial y_i,
    \qquad \varphi_1(z) = (e^z - 1)/z$$

    Order 1; without error for ``dy/dt = a y + b`` with constant ``a`` and ``b``, whatever the step.

    Source: Hochbruck & Ostermann, Exponential integrators, Acta Numerica 19 (2010), doi:10.1017/S0962492910000048.
    """

    order = 1

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        return tree.map(
            lambda value, slope, rate: value + (dt * phi1(dt * rate)) * slope, y, derivative(y, t), linear(y, t)
        )


def phi1(z: Tensor | float) -> Tensor | float:
    """``(exp(z) - 1) / z``, which is 1 at 0."""
    if isinstance(z, float):
        return math.expm1(z) / z if z else 1.0
    zero = z == 0
    safe = torch.where(zero, 1.0, z)  # keeps 0/0 out of the gradient
    return torch.where(zero, 1.0 + 0.5 * z, torch.expm1(safe) / safe)
