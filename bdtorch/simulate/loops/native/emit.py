"""Printing the plan as one C++ function with the time loop inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bdtorch.ops import native_kernel
from bdtorch.simulate.loops.native.external import print_external
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.passes import print_pass
from bdtorch.simulate.loops.native.plan import Kernel, Plan, kernel_reads, loads
from bdtorch.simulate.loops.native.pointwise import CPP
from bdtorch.simulate.loops.native.printing import pointer, space

_HEADERS = {
    "bdtorch._eligibility": "eligibility.h",
    "bdtorch._event_csr_delayed": "delay.h",
    "bdtorch._event_dense": "event_dense.h",
    "bdtorch._plasticity": "plasticity.h",
    "bdtorch._procedural": "procedural.h",
}
"""Headers by the operations that need them."""


@dataclass(frozen=True)
class Recording:
    """How one observed tensor is kept: every so many steps, or its nonzeros."""

    every: int
    sparse: bool


def source(plan: Plan, recordings: list[Recording], dt: float) -> str:
    """The C++ of the loop. The array of addresses holds the buffers, two for each record, and the capacities."""
    return _Printer(plan, recordings, dt).source()


class Access(NamedTuple):
    """What a kernel does to memory, and which part of it each thread touches."""

    ref: Ref
    written: bool
    partition: str
    """``"single"``: all by thread 0; ``"flat n"``: each its share of n elements; ``"rows"``, ``"all"``: any part."""

    def conflicts(self, other: Access) -> bool:
        """Whether a thread may touch what another thread has written, or the reverse."""
        if not (self.written or other.written) or not self.ref.overlaps(other.ref):
            return False
        own_shares = self.partition.startswith("flat") and self.ref.contiguous and self.ref.same(other.ref)
        return self.partition != other.partition or not (own_shares or self.partition == "single")


class _Printer:
    def __init__(self, plan: Plan, recordings: list[Recording], dt: float) -> None:
        self.plan = plan
        self.recordings = recordings
        self.dt = dt
        self.functions: list[str] = []
        self.body: list[str] = []
        self.pending: list[Access] = []  # since the threads last met

    def source(self) -> str:
        for number, kernel in enumerate(self.plan.kernels):
            if not kernel.fused:
                self._external(number, kernel)
            elif kernel.stores:
                self._pass(number, kernel)
        self._records()
        self._copies()
        included = [f'#include "bdtorch/{name}"' for name in ("loop.h", *self._further_headers())]
        return "\n".join([*included, *self._user_sources(), "", *self.functions, self._loop()])

    def _user_sources(self) -> list[str]:
        """The C++ of users' operators, each text once."""
        kernels = [native_kernel(node.op) for kernel in self.plan.kernels for node in kernel.nodes]
        sources = dict.fromkeys(kernel.source for kernel in kernels if kernel is not None)
        return ['#include "bdtorch/view.h"', *sources] if sources else []

    def _further_headers(self) -> list[str]:
        """What the loop needs and others are spared, for headers take a while to compile."""
        operations = [node.op for kernel in self.plan.kernels for node in kernel.nodes]
        return [header for stem, header in _HEADERS.items() if any(op.startswith(stem) for op in operations)]

    def _pass(self, number: int, kernel: Kernel) -> None:
        inside = set(kernel.nodes)
        operands = {x: None for node in kernel.nodes for x in loads(node) if x not in inside}
        reads = {x: self.plan.refs[x].expanded(kernel.shape) for x in operands}
        writes = dict(kernel.stores)
        iteration = space(kernel.shape, [*reads.values(), *writes.values()])
        function, arguments = print_pass(f"pass_{number}", kernel, reads, writes, iteration)
        self.functions.append(function)
        extent, flat = iteration.shape[0], len(iteration.shape) == 1
        partition = "single" if iteration.shape == (1,) else f"flat {extent}" if flat else "rows"
        self._order(
            [Access(self.plan.refs[x], x in kernel.clears, partition) for x in operands]
            + [Access(ref, True, partition) for ref in writes.values()]
        )
        if partition == "single":
            self.body.append(f"if (now.thread == 0) pass_{number}({arguments}, 0, 1);")
        else:
            share = "share" if flat else "share_rows"
            self.body.append(
                f"{{ const loop::Range r = loop::{share}({extent}, now.thread, now.threads); "
                f"pass_{number}({arguments}, r.begin, r.end); }}"
            )

    def _external(self, number: int, kernel: Kernel) -> None:
        (node,) = kernel.nodes
        write = self.plan.refs[node]
        lines, partition = print_external(node, {x: self.plan.refs[x] for x in node.operands()}, write)
        reads = kernel_reads(kernel, self.plan.refs)
        self._order(
            [Access(ref, False, "single" if partition == "single" else "all") for ref in reads]
            + [Access(write, True, partition)]
        )
        head = f"BDTORCH_APART void kernel_{number}(const loop::Now& now) {{  // {node.op}"
        self.functions.append("\n".join([head, *(f"  {line}" for line in lines), "}\n"]))
        guard = "if (now.thread == 0) " if partition == "single" else ""
        self.body.append(f"{guard}kernel_{number}(now);")

    def _order(self, accesses: list[Access]) -> None:
        """Let the threads meet before a kernel where it needs that."""
        if any(access.conflicts(earlier) for access in accesses for earlier in self.pending):
            self.body.append("loop::meet(now.frame);")
            self.pending = []
        self.pending += accesses

    def _records(self) -> None:
        if not self.recordings:
            return
        self._order([Access(ref, False, "single") for ref in self.plan.observed])
        buffers, records = len(self.plan.buffers), len(self.recordings)
        lines, slot = [], 0
        for number, (ref, recording) in enumerate(zip(self.plan.observed, self.recordings, strict=True)):
            first, second = f"now.buffers[{buffers + 2 * number}]", f"now.buffers[{buffers + 2 * number + 1}]"
            if not recording.sparse:
                lines.append(_keep_values(ref, recording.every, first))
                continue
            kept = f"now.frame->kept[{slot}]"
            capacity = f"((const int64_t*)now.buffers[{buffers + 2 * records}])[{slot}]"
            target = f"(int64_t*){first}, (int64_t*){second}, &{kept}"
            lines += [
                f"loop::keep_nonzero({pointer(ref)}, {ref.numel}, now.step + 1, {target});",
                f"if ({capacity} - {kept} < {ref.numel}) now.frame->stop[now.k & 1] = 1;",
            ]
            slot += 1
        self.body.append("\n".join(["if (now.thread == 0) {", *(f"  {line}" for line in lines), "}"]))

    def _copies(self) -> None:
        if not self.plan.copies:
            return
        self.body.append("loop::meet(now.frame);")
        whole = [(Ref(state, ref.shape, ref.strides), ref) for state, ref in self.plan.copies]
        lines = [f"  std::memcpy({pointer(to)}, {pointer(ref)}, {_bytes(ref)});" for to, ref in whole]
        self.body.append("\n".join(["if (now.thread == 0) {", *lines, "}"]))

    def _loop(self) -> str:
        body = "\n    ".join(line for block in self.body for line in block.split("\n"))
        return f"""
extern "C" void bdtorch_loop(loop::Frame* frame, int64_t thread) {{
  for (int64_t k = frame->done, count = frame->count; k < count; ++k) {{
    const loop::Now now = loop::at(frame, thread, k, {float(self.dt).hex()});
    {body}
    loop::meet(frame);
    if (thread == 0) frame->done = k + 1;
    if (frame->stop[k & 1] || frame->error[k & 1]) break;
  }}
}}
"""


def _bytes(ref: Ref) -> str:
    return f"INT64_C({ref.numel}) * sizeof({CPP[ref.buffer.dtype]})"


def _keep_values(ref: Ref, every: int, target: str) -> str:
    row = f"((now.step + 1) / {every} - now.frame->first / {every} - 1)"
    start = f"({CPP[ref.buffer.dtype]}*){target} + {row} * INT64_C({ref.numel})"
    copy = f"std::memcpy({start}, {pointer(ref)}, {_bytes(ref)});"
    return copy if every == 1 else f"if ((now.step + 1) % {every} == 0) {copy}"
