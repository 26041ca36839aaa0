"""Pooling and resampling, and their gradients, as operations that have a lowering.

What depends on shapes alone, such as how many elements a window has, is asked of PyTorch with constants, which the tracer
computes on the spot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdtorch.simulate.loops.native import convolutions

_AVERAGE = {2: F.avg_pool2d, 3: F.avg_pool3d}


class _Windows:
    """The windows of an average over the last axes.

    Attributes:
        kernel: Their extents.
        stride: How far apart they are.
        padding: How far they begin before the first element.
        pads: Zeros around the elements, so that all windows are whole; negative where the last elements are in none.
        divisors: What the sum over each is divided by.
    """

    def __init__(
        self, x: Tensor, space: int, kernel: list[int], stride: list[int], padding: list[int], ceil: bool,
        count_padding: bool, divisor: int | None,
    ) -> None:  # fmt: skip
        self.kernel, self.padding = ([*v] * space if len(v) == 1 else [*v] for v in (kernel, padding))
        self.stride = ([*stride] * space if len(stride) == 1 else [*stride]) or self.kernel
        ones = torch.ones((1, *x.shape[-space:]), dtype=torch.float64)
        options = (self.kernel, self.stride, self.padding, ceil, count_padding)
        inside = _AVERAGE[space](ones, *options, divisor_override=1)
        counts = (inside / _AVERAGE[space](ones, *options)).round()[0].to(x.dtype)
        self.divisors: Tensor | int = counts if divisor is None else divisor
        self.pads: list[int] = []
        axes = zip(x.shape[-space:], counts.shape, self.kernel, self.stride, self.padding, strict=True)
        for extent, count, size, step, pad in axes:
            self.pads = [pad, (count - 1) * step + size - extent - pad, *self.pads]


def average(space: int) -> Callable[..., Tensor]:
    """Average pooling over so many axes."""

    def pool(
        x: Tensor, kernel: list[int], stride: list[int] = (), padding: list[int] = (0,), ceil: bool = False,  # type: ignore[assignment]
        count_padding: bool = True, divisor: int | None = None,
    ) -> Tensor:  # fmt: skip
        windows = _Windows(x, space, kernel, stride, padding, ceil, count_padding, divisor)
        parts = F.pad(x, windows.pads) if any(windows.pads) else x
        for axis, (size, step) in enumerate(zip(windows.kernel, windows.stride, strict=True), x.dim() - space):
            parts = parts.unfold(axis, size, step)
        total = parts.sum(list(range(-space, 0)))
        return total / windows.divisors if x.is_floating_point() else total // windows.divisors

    return pool


def average_backward(space: int) -> Callable[..., Tensor]:
    """Of average pooling, which is a convolution of each channel by itself."""

    def backward(
        g: Tensor, x: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil: bool, count_padding: bool,
        divisor: int | None,
    ) -> Tensor:  # fmt: skip
        windows = _Windows(x, space, kernel, stride, padding, ceil, count_padding, divisor)
        channels = x.shape[-space - 1]
        w = torch.ones((channels, 1, *windows.kernel), dtype=x.dtype)
        shares = g / windows.divisors
        batched = shares if x.dim() > space + 1 else shares.unsqueeze(0)
        ones = [1] * space
        into = convolutions.into_input(batched, x.shape[-space:], w, windows.stride, windows.padding, ones, channels)
        return into.reshape(x.shape)

    return backward


def placed(space: int) -> Callable[..., Tensor]:
    """The gradient of what copies elements over the last axes, told last where in these, one after another, each was."""

    def backward(g: Tensor, x: Tensor, *options: Any) -> Tensor:
        places = options[-1].flatten(-space)
        into = torch.zeros((*x.shape[:-space], math.prod(x.shape[-space:])), dtype=g.dtype)
        return into.scatter_add(-1, places, g.flatten(-space)).reshape(x.shape)

    return backward


def greatest(space: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Adaptive pooling over so many axes by the greatest element, and where in these, one after another, it is."""

    def pool(x: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
        extents = x.shape[-space:]
        places = torch.arange(math.prod(extents)).view(extents)
        for axis, (extent, count) in enumerate(zip(extents, size, strict=True)):
            numbers = torch.arange(count)
            begins, ends = numbers * extent // count, ((numbers + 1) * extent + count - 1) // count
            longest = max((-(-(k + 1) * extent // count) - k * extent // count for k in range(count)), default=1)
            window = begins[:, None] + torch.arange(longest)
            window = window.minimum(ends[:, None] - 1)  # the last once more, which is not greater than itself
            places = places.index_select(2 * axis, window.flatten()).unflatten(2 * axis, (count, longest))
        places = places.permute(*range(0, 2 * space, 2), *range(1, 2 * space, 2)).flatten(space)
        values, which = x.flatten(-space)[..., places].max(-1)
        return values, places.expand(*which.shape, -1).gather(-1, which.unsqueeze(-1)).squeeze(-1)

    return pool


def replicated_backward(space: int) -> Callable[..., Tensor]:
    """Of padding with the elements at the ends."""

    def backward(g: Tensor, x: Tensor, pads: list[int]) -> Tensor:
        extents = x.shape[-space:]
        places = torch.arange(math.prod(extents), dtype=torch.float64).view(1, 1, *extents)
        places = F.pad(places, [*pads], mode="replicate").long()
        return placed(space)(g, x, places[0, 0].expand(g.shape))

    return backward


def _back_along_each(g: Tensor, extents: list[int] | torch.Size, space: int, rows: Callable[..., Tensor]) -> Tensor:
    """The gradient of what is linear along each of the last axes by itself.

    Args:
        g: The gradient of the result.
        extents: Those of the operand.
        space: How many axes there are.
        rows: Says of the rows of a matrix what becomes of each, given the new length and which axis it is.
    """
    for axis in range(-space, 0):
        matrix = rows(torch.eye(extents[axis], dtype=g.dtype), g.shape[axis], axis + space)
        g = (g.movedim(axis, -1) @ matrix.mT).movedim(-1, axis)
    return g


def _adaptive_rows(rows: Tensor, length: int, axis: int = 0) -> Tensor:
    return F.adaptive_avg_pool1d(rows.unsqueeze(0), length)[0]


def adaptive(x: Tensor, size: list[int]) -> Tensor:
    """Average pooling over three axes to a size."""
    for axis, length in enumerate(size, -len(size)):
        matrix = _adaptive_rows(torch.eye(x.shape[axis], dtype=x.dtype), length)
        x = (x.movedim(axis, -1) @ matrix).movedim(-1, axis)
    return x


def adaptive_backward(space: int) -> Callable[..., Tensor]:
    """Of average pooling to a size."""
    return lambda g, x: _back_along_each(g, x.shape, space, _adaptive_rows)


def linear_backward(space: int) -> Callable[..., Tensor]:
    """Of upsampling by linear interpolation."""

    def backward(g: Tensor, size: list[int], extents: list[int], align: bool, *scales: Any) -> Tensor:
        def rows(matrix: Tensor, length: int, axis: int) -> Tensor:
            scale = scales[axis] if scales else None
            return torch.ops.aten.upsample_linear1d(matrix.unsqueeze(0), [length], align, scale)[0]

        return _back_along_each(g, extents, space, rows)

    return backward


def cubic_backward(g: Tensor, size: list[int], extents: list[int], align: bool, *scales: Any) -> Tensor:
    """Of upsampling of images by cubic interpolation."""

    def rows(matrix: Tensor, length: int, axis: int) -> Tensor:
        scale = scales[axis] if scales else None
        return torch.ops.aten.upsample_bicubic2d(matrix[None, :, None], [1, length], align, None, scale)[0, :, 0]

    return _back_along_each(g, extents, 2, rows)


def _nearest_places(name: str, extents: list[int] | torch.Size, size: list[int], scales: tuple[Any, ...]) -> Tensor:
    """Which element becomes each one of the result, all laid out in a row."""
    places = torch.arange(math.prod(extents), dtype=torch.float64).view(1, 1, *extents)
    return getattr(torch.ops.aten, name)(places, size, *scales)[0, 0].long()


def nearest(name: str) -> Callable[..., Tensor]:
    """Upsampling to the nearest neighbour, by the name of PyTorch's operation."""

    def upsample(x: Tensor, size: list[int], *scales: Any) -> Tensor:
        places = _nearest_places(name, x.shape[2:], size, scales)
        return x.flatten(2).index_select(2, places.flatten()).view(*x.shape[:2], *places.shape)

    return upsample


def nearest_backward(name: str) -> Callable[..., Tensor]:
    """Of upsampling to the nearest neighbour: what each element was copied to is summed."""

    def backward(g: Tensor, size: list[int], shape: list[int], *scales: Any) -> Tensor:
        places = _nearest_places(name, shape[2:], size, scales).flatten()
        into = torch.zeros((*shape[:2], math.prod(shape[2:])), dtype=g.dtype)
        return into.scatter_add(2, places.expand(*shape[:2], -1), g.flatten(2)).reshape(shape)

    return backward
