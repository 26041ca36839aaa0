"""The Lorenz system as data, for the scripts on reservoirs."""

from __future__ import annotations

import torch
from torch import Tensor

import bdtorch as bt

START = (17.67715816276679, 12.931379185960404, 43.91404334248268)
"""A point on the attractor."""


def trajectory(duration: float, dt: float, start: Tensor | None = None) -> Tensor:
    """States ``(time, *batch, 3)`` every ``dt``, the first at ``start``, ``(*batch, 3)``: sigma 10, rho 28, beta 8/3."""
    times = torch.arange(0.0, duration + 0.5 * dt, dt, dtype=torch.float64)
    first = torch.tensor(START, dtype=torch.float64) if start is None else start
    solution = bt.integrate.odeint(
        _derivative, first, times, method=bt.integrate.DOP853(), rtol=1e-9, atol=1e-9, progress=False
    )
    states: Tensor = solution.y
    return states


def _derivative(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(-1)
    return torch.stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - 8.0 / 3.0 * c], -1)
