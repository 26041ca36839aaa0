"""Kernels of their own over numbers of two bytes: made in float, and rounded once at the end.

Sums, products and whatever else takes many numbers to one are what two bytes are too few for, and PyTorch makes them in
float too. Element-wise operations are rounded one by one (`pointwise.py`), and kernels of this package read weights as
they are stored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bdtorch.ops.csr import TWO_BYTES
from bdtorch.simulate._site import Site
from bdtorch.simulate.loops.native.graph import Graph, Node, pruned
from bdtorch.simulate.loops.native.operations import POINTWISE, VIEWS

_MOVES = {
    "aten.cat.default",
    "aten.gather.default",
    "aten.index.Tensor",
    "aten.index_select.default",
    "aten.scatter.src",
}
"""Operations that copy numbers, of any type."""


def widened(graph: Graph) -> Graph:
    """The same step, with the operands of ATen's kernels in float where they had two bytes."""
    now: dict[Node, Node] = {}
    order: list[Node] = []

    def add(node: Node) -> Node:
        order.append(node)
        return node

    def copied(node: Node, dtype: torch.dtype, site: Site | None) -> Node:
        args = (node,)
        return add(Node(0, "op", node.shape, dtype, "aten._to_copy.default", args, compute=dtype, site=site))

    def mapped(value: Any, node: Node, widen: bool) -> Any:
        if isinstance(value, Node):
            mine = now[value]
            return copied(mine, torch.float32, node.site) if widen and mine.dtype in TWO_BYTES else mine
        if isinstance(value, (list, tuple)):
            return type(value)(mapped(item, node, widen) for item in value)
        return value

    for node in graph.nodes:
        widen = _is_to_be_widened(node)
        if not widen and all(now[x] is x for x in node.operands()):
            now[node] = add(node)
            continue
        args, keywords = mapped(node.args, node, widen), {k: mapped(x, node, widen) for k, x in node.kwargs.items()}
        dtype = torch.float32 if widen and node.dtype in TWO_BYTES else node.dtype
        made = add(replace(node, args=args, kwargs=keywords, dtype=dtype))
        now[node] = made if dtype == node.dtype else copied(made, node.dtype, node.site)
    if all(now[node] is node for node in graph.nodes):
        return graph
    for number, node in enumerate(order, 1):
        node.number = number
    return pruned([now[x] for x in graph.state], [now[x] for x in graph.observed], graph.captured)


def _is_to_be_widened(node: Node) -> bool:
    apart = node.op in POINTWISE or node.op in VIEWS or node.op in _MOVES or not node.op.startswith("aten.")
    return not apart and any(x.dtype in TWO_BYTES for x in (node, *node.operands()))
