"""Operations as compositions of others, where PyTorch's own table ends in operations that have no lowering."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _var(x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    axes = list(range(x.dim())) if not dim else [axis % x.dim() for axis in dim]
    count = math.prod(x.shape[axis] for axis in axes)
    deviation = x - x.mean(axes, keepdim=True)
    return (deviation * deviation).sum(axes, keepdim) / max(0.0, count - (1.0 if correction is None else correction))


def _prims_var(x: Tensor, dims: Any, correction: float = 1.0) -> Tensor:
    return _var(x, dims, correction=correction)


def _layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(axes, keepdim=True)
    scale = torch.rsqrt(_var(x, axes, correction=0.0, keepdim=True) + eps)
    out = (x - mean) * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, scale


def _roll(x: Tensor, shifts: list[int], dims: Any = ()) -> Tensor:
    if not dims:
        return _roll(x.reshape(-1), shifts, [0]).reshape(x.shape)
    for shift, axis in zip(shifts, dims, strict=True):
        cut = -shift % x.shape[axis] if x.shape[axis] else 0
        x = torch.cat([x.narrow(axis, cut, x.shape[axis] - cut), x.narrow(axis, 0, cut)], axis)
    return x


def _index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    chosen = [axis for axis, index in enumerate(indices) if index is not None]
    index = indices[chosen[0]] if len(chosen) == 1 else None
    if index is None or index.dtype != torch.int64:
        raise NotImplementedError("index_put with other than one tensor of int64 indices; write it with torch.scatter")
    (axis,) = chosen
    shape = (*x.shape[:axis], index.numel(), *x.shape[axis + 1 :])
    flat = torch.where(index < 0, index + x.shape[axis], index).reshape(-1)
    spread = flat.reshape(-1, *(1 for _ in x.shape[axis + 1 :])).expand(shape)
    values = values.expand(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]).reshape(shape)
    return x.scatter_add(axis, spread, values) if accumulate else x.scatter(axis, spread, values)


TABLE: dict[str, Callable[..., Any]] = {
    "aten.index_put.default": _index_put,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.roll.default": _roll,
    "aten.var.correction": _var,
    "prims.var.default": _prims_var,
    # Forward differentiation meets numbers with these.
    "prims.add.default": torch.add,
    "prims.div.default": torch.true_divide,
    "prims.mul.default": torch.mul,
    "prims.neg.default": torch.neg,
    "prims.sub.default": torch.sub,
}
