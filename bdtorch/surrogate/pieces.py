"""Slopes put together from pieces, and those that do not fall off on both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.surrogate._surrogate import Surrogate, check_range
from bdtorch.surrogate.bells import Sigmoid


@dataclass(frozen=True)
class Triangle(Surrogate):
    r"""Slope $\gamma \max(0, 1 - |x| / w)$.

    Source: Esser et al. (2016), doi:10.1073/pnas.1604850113; Bellec et al. (2018), arXiv:1803.09574.
    """

    gamma: float = 0.3
    width: float = 1.0

    def __post_init__(self) -> None:
        check_range("Triangle(gamma=...)", self.gamma)
        check_range("Triangle(width=...)", self.width)

    def slope(self, x: Tensor) -> Tensor:
        return self.gamma * torch.clamp(1.0 - x.abs() / self.width, min=0.0)


@dataclass(frozen=True)
class PiecewiseQuadratic(Surrogate):
    r"""Slope $\max(0, \alpha - \alpha^2 |x|)$: a `Triangle` of unit area."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("PiecewiseQuadratic(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return Triangle(self.alpha, 1.0 / self.alpha).slope(x)


@dataclass(frozen=True)
class PiecewiseLeakyRelu(Surrogate):
    r"""Slope $\frac{1}{2w}$ where $|x| \le w$, and $c$ elsewhere: a box that leaks.

    Source: Wu, Deng, Li, Zhu & Shi (2018), doi:10.3389/fnins.2018.00331 (the box, $c = 0$).
    """

    c: float = 0.01
    w: float = 1.0

    def __post_init__(self) -> None:
        check_range("PiecewiseLeakyRelu(c=...)", self.c, zero=True)
        check_range("PiecewiseLeakyRelu(w=...)", self.w)

    def slope(self, x: Tensor) -> Tensor:
        return _choose(x.abs() <= self.w, 0.5 / self.w, self.c, x)


@dataclass(frozen=True)
class LeakyRelu(Surrogate):
    r"""Slope $\alpha$ below the threshold and $\beta$ from it on."""

    alpha: float = 0.1
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_range("LeakyRelu(alpha=...)", self.alpha, zero=True)
        check_range("LeakyRelu(beta=...)", self.beta)

    def slope(self, x: Tensor) -> Tensor:
        return _choose(x < 0, self.alpha, self.beta, x)


@dataclass(frozen=True)
class LogTailedRelu(Surrogate):
    r"""Slope $\alpha$ up to the threshold, 1 on $(0, 1]$ and $1 / x$ above.

    Source: Cai, He, Sun & Vasconcelos (2017), doi:10.1109/CVPR.2017.574.
    """

    alpha: float = 0.0

    def __post_init__(self) -> None:
        check_range("LogTailedRelu(alpha=...)", self.alpha, zero=True)

    def slope(self, x: Tensor) -> Tensor:
        return torch.where(x <= 0, self.alpha, 1.0 / torch.clamp(x, min=1.0))


@dataclass(frozen=True)
class S2NN(Surrogate):
    r"""Slope of the logistic function below the threshold, $\alpha s (1 - s)$ with $s = \sigma(\alpha x)$, and
    $\beta / (x + 1)$ from it on.

    Source: Suetake, Ikegawa, Saiin & Sawada (2023), doi:10.1016/j.neunet.2022.12.008.
    """

    alpha: float = 4.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_range("S2NN(alpha=...)", self.alpha)
        check_range("S2NN(beta=...)", self.beta)

    def slope(self, x: Tensor) -> Tensor:
        return torch.where(x < 0, Sigmoid(self.alpha).slope(x), self.beta / (torch.clamp(x, min=0.0) + 1.0))


@dataclass(frozen=True)
class SquarewaveFourierSeries(Surrogate):
    r"""Slope of the first terms of a square wave's Fourier series,
    $\frac{4}{T} \sum_{i=1}^{n} \cos \frac{2 \pi (2 i - 1) x}{T}$. It is periodic, and negative in places.
    """

    n: int = 2
    t_period: float = 8.0

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"`SquarewaveFourierSeries(n=...)`: expected an integer of at least 1, got {self.n!r}")
        check_range("SquarewaveFourierSeries(t_period=...)", self.t_period)

    def slope(self, x: Tensor) -> Tensor:
        phase = 2.0 * math.pi / self.t_period * torch.remainder(x, self.t_period)
        total = torch.cos(phase)
        for odd in range(3, 2 * self.n, 2):
            total = total + torch.cos(odd * phase)
        return 4.0 / self.t_period * total


def _choose(condition: Tensor, inside: float, outside: float, like: Tensor) -> Tensor:
    return torch.where(condition, inside, torch.full_like(like, outside))
