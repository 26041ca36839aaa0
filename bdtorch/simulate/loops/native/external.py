"""Printing the operations that have a kernel of their own."""

from __future__ import annotations

import math
from collections.abc import Callable

from bdtorch.ops import native_kernel
from bdtorch.simulate.loops.native.along import AXIS_PRINTERS
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.linear_algebra import ALGEBRA_PRINTERS
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.operations import DIVISOR, ONTO_ZEROS, REDUCTIONS
from bdtorch.simulate.loops.native.pointwise import CPP, cast, literal
from bdtorch.simulate.loops.native.printing import Printed, element, nested, pointer, position
from bdtorch.simulate.loops.native.reductions import print_reduction
from bdtorch.simulate.loops.native.users import print_user_kernel
from bdtorch.simulate.loops.native.weights import WEIGHT_PRINTERS


def print_external(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """The lines that compute ``node`` into ``out``."""
    if node.op in REDUCTIONS:
        return print_reduction(node, refs, out)
    user = native_kernel(node.op)
    if user is not None:
        return print_user_kernel(user, node, refs, out)
    return _PRINTERS[node.op](node, refs, out)


def row_count(node: Node, refs: dict[Node, Ref], lines: list[str]) -> int | None:
    """How many rows the lines that compute ``node`` are for, of which a call takes a range; None where they are for all."""
    if not any("rows." in line for line in lines):
        return None
    if node.op.startswith("bdtorch.random_"):
        return math.prod(node.shape[:-1])
    if node.op.startswith("aten.scatter"):
        return _with_axis(refs[node.args[2]]).shape[0]
    shape = refs[node.args[0]].shape if node.op in REDUCTIONS else node.shape
    return shape[0] if shape else 1


def _assign(source: Ref, target: Ref) -> str:
    """Copy one view onto another of equal shape."""
    loops, axes = nested(source.shape)
    value = cast(element(source, axes), source.buffer.dtype, target.buffer.dtype)
    return f"{loops} {element(target, axes)} = {value};"


# Event-driven products


def _csr(node: Node, refs: dict[Node, Ref], first: int) -> tuple[Ref, str, list[str]]:
    """The batched operand, and the arguments that the structure contributes."""
    weights, indices, indptr = node.args[first : first + 3]
    shared = "true" if not weights.shape else "false"
    return refs[node.args[0]], pointer(refs[weights]), [shared, pointer(refs[indices]), pointer(refs[indptr])]


def _contiguous(*refs: Ref) -> None:
    assert all(ref.contiguous for ref in refs), "the planner lays operands of kernels out contiguously"


def _event_csr(clears: bool) -> Callable[[Node, dict[Node, Ref], Ref], Printed]:
    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        spikes, weights, (shared, indices, indptr) = _csr(node, refs, 1)
        _contiguous(spikes, out)
        n_pre, n_post = spikes.shape[-1], out.shape[-1]
        call = f"bdtorch::event_csr_accumulate({weights}, {shared}, {indices}, {indptr}, {pointer(spikes)}"
        single = len(spikes.shape) == 1
        if single:
            share, stride = f"share({n_post}", 1
            lines = [f"{call}, {n_pre}, {n_post}, r.begin, r.end, {pointer(out)});"]
        else:
            share, stride = f"share_rows({spikes.shape[0]}", n_post
            lines = [
                "for (int64_t b = r.begin; b < r.end; ++b)",
                f"  {call} + b * {n_pre}, {n_pre}, {n_post}, 0, {n_post}, {pointer(out)} + b * {n_post});",
            ]
        if clears:
            size = f"(r.end - r.begin) * {stride} * sizeof({CPP[node.dtype]})"
            lines.insert(0, f"std::memset({pointer(out)} + r.begin * {stride}, 0, {size});")
        head = f"const loop::Range r = loop::{share}, now.thread, now.threads);"
        return [head, *lines], f"flat {n_post}" if single else "rows"

    return printer


def _event_csr_t(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    spikes, weights, (shared, indices, indptr) = _csr(node, refs, 1)
    _contiguous(spikes, out)
    n_post, n_pre = spikes.shape[-1], out.shape[-1]
    batch = spikes.shape[0] if len(spikes.shape) == 2 else 1
    return [
        f"const loop::Range r = loop::share({n_pre}, now.thread, now.threads);",
        f"for (int64_t b = 0; b < {batch}; ++b)",
        f"  bdtorch::event_csr_gather({weights}, {shared}, {indices}, {indptr}, {pointer(spikes)} + b * {n_post}, "
        f"r.begin, r.end, {pointer(out)} + b * {n_pre});",
    ], f"flat {n_pre}" if batch == 1 else "rows"


def _csr_outer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    x, g, indices, indptr = (refs[arg] for arg in node.args)
    _contiguous(x, g, out)
    n_pre, n_post = x.shape[-1], g.shape[-1]
    batch = x.shape[0] if len(x.shape) == 2 else 1
    return [
        f"const loop::Range r = loop::share_rows({n_pre}, now.thread, now.threads);",
        f"bdtorch::csr_outer_rows({pointer(x)}, {pointer(g)}, {pointer(indices)}, {pointer(indptr)}, {batch}, {n_pre}, "
        f"{n_post}, r.begin, r.end, {pointer(out)});",
    ], "rows"


# Random numbers


def _random(fill: str) -> Callable[[Node, dict[Node, Ref], Ref], Printed]:
    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        key, counter = refs[node.args[0]], refs[node.args[1]]
        _contiguous(key, counter, out)
        n = node.shape[-1]
        batch = math.prod(node.shape[:-1])
        # One of them may be shared by the whole batch.
        streams = ", ".join(f"{pointer(x)}[{'b' if x.numel > 1 else '0'}]" for x in (key, counter))
        target = f"{pointer(out)} + b * {n}"
        *trials, parameter = node.args[2:-1] if fill in ("bernoulli", "poisson", "binomial") else [None]
        law = "".join(f"{count}, " for count in trials)
        law += "" if parameter is None else f"{_parameter(refs[parameter], n)}, "
        kind = f"<{CPP[node.dtype]}>" if parameter is None else ""
        if batch == 1:
            head = [f"const loop::Range r = loop::share({n}, now.thread, now.threads);", "const int64_t b = 0;"]
            span, partition = "r.begin, r.end", f"flat {n}"
        else:
            head = ["for (int64_t b = rows.begin; b < rows.end; ++b)"]
            span, partition = f"0, {n}", "rows"
        return [*head, f"bdtorch::{fill}_fill{kind}({streams}, {span}, {law}{target});"], partition

    return printer


# Procedural connectivity


def _procedural(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    spikes, offset, scale = (None if arg is None else refs[arg] for arg in node.args[:3])
    assert spikes is not None and offset is not None, "only the scale is optional"
    _contiguous(spikes, out)
    n_pre, n_post, key, p, number, draws, self_offset = node.args[3:]
    law, value = ("probability", p) if number is None else ("number", number)
    batch, kind = math.prod(node.shape[:-1]), CPP[node.dtype]
    gathers = node.op.startswith("bdtorch._procedural_gather")
    n_out, call = (n_pre, "gather") if gathers else (n_post, "accumulate")
    lines = [
        f"const auto matrix = bdtorch::ProceduralMatrix::with_{law}({n_pre}, {n_post}, "
        f"(int64_t)UINT64_C({key % 2**64}), {value!r}, bdtorch::Draws({draws}), {self_offset});",
        f"const loop::Range r = loop::share({n_out}, now.thread, now.threads);",
    ]
    if not gathers:
        lines += [
            f"for (int64_t b = 0; b < {batch}; ++b)",
            f"  std::memset({pointer(out)} + b * {n_post} + r.begin, 0, (r.end - r.begin) * sizeof({kind}));",
        ]
    operands = f"matrix, {pointer(offset)}[0], {pointer(scale or offset)}[0], {pointer(spikes)}, {batch}"
    lines.append(f"bdtorch::procedural_{call}<{kind}>({operands}, r.begin, r.end, {pointer(out)});")
    return lines, f"flat {n_out}" if batch == 1 else "rows"


def _parameter(p: Ref, n: int) -> str:
    kind = CPP[p.buffer.dtype]
    if not p.shape:
        return f"{kind}({pointer(p)}[0])"
    _contiguous(p)
    return f"(const {kind}*)({pointer(p)} + {f'b * {n}' if len(p.shape) > 1 else '0'})"


# Dense products


def _product(bias: bool) -> Callable[[Node, dict[Node, Ref], Ref], Printed]:
    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        left, right = node.args[1:3] if bias else node.args[:2]
        a, b = _as_matrices(refs[left], "left"), _as_matrices(refs[right], "right")
        batch, rows, inner = a.shape
        columns = b.shape[2]
        kind = CPP[node.dtype]
        start = ["nullptr", "0", "0", "0"]
        if bias:
            added = refs[node.args[0]].expanded(out.shape)
            added_rows = _as_matrices(added, "right" if len(out.shape) == 1 and len(refs[right].shape) == 1 else "left")
            start = [pointer(added), *map(str, added_rows.strides)]
        # With zeros of `a` left out, silent neurons cost nothing; but 0 * inf is NaN.
        skips = "true" if right.kind == "constant" and right.finite else "false"
        one_row = batch * rows == 1
        share = f"share({columns}" if one_row else f"share_rows({batch * rows}"
        span = "0, 1, r.begin, r.end" if one_row else f"r.begin, r.end, 0, {columns}"
        sides = (f"{{{pointer(x)}, {', '.join(map(str, x.strides))}}}" for x in (a, b))
        return [
            f"const loop::Range r = loop::{share}, now.thread, now.threads);",
            f"op::multiply<{kind}, {skips}>({', '.join(sides)}, {'{' + ', '.join(start) + '}'}, {pointer(out)}, "
            f"{rows}, {inner}, {columns}, {span});",
        ], f"flat {columns}" if one_row else "rows"

    return printer


def _as_matrices(ref: Ref, side: str) -> Ref:
    """A vector as a row (left) or column (right), and one matrix as a batch of one."""
    shape, strides = list(ref.shape), list(ref.strides)
    if len(shape) == 1:
        position_of_new = 0 if side == "left" else 1
        shape.insert(position_of_new, 1)
        strides.insert(position_of_new, 0)
    if len(shape) == 2:
        shape.insert(0, 1)
        strides.insert(0, 0)
    return Ref(ref.buffer, tuple(shape), tuple(strides), ref.offset)


# Movement


def _pad(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    source = refs[node.args[0]]
    amounts = node.args[1]
    value = node.args[2] if len(node.args) > 2 else 0
    shape, offset = list(source.shape), out.offset
    source_offset = source.offset
    for number in range(len(amounts) // 2):
        axis = len(shape) - 1 - number
        low, high = amounts[2 * number], amounts[2 * number + 1]
        shape[axis] += min(low, 0) + min(high, 0)
        offset += max(low, 0) * out.strides[axis]
        source_offset += max(-low, 0) * source.strides[axis]
    loops, axes = nested(out.shape)
    window = Ref(out.buffer, tuple(shape), out.strides, offset)
    cut = Ref(source.buffer, tuple(shape), source.strides, source_offset)
    return [f"{loops} {element(out, axes)} = {literal(value, node.dtype)};", _assign(cut, window)], "single"


def _with_axis(ref: Ref) -> Ref:
    """A single number as a vector of one, which is how it is indexed."""
    return ref if ref.shape else Ref(ref.buffer, (1,), (1,), ref.offset)


def _gather(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    source, index = _with_axis(refs[node.args[0]]), _with_axis(refs[node.args[2]])
    out = _with_axis(out)
    axis = node.args[1] % len(source.shape)
    if not index.numel:  # which may have any number of axes
        return [], "single"
    return _indexed_read(node, source, index, index.strides, axis, out)


def _index_select(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    source, index, out = _with_axis(refs[node.args[0]]), _with_axis(refs[node.args[2]]), _with_axis(out)
    axis = node.args[1] % len(source.shape)
    strides = tuple(index.strides[0] if other == axis else 0 for other in range(len(source.shape)))
    return _indexed_read(node, source, index, strides, axis, out)


def _index(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """``x[:, index]``: one tensor of indices, which may be negative and have any number of axes."""
    source, chosen = refs[node.args[0]], node.args[1]
    axis = next(axis for axis, part in enumerate(chosen) if part is not None)
    index = refs[chosen[axis]]
    loops, axes = nested(out.shape)
    inner = axes[axis : axis + len(index.shape)]
    extent = source.shape[axis]
    at = f"loop::wrapped({element(index, inner)}, {extent})"
    moved = [*axes[:axis], f"loop::checked(now.error, {at}, {extent}, {node.number})"]
    moved += axes[axis + len(index.shape) :]
    return [f"{loops} {element(out, axes)} = {element(source, moved)};"], "single"


def _divisor(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    loops, axes = nested(out.shape)
    value = element(refs[node.args[0]], axes)
    checked = f"loop::checked_divisor(now.error, {value}, {node.number})"
    return [f"{loops} {element(out, axes)} = {checked};"], "single"


def _indexed_read(node: Node, source: Ref, index: Ref, index_strides: tuple[int, ...], axis: int, out: Ref) -> Printed:
    _, axes = nested(out.shape)
    moved = [*axes]
    moved[axis] = "at"
    return _indexed(
        node, out.shape, index, index_strides, source.shape[axis], f"{element(out, axes)} = {element(source, moved)};"
    )


def _indexed(
    node: Node, shape: tuple[int, ...], index: Ref, strides: tuple[int, ...], extent: int, statement: str
) -> Printed:
    """Loops around a statement on element ``at``, looked up no deeper than where the index varies, as for a row."""
    depth = 1 + max((axis for axis, stride in enumerate(strides) if stride), default=-1)
    _, axes = nested(shape)
    heads = [f"for (int64_t {a} = 0; {a} < {n}; ++{a})" for a, n in zip(axes, shape, strict=True)]
    if depth:
        heads[0] = f"for (int64_t {axes[0]} = rows.begin; {axes[0]} < rows.end; ++{axes[0]})"
    look_up = f"loop::checked(now.error, {pointer(index)}[{position(0, strides, axes)}], {extent}, {node.number})"
    if not math.prod(shape):
        return [], "single"
    inner = [statement]
    if depth < len(shape):
        inner = [*heads[depth:-1], "BDTORCH_INDEPENDENT", heads[-1], statement]
    return [" ".join(heads[:depth]), f"{{ const int64_t at = {look_up};", *inner, "}"], "single"


_ONTO = {"prod": "{} * {}", "amax": "op::maximum({}, {})", "amin": "op::minimum({}, {})"}
"""How `scatter_reduce` joins what is in a place and what comes to it."""


def _scatter(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    target, index = _with_axis(refs[node.args[0]]), _with_axis(refs[node.args[2]])
    out = _with_axis(out)
    axis = node.args[1] % len(target.shape)
    lines = [] if out.buffer.home is target.buffer.home else [_assign(target, out)]
    if not index.numel:
        return lines, "single"
    _, axes = nested(index.shape)
    moved = [*axes]
    moved[axis] = "at"
    value = node.args[3]
    text = element(_with_axis(refs[value]), axes) if isinstance(value, Node) else literal(value, node.dtype)
    place = element(out, moved)
    if node.op == "aten.scatter_reduce.two":
        text = _ONTO[node.args[4]].format(place, text)
    elif node.op == "aten.scatter_add.default":
        text = f"{place} + {text}"
    statement = f"{place} = {CPP[node.dtype]}({text});"
    written, partition = _indexed(node, index.shape, index, index.strides, target.shape[axis], statement)
    return [*lines, *written], partition


_PRINTERS: dict[str, Callable[[Node, dict[Node, Ref], Ref], Printed]] = {
    "aten.addmm.default": _product(bias=True),
    "aten.addmv.default": _product(bias=True),
    "aten.bmm.default": _product(bias=False),
    "aten.constant_pad_nd.default": _pad,
    "aten.dot.default": _product(bias=False),
    "aten.gather.default": _gather,
    "aten.index.Tensor": _index,
    "aten.index_select.default": _index_select,
    "aten.mm.default": _product(bias=False),
    "aten.mv.default": _product(bias=False),
    "aten.scatter.src": _scatter,
    "aten.scatter.value": _scatter,
    "aten.scatter_add.default": _scatter,
    "aten.scatter_reduce.two": _scatter,
    "bdtorch._csr_outer_raw.default": _csr_outer,
    "bdtorch._event_csr_raw.default": _event_csr(clears=True),
    ONTO_ZEROS["bdtorch._event_csr_raw.default"]: _event_csr(clears=False),
    "bdtorch._event_csr_t_raw.default": _event_csr_t,
    "bdtorch._procedural_event_raw.default": _procedural,
    "bdtorch._procedural_gather_raw.default": _procedural,
    "bdtorch.random_bernoulli.default": _random("bernoulli"),
    "bdtorch.random_binomial.default": _random("binomial"),
    "bdtorch.random_exponential.default": _random("exponential"),
    "bdtorch.random_normal.default": _random("normal"),
    "bdtorch.random_poisson.default": _random("poisson"),
    "bdtorch.random_uniform.default": _random("uniform"),
    DIVISOR: _divisor,
    **WEIGHT_PRINTERS,
    **AXIS_PRINTERS,
    **ALGEBRA_PRINTERS,
}
