"""Where tensors of the step live: buffers, and strided views of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate.loops.native.graph import Node


@dataclass(eq=False)
class Buffer:
    """A contiguous array of the generated loop.

    Attributes:
        dtype: Element type.
        numel: Number of elements.
        role: ``"state"``, ``"sequence"``, ``"time"``, ``"constant"`` or ``"temporary"``; ``"threads"`` is memory that has
            so many elements for every thread, and keeps what they write from step to step.
        source: Number of the state leaf or sequence, or the constant's tensor (see `held`).
        alias: The state buffer that this temporary shares, where the new state may overwrite the old in place.
        number: Position among the buffers that the loop is handed.
        woven: Whether it holds matrices with pairs of rows woven together while steps are taken (see `woven`).
    """

    dtype: torch.dtype
    numel: int
    role: str
    source: Any = None
    alias: Buffer | None = None
    number: int = -1
    woven: bool = False

    @property
    def home(self) -> Buffer:
        """The buffer that really holds the data."""
        return self if self.alias is None else self.alias


def held(buffer: Buffer, constant: Tensor) -> Tensor:
    """What a buffer holds of a constant: itself where it lies as the loop wants it, else a copy."""
    return constant.detach().to(buffer.dtype).contiguous().resolve_conj().resolve_neg()


@dataclass(frozen=True, eq=False)
class Ref:
    """A strided view of a buffer, in elements."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements follow one another in the order of the axes."""
        return all(n == 1 or s == want for n, s, want in zip(self.shape, self.strides, dense(self.shape), strict=True))

    @property
    def whole(self) -> bool:
        """Whether it is the whole buffer in its own order."""
        return self.contiguous and self.offset == 0 and self.numel == self.buffer.numel

    def same(self, other: Ref) -> bool:
        """Whether the other is the same view of the same memory."""
        return self._place() == other._place()

    def _place(self) -> tuple[Any, ...]:
        return id(self.buffer.home), self.shape, self.strides, self.offset

    def overlaps(self, other: Ref) -> bool:
        """Whether the two may share an element: for sure where they are slices of the last axis of one array."""
        if self.buffer.home is not other.buffer.home or not self.numel or not other.numel:
            return False
        row = self._row()
        if row is not None and row == other._row():
            own, its = self.offset % row, other.offset % row
            if own + self.shape[-1] <= row and its + other.shape[-1] <= row:
                return own < its + other.shape[-1] and its < own + self.shape[-1]
        own_low, own_high = self._extent()
        its_low, its_high = other._extent()
        return own_low <= its_high and its_low <= own_high

    def _row(self) -> int | None:
        """The length of the rows of which this view takes the same columns, or None where it is no such view."""
        if not self.shape or self.strides[-1] != 1:
            return None
        outer = [s for n, s in zip(self.shape[:-1], self.strides[:-1], strict=True) if n > 1]
        row = min(outer, default=self.buffer.numel)
        return row if row > 0 and all(s % row == 0 for s in outer) else None

    def _extent(self) -> tuple[int, int]:
        spans = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        return self.offset + sum(s for s in spans if s < 0), self.offset + sum(s for s in spans if s > 0)

    def expanded(self, shape: tuple[int, ...]) -> Ref:
        """Broadcast to ``shape``."""
        lead = len(shape) - len(self.shape)
        strides = [0] * lead
        for have, want, stride in zip(self.shape, shape[lead:], self.strides, strict=True):
            strides.append(stride if have == want else 0)
        return Ref(self.buffer, shape, tuple(strides), self.offset)


def dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous array."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def view(node: Node, base: Ref) -> Ref | None:
    """The view that a view operation takes of ``base``, or None where it needs a contiguous copy first."""
    op, args = node.op, node.args[1:]
    shape, strides, offset = list(base.shape), list(base.strides), base.offset
    rank = len(shape)
    if op in ("aten.alias.default", "aten.detach.default"):
        return base
    if op == "aten.expand.default":
        return base.expanded(node.shape)
    if op in ("aten.view.default", "aten._unsafe_view.default"):
        return Ref(base.buffer, node.shape, dense(node.shape), offset) if base.contiguous else None
    if op == "aten.permute.default":
        order = [axis % rank for axis in args[0]]
        return Ref(base.buffer, node.shape, tuple(strides[axis] for axis in order), offset)
    if op in ("aten.t.default", "aten.transpose.int"):
        if rank:
            first, second = (0, rank - 1) if op == "aten.t.default" else (args[0] % rank, args[1] % rank)
            strides[first], strides[second] = strides[second], strides[first]
        return Ref(base.buffer, node.shape, tuple(strides), offset)
    if op == "aten.flip.default":
        for axis in {axis % rank for axis in args[0] if rank}:
            offset += max(0, shape[axis] - 1) * strides[axis]
            strides[axis] = -strides[axis]
        return Ref(base.buffer, node.shape, tuple(strides), offset)
    if op == "aten.unsqueeze.default":
        strides.insert(args[0] % (rank + 1), 0)
        return Ref(base.buffer, node.shape, tuple(strides), offset)
    if op.startswith("aten.squeeze."):
        return Ref(base.buffer, node.shape, tuple(_squeezed(shape, strides, args)), offset)
    if op == "aten.slice.Tensor":
        return _sliced(node, base)
    return _picked(node, base)


def _squeezed(shape: list[int], strides: list[int], args: tuple[Any, ...]) -> list[int]:
    rank = len(shape)
    axes = args[0] if args else list(range(rank))
    chosen = {axis % rank for axis in (axes if isinstance(axes, (list, tuple)) else [axes]) if rank}
    return [stride for axis, stride in enumerate(strides) if not (axis in chosen and shape[axis] == 1)]


def _sliced(node: Node, base: Ref) -> Ref:
    given = dict(enumerate(node.args))
    axis, start, step = given.get(1, 0) % len(base.shape), given.get(2) or 0, given.get(4, 1)
    extent = base.shape[axis]
    first = min(max(start + (extent if start < 0 else 0), 0), extent)
    strides = list(base.strides)
    offset = base.offset + first * strides[axis]
    strides[axis] *= step
    return Ref(base.buffer, node.shape, tuple(strides), offset)


def _picked(node: Node, base: Ref) -> Ref:
    """select, unbind and the splits: one index or a run of indices of one axis."""
    rank, strides = len(base.shape), list(base.strides)
    if node.op == "aten.select.int":
        axis, index = node.args[1] % rank, node.args[2]
        first = index % base.shape[axis]
    elif node.op == "aten.unbind.int":
        axis, first = (node.args[1] if len(node.args) > 1 else 0) % rank, node.output or 0
    else:
        axis = (node.args[2] if len(node.args) > 2 else 0) % rank
        sizes = node.args[1]
        first = (node.output or 0) * sizes if isinstance(sizes, int) else sum(sizes[: node.output or 0])
    offset = base.offset + first * strides[axis]
    if node.op in ("aten.select.int", "aten.unbind.int"):
        del strides[axis]
    return Ref(base.buffer, node.shape, tuple(strides), offset)
