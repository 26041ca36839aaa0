"""Printing reductions: of rows by a function that sums them, of others as loops."""

from __future__ import annotations

import math

import torch

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.operations import REDUCTIONS
from bdtorch.simulate.loops.native.pointwise import CPP, cast, literal
from bdtorch.simulate.loops.native.printing import Printed, element, nested, pointer, position


def print_reduction(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """The lines that reduce an operand along some of its axes."""
    ref = refs[node.args[0]]
    rank = len(ref.shape)
    axes = node.args[1] if node.op.split(".")[2] in ("dim", "dim_int", "dim_IntList") or len(node.args) > 1 else None
    axes = [axes] if isinstance(axes, int) else axes
    reduced = {axis % rank for axis in axes} if axes and rank else set(range(rank))
    neutral, combine = REDUCTIONS[node.op]
    kind = CPP[node.dtype]
    _, names = nested(ref.shape, "r")
    kept = [axis for axis in range(rank) if axis not in reduced]
    bounds = {axis: ("0", str(ref.shape[axis])) for axis in kept}
    target = pointer(out)
    if 0 in bounds:
        bounds[0] = ("rows.begin", "rows.end")
        target += f" + rows.begin * {math.prod(ref.shape[axis] for axis in kept[1:])}"
    outer = " ".join(
        f"for (int64_t r{axis} = {low}; r{axis} < {high}; ++r{axis})" for axis, (low, high) in bounds.items()
    )
    inner = " ".join(f"for (int64_t r{axis} = 0; r{axis} < {ref.shape[axis]}; ++r{axis})" for axis in sorted(reduced))
    truth = REDUCTIONS[node.op][1] in ("a | b", "a & b")  # also where the result is a uint8, as of a uint8 it is
    value = element(ref, names)
    value = f"({value} != 0)" if truth else cast(value, ref.buffer.dtype, node.dtype)
    count = math.prod(ref.shape[axis] for axis in reduced)
    finish = f"a / {literal(count, node.dtype)}" if ".mean." in node.op else "a"
    row = _row_sum(node, ref, reduced)
    if row is not None:
        at = position(0, ref.strides, [f"r{axis}" if axis in kept else "0" for axis in range(rank)])
        total = f"const {kind} a = {kind}({row}({pointer(ref)} + {at}, {count}));"
        return [f"{kind}* out = {target};", f"{outer} {{ {total} *out++ = {finish}; }}"], "single"
    start = neutral.replace("<T>", f"<{kind}>")
    return [
        f"{kind}* out = {target};",
        f"{outer} {{ {kind} a = {start}; {inner} {{ const {kind} b = {value}; a = {combine}; }} *out++ = {finish}; }}",
    ], "single"


def _row_sum(node: Node, ref: Ref, reduced: set[int]) -> str | None:
    """The function that sums contiguous elements, where a reduction does no more than that."""
    spans = [axis for axis in range(len(ref.shape)) if axis in reduced and ref.shape[axis] != 1]
    if REDUCTIONS[node.op][1] != "a + b" or len(spans) != 1 or ref.strides[spans[0]] != 1:
        return None
    if ref.buffer.dtype == torch.bool:
        return "bdtorch::count" if node.dtype == torch.int64 else None
    return "bdtorch::sum" if ref.buffer.dtype == node.dtype and node.dtype in (torch.float32, torch.float64) else None
