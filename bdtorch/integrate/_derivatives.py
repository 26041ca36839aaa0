"""Derivatives of what a user gave, all of reverse passes: in eager PyTorch forward ones take twice as long, and compiled
loops have no operations for them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative

_ENTRIES = 1 << 22  # of a Jacobian that are in memory at once where its diagonal is all that is wanted


def row_jacobian(function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """``J[..., i, j] = d function_i / d y_j``, row by row, backwards from all components at once."""
    if not y.shape[-1]:
        return y.new_zeros((*y.shape, 0))
    value, pull = torch.func.vjp(function, y)[:2]
    basis = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    rows: Tensor = torch.func.vmap(lambda direction: pull(direction.expand_as(value))[0])(basis)
    return rows.movedim(0, -2)


def row_diagonal(function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """``d function_i / d y_i``, of the shape of ``y``, of a function whose components may be coupled."""
    if not y.shape[-1]:
        return torch.zeros_like(y)
    value, pull = torch.func.vjp(function, y)[:2]
    numbers = torch.arange(y.shape[-1], device=y.device)

    def entry(number: Tensor) -> Tensor:
        here = numbers == number
        row = pull(torch.zeros_like(value) + here.to(y.dtype))[0]
        return torch.where(here, row, 0.0).sum(-1)

    at_once = max(1, _ENTRIES // max(1, y.numel()))
    diagonal: Tensor = torch.func.vmap(entry, chunk_size=at_once if at_once < len(numbers) else None)(numbers)
    return diagonal.movedim(0, -1)


def small_jacobian(function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """The same, backwards from each component in turn: in plain operations, which every loop can compile."""
    value, pull = torch.func.vjp(function, y)[:2]
    basis = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device)
    return torch.stack([pull(torch.zeros_like(value) + direction)[0] for direction in basis], -2)


def time_slope(derivative: Derivative, y: Tensor, t: Tensor) -> Tensor:
    """``df/dt`` at fixed ``y``, for a ``t`` that all rows share or with one for each: by `along`, in plain operations."""
    return along(lambda s: derivative(y, s), t, torch.ones_like(t))


def own_slopes(derivative: Callable[[State, Tensor], State], y: State, t: Tensor) -> State:
    """``df_i/dy_i``, where ``f`` acts element by element within each leaf."""
    flat, spec = tree.flatten(y)

    def own(index: int) -> Tensor:
        def equation(value: Tensor) -> Tensor:
            return tree.leaves(derivative(tree.replace_leaf(y, index, value), t))[index]

        return along_own(equation, flat[index], torch.ones_like(flat[index]))

    return tree.unflatten([own(index) for index in range(len(flat))], spec)


def along(function: Callable[[State], State], y: State, direction: State) -> State:
    """The derivative of ``function`` at ``y`` along ``direction``: the reverse pass, linear in its seed, reversed."""

    def pulled(seed: State) -> State:
        return torch.func.vjp(function, y)[1](seed)[0]

    value = torch.func.vjp(function, y)[0]
    return _pull(pulled, tree.map(torch.zeros_like, value), direction)


def along_own(function: Callable[[State], State], y: State, direction: State) -> State:
    """As `along` where each element of the function depends on its own element of ``y`` alone: one reverse pass."""
    return _pull(function, y, direction)


def _pull(function: Callable[[State], State], y: State, seed: State) -> State:
    return torch.func.vjp(function, y)[1](seed)[0]
