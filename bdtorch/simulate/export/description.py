"""What an exported loop tells about itself: its arrays, by name, and the data that it starts from."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch.ops import native_kernel
from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native.graph import Graph, Node
from bdtorch.simulate.loops.native.memory import Buffer, held
from bdtorch.simulate.loops.native.operations import DIVISOR
from bdtorch.simulate.loops.native.plan import Plan

_LINE = 64  # bytes; every array begins with a cache line


@dataclass(frozen=True)
class Array:
    """A named array of one step: a state variable, an input, or a row of a record.

    Attributes:
        name: Such as ``"E.neuron.v"``.
        dtype: Element type.
        shape: Shape.
        every: Of a record, how many steps lie between its rows; 0 for spikes.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    every: int = 1

    @property
    def bytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Description:
    """An exported loop.

    Attributes:
        variables: Of the state.
        inputs: What every step is handed.
        records: What is kept; two tables of equal length for the three roles of a buffer follow.
        buffers: ``(role, number, bytes)`` of every array that the generated function is handed.
        constants: Constant arrays, in the order in which buffers refer to them.
        sites: ``(number, text)`` of the operations that end a run where they fail.
        dt: Step, ms.
        first: Number of the first step.
    """

    variables: list[Array]
    inputs: list[Array]
    records: list[Array]
    buffers: list[tuple[str, int, int]]
    constants: list[Tensor]
    sites: list[tuple[int, str]]
    dt: float
    first: int


def describe(body: Body, graph: Graph, layout: Plan, state: list[Tensor], inputs: object, first: int) -> Description:
    """Name all that the loop of ``body`` reads and leaves."""
    variables = [Array(name, x.dtype, tuple(x.shape)) for name, x in zip(body.names, state, strict=True)]
    constants: list[Tensor] = []
    buffers = [_buffer(buffer, constants) for buffer in layout.buffers]
    sites = [(node.number, f"{node.op} ({node.site})") for node in graph.nodes if _may_fail(node)]
    return Description(variables, _inputs(body, inputs), _records(body), buffers, constants, sites, body.dt, first)


def _may_fail(node: Node) -> bool:
    return node.op in _CHECKED or native_kernel(node.op) is not None


_CHECKED = {
    DIVISOR, "aten.gather.default", "aten.index.Tensor", "aten.index_select.default", "aten.scatter.src",
    "aten.scatter.value", "aten.scatter_add.default", "aten.scatter_reduce.two", "bdtorch._rls_update_raw.default",
}  # fmt: skip
"""Operations that look indices up, and divisors."""


def _buffer(buffer: Buffer, constants: list[Tensor]) -> tuple[str, int, int]:
    size = buffer.numel * buffer.dtype.itemsize
    if buffer.role == "constant":
        constants.append(held(buffer, buffer.source))
        return "constant", len(constants) - 1, size
    if buffer.role in ("state", "sequence"):
        return buffer.role, buffer.source, size
    if buffer.role in ("temporary", "threads", "time"):
        return buffer.role, 0, size
    raise LoopError(f"a loop with memory of the kind {buffer.role!r} cannot be exported")


def _inputs(body: Body, inputs: object) -> list[Array]:
    """The inputs with a time axis, by their names in the pytree; an input that is one tensor is called "input"."""
    named = dict.fromkeys(name or "input" for name, _ in tree.named_leaves(inputs))
    return [
        Array(name, sequence.dtype, tuple(sequence.shape[1:]))
        for (name, leaf) in zip(named, body.inputs.leaves, strict=True)
        if isinstance(leaf, int)
        for sequence in [body.inputs.sequences[leaf]]
    ]


def _records(body: Body) -> list[Array]:
    """The records, by name; where one has several tensors, by its name and theirs."""
    arrays = []
    position = 0
    for (name, record), structure in zip(body.records.items(), body.structures, strict=True):
        count = structure.num_leaves
        example = tree.unflatten(list(range(position, position + count)), structure)
        for part, number in tree.named_leaves(example):
            x = body.observed[number]
            label = f"{name}.{part}" if part else name
            arrays.append(Array(label, x.dtype, tuple(x.shape), 0 if record.sparse else record.every))
        position += count
    return arrays


def packed(description: Description, state: list[Tensor], key: str) -> bytes:
    """The data file: a header of 64 bytes, then each constant and each initial state from a multiple of 64 bytes on."""
    parts = []
    for array in [*description.constants, *state]:
        raw = array.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        parts.append(raw + bytes(-len(raw) % _LINE))
    content = b"".join(parts)
    header = struct.pack(
        "=8s32sQIIQ", b"BDLOOP1", key.encode(), _LINE + len(content), 0x01020304, zlib.crc32(content), 0
    )
    return header + content
