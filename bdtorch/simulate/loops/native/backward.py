"""Gradients of operations whose own backward operations PyTorch does not take apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bdtorch.simulate.loops.native.operations import LoweringError


def convolution_backward(
    g: Tensor, x: Tensor, w: Tensor, bias_sizes: list[int] | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients by input, weight and bias, which are convolutions themselves."""
    if transposed:
        raise LoweringError("the gradient of a transposed convolution")
    space = w.dim() - 2
    stride, padding, dilation = ([*v] * space if len(v) == 1 else [*v] for v in (stride, padding, dilation))
    into_x = _into_input(g, x, w, stride, padding, dilation, groups) if mask[0] else None
    into_w = None
    if mask[1]:
        parts = zip(x.chunk(groups, 1), g.chunk(groups, 1), strict=True)
        into_w = torch.cat([_into_weight(a, b, w, stride, padding, dilation) for a, b in parts])
    return into_x, into_w, g.sum([0, *range(2, g.dim())]) if mask[2] else None


def _into_input(
    g: Tensor, x: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    """The gradients, as far apart as the stride, convolved with the weight turned around."""
    pads: list[int] = []
    for axis, (step, pad, gap) in enumerate(zip(stride, padding, dilation, strict=True), 2):
        spread = F.pad(g.movedim(axis, -1).unsqueeze(-1), (0, step - 1)).flatten(-2)
        g = spread[..., : (g.shape[axis] - 1) * step + 1].movedim(-1, axis)
        reach = gap * (w.shape[axis] - 1)
        pads = [reach - pad, x.shape[axis] + pad - g.shape[axis], *pads]
    turned = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(*range(2, w.dim()))
    ones = [1] * len(stride)
    return torch.convolution(F.pad(g, pads), turned, None, ones, [0] * len(stride), dilation, False, [0], groups)


def _into_weight(x: Tensor, g: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    """The input convolved with the gradients, with samples for channels; steps and gaps change places."""
    found = torch.convolution(x.transpose(0, 1), g.transpose(0, 1), None, dilation, padding, stride, False, [0], 1)
    for axis in range(2, w.dim()):
        found = found.narrow(axis, 0, w.shape[axis])
    return found.transpose(0, 1)


def average_backward(
    g: Tensor, x: Tensor, kernel: list[int], stride: list[int], padding: list[int], ceil: bool, count_padding: bool,
    divisor: int | None,
) -> Tensor:  # fmt: skip
    """Of average pooling over two axes, which is a convolution of each channel by itself."""
    if ceil or any(padding):
        raise LoweringError("average pooling with padding or ceil_mode")
    kernel = [*kernel] * 2 if len(kernel) == 1 else [*kernel]
    stride = ([*stride] * 2 if len(stride) == 1 else [*stride]) or kernel
    channels = x.shape[-3]
    w = torch.full((channels, 1, *kernel), 1.0 / (divisor or kernel[0] * kernel[1]), dtype=x.dtype)
    batched = x if x.dim() == 4 else x.unsqueeze(0)
    gradient = g if x.dim() == 4 else g.unsqueeze(0)
    return _into_input(gradient, batched, w, stride, [0, 0], [1, 1], channels).reshape(x.shape)


def weight_norm_backward(g: Tensor, v: Tensor, scale: Tensor, norms: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Of ``scale v / norms``, with a norm for each index along an axis."""
    axes = [axis for axis in range(v.dim()) if axis != dim % v.dim()]
    along = (g * v).sum(axes, keepdim=True)
    return scale / norms * (g - v * along / (norms * norms)), along / norms


def nearest_backward(space: int) -> Callable[..., Tensor]:
    """Of upsampling to the nearest neighbour over so many axes: what each element was copied to is summed."""

    def backward(g: Tensor, output_size: list[int], input_size: list[int], *scales: Any) -> Tensor:
        for axis, number in enumerate(range(-space, 0)):
            extent, wide = input_size[number], output_size[axis]
            scale = scales[axis] if axis < len(scales) and scales[axis] else wide / extent
            places = (torch.arange(wide) / scale).floor().long().clamp(max=extent - 1)
            shape = [*g.shape]
            shape[number] = extent
            spread = places.view(-1, *[1] * (-number - 1)).expand(g.shape)
            g = torch.zeros(shape, dtype=g.dtype).scatter_add(number, spread, g)
        return g

    return backward
