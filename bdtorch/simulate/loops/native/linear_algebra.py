"""Printing small linear algebra and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.pointwise import CPP, literal
from bdtorch.simulate.loops.native.printing import Printed, pointer, position

Printer = Callable[[Node, dict[Node, Ref], Ref], Printed]

_LARGEST = 1 << 14  # entries of a matrix; it is copied to the stack


def _refused(node: Node, problem: str) -> LoopError:
    return LoopError(f"the native loop cannot run this model: {node.op} {problem} ({node.site})")


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


class _Batch:
    """Loops over a batch of matrices, and copies between them and arrays on the stack."""

    def __init__(self, node: Node, shape: tuple[int, ...]) -> None:
        self.node, self.shape = node, shape
        self.names = [f"b{axis}" for axis in range(len(shape))]
        self.head = " ".join(f"for (int64_t {b} = 0; {b} < {n}; ++{b})" for b, n in zip(self.names, shape, strict=True))

    def _element(self, ref: Ref, transposed: bool) -> str:
        axes = ["j", "i"] if transposed else ["i", "j"]
        return f"{pointer(ref)}[{position(0, ref.strides, [*self.names, *axes])}]"

    def load(self, name: str, ref: Ref, transposed: bool = False) -> list[str]:
        """An array of that name with a copy of the matrix ``ref``."""
        ref = ref.expanded((*self.shape, *ref.shape[-2:]))
        rows, columns = reversed(ref.shape[-2:]) if transposed else ref.shape[-2:]
        if rows * columns > _LARGEST:
            raise _refused(self.node, f"takes a matrix of {rows} x {columns}, more than {_LARGEST} entries")
        kind = CPP[ref.buffer.dtype]
        loops = f"for (int64_t i = 0; i < {rows}; ++i) for (int64_t j = 0; j < {columns}; ++j)"
        return [
            f"  {kind} {name}[{max(1, rows * columns)}];",
            f"  {loops} {name}[i * {columns} + j] = {self._element(ref, transposed)};",
        ]

    def store(self, name: str, out: Ref, transposed: bool = False) -> str:
        """Copy the array of that name to the result."""
        rows, columns = reversed(out.shape[-2:]) if transposed else out.shape[-2:]
        loops = f"for (int64_t i = 0; i < {rows}; ++i) for (int64_t j = 0; j < {columns}; ++j)"
        return f"  {loops} {self._element(out, transposed)} = {name}[i * {columns} + j];"


def _column(ref: Ref) -> Ref:
    """A vector as a matrix of one column."""
    return Ref(ref.buffer, (*ref.shape, 1), (*ref.strides, 1), ref.offset)


def _solve(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    a, b = refs[node.args[0]], refs[node.args[1]]
    right = not _argument(node, 2, "left", True)  # X A = B is A^T X^T = B^T
    if len(b.shape) == 1 or b.shape == a.shape[:-1]:
        b, out = _column(b), _column(out)
    n, m = reversed(out.shape[-2:]) if right else out.shape[-2:]
    batch = _Batch(node, out.shape[:-2])
    lines = [*batch.load("a", a, right), *batch.load("b", b, right)]
    work = f"  {CPP[node.dtype]} x[{max(1, n * m)}]; int64_t rows[{max(1, n)}];"
    return [
        f"{batch.head} {{", *lines, work, f"  op::solve(a, b, x, {n}, {m}, rows);", batch.store("x", out, right), "}",
    ], "single"  # fmt: skip


def _inverse(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    n = out.shape[-1]
    batch = _Batch(node, out.shape[:-2])
    kind = CPP[node.dtype]
    return [
        f"{batch.head} {{",
        *batch.load("a", refs[node.args[0]]),
        f"  {kind} b[{n * n}] = {{}}, x[{n * n}]; int64_t rows[{n}];",
        f"  for (int64_t i = 0; i < {n}; ++i) b[i * {n + 1}] = 1;",
        f"  op::solve(a, b, x, {n}, {n}, rows);",
        batch.store("x", out),
        "}",
    ], "single"


def _cholesky(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    upper = bool(_argument(node, 1, "upper", False))
    batch = _Batch(node, out.shape[:-2])
    lines = [*batch.load("a", refs[node.args[0]], upper), f"  op::cholesky(a, {out.shape[-1]});"]
    return [f"{batch.head} {{", *lines, batch.store("a", out, upper), "}"], "single"


def _triangular(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    right = not node.kwargs.get("left", True)  # X A = B is A^T X^T = B^T
    upper = bool(node.kwargs.get("upper")) != right
    unit = bool(node.kwargs.get("unitriangular", False))
    n, m = reversed(out.shape[-2:]) if right else out.shape[-2:]
    batch = _Batch(node, out.shape[:-2])
    flags = f"{'true' if upper else 'false'}, {'true' if unit else 'false'}"
    lines = [*batch.load("a", refs[node.args[0]], right), *batch.load("b", refs[node.args[1]], right)]
    lines.append(f"  op::solve_triangular(a, b, {n}, {m}, {flags});")
    return [f"{batch.head} {{", *lines, batch.store("b", out, right), "}"], "single"


def _determinant(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    batch = _Batch(node, out.shape)
    n = refs[node.args[0]].shape[-1]
    target = f"{pointer(out)}[{position(0, out.strides, batch.names)}]"
    lines = [*batch.load("a", refs[node.args[0]]), f"  int64_t rows[{max(1, n)}];"]
    return [f"{batch.head} {{", *lines, f"  {target} = op::determinant(a, {n}, rows);", "}"], "single"


def _log_determinant(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """The sign of a determinant, or the logarithm of its absolute value."""
    batch = _Batch(node, out.shape)
    n = refs[node.args[0]].shape[-1]
    target = f"{pointer(out)}[{position(0, out.strides, batch.names)}]"
    lines = [*batch.load("a", refs[node.args[0]]), f"  int64_t rows[{max(1, n)}]; {CPP[node.dtype]} sign;"]
    lines.append(f"  const {CPP[node.dtype]} size = op::log_determinant(a, {n}, rows, &sign);")
    return [f"{batch.head} {{", *lines, f"  {target} = {'size' if node.output else 'sign'}; (void)size;", "}"], "single"


def _convolution(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """``out[n, o, p] = bias[o] + sum over c, q of x[n, g c, stride p - padding + dilation q] w[o, c, q]``."""
    bias, stride, padding, dilation, _, _, groups = node.args[2:9]
    x, w = refs[node.args[0]], refs[node.args[1]]
    space = len(out.shape) - 2
    kernel, channels = w.shape[2:], w.shape[1]
    per_group = out.shape[1] // groups
    stride, padding, dilation = (list(v) * space if len(v) == 1 else v for v in (stride, padding, dilation))
    places = [f"p{axis}" for axis in range(space)]
    outer = ["n", "o", *places]
    loops = " ".join(f"for (int64_t {v} = 0; {v} < {e}; ++{v})" for v, e in zip(places, out.shape[2:], strict=True))
    start = literal(0, node.dtype) if bias is None else f"{pointer(refs[bias])}[o * {refs[bias].strides[0]}]"
    lines = [
        f"const loop::Range r = loop::share_rows({out.shape[0] * out.shape[1]}, now.thread, now.threads);",
        "for (int64_t row = r.begin; row < r.end; ++row) {",
        f"const int64_t n = row / {max(1, out.shape[1])}, o = row % {max(1, out.shape[1])};",
        f"{loops} {{",
        f"  {CPP[node.dtype]} sum = {start};",
        f"  for (int64_t c = 0; c < {channels}; ++c)",
    ]
    for axis in range(space):
        lines += [
            f"  for (int64_t q{axis} = 0; q{axis} < {kernel[axis]}; ++q{axis}) {{",
            f"  const int64_t i{axis} = p{axis} * {stride[axis]} - {padding[axis]} + q{axis} * {dilation[axis]};",
            f"  if (uint64_t(i{axis}) >= {x.shape[2 + axis]}) continue;",
        ]
    channel = f"(o / {per_group} * {channels} + c)"
    at_x = position(0, x.strides, ["n", channel, *(f"i{axis}" for axis in range(space))])
    at_w = position(0, w.strides, ["o", "c", *(f"q{axis}" for axis in range(space))])
    lines += [f"  sum += {pointer(x)}[{at_x}] * {pointer(w)}[{at_w}];", "  " + "}" * space]
    lines += [f"  {pointer(out)}[{position(0, out.strides, outer)}] = sum;", "}", "}"]
    return lines if math.prod(out.shape) else [], "rows"


def _first(printer: Printer, count: int = 1) -> Printer:
    """A printer for none but the first outputs of an operation: there are no factors, pivots or error codes."""

    def print_one(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        if (node.output or 0) >= count:
            raise _refused(node, "is asked for more than its result")
        return printer(node, refs, out)

    return print_one


ALGEBRA_PRINTERS: dict[str, Printer] = {
    "aten._linalg_det.default": _first(_determinant),
    "aten._linalg_slogdet.default": _first(_log_determinant, 2),
    "aten._linalg_solve_ex.default": _first(_solve),
    "aten.convolution.default": _convolution,
    "aten.linalg_cholesky_ex.default": _first(_cholesky),
    "aten.linalg_inv_ex.default": _first(_inverse),
    "aten.linalg_solve_triangular.default": _triangular,
}
