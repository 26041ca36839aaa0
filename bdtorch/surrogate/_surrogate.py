"""The surrogate gradients and the one rule that attaches a slope to a step."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad


@dataclass(frozen=True)
class Surrogate(abc.ABC):
    """``surrogate(x)`` is 1 where ``x >= 0`` and 0 elsewhere, in the dtype of ``x``; its derivative is `slope`.

    The value is the same with and without gradients. The rule is plain arithmetic, so reverse mode, forward mode,
    `torch.func.vmap` and `torch.compile` all take it.
    """

    @abc.abstractmethod
    def slope(self, x: Tensor) -> Tensor:
        """The derivative that stands in for the Dirac pulse."""

    def __call__(self, x: Tensor) -> Tensor:
        spike = (x >= 0).to(x.dtype)
        if not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
            return spike
        path = x * self.slope(x.detach())
        return spike + (path - path.detach())


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"`{name}`: expected a finite number above 0, got {value!r}")


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    r"""Slope $1 / (1 + \alpha |x|)^2$.

    Source: Zenke & Ganguli (2018), doi:10.1162/neco_a_01086.
    """

    alpha: float = 100.0

    def __post_init__(self) -> None:
        _check_positive("SuperSpike(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 1.0 / (1.0 + self.alpha * x.abs()) ** 2


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    r"""Slope of the logistic function, $\alpha s (1 - s)$ with $s = \sigma(\alpha x)$."""

    alpha: float = 4.0

    def __post_init__(self) -> None:
        _check_positive("Sigmoid(alpha=...)", self.alpha)

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
        _check_positive("Arctan(alpha=...)", self.alpha)

    def slope(self, x: Tensor) -> Tensor:
        return 0.5 * self.alpha / (1.0 + (0.5 * math.pi * self.alpha * x) ** 2)


@dataclass(frozen=True)
class Triangle(Surrogate):
    r"""Slope $\gamma \max(0, 1 - |x| / w)$.

    Source: Esser et al. (2016), doi:10.1073/pnas.1604850113; Bellec et al. (2018), arXiv:1803.09574.
    """

    gamma: float = 0.3
    width: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("Triangle(gamma=...)", self.gamma)
        _check_positive("Triangle(width=...)", self.width)

    def slope(self, x: Tensor) -> Tensor:
        return self.gamma * torch.clamp(1.0 - x.abs() / self.width, min=0.0)
