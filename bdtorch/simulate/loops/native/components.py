"""Taking apart passes over unrelated elements, as of populations that happen to have the same size.

In one loop they would be nothing but a longer body: more streams of memory than a processor follows, and a compiler's time
that grows faster than the body. One by one, populations of the same cells are one function, called for each of them.
"""

from __future__ import annotations

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import Kernel, loads
from bdtorch.simulate.loops.native.memory import Ref

_LEAST = 16  # operations that are worth a loop of their own


def components(kernel: Kernel, refs: dict[Node, Ref], replaced: dict[Node, Ref]) -> list[Kernel]:
    """The passes that an element-wise pass is made of, in any order.

    Operations belong together where one takes another's result, both read the same array, or one replaces what the other
    reads. Numbers that hold for every element join nothing.

    Args:
        kernel: The pass.
        refs: Where every node in memory lies.
        replaced: The old values that its nodes are the new ones of.
    """
    groups = _Groups(kernel.nodes)
    members = set(kernel.nodes)
    readers: dict[Node, Node] = {}
    for node in kernel.nodes:
        for operand in loads(node):
            if operand in members:
                groups.join(node, operand)
            elif refs[operand].numel > 1:
                groups.join(node, readers.setdefault(operand, node))
    touched = [(node, refs[operand]) for operand, node in readers.items()]
    for maker, old in replaced.items():
        for reader, ref in touched:
            if ref.overlaps(old):
                groups.join(maker, reader)
    large = [group for group in groups.all() if len(group) >= _LEAST]
    if len(large) < 2:
        return [kernel]
    alone = {node for group in large for node in group}
    rest = [node for node in kernel.nodes if node not in alone]
    return [_part(kernel, nodes) for nodes in (*large, rest) if nodes]


def _part(kernel: Kernel, nodes: list[Node]) -> Kernel:
    part = Kernel(kernel.shape, nodes, fused=True)
    part.stores = {node: kernel.stores[node] for node in nodes if node in kernel.stores}  # in the order of the nodes
    return part


class _Groups:
    """Disjoint sets of nodes, each in the order in which they were given."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.parent = {node: node for node in nodes}

    def root(self, node: Node) -> Node:
        while self.parent[node] is not node:
            self.parent[node] = node = self.parent[self.parent[node]]
        return node

    def join(self, a: Node, b: Node) -> None:
        self.parent[self.root(a)] = self.root(b)

    def all(self) -> list[list[Node]]:
        found: dict[Node, list[Node]] = {}
        for node in self.nodes:
            found.setdefault(self.root(node), []).append(node)
        return list(found.values())
