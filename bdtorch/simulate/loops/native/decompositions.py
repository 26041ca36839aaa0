"""Operations as compositions of others, where PyTorch's own table ends in operations that have no lowering."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate.loops.native import backward, indexing
from bdtorch.simulate.loops.native.operations import LoweringError


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


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, space: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows, mean, scale = _layer_norm(x.reshape(n, groups, -1), [x.numel() // (n * groups)], None, None, eps)
    out = rows.reshape(n, channels, space)
    out = out if weight is None else out * weight[:, None]
    out = out if bias is None else out + bias[:, None]
    return out.reshape(x.shape), mean.reshape(n, groups), scale.reshape(n, groups)


def _roll(x: Tensor, shifts: list[int], dims: Any = ()) -> Tensor:
    if not dims:
        return _roll(x.reshape(-1), shifts, [0]).reshape(x.shape)
    for shift, axis in zip(shifts, dims, strict=True):
        cut = -shift % x.shape[axis] if x.shape[axis] else 0
        x = torch.cat([x.narrow(axis, cut, x.shape[axis] - cut), x.narrow(axis, 0, cut)], axis)
    return x


def _max_of_all(x: Tensor, dim: int | None = None, keepdim: bool = False, *, least: bool = False) -> Tensor:
    """Argmax and argmin without an axis."""
    find = torch.argmin if least else torch.argmax
    found = find(x.reshape(-1), 0)
    return found.reshape([1] * x.dim()) if keepdim else found


def _diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    x = x.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    count = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
    first = max(0, offset) - min(0, offset) * columns
    flat = x.reshape(*x.shape[:-2], rows * columns)
    return flat[..., first : first + (count - 1) * (columns + 1) + 1 : columns + 1] if count else flat[..., :0]


def _diagonal_backward(g: Tensor, shape: list[int], offset: int, dim1: int, dim2: int) -> Tensor:
    places = torch.arange(math.prod(shape)).reshape(shape).diagonal(offset, dim1, dim2).reshape(-1)
    return torch.zeros(math.prod(shape), dtype=g.dtype).scatter(0, places, g.reshape(-1)).reshape(shape)


def _as_strided(x: Tensor, size: list[int], stride: list[int], offset: int | None = None) -> Tensor:
    first = (x.storage_offset() if offset is None else offset) - x.storage_offset()
    last = first + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if not x.is_contiguous() or first < 0 or last >= x.numel():
        raise LoweringError("as_strided beyond the elements of a contiguous tensor")
    places = torch.arange(int(first), int(last) + 1).as_strided(size, stride, 0)
    return x.reshape(-1).index_select(0, places.reshape(-1)).reshape(size)


def _unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    if not x.dim():
        return x.reshape(1)[:size]
    axis = dimension % x.dim()
    starts = range(0, x.shape[axis] - size + 1, step)
    return torch.stack([x.narrow(axis, start, size).movedim(axis, -1) for start in starts], axis)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, causal: bool = False, *, attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        scores = torch.where(allowed, scores, -math.inf)
    scores = scores if attn_mask is None else scores + attn_mask
    return torch.softmax(scores, -1) @ v, torch.logsumexp(scores, -1)


def _median(x: Tensor) -> Tensor:
    return x.reshape(-1).median(0)[0] if x.numel() else torch.full((), math.nan).to(x.dtype)  # as PyTorch has it


def _distances(a: Tensor, b: Tensor, p: float, mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


def _search(
    rows: Tensor, x: Tensor, *, out_int32: bool = False, right: bool = False, side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    if sorter is not None:
        rows = rows.gather(-1, sorter)
    below = rows.unsqueeze(-2) <= x.unsqueeze(-1) if right or side == "right" else rows.unsqueeze(-2) < x.unsqueeze(-1)
    if rows.dim() == 1:
        below = rows <= x.unsqueeze(-1) if right or side == "right" else rows < x.unsqueeze(-1)
    return below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _broadcast_in_dim(x: Tensor, shape: list[int], dims: list[int]) -> Tensor:
    apart = [1] * len(shape)
    for axis, extent in zip(dims, x.shape, strict=True):
        apart[axis] = extent
    return x.reshape(apart).expand(shape)


def _divided(a: Any, b: Any) -> Tensor:
    whole = not any(x.is_floating_point() if isinstance(x, Tensor) else isinstance(x, float) for x in (a, b))
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def _average(
    x: Tensor, kernel: list[int], stride: list[int] = (), padding: list[int] = (0,), ceil: bool = False,  # type: ignore[assignment]
    count_padding: bool = True, divisor: int | None = None,
) -> Tensor:  # fmt: skip
    """Average pooling over two axes."""
    if ceil or any(padding):
        raise LoweringError("average pooling with padding or ceil_mode")
    kernel = list(kernel) * 2 if len(kernel) == 1 else list(kernel)
    stride = (list(stride) * 2 if len(stride) == 1 else list(stride)) or kernel
    windows = x.unfold(-2, kernel[0], stride[0]).unfold(-2, kernel[1], stride[1])
    return windows.sum((-2, -1)) / (divisor or kernel[0] * kernel[1])


def solve_for_gradient(
    a: Tensor, factors: Tensor, pivots: Tensor, b: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """``a.T x = b``, or ``x a.T = b``: what the gradients of solving and of determinants ask for.

    They ask by way of factors, which are those of the transpose where ``a`` is contiguous, and of ``a`` itself otherwise.
    """
    return torch.linalg.solve(a.mT, b) if left else torch.linalg.solve(a, b.mT).mT


TABLE: dict[str, Callable[..., Any]] = {
    "aten._cdist_forward.default": _distances,
    "aten._weight_norm_interface_backward.default": backward.weight_norm_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": _attention,
    "aten.argmax.default": _max_of_all,
    "aten.argmin.default": functools.partial(_max_of_all, least=True),
    "aten.as_strided.default": _as_strided,
    "aten.avg_pool2d.default": _average,
    "aten.avg_pool2d_backward.default": backward.average_backward,
    "aten.bucketize.Tensor": lambda x, rows, **options: _search(rows, x, **options),
    "aten.cholesky_solve.default": lambda b, factor, upper=False: torch.linalg.solve_triangular(
        factor if upper else factor.mT,
        torch.linalg.solve_triangular(factor.mT if upper else factor, b, upper=False),
        upper=True,
    ),
    "aten.convolution_backward.default": backward.convolution_backward,
    "aten.diagonal.default": _diagonal,
    "aten.diagonal_backward.default": _diagonal_backward,
    "aten.diagonal_copy.default": _diagonal,
    "aten.index.Tensor": indexing.index,
    "aten.median.default": _median,
    "aten.remainder.Scalar_Tensor": lambda a, b: torch.remainder(torch.full((), a, dtype=torch.result_type(a, b)), b),
    "aten.scatter_reduce.two": indexing.scatter_reduce,
    "aten.searchsorted.Tensor": _search,
    "aten.signbit.default": lambda x: torch.copysign(torch.ones_like(x), x) < 0 if x.is_floating_point() else x < 0,
    "aten.unfold.default": _unfold,
    "aten.unsafe_split.Tensor": lambda x, size, dim=0: [part.clone() for part in x.split(size, dim)],
    "aten.unsafe_split_with_sizes.default": lambda x, sizes, dim=0: [part.clone() for part in x.split(sizes, dim)],
    "aten.upsample_nearest1d_backward.default": backward.nearest_backward(1),
    "aten.upsample_nearest2d_backward.default": backward.nearest_backward(2),
    "prims.broadcast_in_dim.default": _broadcast_in_dim,
    "prims.div.default": _divided,
    "prims.mul.default": torch.ops.aten.mul,
    "prims.round.default": torch.ops.aten.round,
    "prims.sum.default": lambda x, dims, **options: x.sum(dims, **options) if dims else x,
    "prims.where.default": torch.ops.aten.where,
    "aten.index_put.default": indexing.index_put,
    "aten.native_group_norm.default": _group_norm,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.roll.default": _roll,
    "aten.var.correction": _var,
    "prims.var.default": _prims_var,
    # Forward differentiation meets numbers with these.
    "prims.add.default": torch.add,
    "prims.neg.default": torch.neg,
    "prims.sub.default": torch.sub,
}


def is_without_dropout(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether it is attention without dropout, which torch counts among the operations that draw."""
    dropout = args[3] if len(args) > 3 else kwargs.get("dropout_p", 0.0)
    return name == "aten._scaled_dot_product_flash_attention_for_cpu.default" and dropout == 0.0


def is_apart(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation that has a lowering is asked for in a way that has none, and is to be taken apart."""
    if name not in _APART:
        return False
    if name == "aten.index.Tensor":
        return not indexing.is_direct(args[1])
    if name == "aten.scatter_reduce.two":
        return not indexing.is_direct_reduction(args, kwargs)
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    return axis is None


_APART = {"aten.index.Tensor", "aten.scatter_reduce.two", "aten.argmax.default", "aten.argmin.default"}
