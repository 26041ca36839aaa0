"""Moving operations to the passes that need them, so that their values stay in registers."""

from __future__ import annotations

import abc

from bdtorch.simulate.loops.native.graph import Graph, Node
from bdtorch.simulate.loops.native.kernel import Kernel, kernel_operands, loads
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.operations import VIEWS


class Sinking(abc.ABC):
    """Kernels in order, and where their values lie, while operations may still move to later ones.

    Attributes:
        graph: The step.
        kernels: In order.
        place: The kernel that computes a node.
        refs: Where every node in memory lies.
        state: The buffers of the states.
        known: Operands of kernels, with the nodes that have them.
        copies: Nodes that were made for the sake of their memory.
        wholes: What is written into its place in a ``cat``, and that ``cat``.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kernels: list[Kernel] = []
        self.place: dict[Node, int] = {}
        self.refs: dict[Node, Ref] = {}
        self.state: dict[int, Buffer] = {}
        self.known: dict[Kernel, tuple[list[Node], list[Node]]] = {}
        self.copies: list[Node] = []
        self.wholes: dict[Node, Node] = {}

    @abc.abstractmethod
    def _in_memory(self, node: Node) -> Ref:
        """Where a node lies, which makes its kernel store it."""

    def sink(self) -> None:
        """Move operations to the one pass that needs them, so that their values stay in registers.

        The new value of a state moves to the last pass that reads the old one, which it can then overwrite.
        """
        kept = {*self.graph.observed, *self.copies, *(node.args[0] for node in self.graph.nodes if node.op in VIEWS)}
        leaves = {node: number for number, node in enumerate(self.graph.state)}
        kept |= {node for node in leaves if self.graph.state.count(node) > 1}
        users: dict[Node, set[Node]] = {}
        for kernel in self.kernels:
            for node in kernel.nodes:
                for operand in loads(node):
                    users.setdefault(operand, set()).add(node)
        kept |= {part for part, whole in self.wholes.items() if whole in kept or whole in users or whole not in leaves}
        while self._sweep(users, kept, leaves, may_add=False) or self._gather(users, kept, leaves):
            pass
        first = True  # no pass is added later: variables that swap places would overtake one another forever
        while self._sweep(users, kept, leaves, first):
            first = False

    def _sweep(self, users: dict[Node, set[Node]], kept: set[Node], leaves: dict[Node, int], may_add: bool) -> bool:
        nodes = [node for kernel in self.kernels if kernel.fused for node in kernel.nodes if node not in kept]
        places = ({self.place[user] for user in users.get(node, ())} for node in reversed(nodes))
        return sum(self._move(at, node, leaves, may_add) for at, node in zip(places, reversed(nodes), strict=True)) > 0

    def _gather(self, users: dict[Node, set[Node]], kept: set[Node], leaves: dict[Node, int]) -> bool:
        """Move what a later pass needs together with what else is made of it, so that the later pass makes both."""
        moved = False
        for number in reversed(range(len(self.kernels))):
            kernel = self.kernels[number]
            for node in reversed(kernel.nodes) if kernel.fused else ():
                awaited = any(self.place[user] > number for user in users.get(node, ()))
                if not awaited or self.place[node] != number:
                    continue
                group = self._followers(node, users, kept, leaves)
                target = self._common_target(group, users, leaves) if len(group) > 1 else None
                if target is not None:
                    for member in reversed(group):
                        self._move_to(target, member, stored=self.wholes.get(member, member) in leaves)
                    for whole in {self.wholes[member] for member in group if member in self.wholes}:
                        self._place_whole(whole)
                    moved = True
        return moved

    def _followers(
        self, node: Node, users: dict[Node, set[Node]], kept: set[Node], leaves: dict[Node, int]
    ) -> list[Node]:
        """A node and all that its pass makes of it, in order; none where some of it has to stay."""
        home = self.place[node]
        group = {node}
        for other in self.kernels[home].nodes:
            if any(operand in group for operand in loads(other)):
                group.add(other)
        ordered = [other for other in self.kernels[home].nodes if other in group]
        free = all(x not in kept and (x in users or self.wholes.get(x, x) in leaves) for x in group)
        return ordered if free else []

    def _common_target(self, group: list[Node], users: dict[Node, set[Node]], leaves: dict[Node, int]) -> int | None:
        """The one later pass that needs any of the group, if the new states among it can be written there."""
        home = self.place[group[0]]
        places = {self.place[user] for node in group for user in users.get(node, ())} - {home}
        if len(places) != 1:
            return None
        (target,) = places
        if target < home or not self.kernels[target].fused or self.kernels[target].shape != self.kernels[home].shape:
            return None
        for node in group:
            whole = self.wholes.get(node, node)
            if whole in leaves:
                written = self.refs[node]
                old = Ref(self.state[leaves[whole]], written.shape, written.strides, written.offset)
                if self._last_reader(old) > target:
                    return None
        return target

    def _move(self, users: set[int], node: Node, leaves: dict[Node, int], may_add: bool) -> bool:
        whole = self.wholes.get(node, node)
        if whole not in leaves:
            return len(users) == 1 and self._move_to(users.pop(), node, stored=False)
        written = self.refs[node]
        old = Ref(self.state[leaves[whole]], written.shape, written.strides, written.offset)
        last = self._last_reader(old)
        if last <= self.place[node]:
            return False
        for target in range(last, len(self.kernels)):
            if self.kernels[target].fused and self.kernels[target].shape == node.shape:
                break
        else:
            if not may_add:
                return False
            target = len(self.kernels)
            self.kernels.append(Kernel(node.shape, [], fused=True))
        if any(number < target for number in users) or not self._move_to(target, node, stored=True):
            return False
        if whole is not node:
            self._place_whole(whole)
        return True

    def _last_reader(self, old: Ref) -> int:
        """The last kernel that reads any of this memory, or -1."""
        home = old.buffer.home
        for number in reversed(range(len(self.kernels))):
            for x in self._operands(self.kernels[number]):
                ref = self.refs[x]
                if ref.buffer.home is home and ref.overlaps(old):
                    return number
        return -1

    def reads(self, kernel: Kernel) -> list[Ref]:
        """What a kernel reads from memory."""
        return [self.refs[x] for x in self._operands(kernel)]

    def _operands(self, kernel: Kernel) -> list[Node]:
        """What a kernel reads, once for each list of its nodes: after lowering, lists are replaced and not changed."""
        known = self.known.get(kernel)
        if known is None or known[0] is not kernel.nodes:
            known = self.known[kernel] = (kernel.nodes, kernel_operands(kernel))
        return known[1]

    def _move_to(self, number: int, node: Node, stored: bool) -> bool:
        home, target = self.kernels[self.place[node]], self.kernels[number]
        if number <= self.place[node] or not target.fused or target.shape != home.shape:
            return False
        home.nodes = [other for other in home.nodes if other is not node]
        target.nodes = [node, *target.nodes]  # those that it needs follow, to stand before it
        self.place[node] = number
        if stored:
            target.stores[node] = home.stores.pop(node)
        else:
            home.stores.pop(node, None)
            self.refs.pop(node, None)
        for operand in loads(node):
            if self.place.get(operand, number) != number:
                self._in_memory(operand)
        return True

    def _place_whole(self, node: Node) -> None:
        places = [self.place[part] for part, whole in self.wholes.items() if whole is node]
        if places:  # nothing makes what has no elements
            self.place[node] = max(places)
