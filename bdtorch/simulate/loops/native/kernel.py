"""A piece of the planned step, and what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.operations import POINTWISE


@dataclass(eq=False)
class Kernel:
    """A piece of the step: a fused element-wise pass, or one operation with a kernel of its own.

    Attributes:
        shape: Iteration space of an element-wise pass.
        nodes: Operations, in order. An external kernel has one, or two that share a visit (`visits`).
        stores: Which of them are written to memory.
        fused: Whether it is an element-wise pass.
        clears: Operands that it sets to zero once read.
    """

    shape: tuple[int, ...]
    nodes: list[Node]
    fused: bool
    stores: dict[Node, Ref] = field(default_factory=dict)
    clears: list[Node] = field(default_factory=list)


def kernel_operands(kernel: Kernel) -> list[Node]:
    """What a kernel reads from memory."""
    inside = set(kernel.nodes) if kernel.fused else set()
    return list({operand: None for node in kernel.nodes for operand in loads(node) if operand not in inside})


def kernel_reads(kernel: Kernel, refs: dict[Node, Ref]) -> list[Ref]:
    """The memory that a kernel reads."""
    return [refs[operand] for operand in kernel_operands(kernel)]


def loads(node: Node) -> list[Node]:
    """The operands that a node takes from other nodes; element-wise operations have numbers as literals."""
    if node._loads is None or node._loads[0] is not node.args:
        literals = node.op in POINTWISE
        node._loads = node.args, [x for x in node.operands() if not (literals and x.op == "full")]
    return node._loads[1]
