"""Addresses in the generated code: pointers to views, and the iteration space that a pass shares with its operands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.pointwise import CPP

Printed = tuple[list[str], str]
"""Lines, and how the threads share the work: ``"single"``, ``"flat n"`` (ranges of n elements) or ``"rows"``."""


@dataclass(frozen=True)
class Space:
    """An iteration space with as few axes as its operands allow.

    Attributes:
        shape: Extents, outermost first; at least one.
        strides: For each operand, in the order given, its strides along these axes.
    """

    shape: tuple[int, ...]
    strides: list[tuple[int, ...]]


def space(shape: tuple[int, ...], refs: list[Ref]) -> Space:
    """Merge neighbouring axes that every operand walks through as one."""
    axes = [axis for axis, extent in enumerate(shape) if extent != 1]
    merged: list[tuple[int, list[int]]] = []
    for axis in axes:
        strides = [ref.strides[axis] for ref in refs]
        extent = shape[axis]
        if merged:
            outer_extent, outer = merged[-1]
            if all(o == s * extent for o, s in zip(outer, strides, strict=True)):
                merged[-1] = (outer_extent * extent, strides)
                continue
        merged.append((extent, strides))
    if not merged:
        merged = [(1, [0] * len(refs))]
    extents = tuple(extent for extent, _ in merged)
    return Space(extents, [tuple(strides[k] for _, strides in merged) for k in range(len(refs))])


def partition(shape: tuple[int, ...], refs: list[Ref]) -> tuple[Space, str]:
    """The iteration space of a pass, and how the threads share it, as `Access` has it."""
    iteration = space(shape, refs)
    if iteration.shape == (1,):
        return iteration, "single"
    return iteration, f"flat {iteration.shape[0]}" if len(iteration.shape) == 1 else "rows"


class Access(NamedTuple):
    """What a kernel does to memory, and which part of it each thread touches."""

    ref: Ref
    written: bool
    partition: str
    """``"single"``: all by thread 0; ``"flat n"``: each its share of n elements; ``"rows"``, ``"all"``: any part."""

    def conflicts(self, other: Access) -> bool:
        """Whether a thread may touch what another thread has written, or the reverse."""
        if not (self.written or other.written) or not self.ref.overlaps(other.ref):
            return False
        own_shares = self.partition.startswith("flat") and self.ref.contiguous and self.ref.same(other.ref)
        return self.partition != other.partition or not (own_shares or self.partition == "single")


def base_pointer(ref: Ref) -> str:
    """The address of the buffer that a view looks into."""
    home = ref.buffer.home
    if home.role == "time":
        return "(&now.time)"
    text = f"(({CPP[home.dtype]}*)now.buffers[{home.number}])"
    return f"({text} + now.row * INT64_C({home.numel}))" if home.role == "sequence" else text


def pointer(ref: Ref) -> str:
    """The address of the first element of a view."""
    return f"({base_pointer(ref)} + {ref.offset})" if ref.offset else base_pointer(ref)


def position(offset: int, strides: tuple[int, ...], axes: list[str]) -> str:
    """The index of an element, given the names of the loop variables."""
    terms = [str(offset)] if offset else []
    for stride, axis in zip(strides, axes, strict=True):
        if stride:
            terms.append(axis if stride == 1 else f"{axis} * {stride}")
    return " + ".join(terms) or "0"


def nested(shape: tuple[int, ...], prefix: str = "i") -> tuple[str, list[str]]:
    """Nested loops over a shape, and the names of their variables."""
    axes = [f"{prefix}{axis}" for axis in range(len(shape))]
    text = " ".join(f"for (int64_t {a} = 0; {a} < {n}; ++{a})" for a, n in zip(axes, shape, strict=True))
    return text, axes


def element(ref: Ref, axes: list[str]) -> str:
    """An element of a view, given the names of the loop variables."""
    return f"{pointer(ref)}[{position(0, ref.strides, axes)}]"
