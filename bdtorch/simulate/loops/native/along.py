"""Printing the operations along one axis: sorting, extremes and where they are, and running sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.pointwise import CPP, cast, literal
from bdtorch.simulate.loops.native.printing import Printed, pointer, position

Printer = Callable[[Node, dict[Node, Ref], Ref], Printed]

_LONGEST = 1 << 16  # elements to sort; their order is kept on the stack


def _argument(node: Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


class _Rows:
    """The rows of an operand along an axis, and the place of each in the result.

    Attributes:
        n: Length of a row.
        stride: Between its elements.
        first: C++ of the address of its first element.
        head: Loops over all rows.
        target: C++ of the element of the result at index ``k`` of the row.
    """

    def __init__(self, source: Ref, out: Ref, axis: int) -> None:
        if not source.shape:  # a single number is a row of one
            source = Ref(source.buffer, (1,), (1,), source.offset)
            out = Ref(out.buffer, (1,), (1,), out.offset)
        rank = len(source.shape)
        self.axis = axis % rank
        self.n, self.stride = source.shape[self.axis], source.strides[self.axis]
        outer = [other for other in range(rank) if other != self.axis]
        names = {other: f"a{other}" for other in outer}
        self.head = " ".join(
            f"for (int64_t {names[x]} = 0; {names[x]} < {source.shape[x]}; ++{names[x]})" for x in outer
        )
        at = position(0, tuple(source.strides[x] for x in outer), [names[x] for x in outer])
        self.first = f"({pointer(source)} + ({at}))"
        strides = list(out.strides)
        if len(strides) < rank:
            strides.insert(self.axis, 0)  # the axis is gone
        axes = [*(names[x] for x in range(self.axis)), "k", *(names[x] for x in range(self.axis + 1, rank))]
        self.target = f"{pointer(out)}[{position(0, tuple(strides), axes)}]"


def _sorted(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """sort, topk, kthvalue and median: an order, of which some part is kept, as values or as indices."""
    source = refs[node.args[0]]
    packet = node.op.split(".")[1]
    stable = node.op == "aten.sort.stable"  # whose first argument is a keyword
    place = {"sort": 1, "median": 1}.get(packet, 2)
    axis = node.kwargs.get("dim", node.args[2] if stable and len(node.args) > 2 else -1)
    if not stable:
        axis = _argument(node, place, "dim", -1)
    descending = packet == "topk" and bool(_argument(node, 3, "largest", True))
    if packet == "sort":
        descending = bool(_argument(node, 3 if stable else 2, "descending", False))
    rows = _Rows(source, out, axis)
    if rows.n > _LONGEST:
        raise LoopError(
            f"the native loop cannot run this model: {node.op} sorts {rows.n} elements, more than {_LONGEST} ({node.site})"
        )
    count, pick = rows.n, "k"
    if packet == "topk":
        count = node.args[1]
    elif packet != "sort":
        count, pick = 1, str(node.args[1] - 1) if packet == "kthvalue" else _middle(rows)
    kind = CPP[source.buffer.dtype]
    value = f"row[order[{pick}] * {rows.stride}]" if not node.output else f"order[{pick}]"
    return [
        f"{rows.head} {{",
        f"  const {kind}* row = {rows.first};",
        f"  int64_t order[{max(1, rows.n)}], work[{max(1, rows.n)}];",
        f"  op::argsort(row, {rows.stride}, {rows.n}, {'true' if descending else 'false'}, order, work);",
        f"  for (int64_t k = 0; k < {count}; ++k) {rows.target} = {value};",
        "}",
    ], "single"


def _middle(rows: _Rows) -> str:
    """The lower of the two in the middle, but NaN where there is any: then it is the last in order."""
    last = f"row[order[{rows.n - 1}] * {rows.stride}]"
    return f"({last} != {last} ? {rows.n - 1} : {(rows.n - 1) // 2})"


def _extreme(greatest: bool) -> Printer:
    """argmax, max and their siblings along an axis."""

    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        source = refs[node.args[0]]
        rows = _Rows(source, out, node.args[1])
        found = f"op::extreme(row, {rows.stride}, {rows.n}, {'true' if greatest else 'false'})"
        where = node.op.startswith("aten.arg") or node.output == 1
        value = found if where else f"row[{found} * {rows.stride}]"
        return [
            f"{rows.head} {{ const int64_t k = 0; const {CPP[source.buffer.dtype]}* row = {rows.first};",
            f"  {rows.target} = {value}; (void)k; }}",
        ], "single"

    return printer


def _running(symbol: str, neutral: str) -> Printer:
    """Cumsum and cumprod."""

    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        source = refs[node.args[0]]
        rows, kind = _Rows(source, out, node.args[1]), CPP[node.dtype]
        value = cast(f"row[k * {rows.stride}]", source.buffer.dtype, node.dtype)
        return [
            f"{rows.head} {{ {kind} sum = {neutral}; const {CPP[source.buffer.dtype]}* row = {rows.first};",
            f"  for (int64_t k = 0; k < {rows.n}; ++k) {rows.target} = sum = {kind}(sum {symbol} {value}); }}",
        ], "single"

    return printer


def _running_extreme(greatest: bool) -> Printer:
    """Cummax and cummin."""

    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        source = refs[node.args[0]]
        rows = _Rows(source, out, node.args[1])
        value = "at" if node.output else f"row[at * {rows.stride}]"
        test = f"op::gives_way(row[at * {rows.stride}], row[k * {rows.stride}], {'true' if greatest else 'false'})"
        return [
            f"{rows.head} {{ int64_t at = 0; const {CPP[source.buffer.dtype]}* row = {rows.first};",
            f"  for (int64_t k = 0; k < {rows.n}; ++k) {{ if ({test}) at = k; {rows.target} = {value}; }} }}",
        ], "single"

    return printer


def _running_log_sum(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """Logcumsumexp."""
    rows, kind = _Rows(refs[node.args[0]], out, node.args[1]), CPP[node.dtype]
    return [
        f"{rows.head} {{ {kind} sum = {literal(-math.inf, node.dtype)}; const {kind}* row = {rows.first};",
        f"  for (int64_t k = 0; k < {rows.n}; ++k) {rows.target} = sum = op::log_sum(sum, row[k * {rows.stride}]); }}",
    ], "single"


AXIS_PRINTERS: dict[str, Printer] = {
    "aten.argmax.default": _extreme(greatest=True),
    "aten.argmin.default": _extreme(greatest=False),
    "aten.cummax.default": _running_extreme(greatest=True),
    "aten.cummin.default": _running_extreme(greatest=False),
    "aten.cumprod.default": _running("*", "1"),
    "aten.cumsum.default": _running("+", "0"),
    "aten.kthvalue.default": _sorted,
    "aten.logcumsumexp.default": _running_log_sum,
    "aten.max.dim": _extreme(greatest=True),
    "aten.median.dim": _sorted,
    "aten.min.dim": _extreme(greatest=False),
    "aten.sort.default": _sorted,
    "aten.sort.stable": _sorted,
    "aten.topk.default": _sorted,
}
