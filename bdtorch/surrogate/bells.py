"""Slopes that fall off smoothly on both sides of the threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.surrogate._surrogate import Surrogate, check_range


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    r"""Slope $1 / (1 + \alpha |x|)^2$.

    Source: Zenke & Ganguli (2018), doi:10.1162/neco_a_01086.
    """

    alpha: float = 100.0

    def __post_init__(self) -> None:
        check_range("SuperSpike(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 1.0 / (1.0 + self.alpha * x.abs()) ** 2


@dataclass(frozen=True)
class SoftSign(Surrogate):
    r"""Slope of a soft sign between 0 and 1, $\frac{\alpha}{2} / (1 + \alpha |x|)^2$: `SuperSpike` of unit area."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("SoftSign(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 0.5 * self.alpha * SuperSpike(self.alpha).slope(x)


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    r"""Slope of the logistic function, $\alpha s (1 - s)$ with $s = \sigma(\alpha x)$."""

    alpha: float = 4.0

    def __post_init__(self) -> None:
        check_range("Sigmoid(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        s = torch.sigmoid(self.alpha * x)
        return self.alpha * s * (1.0 - s)


@dataclass(frozen=True)
class Arctan(Surrogate):
    r"""Slope $\frac{\alpha}{2} / (1 + (\pi \alpha x / 2)^2)$.

    Source: Fang et al. (2021), doi:10.1109/ICCV48922.2021.00266.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        check_range("Arctan(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 0.5 * self.alpha / (1.0 + (0.5 * math.pi * self.alpha * x) ** 2)


@dataclass(frozen=True)
class Erf(Surrogate):
    r"""Slope of the error function, $\frac{\alpha}{\sqrt{\pi}} e^{-\alpha^2 x^2}$: a Gaussian of unit area.

    Source: Wu, Deng, Li, Zhu & Shi (2018), doi:10.3389/fnins.2018.00331.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("Erf(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return self.alpha / math.sqrt(math.pi) * torch.exp(-((self.alpha * x) ** 2))


@dataclass(frozen=True)
class Gaussian(Surrogate):
    r"""Slope $\alpha\,\mathcal{N}(x; 0, \sigma)$.

    Source: Yin, Corradi & Bohte (2021), doi:10.1038/s42256-021-00397-w.
    """

    sigma: float = 0.5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_range("Gaussian(sigma=...)", self.sigma)
        check_range("Gaussian(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return self.alpha * _normal_density(x, 0.0, self.sigma)


@dataclass(frozen=True)
class MultiGaussian(Surrogate):
    r"""A Gaussian with two negative lobes:
    $\gamma\,[(1 + h)\,\mathcal{N}(x; 0, \sigma) - h\,\mathcal{N}(x; \sigma, s\sigma) - h\,\mathcal{N}(x; -\sigma, s\sigma)]$.

    Source: Yin, Corradi & Bohte (2021), doi:10.1038/s42256-021-00397-w.
    """

    h: float = 0.15
    s: float = 6.0
    sigma: float = 0.5
    gamma: float = 0.5

    def __post_init__(self) -> None:
        check_range("MultiGaussian(h=...)", self.h, zero=True)
        for name in ("s", "sigma", "gamma"):
            check_range(f"MultiGaussian({name}=...)", getattr(self, name))

    def slope(self, x: Tensor) -> Tensor:
        wide = self.s * self.sigma
        lobes = _normal_density(x, self.sigma, wide) + _normal_density(x, -self.sigma, wide)
        return self.gamma * ((1.0 + self.h) * _normal_density(x, 0.0, self.sigma) - self.h * lobes)


@dataclass(frozen=True)
class Slayer(Surrogate):
    r"""Slope $e^{-\alpha |x|}$.

    Source: Shrestha & Orchard (2018), arXiv:1810.08646.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("Slayer(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return torch.exp(-self.alpha * x.abs())


@dataclass(frozen=True)
class PiecewiseExp(Surrogate):
    r"""Slope $\frac{\alpha}{2} e^{-\alpha |x|}$: `Slayer` of unit area."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("PiecewiseExp(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 0.5 * self.alpha * Slayer(self.alpha).slope(x)


@dataclass(frozen=True)
class QPseudoSpike(Surrogate):
    r"""Slope with a tail of chosen weight, $(1 + \frac{2 |x|}{\alpha + 1})^{-\alpha}$.

    Source: Herranz-Celotti & Rouat (2022), arXiv:2202.00282.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        check_range("QPseudoSpike(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return (1.0 + 2.0 / (self.alpha + 1.0) * x.abs()) ** (-self.alpha)


@dataclass(frozen=True)
class NonzeroSignLog(Surrogate):
    r"""Slope of $\operatorname{sign}(x) \ln(1 + \alpha |x|)$, which is $1 / (1 / \alpha + |x|)$."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("NonzeroSignLog(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 1.0 / (1.0 / self.alpha + x.abs())


def _normal_density(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / std) ** 2) / (math.sqrt(2.0 * math.pi) * std)
