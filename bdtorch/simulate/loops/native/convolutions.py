"""Transposed convolutions, and the gradients of convolutions, as plain convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def transposed(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, output_padding: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """A transposed convolution, which is what the gradient by the input of a convolution is."""
    stride, padding, dilation, further = _for_each_axis(w, stride, padding, dilation, output_padding)
    extents = [
        (n - 1) * step - 2 * pad + gap * (size - 1) + more + 1
        for n, step, pad, gap, more, size in zip(
            x.shape[2:], stride, padding, dilation, further, w.shape[2:], strict=True
        )
    ]
    out = into_input(x, extents, w, stride, padding, dilation, groups)
    return out if bias is None else out + bias.view(-1, *[1] * len(extents))


def backward(
    g: Tensor, x: Tensor, w: Tensor, bias_sizes: list[int] | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int, mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients by input, weight and bias."""
    stride, padding, dilation = _for_each_axis(w, stride, padding, dilation)
    into_x = into_w = None
    if mask[0] and transposed:
        into_x = torch.convolution(g, w, None, stride, padding, dilation, False, [0] * len(stride), groups)
        for axis in range(2, x.dim()):  # a wide `output_padding` has room for more
            into_x = into_x.narrow(axis, 0, x.shape[axis])
    elif mask[0]:
        into_x = into_input(g, x.shape[2:], w, stride, padding, dilation, groups)
    if mask[1]:
        read, kept = (g, x) if transposed else (x, g)  # what the weight is moved over, and what it is placed by
        parts = zip(read.chunk(groups, 1), kept.chunk(groups, 1), strict=True)
        into_w = torch.cat([_into_weight(a, b, w, stride, padding, dilation) for a, b in parts])
    return into_x, into_w, g.sum([0, *range(2, g.dim())]) if mask[2] else None


def _for_each_axis(w: Tensor, *values: list[int]) -> list[list[int]]:
    return [[*v] * (w.dim() - 2) if len(v) == 1 else [*v] for v in values]


def into_input(
    g: Tensor, extents: list[int] | torch.Size, w: Tensor, stride: list[int], padding: list[int], dilation: list[int],
    groups: int,
) -> Tensor:  # fmt: skip
    """The gradients, as far apart as the stride, convolved with the weight turned around.

    Args:
        g: The gradient of the convolution's result.
        extents: Those of its input, without samples and channels.
        w: Its weight.
        stride: One for each axis, as padding and dilation are.
        padding: How many zeros there were on either side.
        dilation: How far apart the elements of the weight are placed.
        groups: Parts of the channels.
    """
    pads: list[int] = []
    for axis, (step, pad, gap) in enumerate(zip(stride, padding, dilation, strict=True), 2):
        spread = F.pad(g.movedim(axis, -1).unsqueeze(-1), (0, step - 1)).flatten(-2)
        g = spread[..., : (g.shape[axis] - 1) * step + 1].movedim(-1, axis)
        reach = gap * (w.shape[axis] - 1)
        pads = [reach - pad, extents[axis - 2] + pad - g.shape[axis], *pads]
    turned = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(*range(2, w.dim()))
    ones = [1] * len(stride)
    return torch.convolution(F.pad(g, pads), turned, None, ones, [0] * len(stride), dilation, False, [0], groups)


def _into_weight(x: Tensor, g: Tensor, w: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    """The input convolved with the gradients, with samples for channels; steps and gaps change places."""
    found = torch.convolution(x.transpose(0, 1), g.transpose(0, 1), None, dilation, padding, stride, False, [0], 1)
    for axis in range(2, w.dim()):
        found = found.narrow(axis, 0, w.shape[axis])
    return found.transpose(0, 1)
