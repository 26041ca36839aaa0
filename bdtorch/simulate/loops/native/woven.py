"""Stored weights whose rows lie woven in pairs while the loop runs, so that a column is visited in half the cache lines."""

from __future__ import annotations

from dataclasses import dataclass

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import Kernel, kernel_reads
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.plan import Plan
from bdtorch.simulate.loops.native.pointwise import CPP
from bdtorch.simulate.loops.native.printing import pointer

_CHANGE, _BY_ROWS, _BY_COLUMNS = (
    f"bdtorch._{name}_raw.default" for name in ("plasticity_dense", "event_dense", "event_dense_t")
)
_LEAST = 256 << 10
"""Bytes of a matrix to be woven: a smaller one stays in the inner caches, where it matters little how it lies."""


@dataclass(frozen=True)
class Woven:
    """Matrices that lie woven from the first to the last step of a call.

    Attributes:
        matrices: Where they lie, ``(..., rows, columns)``.
        room: Memory of a row for every thread.
    """

    matrices: Ref
    room: Buffer

    def lines(self, function: str) -> list[str]:
        """The C++ by which a thread weaves its share of the pairs of rows, or the reverse."""
        rows, columns = self.matrices.shape[-2:]
        count, size = self.matrices.numel // (rows * columns), f"INT64_C({rows * columns})"
        room = f"(({CPP[self.room.dtype]}*)now.buffers[{self.room.number}]) + now.thread * {columns}"
        return [
            "{",
            f"  const loop::Range r = loop::share_rows({rows // 2}, now.thread, now.threads);",
            f"  for (int64_t b = 0; b < {count}; ++b)",
            f"    bdtorch::{function}({pointer(self.matrices)} + b * {size}, {columns}, r.begin, r.end, {room});",
            "}",
        ]


def weave(plan: Plan) -> list[Woven]:
    """Choose the states to be woven: large matrices that columns of spikes visit, and that nothing else looks into."""
    chosen: list[Woven] = []
    after = {ref.buffer.home for ref in plan.observed} | {x.home for to, ref in plan.copies for x in (to, ref.buffer)}
    for home in plan.buffers:
        if home.role != "state" or home in after or home.numel * home.dtype.itemsize < _LEAST:
            continue
        uses = [use for kernel in plan.kernels for use in _uses(kernel, home, plan)]
        matrices = [ref for ref, _ in uses if ref is not None and ref.whole]
        alike = len(matrices) == len(uses) and len({ref.shape[-2:] for ref in matrices}) == 1
        if alike and any(by_columns for _, by_columns in uses):
            home.woven = True
            room = Buffer(home.dtype, matrices[0].shape[-1], "threads", number=len(plan.buffers) + len(chosen))
            chosen.append(Woven(matrices[0], room))
    plan.buffers += [woven.room for woven in chosen]
    return chosen


def _uses(kernel: Kernel, home: Buffer, plan: Plan) -> list[tuple[Ref | None, bool]]:
    """What the operations of a kernel find in a buffer: a matrix, and whether they visit its columns; or anything else."""
    if kernel.fused:
        touched = [*kernel_reads(kernel, plan.refs), *kernel.stores.values()]
        return [(None, False) for ref in touched if ref.buffer.home is home]
    found = []
    for node in kernel.nodes:
        inside = [x for x in (*node.operands(), node) if plan.refs[x].buffer.home is home]
        if inside:
            found.append(_use(node, inside, plan))
    return found


def _use(node: Node, inside: list[Node], plan: Plan) -> tuple[Ref | None, bool]:
    if node.op == _CHANGE and inside == [node.args[0], node]:
        return plan.refs[node], node.args[-1]
    if node.op in (_BY_ROWS, _BY_COLUMNS) and inside == [node.args[1]]:
        return plan.refs[node.args[1]], node.op == _BY_COLUMNS
    return None, False
