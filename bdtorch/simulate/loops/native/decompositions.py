"""Operations as compositions of others, where PyTorch's own table ends in operations that have no lowering."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate.loops.native import backward, convolutions, indexing, pooling
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
    weights, scores = backward.attention_weights(q, k, causal, attn_mask, scale)
    return weights @ v, torch.logsumexp(scores, -1)


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


def _nan_median(x: Tensor) -> Tensor:
    return _nan_median_along(x.reshape(-1), 0)[0] if x.numel() else _median(x)


def _nan_median_along(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of the two numbers in the middle, and where it is; behind them all lie those that are none."""
    values, places = x.sort(dim=dim, stable=True)
    count = (~x.isnan()).sum(dim, keepdim=True)
    middle = torch.where(count > 0, (count - 1) // 2, 0)
    found = [part.gather(dim, middle) for part in (values, places)]
    return (found[0], found[1]) if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _trilinear(
    a: Tensor, b: Tensor, c: Tensor, into_a: list[int], into_b: list[int], into_c: list[int], summed: list[int], unroll: int = 1
) -> Tensor:  # fmt: skip
    """Products of three tensors that are given further axes first, summed over some."""
    for axes, number in ((into_a, 0), (into_b, 1), (into_c, 2)):
        for axis in axes:
            a, b, c = (x.unsqueeze(axis) if k == number else x for k, x in enumerate((a, b, c)))
    product = a * b * c
    return product.sum(summed) if summed else product


def _added_products(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * torch.bmm(a, b).sum(0)


def _zeta(s: Any, q: Any) -> Tensor:
    dtype = next(x.dtype for x in (s, q) if isinstance(x, Tensor))
    s, q = (x if isinstance(x, Tensor) else torch.full((), x, dtype=dtype) for x in (s, q))
    return torch.special.zeta(s, q)


def _polygamma(n: int, x: Tensor) -> Tensor:
    if n == 0:
        return torch.digamma(x)
    if n != 1:
        return (-1.0) ** (n + 1) * math.factorial(n) * _zeta(n + 1, x)
    mirrored = torch.where(x < 0, 1 - x, x)  # since the sum is long for what is far below zero
    found = _zeta(2, mirrored)
    return torch.where(x < 0, (math.pi / torch.sin(math.pi * (x - x.trunc()))) ** 2 - found, found)


_NEAREST = [f"{stem}{space}d" for stem in ("upsample_nearest", "_upsample_nearest_exact") for space in (1, 2, 3)]
TABLE: dict[str, Callable[..., Any]] = {
    **{f"aten.{name}.default": pooling.nearest(name) for name in _NEAREST},
    **{f"aten.{name}_backward.default": pooling.nearest_backward(name) for name in _NEAREST},
    "aten._adaptive_avg_pool3d.default": pooling.adaptive,
    "aten._adaptive_avg_pool2d_backward.default": pooling.adaptive_backward(2),
    "aten._adaptive_avg_pool3d_backward.default": pooling.adaptive_backward(3),
    "aten._cdist_backward.default": backward.distances_backward,
    "aten._cdist_forward.default": _distances,
    "aten._trilinear.default": _trilinear,
    "aten._weight_norm_interface_backward.default": backward.weight_norm_backward,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": backward.attention_backward,
    "aten.adaptive_max_pool2d.default": pooling.greatest(2),
    "aten.adaptive_max_pool2d_backward.default": pooling.placed(2),
    "aten.adaptive_max_pool3d.default": pooling.greatest(3),
    "aten.adaptive_max_pool3d_backward.default": pooling.placed(3),
    "aten.addbmm.default": _added_products,
    "aten.angle.default": lambda x: torch.where(x.isnan(), x, torch.where(x < 0, torch.full_like(x, math.pi), 0.0)),
    "aten.argmax.default": _max_of_all,
    "aten.argmin.default": functools.partial(_max_of_all, least=True),
    "aten.as_strided.default": _as_strided,
    "aten.avg_pool2d.default": pooling.average(2),
    "aten.avg_pool2d_backward.default": pooling.average_backward(2),
    "aten.avg_pool3d.default": pooling.average(3),
    "aten.avg_pool3d_backward.default": pooling.average_backward(3),
    "aten.bucketize.Tensor": lambda x, rows, **options: _search(rows, x, **options),
    "aten.cholesky_inverse.default": lambda factor, upper=False: torch.cholesky_solve(
        torch.eye(factor.shape[-1], dtype=factor.dtype).expand(factor.shape), factor, upper
    ),
    "aten.cholesky_solve.default": lambda b, factor, upper=False: torch.linalg.solve_triangular(
        factor if upper else factor.mT,
        torch.linalg.solve_triangular(factor.mT if upper else factor, b, upper=False),
        upper=True,
    ),
    "aten.convolution.default": convolutions.transposed,
    "aten.convolution_backward.default": convolutions.backward,
    "aten.diagonal.default": _diagonal,
    "aten.diagonal_backward.default": _diagonal_backward,
    "aten.diagonal_copy.default": _diagonal,
    "aten.diagonal_scatter.default": indexing.diagonal_scatter,
    "aten.histc.default": indexing.histogram,
    "aten.index.Tensor": indexing.index,
    "aten.index_reduce.default": indexing.index_reduce,
    "aten.linalg_lu_solve.default": backward.solve_by_factors,
    "aten.masked_scatter.default": indexing.masked_scatter,
    "aten.masked_scatter_backward.default": indexing.masked_scatter_backward,
    "aten.masked_select.default": indexing.masked_select,
    "aten.max_pool3d_with_indices_backward.default": pooling.placed(3),
    "aten.median.default": _median,
    "aten.nanmedian.default": _nan_median,
    "aten.nanmedian.dim": _nan_median_along,
    "aten.polygamma.default": _polygamma,
    "aten.put.default": indexing.put,
    "aten.remainder.Scalar_Tensor": lambda a, b: torch.remainder(torch.full((), a, dtype=torch.result_type(a, b)), b),
    "aten.scatter_reduce.two": indexing.scatter_reduce,
    "aten.searchsorted.Tensor": _search,
    "aten.signbit.default": lambda x: torch.copysign(torch.ones_like(x), x) < 0 if x.is_floating_point() else x < 0,
    "aten.unfold.default": _unfold,
    "aten.unsafe_split.Tensor": lambda x, size, dim=0: [part.clone() for part in x.split(size, dim)],
    "aten.unsafe_split_with_sizes.default": lambda x, sizes, dim=0: [part.clone() for part in x.split(sizes, dim)],
    "aten.replication_pad1d_backward.default": pooling.replicated_backward(1),
    "aten.replication_pad2d_backward.default": pooling.replicated_backward(2),
    "aten.replication_pad3d_backward.default": pooling.replicated_backward(3),
    "aten.upsample_bicubic2d_backward.default": pooling.cubic_backward,
    "aten.upsample_bilinear2d_backward.default": pooling.linear_backward(2),
    "aten.upsample_linear1d_backward.default": pooling.linear_backward(1),
    "aten.upsample_trilinear3d_backward.default": pooling.linear_backward(3),
    "prims.broadcast_in_dim.default": _broadcast_in_dim,
    "prims.div.default": _divided,
    "prims.mul.default": torch.ops.aten.mul,
    "prims.round.default": torch.ops.aten.round,
    "prims.sum.default": lambda x, dims, **options: x.sum(dims, **options) if dims else x,
    "prims.zeta.default": _zeta,
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
    if name == "aten.convolution.default":
        return bool(args[6])
    axis = args[1] if len(args) > 1 else kwargs.get("dim")
    return axis is None


_APART = {
    "aten.argmax.default", "aten.argmin.default", "aten.convolution.default", "aten.index.Tensor",
    "aten.scatter_reduce.two",
}  # fmt: skip
