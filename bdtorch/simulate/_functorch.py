"""All that is known here of the private parts of `torch.func`: which transforms are active, and what they wrap.

Inside `torch.func.vmap` a tensor stands for one member of an ensemble. It wraps a tensor of all members, called physical
here, and bears a level, the number of the vmap that it belongs to; under nested vmaps it wraps another such tensor.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.pyfunctorch import (
    VmapInterpreter,
    retrieve_all_functorch_interpreters,
    temporarily_clear_interpreter_stack,
)
from torch.autograd import forward_ad


@dataclass(frozen=True)
class Level:
    """One active vmap.

    Attributes:
        number: Its number in torch's stack of transforms.
        size: How many members it maps over.
        randomness: What it does with draws from torch's own generators, as `torch.func.vmap` takes it.
    """

    number: int
    size: int
    randomness: str


def transformed() -> bool:
    """Whether any `torch.func` transform is active."""
    return torch._C._are_functorch_transforms_active()


def has_tangent(x: Tensor) -> bool:
    """Whether a tensor carries a forward derivative."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def active_vmaps() -> list[Level] | None:
    """The active vmaps, outermost first, or None where other transforms are active too."""
    interpreters = retrieve_all_functorch_interpreters()
    if not all(isinstance(interpreter, VmapInterpreter) for interpreter in interpreters):
        return None
    vmaps: list[Any] = list(interpreters)
    return [Level(vmap.level(), vmap.batch_size(), vmap.randomness()) for vmap in vmaps]


def levels_of(x: Tensor) -> tuple[int, ...]:
    """The numbers of the vmaps whose members ``x`` differs between, outermost first."""
    numbers: list[int] = []
    while _functorch.is_batchedtensor(x):
        numbers.insert(0, _functorch.maybe_get_level(x))
        x = _functorch.get_unwrapped(x)
    return tuple(numbers)


def physical(x: Tensor, axis: int = 0) -> Tensor:
    """The tensor of all members, with one axis for each of `levels_of` from ``axis`` on, outermost first."""
    while _functorch.is_batchedtensor(x):
        x = _functorch.get_unwrapped(x).movedim(_functorch.maybe_get_bdim(x), axis)
    return x


def beneath(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What two tensors wrap, as far as the same vmaps lie along the same axes of both."""
    while _functorch.is_batchedtensor(x) and _functorch.is_batchedtensor(y) and _wrapping(x) == _wrapping(y):
        x, y = _functorch.get_unwrapped(x), _functorch.get_unwrapped(y)
    return x, y


def _wrapping(x: Tensor) -> tuple[int, int]:
    return _functorch.maybe_get_level(x), _functorch.maybe_get_bdim(x)


def member(x: Tensor, levels: tuple[int, ...], axis: int = 0) -> Tensor:
    """The inverse of `physical`, where ``levels`` are active."""
    for level in levels:
        x = _functorch._add_batch_dim(x, axis, level)
    return x


def outside() -> AbstractContextManager[Any]:
    """Leave every transform for a while."""
    return temporarily_clear_interpreter_stack()
