"""Stochastic equations with known solutions, and what measures the order of a method on them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bdtorch.integrate import (
    SRA1,
    SRA2,
    SRA3,
    SRI1,
    SRI2,
    Additive,
    BrownianPath,
    Calculus,
    DerivativeFreeMilstein,
    Diagonal,
    EulerHeun,
    EulerMaruyama,
    ExponentialEulerMaruyama,
    General,
    Milstein,
    Noise,
    Scalar,
    StochasticHeun,
    StochasticIntegrator,
    sdeint,
)

ITO, STRATONOVICH = Calculus.ITO, Calculus.STRATONOVICH

METHODS: dict[str, StochasticIntegrator] = {
    "EulerMaruyama": EulerMaruyama(),
    "EulerHeun": EulerHeun(),
    "StochasticHeun": StochasticHeun(),
    "ExponentialEulerMaruyama": ExponentialEulerMaruyama(),
    "Milstein": Milstein(),
    "DerivativeFreeMilstein": DerivativeFreeMilstein(),
    "SRA1": SRA1(),
    "SRA2": SRA2(),
    "SRA3": SRA3(),
    "SRI1": SRI1(),
    "SRI2": SRI2(),
}
"""Every stochastic method."""


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Problem:
    """An equation on [0, 1] and its solution at 1, where that is a function of the paths' ends."""

    f: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    noise: Noise
    calculus: Calculus
    solution: Callable[[Tensor], Tensor] | None = None

    def solve(self, method: StochasticIntegrator, path: BrownianPath, depth: int) -> Tensor:
        y0 = self.y0.expand(*path.batch_shape, *self.y0.shape)
        dt = path.step / 2**depth
        return sdeint(
            self.f, self.g, y0, double(0.0, 1.0), dt=dt, method=method, noise=self.noise, calculus=self.calculus,
            path=path, progress=False,
        ).y[-1]  # fmt: skip

    @functools.cached_property
    def path(self) -> BrownianPath:
        return BrownianPath(0.25, seed=5, batch_shape=(400,))

    @functools.cached_property
    def reference(self) -> Tensor:
        """The solution on `path`: in closed form, or by much shorter steps on the same path."""
        if self.solution is None:
            return self.solve(SRA3(), self.path, 7) if self.noise.additive else self.solve(EulerHeun(), self.path, 8)
        width = self.noise.width(self.y0, 0)
        motion = self.path.motion(4, width)[-1]
        return self.solution(motion if self.noise.factor is None else motion @ self.noise.factor.T)

    def strong_slope(self, method: StochasticIntegrator, depths: range) -> float:
        """The measured order of convergence of paths, in the root mean square."""
        errors = [float((self.solve(method, self.path, d) - self.reference).square().mean().sqrt()) for d in depths]
        return -float(np.polyfit(list(depths), np.log2(errors), 1)[0])


_CORRELATED = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
_THREE = torch.tensor([[1.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 1.0]], dtype=torch.float64)


def _geometric(calculus: Calculus) -> Problem:
    """Geometric Brownian motion."""
    mu, sigma, y0 = 0.5, 0.8, double(1.0, 0.7)
    drift = mu - 0.5 * sigma**2 if calculus is ITO else mu
    return Problem(
        lambda t, y: mu * y, lambda t, y: sigma * y, y0, Diagonal(), calculus,
        lambda w: y0 * torch.exp(drift + sigma * w),
    )  # fmt: skip


def _hyperbolic(calculus: Calculus, noise: Noise) -> Problem:
    """``y = tanh(b W + artanh y0)``: Kloeden & Platen (1992), section 4.4."""
    b, y0 = 0.5, double(0.2, -0.3)
    shift = torch.atanh(y0)

    def drift(t: Tensor, y: Tensor) -> Tensor:
        return -(b**2) * y * (1.0 - y * y) if calculus is ITO else torch.zeros_like(y)

    return Problem(drift, lambda t, y: b * (1.0 - y * y), y0, noise, calculus, lambda w: torch.tanh(b * w + shift))


_DIRECTIONS = torch.tensor([[[0.4, 0.1], [0.1, 0.4]], [[0.3, -0.2], [-0.2, 0.3]], [[0.2, 0.1], [0.1, 0.2]]]).double()


def _commuting(calculus: Calculus, correlation: Tensor | None) -> Problem:
    """``dy = -y/2 dt + sum_j B_j y dW_j`` with matrices that commute, so that the solution is one exponential."""
    y0 = double(1.0, -0.5)
    ones = torch.eye(3, dtype=torch.float64) if correlation is None else correlation
    square = torch.einsum("jl,jab,lbc->ac", ones, _DIRECTIONS, _DIRECTIONS)
    generator = -0.5 * torch.eye(2, dtype=torch.float64) - (0.5 * square if calculus is ITO else 0.0)
    return Problem(
        lambda t, y: -0.5 * y,
        lambda t, y: torch.einsum("jab,...b->...aj", _DIRECTIONS, y),
        y0, General(processes=3, commutative=True, correlation=correlation), calculus,
        lambda w: torch.linalg.matrix_exp(generator + torch.einsum("...j,jab->...ab", w, _DIRECTIONS)) @ y0,
    )  # fmt: skip


def _noncommuting() -> Problem:
    """A rotation and a stretch, whose order matters: order 1/2 is all that increments alone can give."""
    matrices = torch.tensor([[[0.0, -0.9], [0.9, 0.0]], [[0.8, 0.0], [0.0, -0.8]]], dtype=torch.float64)
    return Problem(
        lambda t, y: -0.3 * y, lambda t, y: torch.einsum("jab,...b->...aj", matrices, y), double(1.0, 0.4),
        General(processes=2), STRATONOVICH,
    )  # fmt: skip


def _bent(t: Tensor, y: Tensor) -> Tensor:
    """A coupled drift that is 0, with bends, at the initial state 0, where the noise's error outweighs the drift's."""
    return 2.0 * torch.stack([torch.cos(y[..., 1]) - 1.0, torch.cos(y[..., 0] - y[..., 1]) - 1.0], -1)


def _two(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack([1.0 + 0.3 * torch.sin(2.0 * t), 0.8 - 0.3 * torch.sin(2.0 * t)]).expand_as(y)


_SPREAD = torch.tensor([[0.8, 0.5, -0.2], [0.1, -0.7, 0.6]], dtype=torch.float64)


def _six(t: Tensor, y: Tensor) -> Tensor:
    return (_SPREAD * (1.0 + 0.3 * torch.sin(2.0 * t))).expand(*y.shape, 3)


def _additive(g: Any, noise: Additive, calculus: Calculus = ITO) -> Problem:
    return Problem(_bent, g, double(0.0, 0.0), noise, calculus)


PROBLEMS: dict[str, Problem] = {
    "geometric, Ito": _geometric(ITO),
    "geometric, Stratonovich": _geometric(STRATONOVICH),
    "hyperbolic, Ito": _hyperbolic(ITO, Diagonal()),
    "hyperbolic, Stratonovich": _hyperbolic(STRATONOVICH, Diagonal()),
    "hyperbolic, Ito, correlated": _hyperbolic(ITO, Diagonal(_CORRELATED)),
    "hyperbolic, Ito, scalar": _hyperbolic(ITO, Scalar()),
    "hyperbolic, Stratonovich, scalar": _hyperbolic(STRATONOVICH, Scalar()),
    "commuting, Ito": _commuting(ITO, None),
    "commuting, Ito, correlated": _commuting(ITO, _THREE),
    "commuting, Stratonovich, correlated": _commuting(STRATONOVICH, _THREE),
    "additive": _additive(_two, Additive()),
    "additive, correlated": _additive(_two, Additive(_CORRELATED)),
    "additive, three processes, correlated": _additive(_six, Additive(_THREE, processes=3), STRATONOVICH),
    "noncommuting": _noncommuting(),
}
"""Equations by name."""


def suits(method: StochasticIntegrator, problem: Problem) -> bool:
    """Whether the method is made for the problem."""
    noise = problem.noise
    return (
        (problem.calculus in method.calculi or noise.additive)
        and isinstance(noise, method.noises)
        and (not method.needs_structure or noise.commutative)
        and (method.takes_vectors or not noise.vector)
    )
