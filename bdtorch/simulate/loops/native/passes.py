"""Printing an element-wise pass: as one loop, or as several over short blocks, which hand values on in the innermost cache.

A loop takes a vector of elements at a time, and those that are left in the end one by one, each for the time of a vector.
Where that would be much of the work, the rest is copied to arrays of whole vectors, and back.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch

from bdtorch.ops.csr import TWO_BYTES
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import Kernel, loads
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.pointwise import CPP, cast, computed, expression
from bdtorch.simulate.loops.native.printing import Space, base_pointer, position
from bdtorch.simulate.loops.native.segments import instructions, segments
from bdtorch.simulate.loops.native.stages import staged

_WHOLE = {4: torch.int32, 8: torch.int64}
_VECTOR = 64  # bytes
_MANY = 4  # vectors at a time, of which a processor's registers hold several values
_TURN, _COPIED = 180, 10  # instructions in the time of a second turn, and of copying the rest of one array to and fro
_LEAST, _MOST, _BYTES = 128, 1024, 32 << 10  # elements of a block, and what may be handed on in it


def print_pass(kernel: Kernel, reads: dict[Node, Ref], writes: dict[Node, Ref], iteration: Space) -> tuple[str, str]:
    """Parameters and body of a function over a range of the outermost axis, and the arguments of its call."""
    if iteration.shape[-1] >= _LEAST:
        kernel, writes = staged(kernel, writes)
    printer = _Pass(kernel, reads, writes, iteration)
    return printer.function(), ", ".join(printer.arguments)


@dataclass(eq=False)
class _Segment:
    """A loop over a block.

    Attributes:
        nodes: Its operations.
        taken: Values that earlier loops hand on to it.
        stores: What it writes to memory.
        clears: Operands that it sets to zero.
    """

    nodes: list[Node]
    taken: list[Node] = field(default_factory=list)
    stores: list[Node] = field(default_factory=list)
    clears: list[Node] = field(default_factory=list)


class _Pass:
    def __init__(self, kernel: Kernel, reads: dict[Node, Ref], writes: dict[Node, Ref], iteration: Space) -> None:
        self.kernel, self.reads, self.writes, self.iteration = kernel, reads, writes, iteration
        self.strides = dict(zip(reads, iteration.strides, strict=False))
        self.write_strides = dict(zip(writes, iteration.strides[len(reads) :], strict=True))
        self.axes = [f"i{axis}" for axis in range(len(iteration.shape))]
        self.written = {ref.buffer.home for ref in (*writes.values(), *(reads[node] for node in kernel.clears))}
        self.parameters: list[str] = []
        self.arguments: list[str] = []
        self.locals_of: dict[Buffer, str] = {}
        self.kinds: dict[Buffer, str] = {}
        self.places: dict[tuple[Buffer, int], str] = {}  # what walks through each place, where the rest is taken apart
        self.starts: dict[
            Buffer, int
        ] = {}  # counted from there, offsets are the same for populations of the same cells
        for ref in [*reads.values(), *writes.values()]:
            self.starts[ref.buffer.home] = min(ref.offset, self.starts.get(ref.buffer.home, ref.offset))
        for ref in [*reads.values(), *writes.values()]:
            if ref.buffer.home not in self.locals_of:
                self._declare(ref)
        self.names = {node: f"x{number}" for number, node in enumerate(reads)}
        self.names |= {node: f"v{len(reads) + number}" for number, node in enumerate(kernel.nodes)}
        floats = (computed(node.dtype) for node in kernel.nodes if node.dtype.is_floating_point)
        self.wide = max(floats, key=lambda dtype: dtype.itemsize, default=torch.bool)
        self.before: list[Node] = []  # truth values that a first loop reads, and a last one writes
        self.behind: list[Node] = []
        self.constant = {node for node in reads if not (any(self.strides[node]) or self._home(node) in self.written)}

    def _declare(self, ref: Ref) -> None:
        home = ref.buffer.home
        self.locals_of[home] = f"b{len(self.locals_of)}"
        const = "" if home in self.written else "const "
        loaded = any(self._home(node) is home for node in self.reads)
        kind, bytewise = (_loaded(home.dtype), "(uint8_t*)") if loaded else (CPP[home.dtype], "")
        self.kinds[home] = f"{const}{kind}"
        self.parameters.append(f"{const}{kind}* __restrict {self.locals_of[home]}")
        start = f" + {self.starts[home]}" if self.starts[home] else ""
        self.arguments.append((bytewise if kind == "uint8_t" else "") + base_pointer(ref) + start)

    def function(self) -> str:
        hoisted = [self._load(node) for node in self.reads if node in self.constant]
        lines = [f"({', '.join(self.parameters)}, int64_t begin, int64_t end) {{", *hoisted]
        parts = self._segments()
        if len(parts) > 1 and self._interleaved() == 1:
            self._set_apart(parts)
        handed = list(dict.fromkeys([*self.before, *(node for part in parts for node in part.taken), *self.behind]))
        low, high = ("begin", "end") if len(self.iteration.shape) == 1 else ("0", str(self.iteration.shape[-1]))
        block = _block([self._handed(node) for node in handed])
        count = f"{high} - start < {block} ? {high} - start : {block}"
        if low == "0" and (even := _even(self.iteration.shape[-1], block)):  # a number that the compiler knows
            block, count = even, str(even)
        lines += [f"alignas(64) {CPP[self._handed(node)]} {self.names[node]}_block[{block}];" for node in handed]
        bounds = [("begin", "end"), *(("0", str(extent)) for extent in self.iteration.shape[1:])]
        inner = self.axes[-1]
        for axis, (low, high) in zip(self.axes[:-1], bounds, strict=False):
            lines.append(f"for (int64_t {axis} = {low}; {axis} < {high}; ++{axis})")
        low, high = bounds[-1]
        if len(parts) == 1:
            if lanes := self._lanes() if len(self.axes) == 1 else 0:
                return "\n".join([*lines, *self._in_two_turns(parts[0], lanes), "}", ""])
            return "\n".join([*lines, *self._loop(parts[0], low, high), "}", ""])
        lines += [
            f"for (int64_t start = {low}; start < {high}; start += {block})", "{",
            f"const int64_t count = {count};",
        ]  # fmt: skip
        bodies = [
            [f"{self._in_block(node)} = {self._element(node)};" for node in self.before],
            *(self._body(part, [node for node in part.nodes if node in handed]) for part in parts),
            [f"{self._target(node)} = {self._in_block(node)};" for node in self.behind],
        ]
        for body in filter(None, bodies):
            head = ["BDTORCH_INDEPENDENT", "for (int64_t k = 0; k < count; ++k)", "{"]
            lines += [*head, f"const int64_t {inner} = start + k;", *body, "}"]
        return "\n".join([*lines, "}", "}", ""])

    def _loop(self, part: _Segment, low: str, high: str) -> list[str]:
        inner = self.axes[-1]
        loop = f"for (int64_t {inner} = {low}; {inner} < {high}; ++{inner})"
        return ["BDTORCH_INDEPENDENT", loop, "{", *self._body(part, []), "}"]

    def _walked(self) -> list[tuple[Ref, tuple[int, ...], bool, bool]]:
        """What lies in other places for other elements: where, its strides, whether it is read and whether it is written."""
        reads = [
            (self.reads[node], strides, True, node in self.kernel.clears)
            for node, strides in self.strides.items()
            if any(strides)
        ]
        return [*reads, *((ref, self.write_strides[node], False, True) for node, ref in self.writes.items())]

    def _lanes(self) -> int:
        """Elements of the arrays that the rest is copied to, where that can be done and pays; else 0."""
        extent, walked = self.iteration.shape[0], self._walked()
        offsets: dict[Buffer, set[int]] = {}
        for ref, _, _, _ in walked:
            offsets.setdefault(ref.buffer.home, set()).add(ref.offset)
        overlap = any(
            home in self.written and any(b - a < extent for a, b in itertools.pairwise(sorted(starts)))
            for home, starts in offsets.items()
        )
        if overlap or any(strides != (1,) for _, strides, _, _ in walked):
            return 0
        sizes = [home.dtype.itemsize for home in offsets]
        lanes, vectors = _VECTOR // min(sizes), max(sizes) // min(sizes)
        left, one_by_one = extent % lanes, extent % (lanes // 2)  # half as many make a last vector
        saved = one_by_one + (left - one_by_one) * vectors / lanes - vectors
        places = sum(map(len, offsets.values()))
        return lanes if saved * instructions(self.kernel.nodes) > _TURN + _COPIED * places else 0

    def _in_two_turns(self, part: _Segment, lanes: int) -> list[str]:
        """A loop over whole vectors: those of the range in a first turn, and a copy of the rest in a second."""
        arrays: dict[str, str] = {}
        taken: dict[str, str] = {}
        given: dict[str, str] = {}
        chosen: dict[str, str] = {}
        for ref, _, read, written in self._walked():
            home = ref.buffer.home
            name = self.places.setdefault((home, ref.offset), f"p{len(self.places)}")
            start = f"{self.locals_of[home]} + {ref.offset - self.starts[home]} + begin"
            kind = self.kinds[home]
            arrays[name] = f"alignas(64) {kind.removeprefix('const ')} {name}_rest[{lanes}];"
            chosen[name] = f"{kind}* __restrict {name} = turn ? {name}_rest : {start};"
            if read:
                taken[name] = f"if (left) loop::take_rest<{lanes}>({start} + whole, left, {name}_rest);"
            if written:
                given[name] = f"if (left) loop::give_rest<{lanes}>({name}_rest, left, {start} + whole);"
        return [
            f"const int64_t whole = (end - begin) & ~INT64_C({lanes - 1}), left = end - begin - whole;",
            *arrays.values(), *taken.values(),
            "for (int turn = 0; turn < 2; ++turn)", "{",
            f"const int64_t count = turn ? (left ? {lanes} : 0) : whole;",
            *chosen.values(), *self._loop(part, "0", "count"),
            "}",
            *given.values(),
        ]  # fmt: skip

    def _set_apart(self, parts: list[_Segment]) -> None:
        """Let loops of their own read the truth values in memory before all others, and write them after: gcc makes vectors
        of long loops where all elements are of one width, and of few others.
        """
        self.before = [node for node in self.reads if node.dtype == torch.bool and node not in self.constant]
        self.behind = [node for node in self.writes if node.dtype == torch.bool]
        for part in parts:
            part.stores = [node for node in part.stores if node not in self.behind]
            part.taken = [node for node in part.taken if node in part.stores or self._used(part, node)]

    @staticmethod
    def _used(part: _Segment, value: Node) -> bool:
        return any(value in loads(node) for node in part.nodes)

    def _segments(self) -> list[_Segment]:
        """The loops of the pass, with what they hand on; a store waits until all have read what it overwrites."""
        whole = self.iteration.shape[-1] < _LEAST
        interleaved = self._interleaved()
        cut = [self.kernel.nodes] if whole else segments(self.kernel.nodes, interleaved)
        parts = [_Segment(nodes) for nodes in cut]
        narrow: list[Node] = []
        if (
            len(parts) > 1 and interleaved == 1
        ):  # no loop is to take as many elements at a time as narrow results ask for
            narrow = [node for node in self.writes if node.dtype.itemsize < self.wide.itemsize]
            parts += [_Segment([])] * bool(narrow)
        place = {node: number for number, part in enumerate(parts) for node in part.nodes}
        last_read: dict[Buffer, int] = {}
        for number, part in enumerate(parts):
            for operand in (x for node in part.nodes for x in loads(node) if x in self.reads):
                last_read[self._home(operand)] = number
        for node, ref in self.writes.items():
            home = len(parts) - 1 if node in narrow else place[node]
            parts[max(home, last_read.get(ref.buffer.home, 0))].stores.append(node)
        for node in self.kernel.clears:
            parts[last_read[self._home(node)]].clears.append(node)
        for number, part in enumerate(parts):
            needed = [*(x for node in part.nodes for x in loads(node) if x in place), *part.stores]
            part.taken = list(dict.fromkeys(x for x in needed if place[x] < number))
        return parts

    def _interleaved(self) -> int:
        """Vectors that a compiler takes at a time: as many as the widest elements need where the narrowest fill one.

        Elements behind the last so many, or the last half of so many, are then taken one by one, each for the time of a
        vector. Where they would be more than an eighth of the work, a pass is cut as if it had no narrow elements, which
        then have loops of their own. So it is where there would be more vectors than registers to hold them.
        """
        nodes = {*self.reads, *self.writes} - self.constant
        sizes = [node.dtype.itemsize for node in nodes]
        widest, narrowest = max(sizes, default=1), min(sizes, default=1)
        length = self.iteration.shape[-1]
        behind, vectors = length % (_VECTOR // narrowest // 2), length // (_VECTOR // widest)
        many = widest // narrowest
        return 1 if 8 * behind > vectors or many > _MANY else many

    def _body(self, part: _Segment, given: list[Node]) -> list[str]:
        operands = dict.fromkeys(x for node in part.nodes for x in loads(node) if x in self.reads)
        lines = [self._load(node) for node in operands if node not in self.constant]
        for node in part.taken:
            value = cast(self._in_block(node), self._handed(node), computed(node.dtype))
            lines.append(f"const {_at_work(node.dtype)} {self.names[node]} = {value};")
        for node in part.nodes:
            lines.append(f"const {_at_work(node.dtype)} {self.names[node]} = {expression(node, self.names)};")
        for node in given:
            value = cast(self.names[node], computed(node.dtype), self._handed(node))
            lines.append(f"{self._in_block(node)} = {value};")
        for node in part.stores:
            value = self.names[node]
            if node.dtype in TWO_BYTES:
                value = f"bdtorch::stored<{CPP[node.dtype]}>({value})"
            elif node.dtype == torch.bool:  # gcc 11 and older make vectors of the choice, and not of the value
                value += " ? true : false"
            lines.append(f"{self._target(node)} = {value};")
        lines += [f"{self._element(node)} = 0;" for node in part.clears]
        return lines

    def _handed(self, node: Node) -> torch.dtype:
        """How a value is kept in a block: truth values as whole numbers as wide as the others, so that they make vectors."""
        return _WHOLE.get(self.wide.itemsize, self.wide) if node.dtype == torch.bool else computed(node.dtype)

    def _load(self, node: Node) -> str:
        if node in self.before:
            return f"const {CPP[self._handed(node)]} {self.names[node]} = {self._in_block(node)};"
        kind = "float" if node.dtype in TWO_BYTES else _loaded(node.dtype)
        return f"const {kind} {self.names[node]} = {self._element(node)};"

    def _in_block(self, node: Node) -> str:
        return f"{self.names[node]}_block[k]"

    def _target(self, node: Node) -> str:
        return self._place(self.writes[node], self.write_strides[node])

    def _element(self, node: Node) -> str:
        return self._place(self.reads[node], self.strides[node])

    def _place(self, ref: Ref, strides: tuple[int, ...]) -> str:
        home = ref.buffer.home
        if self.places and any(strides):
            return f"{self.places[home, ref.offset]}[{self.axes[-1]}]"
        return f"{self.locals_of[home]}[{position(ref.offset - self.starts[home], strides, self.axes)}]"

    def _home(self, node: Node) -> Buffer:
        return self.reads[node].buffer.home


def _loaded(dtype: torch.dtype) -> str:
    """The type that elements are loaded as: truth values as the bytes that they are, for gcc vectorises no load of bool."""
    return "uint8_t" if dtype == torch.bool else CPP[dtype]


def _at_work(dtype: torch.dtype) -> str:
    return CPP[computed(dtype)]


def _even(extent: int, most: int) -> int:
    """Elements of blocks that are all of one length, at most so many: one, or in whole vectors; 0 where none are as long."""
    if extent <= most:
        return extent
    for blocks in range(-(-extent // most), extent // _LEAST + 1):
        if extent % blocks == 0 and extent // blocks % _VECTOR == 0:
            return extent // blocks
    return 0


def _block(handed: list[torch.dtype]) -> int:
    """Elements of a block: a multiple of the least, as many as the innermost cache has room for."""
    width = sum(dtype.itemsize for dtype in handed)
    return max(_LEAST, min(_MOST, _BYTES // max(1, width) // _LEAST * _LEAST))
