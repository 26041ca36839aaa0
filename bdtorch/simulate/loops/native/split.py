"""Splitting element-wise work where its results are read slice by slice.

A synapse acts on all targets of a projection, and each population then reads its own slice. Computed slice by slice,
the synapse joins the pass of the population, and its variables stay in registers. What is needed whole is the ``cat``
of the slices, which the planner lets them be written into.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from bdtorch.simulate.loops.native.graph import Graph, Node, pruned
from bdtorch.simulate.loops.native.operations import POINTWISE

_MOST_SLICES = 8
_MOST_PARTS = 128  # operations times slices, for the sake of the compiler's time

Cut = tuple[int, int]


def split(graph: Graph) -> Graph:
    """The same step, with element-wise operations cut along their last axis where all who slice them agree on cuts."""
    users: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        for operand in node.operands():
            users.setdefault(operand, []).append(node)
    cuts: dict[Node, list[Cut]] = {}
    for group in _groups(graph.nodes):
        agreed = _agreed_cuts(group, users)
        if agreed and len(group) * len(agreed) <= _MOST_PARTS:
            cuts |= dict.fromkeys(group, agreed)
    return _Splitter(cuts, users, {*graph.state, *graph.observed}).rewritten(graph) if cuts else graph


def _groups(nodes: list[Node]) -> list[list[Node]]:
    """Element-wise operations that take one another's results, of one shape."""
    group_of: dict[Node, list[Node]] = {}
    for node in nodes:
        if node.op not in POINTWISE or node.op == "full" or not node.shape:
            continue
        group = [node]
        for operand in node.operands():
            other = group_of.get(operand)
            if other is not None and other is not group and operand.shape == node.shape:
                small, group = sorted((group, other), key=len)
                group.extend(small)
                for member in small:
                    group_of[member] = group
        group_of[node] = group
    return list({id(group): group for group in group_of.values()}.values())


def _cut(node: Node, base: Node) -> Cut | None:
    """What a plain slice along the last axis takes of ``base``; None for anything else."""
    if node.op != "aten.slice.Tensor" or node.args[0] is not base:
        return None
    given = dict(enumerate(node.args))
    extent = base.shape[-1]
    if given.get(1, 0) % len(base.shape) != len(base.shape) - 1 or given.get(4, 1) != 1 or not node.shape[-1]:
        return None
    start = given.get(2) or 0
    start = min(max(start + (extent if start < 0 else 0), 0), extent)
    return start, start + node.shape[-1]


def _agreed_cuts(group: list[Node], users: dict[Node, list[Node]]) -> list[Cut]:
    """The cuts into which all slices of the group's results fall, each slice being one of them; or none."""
    taken = {cut for node in group for user in users.get(node, []) if (cut := _cut(user, node)) is not None}
    ends = sorted({0, group[0].shape[-1], *(end for cut in taken for end in cut)})
    cuts = list(pairwise(ends))
    return cuts if taken <= set(cuts) and 1 < len(cuts) <= _MOST_SLICES else []


class _Splitter:
    def __init__(self, cuts: dict[Node, list[Cut]], users: dict[Node, list[Node]], results: set[Node]) -> None:
        self.cuts = cuts
        self.users = users
        self.results = results
        self.parts: dict[tuple[Node, Cut], Node] = {}
        self.now: dict[Node, Node] = {}  # what stands in the place of a node

    def rewritten(self, graph: Graph) -> Graph:
        order: list[Node] = []
        for node in graph.nodes:
            order += self._split(node) if node in self.cuts else self._kept(node)
        state, observed = ([self.now[node] for node in nodes] for nodes in (graph.state, graph.observed))
        for number, node in enumerate(order, 1):
            node.number = number
        return pruned(state, observed, graph.captured)

    def _split(self, node: Node) -> list[Node]:
        made: list[Node] = []
        for cut in self.cuts[node]:
            part = replace(
                node,
                shape=(*node.shape[:-1], cut[1] - cut[0]),
                args=self._mapped(node.args, node, cut, made),
                kwargs=self._mapped(node.kwargs, node, cut, made),
            )
            self.parts[node, cut] = part
            made.append(part)
        if node in self.results or any(self._needs_whole(user, node) for user in self.users.get(node, [])):
            parts = [self.parts[node, cut] for cut in self.cuts[node]]
            whole = replace(node, op="aten.cat.default", args=(parts, len(node.shape) - 1), kwargs={})
            self.now[node] = whole
            made.append(whole)
        return made

    def _needs_whole(self, user: Node, node: Node) -> bool:
        """A user takes parts where it is a slice, or itself split along the same axis."""
        if user in self.cuts:
            return self.cuts[user] != self.cuts[node] or user.shape != node.shape
        return _cut(user, node) is None

    def _kept(self, node: Node) -> list[Node]:
        base = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        if base in self.cuts and (cut := _cut(node, base)) is not None:
            self.now[node] = self.parts[base, cut]
            return []
        changed = any(self.now[operand] is not operand for operand in node.operands())
        same = replace(node, args=self._mapped(node.args), kwargs=self._mapped(node.kwargs)) if changed else node
        self.now[node] = same
        return [same]

    def _mapped(
        self, value: Any, node: Node | None = None, cut: Cut | None = None, made: list[Node] | None = None
    ) -> Any:
        """Arguments with what stands in the place of each operand: of a part, the part of it that is cut like it."""
        if isinstance(value, Node):
            return self.now[value] if node is None else self._part(value, node, cut, made)  # type: ignore[arg-type]
        if isinstance(value, (list, tuple)):
            return type(value)(self._mapped(item, node, cut, made) for item in value)
        if isinstance(value, dict):
            return {key: self._mapped(item, node, cut, made) for key, item in value.items()}
        return value

    def _part(self, operand: Node, node: Node, cut: Cut, made: list[Node]) -> Node:
        if operand.shape == node.shape and self.cuts.get(operand) == self.cuts[node]:
            return self.parts[operand, cut]
        if not operand.shape or operand.shape[-1] == 1:
            return self.now[operand]  # broadcast along the axis
        if (operand, cut) not in self.parts:
            base = self.now[operand]
            shape = (*base.shape[:-1], cut[1] - cut[0])
            args = (base, len(base.shape) - 1, *cut)
            sliced = Node(node.number, "op", shape, base.dtype, "aten.slice.Tensor", args, site=node.site)
            self.parts[operand, cut] = sliced
            made.append(sliced)
        return self.parts[operand, cut]
