"""Rewriting what a step need not compute as it is written: parts of a whole, and sums of truth values as numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch

from bdtorch.simulate.loops.native.graph import Graph, Node, pruned
from bdtorch.simulate.loops.native.operations import COPIES, VIEWS

_EXACT = {torch.float32: 2**24, torch.float64: 2**53}
"""Up to where a dtype has every whole number, so that sums of ones are exact in any order."""


def simplified(graph: Graph) -> Graph:
    """The same step, to the bit: slices of a ``cat`` are its parts, and ones are counted as the truth values they were."""
    simplifier = _Simplifier(graph)
    for node in graph.nodes:
        simplifier.now[node] = simplifier.rewritten(node)
    if all(simplifier.now[node] is node for node in graph.nodes):
        return graph
    for number, node in enumerate(simplifier.order, 1):
        node.number = number
    state, observed = ([simplifier.now[node] for node in nodes] for nodes in (graph.state, graph.observed))
    return pruned(state, observed, graph.captured)


class _Simplifier:
    def __init__(self, graph: Graph) -> None:
        self.now: dict[Node, Node] = {}  # what stands in the place of a node
        self.order: list[Node] = []
        results = {*graph.state, *graph.observed}
        sliced_only: dict[Node, bool] = {}
        for node in graph.nodes:
            for operand in node.operands():
                sliced_only[operand] = sliced_only.get(operand, operand not in results) and _span(node) is not None
        self.in_pieces = {node for node, only in sliced_only.items() if only and node.op == "aten.cat.default"}

    def rewritten(self, node: Node) -> Node:
        changed = any(self.now[operand] is not operand for operand in node.operands())
        same = replace(node, args=self._mapped(node.args), kwargs=self._mapped(node.kwargs)) if changed else node
        part = self._part(node, same)
        if part is not None:
            return part
        count = self._count(same)
        return self._add(same) if count is None else count

    def _add(self, node: Node) -> Node:
        self.order.append(node)
        return node

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self.now[value]
        if isinstance(value, (list, tuple)):
            return type(value)(self._mapped(item) for item in value)
        return {key: self._mapped(item) for key, item in value.items()} if isinstance(value, dict) else value

    def _part(self, node: Node, same: Node) -> Node | None:
        """What a slice of a ``cat`` takes of it: one of its parts, or a smaller ``cat`` where nothing needs the larger."""
        span = _span(same)
        if span is None or same.args[0].op != "aten.cat.default":
            return None
        whole, (axis, start, stop) = same.args[0], span
        along = (whole.args[1] if len(whole.args) > 1 else 0) % len(whole.shape)
        parts = [part for part in whole.args[0] if part.numel]
        ends = [0, *accumulate(part.shape[along] for part in parts)] if parts else []
        if axis != along or start not in ends or stop not in ends or start >= stop:
            return None
        taken = parts[ends.index(start) : ends.index(stop)]
        if len(taken) == 1 and taken[0].dtype == node.dtype:
            return taken[0]
        if node.args[0] not in self.in_pieces or len(taken) == len(parts):
            return None
        return self._add(replace(same, op="aten.cat.default", args=(taken, along), kwargs={}, output=None))

    def _count(self, node: Node) -> Node | None:
        """A sum of numbers that were truth values, from these."""
        if not node.op.startswith("aten.sum.") or node.kwargs or node.numel == 0:
            return None
        views: list[Node] = []
        source = node.args[0]
        while source.op in VIEWS:
            views.append(source)
            source = source.args[0]
        summed = math.prod(node.args[0].shape) // node.numel
        ones = source.op in COPIES and source.args[0].dtype == torch.bool and node.dtype == source.dtype
        if not ones or summed > _EXACT.get(node.dtype, 0):
            return None
        found = source.args[0]
        for view in reversed(views):
            found = self._add(replace(view, args=(found, *view.args[1:]), dtype=torch.bool, compute=None))
        count = self._add(replace(node, args=(found, *node.args[1:]), dtype=torch.int64, compute=torch.int64))
        return self._add(
            Node(0, "op", node.shape, node.dtype, "aten._to_copy.default", (count,), compute=node.dtype, site=node.site)
        )


def _span(node: Node) -> tuple[int, int, int] | None:
    """Axis, start and end of the run of indices that a slice or a split takes of its operand; None for anything else."""
    if node.op not in ("aten.slice.Tensor", "aten.split.Tensor", "aten.split_with_sizes.default"):
        return None
    given, shape = dict(enumerate(node.args)), node.args[0].shape
    if node.op == "aten.slice.Tensor":
        axis = given.get(1, 0) % len(shape)
        start = given.get(2) or 0
        start = min(max(start + (shape[axis] if start < 0 else 0), 0), shape[axis])
        return (axis, start, start + node.shape[axis]) if given.get(4, 1) == 1 else None
    axis, sizes, turn = given.get(2, 0) % len(shape), given[1], node.output or 0
    start = turn * sizes if isinstance(sizes, int) else sum(sizes[:turn])
    return axis, start, start + node.shape[axis]
