"""Event-driven products in a loop: who owns which targets, and lists of the neurons that are active.

Every thread adds to the very elements of a product's result that it will read in the passes that follow, so that threads
need not meet in between, and no memory goes to and fro between their caches. For that, the rows of the matrix are cut at
the bounds of the threads' shares. The thread that makes the spikes of some neurons lists the active ones, for itself, for
the others and for the record.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import Kernel, kernel_operands, kernel_reads
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.operations import ONTO_ZEROS
from bdtorch.simulate.loops.native.plan import Plan
from bdtorch.simulate.loops.native.pointwise import CPP
from bdtorch.simulate.loops.native.printing import Access, partition, pointer

_LINE = 16  # entries of a list that make a cache line, as in event_loop.h
_FRONT = 16  # entries before a thread's cuts, as there
_SMALL = 2**32  # below so many synapses, four bytes tell where a row is cut
_MOST_PIECES = 4
_PRODUCTS = ("bdtorch._event_csr_raw.default", ONTO_ZEROS["bdtorch._event_csr_raw.default"])


@dataclass(frozen=True, eq=False)
class ActiveList:
    """The lists of the active ones among some neurons.

    Attributes:
        spikes: Where the spikes lie.
        memory: The lists of all threads.
        producer: Number of the pass that makes the spikes.
    """

    spikes: Ref
    memory: Buffer
    producer: int

    def text(self, step: str) -> str:
        """The C++ of the list that is read in a step, or made in the one before."""
        memory = f"(int32_t*)now.buffers[{self.memory.number}]"
        return f"bdtorch::ActiveLists{{{memory}, {self.spikes.numel}, now.threads, {step}}}"

    def whole(self) -> Ref:
        """The list as something that kernels read and write."""
        return Ref(self.memory, self.spikes.shape, self.spikes.strides)

    def made(self, step: str) -> str:
        """The C++ by which a thread lists its own share."""
        share = f"const loop::Range r = loop::share({self.spikes.numel}, now.thread, now.threads);"
        return f"{{ {share} {self.text(step)}.make({pointer(self.spikes)}, r.begin, r.end, now.thread); }}"


@dataclass(frozen=True, eq=False)
class Product:
    """How threads share an event-driven product.

    Attributes:
        pieces: The parts of its result, of each of which every thread owns its share.
        cuts: The cuts of the rows, for each thread.
        active: The list of its active rows, or None where every thread looks for them.
        made_before: Whether the list is made in the same step.
    """

    pieces: list[Ref]
    cuts: Buffer
    active: ActiveList | None
    made_before: bool

    @property
    def cut_type(self) -> str:
        return "uint32_t" if self.cuts.dtype == torch.int32 else "int64_t"


class Events:
    """The event-driven products of a plan, which is given the memory they need."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reads = [(kernel, kernel_reads(kernel, plan.refs)) for kernel in plan.kernels]
        self.lists: list[ActiveList] = []
        self.products: dict[int, Product] = {}
        for number, kernel in enumerate(plan.kernels):
            if not kernel.fused and kernel.nodes[0].op in _PRODUCTS and len(plan.refs[kernel.nodes[0]].shape) == 1:
                self.products[number] = self._product(number, kernel.nodes[0])

    def listed(self, spikes: Ref) -> ActiveList | None:
        """The list of the active ones among some neurons."""
        return next((active for active in self.lists if active.spikes.buffer.home is spikes.buffer.home
                     and active.spikes.offset == spikes.offset and active.spikes.numel == spikes.numel
                     and spikes.contiguous), None)  # fmt: skip

    def _product(self, number: int, node: Node) -> Product:
        spikes, out = self.plan.refs[node.args[0]], self.plan.refs[node]
        pieces = self._pieces(out)
        synapses = node.args[2].numel
        dtype = torch.int32 if synapses < _SMALL else torch.int64
        cuts = self._memory(dtype, _FRONT + spikes.numel * 2 * len(pieces))
        active = self._list(spikes)
        return Product(pieces, cuts, active, active is not None and active.producer < number)

    def _memory(self, dtype: torch.dtype, numel: int) -> Buffer:
        buffer = Buffer(dtype, numel, "threads", number=len(self.plan.buffers))
        self.plan.buffers.append(buffer)
        return buffer

    def _pieces(self, out: Ref) -> list[Ref]:
        """The parts in which passes read a result, if they make up the whole and each is read by shares."""
        found: dict[tuple[int, int], Ref] = {}
        home = out.buffer.home
        for kernel, reads in self.reads:
            for ref in reads:
                if ref.buffer.home is not home:
                    continue
                if not kernel.fused or not ref.contiguous or self._partition(kernel) != f"flat {ref.numel}":
                    return [out]
                found[ref.offset, ref.numel] = ref
        pieces = [found[key] for key in sorted(found)]
        ends = [0, *(ref.offset + ref.numel for ref in pieces)]
        tile = out.whole and [ref.offset for ref in pieces] == ends[:-1] and ends[-1] == out.numel
        return pieces if tile and len(pieces) <= _MOST_PIECES else [out]

    def _partition(self, kernel: Kernel) -> str:
        reads = [self.plan.refs[x].expanded(kernel.shape) for x in kernel_operands(kernel)]
        return partition(kernel.shape, [*reads, *kernel.stores.values()])[1]

    def _list(self, spikes: Ref) -> ActiveList | None:
        """The list of the spikes that one pass makes by shares; None for others."""
        known = self.listed(spikes)
        if known is not None:
            return known
        makers = [(number, ref) for number, kernel in enumerate(self.plan.kernels)
                  for ref in self._written(kernel) if ref.overlaps(spikes)]  # fmt: skip
        if len(makers) != 1 or spikes.buffer.dtype != torch.bool or not spikes.contiguous:
            return None
        number, ref = makers[0]
        kernel = self.plan.kernels[number]
        same = (ref.offset, ref.numel) == (spikes.offset, spikes.numel) and ref.contiguous
        if not kernel.fused or not same or self._partition(kernel) != f"flat {spikes.numel}":
            return None
        entries = (spikes.numel + _LINE) // _LINE * _LINE
        memory = self._memory(torch.int32, 2 * entries)
        self.lists.append(ActiveList(ref, memory, number))
        return self.lists[-1]

    def _written(self, kernel: Kernel) -> list[Ref]:
        if kernel.fused:
            return [*kernel.stores.values(), *(self.plan.refs[x] for x in kernel.clears)]
        return [self.plan.refs[node] for node in kernel.nodes]


def print_product(product: Product, node: Node, refs: dict[Node, Ref]) -> tuple[list[str], list[Access]]:
    """The lines of a product, and what it does to memory."""
    spikes, weights, indices, indptr = (refs[arg] for arg in node.args[:4])
    out, active = refs[node], product.active
    source = f"bdtorch::Searched<{CPP[spikes.buffer.dtype]}>{{{pointer(spikes)}, {spikes.numel}}}"
    if active is not None:
        source = active.text("now.k + 1" if product.made_before else "now.k")
    lines = [f"float* y = {pointer(out)};".replace("float", CPP[node.dtype])]
    n = len(product.pieces)
    bounds = []
    for k, piece in enumerate(product.pieces):
        lines.append(f"const loop::Range r{k} = loop::share({piece.numel}, now.thread, now.threads);")
        begin = piece.offset - out.offset
        bounds += [f"{begin} + r{k}.begin", f"{begin} + r{k}.end"]
        if node.op == _PRODUCTS[0]:
            lines.append(f"std::memset(y + {bounds[-2]}, 0, (r{k}.end - r{k}.begin) * sizeof *y);")
    shared = "true" if not weights.shape else "false"
    matrix = ", ".join(map(pointer, (weights, indices, indptr)))
    cuts = f"({product.cut_type}*)now.buffers[{product.cuts.number}], {spikes.numel}"
    lines += [
        f"const int64_t bounds[] = {{{', '.join(bounds)}}};",
        f"bdtorch::scatter_owned<{n}, {shared}>({source}, {matrix}, {cuts}, bounds, now.thread, now.threads, y);",
    ]
    accesses = [Access(ref, False, "all") for ref in (weights, indices, indptr)]
    if active is None:
        accesses.append(Access(spikes, False, "all"))
    elif product.made_before:
        accesses.append(Access(active.whole(), False, "all"))
    return lines, accesses + [Access(piece, True, f"flat {piece.numel}") for piece in product.pieces]
