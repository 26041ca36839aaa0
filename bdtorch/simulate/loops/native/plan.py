"""From the graph to kernels over buffers: fusion, and the new state in place of the old."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bdtorch.ops import native_kernel
from bdtorch.simulate.loops.native.components import components
from bdtorch.simulate.loops.native.graph import Graph, Node
from bdtorch.simulate.loops.native.inplace import update_in_place
from bdtorch.simulate.loops.native.kernel import Kernel, kernel_operands, loads
from bdtorch.simulate.loops.native.memory import Buffer, Ref, dense, view
from bdtorch.simulate.loops.native.operations import ONTO_ZEROS, POINTWISE, UPDATES, VIEWS
from bdtorch.simulate.loops.native.sink import Sinking


@dataclass(eq=False)
class Plan:
    """What the step computes, where, and in which order.

    Attributes:
        kernels: In order.
        refs: Where every node in memory lies.
        buffers: All buffers that the loop is handed.
        observed: Where the observed tensors lie after the kernels.
        copies: ``(state buffer, where its new value lies)`` for what could not be written in place.
    """

    kernels: list[Kernel]
    refs: dict[Node, Ref]
    buffers: list[Buffer]
    observed: list[Ref]
    copies: list[tuple[Buffer, Ref]]


def plan(graph: Graph) -> Plan:
    """Lay the graph out."""
    return _Planner(graph).plan()


class _Planner(Sinking):
    def plan(self) -> Plan:
        for node in _kernels_first(self.graph.nodes):
            self._lower(node)
        observed = [self._laid_out(node) for node in self.graph.observed]
        self._declare_untouched_states()
        sources = self._made_states()
        self.sink()
        self._take_apart(sources)
        makers = [None if kernel.fused else kernel.nodes[0] for kernel in self.kernels]
        update_in_place(makers, [*map(self.reads, self.kernels)], self.refs, self.state, sources, observed)
        copies = self._write_states(sources, observed)
        self._clear({ref.buffer for ref in (*observed, *(ref for _, ref in copies))})
        buffers: list[Buffer] = []
        for ref in [*self.refs.values(), *observed]:
            self._number(ref.buffer, buffers)
        for buffer in self.state.values():
            self._number(buffer, buffers)
        return Plan(self.kernels, self.refs, buffers, observed, copies)

    def _number(self, buffer: Buffer, buffers: list[Buffer]) -> None:
        home = buffer.home
        if home.number < 0:
            home.number = len(buffers)
            buffers.append(home)

    def _lower(self, node: Node) -> None:
        if node.kind != "op":
            self._enter(node)
        elif node.op in VIEWS:
            self._take_view(node)
        elif node.op in POINTWISE:
            self._fuse(node)
        elif node.op == "aten.cat.default":
            self._assemble(node)
        else:
            self._lower_external(node)

    def _assemble(self, node: Node) -> None:
        """Let the passes that make the parts of a ``cat`` write them where they belong."""
        whole = Ref(Buffer(node.dtype, node.numel, "temporary"), node.shape, dense(node.shape))
        axis = (node.args[1] if len(node.args) > 1 else 0) % len(node.shape)
        self.refs[node] = whole
        start = 0
        for part in node.args[0]:
            if not part.numel:  # which may have any number of axes
                continue
            window = Ref(whole.buffer, part.shape, whole.strides, start * whole.strides[axis])
            start += part.shape[axis]
            direct = part.op in POINTWISE and part in self.place and part not in self.refs and part.dtype == node.dtype
            source = part if direct else self._fused_copy(part, node.dtype)
            self.refs[source] = self.kernels[self.place[source]].stores[source] = window
            self.wholes[source] = node
        self._place_whole(node)

    def _lower_external(self, node: Node) -> None:
        """Kernels of this package take contiguous operands; those of ATen's operations take any strides."""
        if node.op.startswith("bdtorch.") or native_kernel(node.op) is not None:
            node.args = tuple(self._dense(x) if isinstance(x, Node) else x for x in node.args)
        for operand in node.operands():
            self._in_memory(operand)
        self.place[node] = len(self.kernels)
        self.kernels.append(Kernel(node.shape, [node], fused=False))
        self._in_memory(node)

    def _dense(self, node: Node) -> Node:
        """The node, or a copy that lies contiguously."""
        return node if self._in_memory(node).contiguous else self._copied(node)

    def _laid_out(self, node: Node) -> Ref:
        """Where a node lies contiguously, which may be a copy."""
        return self._in_memory(self._dense(node))

    def _copied(self, node: Node) -> Node:
        copy = self._fused_copy(node, node.dtype)
        self._in_memory(copy)
        return copy

    def _fused_copy(self, node: Node, dtype: torch.dtype) -> Node:
        copy = Node(node.number, "op", node.shape, dtype, "aten.clone.default", (node,), compute=dtype)
        self._fuse(copy)
        self.copies.append(copy)
        return copy

    def _enter(self, node: Node) -> None:
        buffer = Buffer(node.dtype, node.numel, node.kind, node.source)
        strides = dense(node.shape)
        if node.kind == "state":
            self.state[node.source] = buffer
        self.refs[node] = Ref(buffer, node.shape, strides)

    def _declare_untouched_states(self) -> None:
        """States that the step replaces without reading them still have a buffer."""
        for number, node in enumerate(self.graph.state):
            if number not in self.state:
                self.state[number] = Buffer(node.dtype, node.numel, "state", number)

    def _take_view(self, node: Node) -> None:
        base = node.args[0]
        taken = view(node, self._in_memory(base))
        if taken is None:
            base = self._copied(base)
            taken = view(node, self._in_memory(base))
        assert taken is not None  # a contiguous base can be viewed in any way
        self.refs[node] = taken
        if base in self.place:
            self.place[node] = self.place[base]

    def _in_memory(self, node: Node) -> Ref:
        """Where a node lies, which makes its kernel store it."""
        if node not in self.refs:
            ref = Ref(Buffer(node.dtype, node.numel, "temporary"), node.shape, dense(node.shape))
            self.refs[node] = ref
            self.kernels[self.place[node]].stores[node] = ref
        return self.refs[node]

    def _fuse(self, node: Node) -> None:
        """Put an element-wise operation into the first pass over its shape that has all it needs."""
        earliest = 0
        for operand in loads(node):
            if operand not in self.place:
                continue
            home = self.place[operand]
            joins = self.kernels[home].fused and operand in self.kernels[home].nodes and operand.shape == node.shape
            earliest = max(earliest, home if joins else home + 1)
        for number in range(earliest, len(self.kernels)):
            kernel = self.kernels[number]
            if kernel.fused and kernel.shape == node.shape:
                break
        else:
            number = len(self.kernels)
            self.kernels.append(Kernel(node.shape, [], fused=True))
        for operand in loads(node):
            if self.place.get(operand, number) != number:
                self._in_memory(operand)
        self.kernels[number].nodes.append(node)
        self.place[node] = number

    def _made_states(self) -> dict[int, tuple[Node, Ref]]:
        """For every state that changes, the node that makes its new value in memory of its own."""
        sources: dict[int, tuple[Node, Ref]] = {}
        for number, node in enumerate(self.graph.state):
            if not (node.kind == "state" and node.source == number):
                # What is not made by a kernel of its own may look into an old state, so its value is set aside.
                apart = node.kind != "op" or node.op in VIEWS
                # A part of a `cat` may lie in its place there, and so in pieces.
                made = self._copied(node) if apart or not self._in_memory(node).contiguous else node
                sources[number] = (made, self._in_memory(made))
        return sources

    def _take_apart(self, sources: dict[int, tuple[Node, Ref]]) -> None:
        """Let unrelated parts of a pass be passes of their own."""
        made = {node: number for number, (node, _) in sources.items()}
        kernels: list[Kernel] = []
        for kernel in self.kernels:
            replaced = {}
            for node, ref in kernel.stores.items():
                if (number := made.get(self.wholes.get(node, node))) is not None:
                    replaced[node] = Ref(self.state[number], ref.shape, ref.strides, ref.offset)
            kernels += components(kernel, self.refs, replaced) if kernel.fused else [kernel]
        self.kernels = kernels
        self.place |= {node: number for number, kernel in enumerate(kernels) for node in kernel.nodes}
        for whole in set(self.wholes.values()):
            self._place_whole(whole)

    def _write_states(self, sources: dict[int, tuple[Node, Ref]], observed: list[Ref]) -> list[tuple[Buffer, Ref]]:
        """Let new states take the place of the old where nothing is in the way, and note what is to be copied."""
        late = [ref.buffer.home for ref in observed]  # read after the kernels
        copies: list[tuple[Buffer, Ref]] = []
        for number, (node, ref) in sources.items():
            if ref.buffer.home is self.state[number]:
                continue  # made in its place
            if self._may_overwrite(node, ref, self.state[number], late):
                ref.buffer.alias = self.state[number]
            else:
                copies.append((self.state[number], ref))
        return copies

    def _may_overwrite(self, node: Node, ref: Ref, state: Buffer, late: list[Buffer]) -> bool:
        """Whether nothing needs the old state once the kernels that make the new one have begun."""
        temporary = ref.buffer.role == "temporary" and ref.buffer.alias is None and ref.whole
        if not temporary or node not in self.place or state in late:
            return False
        makers = [part for part, whole in self.wholes.items() if whole is node] or [node]
        return all(self._may_write(maker, state) for maker in makers)

    def _may_write(self, node: Node, state: Buffer) -> bool:
        """Whether the kernel that makes a node may write it over the place in the old state that it takes in the new."""
        number = self.place[node]
        kernel = self.kernels[number]
        if node not in kernel.stores:
            return False
        made = kernel.stores[node]
        old = Ref(state, made.shape, made.strides, made.offset)
        if any(read.overlaps(old) for later in self.kernels[number + 1 :] for read in self.reads(later)):
            return False
        here = [read for read in self.reads(kernel) if read.overlaps(old)]
        if kernel.fused:
            return all(read.same(old) for read in here)
        return not here

    def _clear(self, results: set[Buffer]) -> None:
        """Spare kernels that add to their output from clearing it: the passes that read it do so while it is at hand."""
        readers_of: dict[Buffer, list[tuple[Kernel, Node]]] = {}
        for kernel in self.kernels:
            for x in kernel_operands(kernel):
                readers_of.setdefault(self.refs[x].buffer, []).append((kernel, x))
        for producer in self.kernels:
            node = producer.nodes[0] if producer.nodes else None
            if producer.fused or node is None or node.op not in ONTO_ZEROS:
                continue
            buffer = self.refs[node].buffer
            if buffer.alias is not None or buffer in results:
                continue
            readers = readers_of.get(buffer, [])
            if self._covers([self.refs[x] for _, x in readers], buffer) and all(
                kernel.fused and self.refs[x].shape == kernel.shape for kernel, x in readers
            ):
                node.op = ONTO_ZEROS[node.op]
                for kernel, x in readers:
                    kernel.clears.append(x)

    @staticmethod
    def _covers(refs: list[Ref], buffer: Buffer) -> bool:
        """Whether the views make up the whole buffer, each element in one of them."""
        apart = not any(a.overlaps(b) for k, a in enumerate(refs) for b in refs[:k])
        dense_rows = all(ref.strides and ref.strides[-1] == 1 and 0 not in ref.strides for ref in refs)
        return apart and dense_rows and sum(ref.numel for ref in refs) == buffer.numel


def _kernels_first(nodes: list[Node]) -> list[Node]:
    """Reordered so that operations with kernels of their own run as early as they can.

    Element-wise work between them then meets in fewer, larger passes.
    """
    depth: dict[Node, int] = {}  # kernels one after the other until then
    apart: dict[Node, bool] = {}
    read_until: dict[Node, int] = {}  # the least depth at which what came before has read a tensor, or a view of it
    for node in nodes:
        apart[node] = node.kind == "op" and not (
            node.op in VIEWS or node.op in POINTWISE or node.op == "aten.cat.default"
        )
        depth[node] = max((depth[operand] for operand in node.operands()), default=0) + apart[node]
        if node.op in UPDATES:  # after what reads the old values, which it may then overwrite
            depth[node] = max(depth[node], read_until.get(_viewed(node.args[0]), 0))
        for operand in [] if node.op in VIEWS else node.operands():
            seen = _viewed(operand)
            read_until[seen] = max(read_until.get(seen, 0), depth[node] + (not apart[node]))
    return sorted(nodes, key=lambda node: (depth[node], not apart[node]))  # a stable sort


def _viewed(node: Node) -> Node:
    """What a view looks into."""
    while node.op in VIEWS:
        node = node.args[0]
    return node
