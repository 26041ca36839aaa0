"""Stochastic Runge-Kutta methods of strong order 3/2: two stepping rules, the methods are data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._stochastic import Calculus, Kick, StochasticEquation, StochasticIntegrator
from bdtorch.integrate.noise import Additive, Diagonal, Noise, Scalar

Row = tuple[float, ...]


@dataclass(frozen=True)
class StochasticRungeKutta(StochasticIntegrator):
    r"""A method for Ito equations given by Roessler's extended tableau.

    $$H_i = y + \sum_j a_{ij} f_j\,h + \sum_j b_{ij}\, g_j \frac{I_{10}}{h}, \qquad f_i = f(H_i, t + c_i h)$$
    $$\hat H_i = y + \sum_j \hat a_{ij} f_j\,h + \sum_j \hat b_{ij}\, g_j \sqrt h, \qquad
    g_i = g(\hat H_i, t + \hat c_i h)$$
    $$y' = y + \sum_i \alpha_i f_i\,h + \sum_i \Big(\beta^1_i I_1 + \beta^2_i \frac{I_{11}}{\sqrt h}
    + \beta^3_i \frac{I_{10}}{h} + \beta^4_i \frac{I_{111}}{h}\Big) g_i$$

    with the iterated integrals $I_1 = \Delta W$, $I_{11} = (I_1^2 - h)/2$, $I_{111} = (I_1^3 - 3 h I_1)/6$ and
    $I_{10} = \int_0^h W_s\,ds$. Strong order 3/2, and weak order no more than that, since the stages know $\sqrt h$.

    Attributes:
        c, c_hat: Times of the stages of drift and diffusion.
        a, b, a_hat, b_hat: Rows of the strictly lower triangles.
        alpha: Weights of the drift.
        beta: Weights of the diffusion, four for each stage.

    Source: Roessler (2010), doi:10.1137/09076636X.
    """

    c: Row
    c_hat: Row
    a: tuple[Row, ...]
    b: tuple[Row, ...]
    a_hat: tuple[Row, ...]
    b_hat: tuple[Row, ...]
    alpha: Row
    beta: tuple[tuple[float, float, float, float], ...]

    calculi: ClassVar[tuple[Calculus, ...]] = (Calculus.ITO,)
    noises: ClassVar[tuple[type[Noise], ...]] = (Diagonal, Scalar)
    takes_vectors = False
    needs_area = True
    needs_structure = True
    weak_order = 1.5

    def strong_order(self, noise: Noise) -> float:
        return 1.5

    def step(self, equation: StochasticEquation, y: State, t: Tensor, dt: float, kick: Kick) -> State:
        noise, root = equation.noise, math.sqrt(dt)
        first, area = kick.w, kick.area
        mean = tree.map(lambda w, a: 0.5 * w + a, first, area)  # I10 / h
        drifts: list[State | None] = []
        pushes: list[State | None] = []
        for stage in range(len(self.alpha)):
            if self._drifts(stage):
                h = _sum(y, dt, self.a[stage], drifts)
                for weight, g in zip(self.b[stage], pushes, strict=True):
                    if weight:
                        h = tree.map(lambda x, p, weight=weight: x + weight * p, h, noise.apply(g, mean))
                drifts.append(equation.drift(h, t + self.c[stage] * dt))
            else:
                drifts.append(None)
            if self._pushes(stage):
                h = _sum(_sum(y, dt, self.a_hat[stage], drifts), root, self.b_hat[stage], pushes)
                pushes.append(equation.diffusion(h, t + self.c_hat[stage] * dt))
            else:
                pushes.append(None)
        after = _sum(y, dt, self.alpha, drifts)
        for weights, g in zip(self.beta, pushes, strict=True):
            if any(weights):
                weighed = tree.map(lambda w, m, weights=weights: _weigh(weights, w, m, dt), first, mean)
                after = tree.axpy(1.0, noise.apply(g, weighed), after)
        return after

    def _drifts(self, stage: int) -> bool:
        """Whether anything uses the drift of a stage."""
        return bool(self.alpha[stage]) or any(row[stage] for row in (*self.a, *self.a_hat) if len(row) > stage)

    def _pushes(self, stage: int) -> bool:
        """Whether anything uses the diffusion of a stage."""
        return any(self.beta[stage]) or any(row[stage] for row in (*self.b, *self.b_hat) if len(row) > stage)


def _sum(y: State, scale: float, weights: Row, terms: list[State | None]) -> State:
    for weight, term in zip(weights, terms, strict=False):
        if weight:
            y = tree.axpy(weight * scale, term, y)
    return y


def _weigh(weights: tuple[float, float, float, float], w: Tensor, mean: Tensor, dt: float) -> Tensor:
    """The bracket of the last line of the tableau."""
    root = math.sqrt(dt)
    integrals = (lambda: w, lambda: (w * w - dt) / (2 * root), lambda: mean, lambda: (w * w - 3 * dt) * w / (6 * dt))
    terms = [weight * integral() for weight, integral in zip(weights, integrals, strict=True) if weight]
    return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class AdditiveRungeKutta(StochasticRungeKutta):
    """A tableau of `StochasticRungeKutta` for additive noise, of any number of processes. Weak order 2."""

    calculi = (Calculus.ITO, Calculus.STRATONOVICH)
    noises = (Additive,)
    takes_vectors = True
    weak_order = 2.0


def _additive(
    c: Row, c_hat: Row, a: tuple[Row, ...], b: tuple[Row, ...], alpha: Row, beta_1: Row, beta_3: Row
) -> AdditiveRungeKutta:
    none: tuple[Row, ...] = ((),) * len(alpha)
    beta = tuple((first, 0.0, third, 0.0) for first, third in zip(beta_1, beta_3, strict=True))
    return AdditiveRungeKutta(c, c_hat, a, b, none, none, alpha, beta)


def SRA1() -> AdditiveRungeKutta:  # noqa: N802  (reads as the method's name)
    """Roessler's SRA1 for additive noise: two stages; strong order 3/2, without noise 2."""
    return _additive(
        c=(0.0, 3 / 4), c_hat=(1.0, 0.0), a=((), (3 / 4,)), b=((), (3 / 2,)),
        alpha=(1 / 3, 2 / 3), beta_1=(1.0, 0.0), beta_3=(-1.0, 1.0),
    )  # fmt: skip


def SRA2() -> AdditiveRungeKutta:  # noqa: N802
    """Roessler's SRA2 for additive noise: two stages; strong order 3/2, without noise 2."""
    return _additive(
        c=(0.0, 3 / 4), c_hat=(1 / 3, 1.0), a=((), (3 / 4,)), b=((), (3 / 2,)),
        alpha=(1 / 3, 2 / 3), beta_1=(0.0, 1.0), beta_3=(3 / 2, -3 / 2),
    )  # fmt: skip


def SRA3() -> AdditiveRungeKutta:  # noqa: N802
    """Roessler's SRA3 for additive noise: three stages; strong order 3/2, without noise 3."""
    return _additive(
        c=(0.0, 1.0, 1 / 2), c_hat=(1.0, 0.0, 0.0), a=((), (1.0,), (1 / 4, 1 / 4)), b=((), (0.0,), (1.0, 1 / 2)),
        alpha=(1 / 6, 1 / 6, 2 / 3), beta_1=(1.0, 0.0, 0.0), beta_3=(-1.0, 1.0, 0.0),
    )  # fmt: skip


_SRI_A_HAT: tuple[Row, ...] = ((), (1 / 4,), (1.0, 0.0), (0.0, 0.0, 1 / 4))


def SRI1() -> StochasticRungeKutta:  # noqa: N802
    """Roessler's SRI1W1 for scalar and diagonal noise: strong order 3/2, without noise 2."""
    return StochasticRungeKutta(
        c=(0.0, 3 / 4, 0.0, 0.0), c_hat=(0.0, 1 / 4, 1.0, 1 / 4),
        a=((), (3 / 4,), (0.0, 0.0), (0.0, 0.0, 0.0)), b=((), (3 / 2,), (0.0, 0.0), (0.0, 0.0, 0.0)),
        a_hat=_SRI_A_HAT, b_hat=((), (1 / 2,), (-1.0, 0.0), (-5.0, 3.0, 1 / 2)),
        alpha=(1 / 3, 2 / 3, 0.0, 0.0),
        beta=(
            (-1.0, -1.0, 2.0, -2.0), (4 / 3, 4 / 3, -4 / 3, 5 / 3), (2 / 3, -1 / 3, -2 / 3, -2 / 3),
            (0.0, 0.0, 0.0, 1.0),
        ),
    )  # fmt: skip


def SRI2() -> StochasticRungeKutta:  # noqa: N802
    """Roessler's SRI2W1 for scalar and diagonal noise: strong order 3/2, without noise 3."""
    return StochasticRungeKutta(
        c=(0.0, 1.0, 1 / 2, 0.0), c_hat=(0.0, 1 / 4, 1.0, 1 / 4),
        a=((), (1.0,), (1 / 4, 1 / 4), (0.0, 0.0, 0.0)), b=((), (0.0,), (1.0, 1 / 2), (0.0, 0.0, 0.0)),
        a_hat=_SRI_A_HAT, b_hat=((), (-1 / 2,), (1.0, 0.0), (2.0, -1.0, 1 / 2)),
        alpha=(1 / 6, 1 / 6, 2 / 3, 0.0),
        beta=(
            (-1.0, 1.0, 2.0, -2.0), (4 / 3, -4 / 3, -4 / 3, 5 / 3), (2 / 3, 1 / 3, -2 / 3, -2 / 3),
            (0.0, 0.0, 0.0, 1.0),
        ),
    )  # fmt: skip
