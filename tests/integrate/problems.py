"""Equations with known solutions, shared by the tests of solvers. Time has no unit here; everything is in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.linalg import expm
from torch import Tensor

TENSOR = {"dtype": torch.float64}


@dataclass(frozen=True, eq=False)
class OdeProblem:
    """``dy/dt = f(t, y)`` on ``(..., n)`` from ``y0`` at time 0.

    Attributes:
        linear: The slope of each variable's own equation.
        exact: The solution at a time.
    """

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    linear: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    duration: float
    exact: Callable[[float], Tensor]


_MATRIX = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, -0.5, 0.3], [0.1, 0.0, -1.0]], **TENSOR)
_START = torch.tensor([1.0, 0.5, -0.7], **TENSOR)

SPIRAL = OdeProblem(
    "linear",
    lambda t, y: y @ _MATRIX.T,
    lambda t, y: _MATRIX.diagonal().expand_as(y),
    _START,
    4.0,
    lambda t: torch.from_numpy(expm((t * _MATRIX).numpy())) @ _START,  # PyTorch's is exact to 1e-10 only
)


def _forced(t: Tensor, y: Tensor) -> Tensor:
    u, v = y.unbind(-1)
    t = t.squeeze(-1) if t.dim() == y.dim() and t.dim() else t
    return torch.stack([u * torch.cos(t), torch.cos(t) - 2.0 * v + 0.5 * (u - torch.exp(torch.sin(t)))], -1)


def _forced_linear(t: Tensor, y: Tensor) -> Tensor:
    u, v = y.unbind(-1)
    return torch.stack([torch.cos(t) + 0.0 * u, -2.0 + 0.0 * v], -1)


def _forced_exact(t: float) -> Tensor:
    v = (2.0 * math.cos(t) + math.sin(t)) / 5.0 + 0.6 * math.exp(-2.0 * t)
    return torch.tensor([math.exp(math.sin(t)), v], **TENSOR)


FORCED = OdeProblem("non-autonomous", _forced, _forced_linear, torch.tensor([1.0, 1.0], **TENSOR), 6.0, _forced_exact)


def lotka_volterra(t: Tensor, y: Tensor) -> Tensor:
    """Prey and predator; `lotka_volterra_invariant` stays constant."""
    prey, predator = y.unbind(-1)
    return torch.stack([prey * (1.0 - predator), predator * (prey - 1.0)], -1)


def lotka_volterra_linear(t: Tensor, y: Tensor) -> Tensor:
    """The slope of each variable's own equation."""
    prey, predator = y.unbind(-1)
    return torch.stack([1.0 - predator, prey - 1.0], -1)


def lotka_volterra_invariant(y: Tensor) -> Tensor:
    """What the equations keep."""
    return (y - y.log()).sum(-1)


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    """The Lorenz attractor, sigma 10, rho 28, beta 8/3; doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2."""
    x, u, z = y.unbind(-1)
    return torch.stack([10.0 * (u - x), x * (28.0 - z) - u, x * u - 8.0 / 3.0 * z], -1)


def robertson(t: Tensor, y: Tensor) -> Tensor:
    """Robertson's stiff kinetics; Hairer & Wanner (1996), section IV.1, doi:10.1007/978-3-642-05221-7."""
    a, b, c = y.unbind(-1)
    slow, back, fast = 0.04 * a, 1e4 * b * c, 3e7 * b * b
    return torch.stack([back - slow, slow - back - fast, fast], -1)


def van_der_pol(mu: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The relaxation oscillator ``x'' = mu (1 - x^2) x' - x``."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        x, v = y.unbind(-1)
        return torch.stack([v, mu * (1.0 - x * x) * v - x], -1)

    return f
