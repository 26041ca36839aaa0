"""Printing the operations on stored weights and traces, which they change in place where nothing else needs them."""

from __future__ import annotations

import math
from collections.abc import Callable

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.pointwise import CPP, computed, literal
from bdtorch.simulate.loops.native.printing import Printed, pointer

Printer = Callable[[Node, dict[Node, Ref], Ref], Printed]


def _shared(n: int, batch: int, lines: list[str]) -> Printed:
    """Lines over the range ``r`` of n elements, for every sample ``b``."""
    head = [
        f"const loop::Range r = loop::share({n}, now.thread, now.threads);",
        f"for (int64_t b = 0; b < {batch}; ++b) {{",
    ]
    return [*head, *(f"  {line}" for line in lines), "}"], f"flat {n}" if batch == 1 else "rows"


def matrix_of(ref: Ref, each: bool = True) -> str:
    """The dense matrix of sample ``b``, or of all of them."""
    rows, columns = ref.shape[-2:]
    start = pointer(ref) + (f" + b * {rows * columns}" if each else "")
    layout = "WovenRows" if ref.buffer.home.woven else "RowMajor"
    return f"bdtorch::{layout}<{CPP[ref.buffer.dtype]}>{{{start}, {rows}, {columns}}}"


def _event_dense(transposed: bool) -> Printer:
    def printer(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
        spikes, matrix = (refs[arg] for arg in node.args)
        rows, columns = matrix.shape[-2:]
        n_from, n_to = (columns, rows) if transposed else (rows, columns)
        m = matrix_of(matrix, each=len(matrix.shape) == 3)
        s, y = f"{pointer(spikes)} + b * {n_from}", f"{pointer(out)} + b * {n_to}"
        kernel = "columns" if transposed else "rows"
        batch = math.prod(spikes.shape[:-1])
        return _shared(n_to, batch, [
            f"std::memset({y} + r.begin, 0, (r.end - r.begin) * sizeof({CPP[node.dtype]}));",
            f"bdtorch::event_dense_{kernel}({m}, {s}, r.begin, r.end, {y});",
        ])  # fmt: skip

    return printer


def _change(node: Node, refs: dict[Node, Ref], low: float, high: float, n_terms: int) -> str:
    """The terms and bounds of sample ``b``."""
    a = f"{pointer(refs[node.args[2]])} + b * {n_terms}"
    b = "nullptr" if node.args[3] is None else f"{pointer(refs[node.args[3]])} + b * {n_terms}"
    bounds = f"{literal(low, node.dtype)}, {literal(high, node.dtype)}"
    return f"const bdtorch::WeightChange<{CPP[computed(node.dtype)]}> change = {{{a}, {b}, {bounds}}};"


def _changed(n: int, batch: int, lines: list[str], old: Ref, out: Ref) -> Printed:
    """A change of weights in place; or, where something still needs the old ones, of a copy, by one thread."""
    if out.buffer.home is old.buffer.home:
        return _shared(n, batch, lines)[0], "rows"
    copy = f"std::memcpy({pointer(out)}, {pointer(old)}, INT64_C({out.numel}) * sizeof({CPP[out.buffer.dtype]}));"
    head = [copy, f"const loop::Range r = {{0, {n}}};", f"for (int64_t b = 0; b < {batch}; ++b) {{"]
    return [*head, *(f"  {line}" for line in lines), "}"], "single"


def _plasticity_dense(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    old, spikes = refs[node.args[0]], refs[node.args[1]]
    low, high, by_columns = node.args[4:]
    rows, columns = out.shape[-2:]
    n_from, n_terms = (columns, rows) if by_columns else (rows, columns)
    s, kernel = f"{pointer(spikes)} + b * {n_from}", "columns" if by_columns else "rows"
    lines = [
        _change(node, refs, low, high, n_terms),
        f"bdtorch::dense_update_{kernel}({matrix_of(out)}, {s}, change, r.begin, r.end);",
    ]
    return _changed(n_terms, math.prod(spikes.shape[:-1]), lines, old, out)


def print_visit(product: Node, change: Node, refs: dict[Node, Ref], y: Ref, out: Ref) -> list[str]:
    """A product with the weights of the neurons that spike, and the change of these weights."""
    spikes = refs[change.args[1]]
    low, high, by_columns = change.args[4:]
    rows, columns = out.shape[-2:]
    n_from, n_to = (columns, rows) if by_columns else (rows, columns)
    s, target = f"{pointer(spikes)} + b * {n_from}", f"{pointer(y)} + b * {n_to}"
    kernel = "columns" if by_columns else "rows"
    lines = [
        _change(change, refs, low, high, n_to),
        f"std::memset({target} + r.begin, 0, (r.end - r.begin) * sizeof({CPP[product.dtype]}));",
        f"bdtorch::dense_deliver_update_{kernel}({matrix_of(out)}, {s}, change, r.begin, r.end, {target});",
    ]
    return _shared(n_to, math.prod(spikes.shape[:-1]), lines)[0]


def _plasticity_csr(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    old, spikes, a = (refs[arg] for arg in node.args[:3])
    low, high = node.args[7:]
    rows, synapses = spikes.shape[-1], out.shape[-1]
    indices, indptr = (pointer(refs[arg]) for arg in node.args[4:6])
    named = "(const int32_t*)nullptr" if node.args[6] is None else pointer(refs[node.args[6]])
    w, s = f"{pointer(out)} + b * {synapses}", f"{pointer(spikes)} + b * {rows}"
    lines = [
        _change(node, refs, low, high, a.shape[-1]),
        f"bdtorch::csr_update_rows({w}, {s}, change, {indices}, {indptr}, {named}, r.begin, r.end);",
    ]
    return _changed(rows, math.prod(spikes.shape[:-1]), lines, old, out)


def _event_csr_delayed(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    old, cursor, spikes, weights, indices, indptr, delays = (refs[arg] for arg in node.args)
    slots, n_post = out.shape[-2:]
    n_pre, shared = spikes.shape[-1], "false" if weights.shape else "true"
    ring, s = f"{pointer(out)} + b * {slots * n_post}", f"{pointer(spikes)} + b * {n_pre}"
    structure = f"{pointer(weights)}, {shared}, {pointer(indices)}, {pointer(indptr)}, {pointer(delays)}"
    lines = [
        f"bdtorch::event_csr_delayed({ring}, {pointer(cursor)}[b], {slots}, {structure}, {s}, {n_pre}, {n_post}, "
        "r.begin, r.end);"
    ]
    return _changed(n_post, math.prod(spikes.shape[:-1]), lines, old, out)


def _eligibility_csr(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    old, decay, x, psi, indices, indptr = (refs[arg] for arg in node.args)
    synapses, n_pre, n_post = out.shape[-1], x.shape[-1], psi.shape[-1]
    factors = f"{pointer(decay)}, {'false' if decay.shape else 'true'}"
    neurons = f"{pointer(x)} + b * {n_pre}, {pointer(psi)} + b * {n_post}, {pointer(indices)}, {pointer(indptr)}"
    lines = [f"bdtorch::eligibility_rows({pointer(out)} + b * {synapses}, {factors}, {neurons}, r.begin, r.end);"]
    return _changed(n_pre, math.prod(x.shape[:-1]), lines, old, out)


def _rls_update(node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    old, count, x = (refs[arg] for arg in node.args[:3])
    learn, block, forgetting = node.args[3:]
    rows, width = out.shape[-2:]
    n, batch = x.shape[-1], math.prod(x.shape[:-1])

    def each(ref: Ref) -> str:
        return f"{pointer(ref)}[{'b' if ref.shape else '0'}]"

    pending = f"loop::checked(now.error, {each(count)}, {block}, {node.number})"
    flag = "true" if learn is None else each(refs[learn])
    lines = [
        f"bdtorch::rls_take({pointer(out)} + b * {rows * width}, {n}, {width}, {block}, {pending}, "
        f"{pointer(x)} + b * {n}, {flag}, {literal(forgetting, node.dtype)});"
    ]
    copy = f"std::memcpy({pointer(out)}, {pointer(old)}, INT64_C({out.numel}) * sizeof({CPP[out.buffer.dtype]}));"
    if out.buffer.home is not old.buffer.home:
        return [copy, f"for (int64_t b = 0; b < {batch}; ++b)", *lines], "single"
    return [
        f"const loop::Range r = loop::share_rows({batch}, now.thread, now.threads);",
        "for (int64_t b = r.begin; b < r.end; ++b)",
        *lines,
    ], "rows"


WEIGHT_PRINTERS: dict[str, Printer] = {
    "bdtorch._eligibility_csr_raw.default": _eligibility_csr,
    "bdtorch._event_csr_delayed_raw.default": _event_csr_delayed,
    "bdtorch._event_dense_raw.default": _event_dense(transposed=False),
    "bdtorch._event_dense_t_raw.default": _event_dense(transposed=True),
    "bdtorch._plasticity_csr_raw.default": _plasticity_csr,
    "bdtorch._plasticity_dense_raw.default": _plasticity_dense,
    "bdtorch._rls_update_raw.default": _rls_update,
}
