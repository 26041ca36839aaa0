"""Initialisers: random values for parameters, weights and initial states.

An initialiser is any callable ``(shape, *, seed, dtype, device) -> Tensor``. The ones here draw from the counter-based
generator of `bdtorch.ops.random`, so a seed names the same values on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.ops import random


def _check(name: str, value: float, *, positive: bool = False) -> None:
    if not math.isfinite(value) or (positive and value < 0):
        raise ValueError(f"`{name}`: expected a finite{' non-negative' if positive else ''} number, got {value!r}")


def _count(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


@dataclass(frozen=True)
class Normal:
    """Gaussian values with the given mean and standard deviation (both in the unit of what they initialise)."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        _check("Normal(mean=...)", self.mean)
        _check("Normal(std=...)", self.std, positive=True)

    def __call__(self, shape: tuple[int, ...], *, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        key = random.make_key(seed, device=device)
        sample = random.normal(key, torch.zeros_like(key), _count(shape), dtype=dtype)
        return (self.mean + self.std * sample).reshape(shape)


@dataclass(frozen=True)
class Uniform:
    """Values uniform in ``[low, high)``."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check("Uniform(low=...)", self.low)
        _check("Uniform(high=...)", self.high)
        if self.high < self.low:
            raise ValueError(f"`Uniform(high=...)`: expected at least low={self.low}, got {self.high}")

    def __call__(self, shape: tuple[int, ...], *, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        key = random.make_key(seed, device=device)
        sample = random.uniform(key, torch.zeros_like(key), _count(shape), dtype=dtype)
        return (self.low + (self.high - self.low) * sample).reshape(shape)


@dataclass(frozen=True)
class LogNormal:
    """Positive values whose logarithm is Gaussian; ``mean`` and ``std`` are those of the values themselves."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        _check("LogNormal(mean=...)", self.mean)
        _check("LogNormal(std=...)", self.std, positive=True)
        if not self.mean > 0:
            raise ValueError(f"`LogNormal(mean=...)`: expected a positive number, got {self.mean!r}")

    def __call__(self, shape: tuple[int, ...], *, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        variance = math.log1p((self.std / self.mean) ** 2)
        gaussian = Normal(math.log(self.mean) - variance / 2, math.sqrt(variance))
        return gaussian(shape, seed=seed, dtype=dtype, device=device).exp()
