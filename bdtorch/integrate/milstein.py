"""Milstein's method, with the diffusion's derivative and without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._derivatives import along, along_own
from bdtorch.integrate._stochastic import (
    Calculus,
    Kick,
    StochasticEquation,
    StochasticIntegrator,
    moved,
)
from bdtorch.integrate.noise import Diagonal, Noise


@dataclass(frozen=True)
class Milstein(StochasticIntegrator):
    r"""Milstein's method, for Ito and Stratonovich equations with commutative noise.

    $$y' = y + f \Delta t + g \Delta W + \sum_{j,l} (\partial_y g_l)\, g_j \, I_{jl}, \qquad
    I_{jl} = \tfrac12 (\Delta W_j \Delta W_l - c_{jl} \Delta t)$$

    with the correlations $c$ of the processes for Ito equations, and 0 in their place for Stratonovich ones. The
    derivatives are automatic, one for each process, and one in all for diagonal and for scalar noise.

    Strong order 1, weak order 1.

    Source: Milstein (1975), doi:10.1137/1119062; Kloeden & Platen (1992), section 10.3, doi:10.1007/978-3-662-12616-5.
    """

    calculi = (Calculus.ITO, Calculus.STRATONOVICH)
    noises = (Noise,)
    needs_structure = True

    def strong_order(self, noise: Noise) -> float:
        return 1.0

    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        noise, slope, g = equation.noise, equation.drift(y, t), equation.diffusion(y, t)
        after = moved(y, dt, slope, noise.apply(g, kick.w))
        if noise.additive:
            return after
        origin = tree.axpy(dt, slope, y)
        ito = equation.calculus is Calculus.ITO
        if not noise.vector:
            change = self._along(equation, y, origin, g, g, t, dt)
            return tree.map(lambda a, d, w: a + (0.5 * d) * (w * w - (dt if ito else 0.0)), after, change, kick.w)
        for j in range(noise.width(y, 0)):
            direction = tree.map(lambda rows, j=j: rows[..., j], g)
            change = self._along(equation, y, origin, g, direction, t, dt)
            time = dt * _correlations(noise, j, tree.leaves(kick.w)[0]) if ito else 0.0
            integral = tree.map(lambda w, j=j, time=time: 0.5 * (w[..., j : j + 1] * w - time), kick.w)
            after = tree.axpy(1.0, noise.apply(change, integral), after)
        return after

    def _along(
        self, equation: StochasticEquation, y: State, origin: State, g: State, direction: State, t: Tensor, dt: float
    ) -> State:
        """The derivative of the diffusion along ``direction``; ``origin`` is ``y + dt f``, and ``g`` the diffusion."""
        derivative = along_own if isinstance(equation.noise, Diagonal) else along
        return derivative(lambda z: equation.diffusion(z, t), y, direction)


@dataclass(frozen=True)
class DerivativeFreeMilstein(Milstein):
    r"""As `Milstein`, with a difference quotient in place of the derivative. For Ito equations it is Platen's,

    $$(\partial_y g)\, g_j \approx \frac{1}{\sqrt{\Delta t}}
    \Big(g\big(y + f \Delta t + g_j \sqrt{\Delta t}, t\big) - g(y, t)\Big)$$

    known as the Kloeden-Platen scheme. Its error is of order $\sqrt{\Delta t}$, which does no harm beside an $I_{jj}$
    of mean 0; that of Stratonovich equations has another mean, so there the quotient is taken over $g_j \Delta t$.

    Strong order 1, weak order 1.

    Source: Kloeden & Platen (1992), section 11.1, doi:10.1007/978-3-662-12616-5.
    """

    def _along(
        self, equation: StochasticEquation, y: State, origin: State, g: State, direction: State, t: Tensor, dt: float
    ) -> State:
        ito = equation.calculus is Calculus.ITO
        reach = math.sqrt(dt) if ito else dt
        there = equation.diffusion(tree.axpy(reach, direction, origin if ito else y), t)
        return tree.map(lambda after, before: (after - before) / reach, there, g)


def _correlations(noise: Noise, process: int, like: Tensor) -> Tensor:
    """Row ``process`` of the correlation matrix."""
    if noise.correlation is not None:
        return noise.correlation[process].to(like)
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)[process]
