"""From the graph to kernels over buffers: fusion, and the new state in place of the old."""

from __future__ import annotations

from dataclasses import dataclass, field


from bdtorch.simulate.loops.native.graph import Graph, Node, constant_tensor
from bdtorch.simulate.loops.native.memory import Buffer, Ref, dense, view
from bdtorch.simulate.loops.native.operations import POINTWISE, VIEWS


@dataclass(eq=False)
class Kernel:
    """A piece of the step: a fused element-wise pass, or one operation with a kernel of its own.

    Attributes:
        shape: Iteration space of an element-wise pass.
        nodes: Operations, in order. An external kernel has one.
        stores: Which of them are written to memory.
        fused: Whether it is an element-wise pass.
    """

    shape: tuple[int, ...]
    nodes: list[Node]
    fused: bool
    stores: dict[Node, Ref] = field(default_factory=dict)


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


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kernels: list[Kernel] = []
        self.place: dict[Node, int] = {}  # the kernel that computes a node
        self.refs: dict[Node, Ref] = {}
        self.state: dict[int, Buffer] = {}

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            self._lower(node)
        observed = [self._laid_out(node) for node in self.graph.observed]
        self._declare_untouched_states()
        copies = self._write_states(observed)
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
        else:
            self._lower_external(node)

    def _lower_external(self, node: Node) -> None:
        """Kernels of this package take contiguous operands; those of ATen's operations take any strides."""
        if node.op.startswith("bdtorch."):
            for operand in node.operands():
                if not self._in_memory(operand).contiguous:
                    copy = self._copied(operand)
                    self.refs[operand], self.place[operand] = self.refs[copy], self.place[copy]
        for operand in node.operands():
            self._in_memory(operand)
        self.place[node] = len(self.kernels)
        self.kernels.append(Kernel(node.shape, [node], fused=False))
        self._in_memory(node)

    def _laid_out(self, node: Node) -> Ref:
        """Where a node lies contiguously, which may be a copy."""
        ref = self._in_memory(node)
        return ref if ref.contiguous else self._in_memory(self._copied(node))

    def _copied(self, node: Node) -> Node:
        copy = Node(node.number, "op", node.shape, node.dtype, "aten.clone.default", (node,), compute=node.dtype)
        self._fuse(copy)
        self._in_memory(copy)
        return copy

    def _enter(self, node: Node) -> None:
        buffer = Buffer(node.dtype, node.numel, node.kind, node.source)
        strides = dense(node.shape)
        if node.kind == "state":
            self.state[node.source] = buffer
        elif node.kind == "constant":
            tensor = constant_tensor(node)
            if not tensor.is_contiguous():
                buffer.source = tensor.contiguous()
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
        for operand in node.operands():
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
        for operand in node.operands():
            if self.place.get(operand, number) != number:
                self._in_memory(operand)
        self.kernels[number].nodes.append(node)
        self.place[node] = number

    def reads(self, kernel: Kernel) -> list[Ref]:
        """What a kernel reads from memory."""
        return kernel_reads(kernel, self.refs)

    def _write_states(self, observed: list[Ref]) -> list[tuple[Buffer, Ref]]:
        """Let new states take the place of the old where nothing is in the way, and note what is to be copied."""
        sources: dict[int, tuple[Node, Ref]] = {}
        for number, node in enumerate(self.graph.state):
            if not (node.kind == "state" and node.source == number):
                # What is not made by a kernel of its own may look into an old state, so its value is set aside.
                apart = node.kind != "op" or node.op in VIEWS
                made = self._copied(node) if apart else node
                sources[number] = (made, self._in_memory(made))
        late = [ref.buffer for ref in observed]  # read after the kernels
        copies: list[tuple[Buffer, Ref]] = []
        for number, (node, ref) in sources.items():
            if self._may_overwrite(node, ref, self.state[number], late):
                ref.buffer.alias = self.state[number]
            else:
                copies.append((self.state[number], ref))
        return copies

    def _may_overwrite(self, node: Node, ref: Ref, state: Buffer, late: list[Buffer]) -> bool:
        """Whether nothing needs the old state once the kernel that makes the new one has begun."""
        temporary = ref.buffer.role == "temporary" and ref.buffer.alias is None and ref.whole
        if not temporary or node not in self.place or state in late or node not in self.kernels[self.place[node]].stores:
            return False
        number = self.place[node]
        if any(read.buffer is state for kernel in self.kernels[number + 1 :] for read in self.reads(kernel)):
            return False
        here = [read for read in self.reads(self.kernels[number]) if read.buffer is state]
        if self.kernels[number].fused:
            return all(read.whole and read.shape == node.shape for read in here)
        return not here or (node.op.startswith("aten.scatter.") and len(here) == 1 and here[0].whole)


def kernel_reads(kernel: Kernel, refs: dict[Node, Ref]) -> list[Ref]:
    """The memory that a kernel reads."""
    inside = set(kernel.nodes) if kernel.fused else set()
    operands = {operand: None for node in kernel.nodes for operand in node.operands() if operand not in inside}
    return [refs[operand] for operand in operands]


