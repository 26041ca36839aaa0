"""Stochastic methods with one or two evaluations and no derivative of the diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._stochastic import Calculus, Kick, StochasticEquation, StochasticIntegrator, moved
from bdtorch.integrate.exponential import phi1
from bdtorch.integrate.noise import Noise


@dataclass(frozen=True)
class EulerMaruyama(StochasticIntegrator):
    r"""The Euler-Maruyama method, for Ito equations with any noise.

    $$y' = y + f \Delta t + g \Delta W$$

    Strong order 1/2, for additive noise 1; weak order 1.

    Source: Maruyama (1955), doi:10.1007/BF02846028; Kloeden & Platen (1992), section 10.2,
        doi:10.1007/978-3-662-12616-5.
    """

    calculi = (Calculus.ITO,)
    noises = (Noise,)

    def strong_order(self, noise: Noise) -> float:
        return 1.0 if noise.additive else 0.5

    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        noise = equation.noise.apply(equation.diffusion(y, t), kick.w)
        return moved(y, dt, equation.drift(y, t), noise)


class _Symmetric(StochasticIntegrator):
    """What methods have in common whose mean of two diffusions makes the Stratonovich integral."""

    calculi = (Calculus.STRATONOVICH,)
    noises = (Noise,)

    def strong_order(self, noise: Noise) -> float:
        return 1.0 if noise.commutative else 0.5


@dataclass(frozen=True)
class EulerHeun(_Symmetric):
    r"""The Euler-Heun method, for Stratonovich equations with any noise.

    $$\bar y = y + g \Delta W, \qquad
    y' = y + f \Delta t + \tfrac12 \big(g(y, t) + g(\bar y, t + \Delta t)\big) \Delta W$$

    Strong order 1 for commutative noise (diagonal, scalar and additive noise are), 1/2 for general; weak order 1.

    Source: Ruemelin (1982), doi:10.1137/0719041.
    """

    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        noise = equation.noise
        before = noise.apply(equation.diffusion(y, t), kick.w)
        predicted = tree.axpy(1.0, before, y)
        after = noise.apply(equation.diffusion(predicted, t + dt), kick.w)
        return moved(y, dt, equation.drift(y, t), _mean(before, after))


@dataclass(frozen=True)
class StochasticHeun(_Symmetric):
    r"""Heun's method, for Stratonovich equations with any noise; without noise it is `Heun`, of order 2.

    $$\bar y = y + f \Delta t + g \Delta W, \qquad
    y' = y + \tfrac12 (f + \bar f) \Delta t + \tfrac12 (g + \bar g) \Delta W$$

    with bars for values at $(\bar y, t + \Delta t)$. Orders as those of `EulerHeun`.

    Source: Ruemelin (1982), doi:10.1137/0719041.
    """

    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        noise = equation.noise
        slope, before = equation.drift(y, t), noise.apply(equation.diffusion(y, t), kick.w)
        predicted = moved(y, dt, slope, before)
        after = noise.apply(equation.diffusion(predicted, t + dt), kick.w)
        return moved(y, dt, _mean(slope, equation.drift(predicted, t + dt)), _mean(before, after))


def _mean(first: State, second: State) -> State:
    return tree.map(lambda a, b: 0.5 * (a + b), first, second)


@dataclass(frozen=True)
class ExponentialEulerMaruyama(StochasticIntegrator):
    r"""Exponential Euler with noise, for Ito equations with any noise.

    $$y_i' = y_i + \Delta t\,\varphi_1(\Delta t\,a_i)\,f_i + \sqrt{\varphi_1(2 \Delta t\,a_i)}\; (g \Delta W)_i,
    \qquad a_i = \partial f_i / \partial y_i, \qquad \varphi_1(z) = (e^z - 1)/z$$

    The mean and the variance of an Ornstein-Uhlenbeck process are exact whatever the step, and stiff decay is stable.
    Strong order 1/2, for additive noise 1; weak order 1.

    Source: Komori & Burrage (2014), doi:10.1007/s10543-014-0485-1; Gillespie (1996), doi:10.1103/PhysRevE.54.2084, for
        the variance.
    """

    calculi = (Calculus.ITO,)
    noises = (Noise,)

    def strong_order(self, noise: Noise) -> float:
        return 1.0 if noise.additive else 0.5

    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        slopes, rates = equation.drift(y, t), equation.linear(y, t)
        noise = equation.noise.apply(equation.diffusion(y, t), kick.w)

        def leaf(value: Tensor, slope: Tensor, rate: Any, push: Tensor) -> Tensor:
            return value + (dt * phi1(dt * rate)) * slope + _root(phi1(2.0 * dt * rate)) * push

        return tree.map(leaf, y, slopes, rates, noise)


def _root(value: Tensor | float) -> Tensor | float:
    return torch.sqrt(value) if isinstance(value, Tensor) else value**0.5
