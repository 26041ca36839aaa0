"""Sums over the whole past, which fractional equations need: directly, or by a sum of exponentials."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.integrate.exponential import phi1, phi2


@dataclass(frozen=True)
class SumOfExponentials:
    r"""Replaces a power-law kernel by exponentials, each of which can be carried along from step to step.

    $$t^{-\beta} = \frac{1}{\Gamma(\beta)} \int_{-\infty}^{\infty} e^{\beta x - t e^x}\,dx \approx \sum_i w_i e^{-s_i t},
    \qquad h \le t \le T$$

    by the trapezoidal rule, which converges exponentially. The number of terms grows with the logarithm of T/h: the time of a
    run becomes linear in the number of steps, and its memory constant.

    Args:
        tolerance: Relative error of the kernel, from 1e-13 to 1e-2.

    Source: Beylkin & Monzon (2010), doi:10.1016/j.acha.2009.08.011; Jiang, Zhang, Zhang & Zhang (2017),
        doi:10.4208/cicp.OA-2016-0136, for fractional equations.
    """

    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        if not isinstance(self.tolerance, float) or not 1e-13 <= self.tolerance <= 1e-2:
            raise ValueError(
                f"`SumOfExponentials(tolerance=...)`: expected a number in [1e-13, 1e-2], got {self.tolerance!r}"
            )

    def terms(self, beta: Tensor, shortest: float, longest: float) -> tuple[Tensor, Tensor]:
        """Rates ``(terms,)`` and weights ``(terms, *shape)`` of the kernels ``t ** -beta`` for times in these bounds.

        Args:
            beta: ``(*shape,)`` float64, in [0, 1].
            shortest: The least time.
            longest: The largest.
        """
        digits = math.log(1.0 / self.tolerance)
        spacing = math.pi**2 / (digits + 3.0)
        low = math.floor(math.log(self.tolerance / longest) / spacing)
        high = math.ceil(math.log((digits + 3.0) / shortest) / spacing)
        x = spacing * torch.arange(low + 1, high + 1, dtype=torch.float64, device=beta.device)
        inverse_gamma = torch.exp(
            -torch.lgamma(beta + 1.0)
        )  # of beta + 1, since 1 / gamma(beta) = beta / gamma(beta + 1)
        columns = x.reshape(-1, *(1,) * beta.dim())
        weights = spacing * beta * inverse_gamma * torch.exp(beta * columns)
        # The rule's points from `low` down, where t e^x is below the tolerance, form a geometric series: a constant term.
        slow = torch.exp(beta * (spacing * low)) * inverse_gamma / phi1(-spacing * beta)
        rates = torch.cat([x.new_zeros(1), torch.exp(x)])
        return rates, torch.cat([slow.unsqueeze(0), weights])


class Direct:
    """``sum_k weights[k] x[n - k]`` over a ring of the last values.

    Args:
        weights: By age, ``(rows, *alpha)``.
    """

    def __init__(self, weights: Tensor, like: Tensor) -> None:
        self.rows = weights.shape[0]
        self.weights = weights.to(like.dtype)

    def begin(self, like: Tensor) -> Tensor:
        """An empty ring."""
        return like.new_zeros((self.rows, *like.shape))

    def push(self, ring: Tensor, value: Tensor, number: Tensor) -> Tensor:
        """Put value ``number`` in the place of the oldest."""
        row = torch.remainder(number, self.rows).to(torch.int64)
        return ring.scatter(0, row.reshape((1,) * ring.dim()).expand(1, *value.shape), value.unsqueeze(0))

    def total(self, ring: Tensor, number: Tensor) -> Tensor:
        """The sum where value ``number`` is of age 0."""
        slots = torch.arange(self.rows, dtype=torch.float64, device=ring.device)
        weights = self.weights.index_select(0, torch.remainder(number - slots, self.rows).to(torch.int64))
        if weights.dim() == 1:
            return (weights.unsqueeze(0) @ ring.reshape(self.rows, -1)).reshape(ring.shape[1:])
        return (weights.reshape(self.rows, *(1,) * (ring.dim() - weights.dim()), *weights.shape[1:]) * ring).sum(0)


class Exponentials:
    """``scale * sum_i w_i exp(-s_i h) z_i`` over modes ``z_i`` that decay at the rates ``s_i`` and take in what is pushed.

    Args:
        rates: ``(terms,)``.
        weights: ``(terms, *alpha)``.
        scale: ``(*alpha,)``.
        dt: Step ``h``.
        linear: Whether what is pushed are ends of straight lines; else it stays constant during a step.
        like: A leaf of the state.
    """

    def __init__(self, rates: Tensor, weights: Tensor, scale: Tensor, dt: float, linear: bool, like: Tensor) -> None:
        decay = torch.exp(-rates * dt)
        first, second = phi1(-rates * dt), phi2(-rates * dt)
        self.weights = (scale * weights * decay.reshape(-1, *(1,) * scale.dim())).to(like.dtype)
        columns = (decay, dt * (first - second if linear else first), dt * second)
        self.decay, self.early, self.late = (self._column(x, like) for x in columns)
        self.terms = len(rates)

    @staticmethod
    def _column(x: Tensor, like: Tensor) -> Tensor:
        return x.to(like.dtype).reshape(-1, *(1,) * like.dim())

    def begin(self, like: Tensor) -> Tensor:
        """Modes at rest."""
        return like.new_zeros((self.terms, *like.shape))

    def push(self, modes: Tensor, value: Tensor, later: Tensor | None = None) -> Tensor:
        """Take in a step on which the value is constant, or leads to a later one."""
        moved = self.decay * modes + self.early * value
        return moved if later is None else moved + self.late * later

    def total(self, modes: Tensor) -> Tensor:
        """The sum."""
        if self.weights.dim() == 1:
            return (self.weights.unsqueeze(0) @ modes.reshape(self.terms, -1)).reshape(modes.shape[1:])
        weights = self.weights.reshape(self.terms, *(1,) * (modes.dim() - self.weights.dim()), *self.weights.shape[1:])
        return (weights * modes).sum(0)


# Weights


def rectangle_weights(power: Tensor, count: int) -> Tensor:
    """``(k + 1) ** power - k ** power`` for k = 0, 1, ..., ``(count, *power)``; 1 for k = 0."""
    k = _column(torch.arange(1, count, dtype=torch.float64, device=power.device), power)
    rest = k**power * torch.expm1(power * torch.log1p(1.0 / k))
    return torch.cat([torch.ones_like(power).unsqueeze(0), rest])


def trapezoid_weights(power: Tensor, count: int) -> Tensor:
    """``(k + 2) ** power - 2 (k + 1) ** power + k ** power`` for k = 0, 1, ..., without cancellation, ``(count, *power)``."""
    m = _column(torch.arange(1, count + 1, dtype=torch.float64, device=power.device), power)
    latest = torch.where(m > 1.0, torch.where(m > 1.0, m - 1.0, 1.0) ** power, 0.0)  # 0 ** power bends to NaN
    plain = (m + 1.0) ** power - 2.0 * m**power + latest
    far = m > 60.0
    square = torch.where(far, m, 60.0) ** -2.0
    series, term = torch.zeros_like(plain), torch.ones_like(plain)
    for q in range(1, 6):  # of 2 (cosh-like) even terms of the binomial series
        term = term * (power - (2 * q - 2)) * (power - (2 * q - 1)) / ((2 * q - 1) * (2 * q)) * square
        series = series + 2.0 * term
    return torch.where(far, m**power * series, plain)


def start_weights(alpha: Tensor, count: int) -> Tensor:
    """By how much the first value weighs more than `trapezoid_weights` of its age say, ``(count, *alpha)``."""
    m = _column(torch.arange(2, count + 2, dtype=torch.float64, device=alpha.device), alpha)
    return m ** (alpha + 1.0) * torch.expm1(alpha * torch.log1p(-1.0 / m) + torch.log1p(alpha / m))


def difference_weights(alpha: Tensor, count: int) -> Tensor:
    """Binomial weights ``(-1)^k binom(alpha, k)`` for k = 0, 1, ..., ``(count, *alpha)``."""
    k = _column(torch.arange(1, count, dtype=torch.float64, device=alpha.device), alpha)
    factors = 1.0 - (1.0 + alpha) / k
    return torch.cat([torch.ones_like(alpha).unsqueeze(0), torch.cumprod(factors, 0)])


def _column(x: Tensor, like: Tensor) -> Tensor:
    return x.reshape(-1, *(1,) * like.dim())
