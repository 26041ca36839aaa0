"""The one rule that attaches a slope to a step."""

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

    The value is the same with and without gradients (for finite ``x``). The rule is plain arithmetic, so reverse
    mode, forward mode, `torch.func.vmap` and `torch.compile` all take it.
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


def check_range(label: str, value: float, *, zero: bool = False) -> None:
    """Reject a shape parameter that is not finite and above 0, or not at least 0 where ``zero`` is allowed."""
    if not (value >= 0 if zero else value > 0) or not value < math.inf:
        expected = "of at least 0" if zero else "above 0"
        raise ValueError(f"`{label}`: expected a finite number {expected}, got {value!r}")
