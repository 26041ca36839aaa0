"""Advanced indexing as look-ups along one axis, which is what the loop has kernels for."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate.loops.native.operations import LoweringError


def is_direct(indices: list[Any]) -> bool:
    """Whether indices are those that have a kernel: int64 along one axis."""
    tensors = [x for x in indices if x is not None]
    return len(tensors) == 1 and tensors[0].dtype == torch.int64


def index(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """``x[indices]``: integers of any dtype along any axes, and constant masks."""
    whole = _whole(indices)
    axes = [axis for axis, chosen in enumerate(whole) if chosen is not None]
    if len(axes) == 1:
        return torch.ops.aten.index.Tensor(x, whole)
    front, flat, adjacent = _flattened(x, whole, axes)
    found = front[flat]
    return found.movedim(tuple(range(flat.dim())), _places(axes[0], flat.dim())) if adjacent else found


def index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """``x`` with ``x[indices] = values``, or with ``values`` added there."""
    first = next(axis for axis, chosen in enumerate(indices) if chosen is not None)
    mask = indices[first]
    alone = sum(chosen is not None for chosen in indices) == 1
    if alone and mask is not None and mask.dtype == torch.bool and values.numel() == 1:
        mask = mask.reshape(*mask.shape, *(1 for _ in x.shape[first + mask.dim() :]))
        values = values.reshape(())
        return torch.where(mask, x + values if accumulate else values, x)
    whole = _whole(indices)
    axes = [axis for axis, chosen in enumerate(whole) if chosen is not None]
    front, flat, adjacent = _flattened(x, whole, axes)
    if adjacent:  # the axes of the indices stand where the first of these stood
        rest = front.shape[1:]
        shape = (*rest[: axes[0]], *flat.shape, *rest[axes[0] :])
        values = values.expand(shape).movedim(_places(axes[0], flat.dim()), tuple(range(flat.dim())))
    shape = (flat.numel(), *front.shape[1:])
    values = values.expand((*flat.shape, *front.shape[1:])).reshape(shape)
    spread = flat.reshape(-1, *(1 for _ in shape[1:])).expand(shape)
    put = front.scatter_add(0, spread, values) if accumulate else front.scatter(0, spread, values)
    extents = [x.shape[axis] for axis in axes]
    return put.reshape(*extents, *front.shape[1:]).movedim(tuple(range(len(axes))), tuple(axes))


def scatter_reduce(
    x: Tensor, dim: int, places: Tensor, values: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Reductions of which the kernels know no more than the sum, and those that include what was there before."""
    if reduce == "mean" and not x.is_floating_point():
        raise LoweringError("a mean of integers; use scatter_add and a division")
    begun = x if include_self else x.scatter(dim, places, _neutral(reduce, x.dtype))
    if reduce == "sum":
        return begun.scatter_add(dim, places, values)
    if reduce != "mean":
        return begun.scatter_reduce(dim, places, values, reduce)
    ones = torch.full_like(values, 1)
    count = torch.full_like(x, int(include_self)).scatter_add(dim, places, ones)
    count = count if include_self else torch.where(count < 1, 1, count)
    total = begun.scatter_add(dim, places, values)
    return total / count


def index_reduce(
    x: Tensor, dim: int, index: Tensor, values: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Reductions of rows onto rows."""
    shape = [-1 if axis == dim % x.dim() else 1 for axis in range(x.dim())]
    return x.scatter_reduce(dim, index.view(shape).expand(values.shape), values, reduce, include_self=include_self)


def put(x: Tensor, index: Tensor, values: Tensor, accumulate: bool = False) -> Tensor:
    """``x`` with values at places of its elements laid out in a row."""
    return index_put(x.reshape(-1), [index.reshape(-1)], values.reshape(-1), accumulate).reshape(x.shape)


def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """What a constant mask leaves."""
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    places = mask.expand(shape).reshape(-1).nonzero()[:, 0]
    return x.expand(shape).reshape(-1).index_select(0, places)


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """``x`` with elements of the source, one after another, where a mask is set."""
    mask = mask.expand(x.shape)
    places = torch.where(mask, _counted(mask), 0)
    return torch.where(mask, source.reshape(-1)[places], x)


def masked_scatter_backward(g: Tensor, mask: Tensor, shape: list[int]) -> Tensor:
    """By the source."""
    mask, n = mask.expand(g.shape), math.prod(shape)
    places = torch.where(mask, _counted(mask), n)
    return torch.zeros(n + 1, dtype=g.dtype).scatter_add(0, places.reshape(-1), g.reshape(-1))[:n].reshape(shape)


def _counted(mask: Tensor) -> Tensor:
    """How many elements of a mask are set before each."""
    return mask.reshape(-1).cumsum(0).reshape(mask.shape) - 1


def diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """``x`` with another diagonal."""
    places = torch.arange(x.numel()).view(x.shape).diagonal(offset, dim1, dim2)
    return x.reshape(-1).scatter(0, places.reshape(-1), source.reshape(-1)).reshape(x.shape)


def histogram(x: Tensor, bins: int = 100, low: float = 0, high: float = 0) -> Tensor:
    """How many elements are in each of the bins of equal widths between two bounds."""
    if low == high:
        raise LoweringError("a histogram between bounds that are not given")
    inside = (x >= low) & (x <= high)
    places = ((x - low) / (high - low) * bins).clamp(0, bins - 1).to(torch.int64)
    places = torch.where(inside, places, bins).reshape(-1)
    return torch.zeros(bins + 1, dtype=x.dtype).scatter_add(0, places, torch.ones_like(x).reshape(-1))[:bins]


def is_direct_reduction(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Whether a reduction onto places has a kernel."""
    return arguments[4] in ("prod", "amax", "amin") and bool(keywords.get("include_self", True))


def _neutral(reduce: str, dtype: torch.dtype) -> float | int | bool:
    if reduce not in ("amax", "amin"):
        return int(reduce == "prod")
    if dtype == torch.bool:
        return reduce == "amin"
    if dtype.is_floating_point:
        return math.inf if reduce == "amin" else -math.inf
    return torch.iinfo(dtype).max if reduce == "amin" else torch.iinfo(dtype).min


def _whole(indices: list[Tensor | None]) -> list[Tensor | None]:
    """With int64 for other integers, and for masks the places that are set, whose number must not change."""
    whole: list[Tensor | None] = []
    for chosen in indices:
        if chosen is None or chosen.dtype not in (torch.bool, torch.uint8):
            whole.append(None if chosen is None else chosen.to(torch.int64))
        elif chosen.dim():
            whole += chosen.nonzero().unbind(1)
        else:
            raise LoweringError("a mask without axes; use torch.where")
    return whole


def _flattened(x: Tensor, indices: list[Tensor | None], axes: list[int]) -> tuple[Tensor, Tensor, bool]:
    """``x`` with one axis in front for all that are indexed, the index along it, and whether these are neighbours."""
    extents = [x.shape[axis] for axis in axes]
    total = math.prod(extents)
    flat, outside = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.bool)
    for axis, extent in zip(axes, extents, strict=True):
        chosen = indices[axis]
        assert chosen is not None, "these are the axes that have one"
        outside = outside | (chosen < -extent) | (chosen >= extent)
        flat = flat * extent + torch.where(chosen < 0, chosen + extent, chosen)
    front = x.movedim(tuple(axes), tuple(range(len(axes))))
    front = front.reshape(total, *front.shape[len(axes) :])
    return front, torch.where(outside, total, flat), axes[-1] - axes[0] == len(axes) - 1


def _places(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))
