"""Exponential methods: exact for the linear part of an equation, whatever the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, Integrator
from bdtorch.integrate._coupling import Coupling, Dense, widened
from bdtorch.integrate._derivatives import time_slope
from bdtorch.integrate._methods import Method


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


@dataclass(frozen=True)
class ExponentialRK2(Integrator):
    r"""The exponential Runge-Kutta method of order 2 with a diagonal linear part, taken at the step's beginning.

    $$\tilde y_i = y_i + \Delta t\,\varphi_1(\Delta t\,a_i)\,f_i(y, t), \qquad
    y_i' = \tilde y_i + \Delta t\,\varphi_2(\Delta t\,a_i)\,
    \big[f_i(\tilde y, t + \Delta t) - f_i(y, t) - a_i (\tilde y_i - y_i)\big], \qquad
    \varphi_2(z) = (e^z - 1 - z)/z^2$$

    Order 2; like exponential Euler without error for ``dy/dt = a y + b``.

    Source: Cox & Matthews (2002), doi:10.1006/jcph.2002.6995; Hochbruck & Ostermann (2010),
        doi:10.1017/S0962492910000048.
    """

    order = 2

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        slope, rate = derivative(y, t), linear(y, t)
        guess = tree.map(lambda value, f, a: value + (dt * phi1(dt * a)) * f, y, slope, rate)
        later = derivative(guess, t + dt)

        def corrected(value: Tensor, ahead: Tensor, f: Tensor, g: Tensor, a: Tensor | float) -> Tensor:
            return ahead + (dt * phi2(dt * a)) * (g - f - a * (ahead - value))

        return tree.map(corrected, y, guess, slope, later, rate)


@dataclass(frozen=True)
class ExponentialRosenbrock(Integrator):
    r"""The exponential Rosenbrock-Euler method with the full Jacobian ``J``: the exact propagator of linear systems.

    $$y' = y + \Delta t\,\varphi_1(\Delta t\,J)\,f(y, t) + \Delta t^2\,\varphi_2(\Delta t\,J)\,\partial_t f(y, t)$$

    Without error for ``dy/dt = A y + b + c t``, whatever the step; order 2 otherwise. Where ``J`` is constant, compiled
    loops take the matrix exponential once.

    Args:
        coupling: Which variables are coupled; default all, within each trajectory of `odeint`.

    Source: Hochbruck, Ostermann & Schweitzer (2009), doi:10.1137/080717717; the functions by one exponential of a block
        matrix: Al-Mohy & Higham (2011), doi:10.1137/100788860.
    """

    coupling: Coupling | None = None
    order = 2

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        coupling = self.coupling or Dense()
        packed, unpack = coupling.pack(y)

        def rows(z: Tensor, s: Tensor) -> Tensor:
            return coupling.pack(derivative(unpack(z), s))[0]

        first, second = matrix_phis(dt * coupling.differentiate(rows, packed, t))
        moved = first @ (dt * rows(packed, t)).unsqueeze(-1)
        moved = moved + second @ (dt * dt * time_slope(rows, packed, t)).unsqueeze(-1)
        return unpack(packed + moved.squeeze(-1))


def matrix_phis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``phi1`` and ``phi2`` of square matrices ``(*rows, n, n)``, from the exponential of ``[[M, I, 0], [0, 0, I], 0]``."""
    n = matrix.shape[-1]
    identity = torch.eye(n, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    nothing = torch.zeros_like(matrix)
    upper = torch.cat([matrix, identity, nothing], -1)
    middle = torch.cat([nothing, nothing, identity], -1)
    block = torch.cat([upper, middle, torch.zeros_like(upper)], -2)
    exponential = torch.linalg.matrix_exp(widened(block)).to(matrix.dtype)
    return exponential[..., :n, n : 2 * n], exponential[..., :n, 2 * n :]


@overload
def phi1(z: Tensor) -> Tensor: ...
@overload
def phi1(z: float) -> float: ...
@overload
def phi1(z: Tensor | float) -> Tensor | float: ...
def phi1(z: Tensor | float) -> Tensor | float:
    """``(exp(z) - 1) / z``, which is 1 at 0."""
    if isinstance(z, float):
        return math.expm1(z) / z if z else 1.0
    if has_torch_function_unary(z):  # PyTorch's protocol, by which a compiled loop may take it as one function
        return handle_torch_function(phi1, (z,), z)
    # The quotient is exact to the last digit, but its slope is a difference that loses as many digits as 1 / z has: near
    # 0 the series takes over, where its next term is too small to matter.
    near = z.abs() < torch.finfo(z.dtype).eps ** 0.25
    far = torch.where(near, 1.0, z)
    series = 1.0 + z * (1 / 2 + z * (1 / 6 + z * (1 / 24)))
    return torch.where(near, series, torch.expm1(far) / far)


_SERIES = tuple(1.0 / math.factorial(k + 2) for k in range(16))


@overload
def phi2(z: Tensor) -> Tensor: ...
@overload
def phi2(z: float) -> float: ...
@overload
def phi2(z: Tensor | float) -> Tensor | float: ...
def phi2(z: Tensor | float) -> Tensor | float:
    """``(exp(z) - 1 - z) / z**2``, which is 1/2 at 0."""
    if isinstance(z, float):
        return float(phi2(torch.tensor(z, dtype=torch.float64)))
    small = z.abs() < 0.7  # where the quotient would lose digits, the series has converged
    series = torch.full_like(z, _SERIES[-1])
    near = torch.where(small, z, 0.0)
    for coefficient in reversed(_SERIES[:-1]):
        series = series * near + coefficient
    far = torch.where(small, 1.0, z)
    return torch.where(small, series, (torch.expm1(far) - far) / (far * far))


_HOCHBRUCK = "Hochbruck & Ostermann (2010), doi:10.1017/S0962492910000048"

METHODS = (
    Method("ExponentialEuler", "ODE", "exponential", 1, stages=1, source=_HOCHBRUCK),
    Method("ExponentialRK2", "ODE", "exponential", 2, stages=2, source="Cox & Matthews (2002), doi:10.1006/jcph.2002.6995"),
    Method(
        "ExponentialRosenbrock", "ODE", "exponential", 2, stages=1,
        source="Hochbruck, Ostermann & Schweitzer (2009), doi:10.1137/080717717",
    ),
)  # fmt: skip
