"""Printing the plan as one C++ function with the time loop inside."""

from __future__ import annotations

from dataclasses import dataclass

from bdtorch.ops import native_kernel
from bdtorch.simulate.loops.native.events import Events, print_product
from bdtorch.simulate.loops.native.external import print_external, row_count
from bdtorch.simulate.loops.native.kernel import Kernel, kernel_reads, loads
from bdtorch.simulate.loops.native.members import Members
from bdtorch.simulate.loops.native.memory import Buffer, Ref
from bdtorch.simulate.loops.native.passes import print_pass
from bdtorch.simulate.loops.native.plan import Plan
from bdtorch.simulate.loops.native.pointwise import CPP
from bdtorch.simulate.loops.native.printing import Access, partition, pointer
from bdtorch.simulate.loops.native.users import USER_HEADERS
from bdtorch.simulate.loops.native.weights import print_visit
from bdtorch.simulate.loops.native.woven import Woven

_HEADERS = {
    "aten._linalg": "linear_algebra.h",
    "aten.arg": "sorting.h",
    "aten.cummax": "sorting.h",
    "aten.cummin": "sorting.h",
    "aten.digamma": "special.h",
    "aten.erfinv": "special.h",
    "aten.i0": "special.h",
    "aten.kthvalue": "sorting.h",
    "aten.linalg": "linear_algebra.h",
    "aten.logcumsumexp": "sorting.h",
    "aten.max.dim": "sorting.h",
    "aten.median": "sorting.h",
    "aten.min.dim": "sorting.h",
    "aten.sort": "sorting.h",
    "aten.special": "special.h",
    "aten.topk": "sorting.h",
    "bdtorch._eligibility": "eligibility.h",
    "bdtorch._rls": "rls.h",
    "bdtorch._event_csr_delayed": "delay.h",
    "bdtorch._event_dense": "event_dense.h",
    "bdtorch._plasticity": "plasticity.h",
    "bdtorch._procedural": "procedural.h",
}
"""Headers by the operations that need them."""

_CACHE = 16 << 10
"""Bytes of a block of elements that takes many steps before the next block does, in a step that is one pass."""


@dataclass(frozen=True)
class Recording:
    """How one observed tensor is kept: every so many steps, or its nonzeros."""

    every: int
    sparse: bool


def source(plan: Plan, recordings: list[Recording], woven: list[Woven], dt: float) -> str:
    """The C++ of the loop. The array of addresses holds the buffers, two for each record, and the capacities."""
    return _Printer(plan, recordings, woven, dt).source()


class _Printer:
    def __init__(self, plan: Plan, recordings: list[Recording], woven: list[Woven], dt: float) -> None:
        self.plan = plan
        self.recordings = recordings
        self.woven = woven
        self.dt = dt
        self.events = Events(plan)
        self.functions: list[str] = []
        self.passes: dict[str, str] = {}  # names of passes by what follows them
        self.body: list[str] = []
        self.pending: dict[Buffer, list[Access]] = {}  # since the threads last met, by the memory
        self.before: list[str] = []  # the first step
        self.after: list[str] = []  # the threads have met at the end of a step
        self.last: list[str] = []  # what thread 0 does once the last step is done
        self.arguments: dict[int, str] = {}  # of the passes
        self.sums: list[tuple[Ref, int]] = []  # what products add to and passes clear, by shares of so many elements
        self.recorded = ""  # what thread 0 does to keep records
        self.members = Members(plan, [(recording.every, recording.sparse) for recording in recordings])

    def source(self) -> str:
        for number, kernel in enumerate(self.plan.kernels):
            if not kernel.nodes:
                continue
            if not kernel.fused:
                self._external(number, kernel)
            elif kernel.stores:
                self._pass(number, kernel)
        self._ask()
        self._records()
        self._copies()
        apart = self.members.steps(self.dt, bool(self.events.lists or self.events.products))
        included = [f'#include "bdtorch/{name}"' for name in ("loop.h", "event_loop.h", *self._further_headers())]
        return "\n".join([*included, *self._user_sources(), "", *self.functions, self._loop(apart)])

    def _user_sources(self) -> list[str]:
        """The C++ of users' operators, each text once."""
        kernels = [native_kernel(node.op) for kernel in self.plan.kernels for node in kernel.nodes]
        sources = dict.fromkeys(kernel.source for kernel in kernels if kernel is not None)
        return [*(f'#include "bdtorch/{name}"' for name in USER_HEADERS), *sources] if sources else []

    def _further_headers(self) -> list[str]:
        """What the loop needs and others are spared, for headers take a while to compile."""
        operations = [node.op for kernel in self.plan.kernels for node in kernel.nodes]
        needed = [header for stem, header in _HEADERS.items() if any(op.startswith(stem) for op in operations)]
        return list(dict.fromkeys(needed))

    def _pass(self, number: int, kernel: Kernel) -> None:
        inside = set(kernel.nodes)
        operands = {x: None for node in kernel.nodes for x in loads(node) if x not in inside}
        reads = {x: self.plan.refs[x].expanded(kernel.shape) for x in operands}
        writes = dict(kernel.stores)
        iteration, shared = partition(kernel.shape, [*reads.values(), *writes.values()])
        function, arguments = print_pass(kernel, reads, writes, iteration)
        name = self._named_pass(number, function)
        self.arguments[number] = arguments
        self._order(
            [Access(self.plan.refs[x], x in kernel.clears, shared) for x in operands]
            + [Access(ref, True, shared) for ref in writes.values()]
        )
        if shared == "single":
            self.body.append(f"if (now.thread == 0) {name}({arguments}, 0, 1);")
        else:
            share = "share" if shared.startswith("flat") else "share_rows"
            claims = ""
            if shared.startswith("flat"):
                self.sums += [(reads[x], iteration.shape[0]) for x in kernel.clears if reads[x].contiguous]
                asked = [f"loop::claim({pointer(ref)}, r);" for ref in writes.values() if ref.contiguous]
                claims = f"if (now.threads > 1) {{ {' '.join(asked)} }} " if asked else ""
            self.body.append(
                f"{{ const loop::Range r = loop::{share}({iteration.shape[0]}, now.thread, now.threads); "
                f"{claims}{name}({arguments}, r.begin, r.end); }}"
            )
        self.members.add_pass(kernel, reads, name, arguments, iteration.shape[0])
        for active in self.events.lists:
            if active.producer == number:
                self._order([Access(active.spikes, False, shared), Access(active.whole(), True, "own")])
                self.body.append(active.made("now.k + 1"))

    def _named_pass(self, number: int, function: str) -> str:
        """The name of a pass; equal ones, as of populations of the same cells, are compiled once."""
        if function not in self.passes:
            self.passes[function] = f"pass_{number}"
            self.functions.append(f"BDTORCH_APART void pass_{number}{function}")
        return self.passes[function]

    def _external(self, number: int, kernel: Kernel) -> None:
        node = kernel.nodes[0]
        if number in self.events.products:
            lines, accesses = print_product(self.events.products[number], node, self.plan.refs)
            self._order(accesses)
            self._kernel(number, kernel, lines)
            return
        refs = {x: self.plan.refs[x] for node in kernel.nodes for x in node.operands()}
        writes = [self.plan.refs[node] for node in kernel.nodes]
        if len(writes) == 2:
            lines, shared = print_visit(node, kernel.nodes[1], refs, writes[0], writes[1]), "rows"
        else:
            lines, shared = print_external(node, refs, writes[0])
        reads = kernel_reads(kernel, self.plan.refs)
        self._order(
            [Access(ref, False, "single" if shared == "single" else "all") for ref in reads]
            + [Access(write, True, shared) for write in writes]
        )
        self._kernel(number, kernel, lines, shared, row_count(node, refs, lines))

    def _kernel(
        self, number: int, kernel: Kernel, lines: list[str], shared: str = "rows", rows: int | None = None
    ) -> None:
        """A function, over the rows that it is told where it is made so, and its call."""
        names = " ".join(node.op for node in kernel.nodes)
        parameter = "" if rows is None else ", const loop::Range rows"
        head = f"BDTORCH_APART void kernel_{number}(const loop::Now& now{parameter}) {{  // {names}"
        self.functions.append("\n".join([head, *(f"  {line}" for line in lines), "}\n"]))
        self.members.add_kernel(kernel, f"kernel_{number}", rows or 0)
        guard = "if (now.thread == 0) " if shared == "single" else ""
        share = f"loop::Range{{0, {rows}}}" if guard else f"loop::share_rows({rows}, now.thread, now.threads)"
        self.body.append(f"{guard}kernel_{number}(now{'' if rows is None else f', {share}'});")

    def _order(self, accesses: list[Access]) -> None:
        """Let the threads meet before a kernel where it needs that."""
        if any(
            access.conflicts(earlier) for access in accesses for earlier in self.pending.get(access.ref.buffer.home, ())
        ):
            self.body.append("loop::meet(now.frame, now.thread);")
            self.pending = {}
        for access in accesses:
            self.pending.setdefault(access.ref.buffer.home, []).append(access)

    def _ask(self) -> None:
        """Memory that a step begins to use, and that other threads' cores hold, is asked for once the threads have met."""
        lines = [f"{active.text('now.k + 1')}.ask(now.thread);" for active in self.events.lists]
        lines += [
            f"loop::claim({pointer(ref)}, loop::share({extent}, now.thread, now.threads));" for ref, extent in self.sums
        ]
        if lines:
            self.after.append("\n".join(["if (now.threads > 1) {", *(f"  {line}" for line in lines), "}"]))

    def _records(self) -> None:
        """Records are kept by the first thread, spikes that are listed as soon as all have listed theirs."""
        by_first = [
            (ref, recording)
            for ref, recording in zip(self.plan.observed, self.recordings, strict=True)
            if not (recording.sparse and self.events.listed(ref))
        ]
        self._order([Access(ref, False, "single") for ref, _ in by_first])
        buffers, records = len(self.plan.buffers), len(self.recordings)
        lines, slot = [], 0
        for number, (ref, recording) in enumerate(zip(self.plan.observed, self.recordings, strict=True)):
            first, second = f"now.buffers[{buffers + 2 * number}]", f"now.buffers[{buffers + 2 * number + 1}]"
            if not recording.sparse:
                lines.append(_keep_values(ref, recording.every, first))
                continue
            capacity = f"((const int64_t*)now.buffers[{buffers + 2 * records}])[{slot}]"
            target = f"(int64_t*){first}, (int64_t*){second}"
            active = self.events.listed(ref)
            if active is None:
                kept = f"now.frame->kept[{slot}]"
                lines += [
                    f"loop::keep_nonzero({pointer(ref)}, {ref.numel}, now.step + 1, {target}, &{kept});",
                    f"if ({capacity} - {kept} < {ref.numel}) now.frame->stop[now.k & 1] = 1;",
                ]
            else:
                kept = f"kept_{slot}"
                self.before.append(f"int64_t {kept} = frame->kept[{slot}];")
                self.last.append(f"frame->kept[{slot}] = {kept};")
                listed = active.text("now.k + 1")
                self.after += [
                    f"{kept} = {listed}.keep(now.thread, now.step + 1, {target}, {kept});",
                    f"full |= {capacity} - {kept} < {ref.numel};",
                ]
            slot += 1
        if lines:
            self.recorded = "\n".join(["if (now.thread == 0) {", *(f"  {line}" for line in lines), "}"])
            self.body.append(self.recorded)

    def _copies(self) -> None:
        if not self.plan.copies:
            return
        self.body.append("loop::meet(now.frame, now.thread);")
        whole = [(Ref(state, ref.shape, ref.strides), ref) for state, ref in self.plan.copies]
        lines = [f"  std::memcpy({pointer(to)}, {pointer(ref)}, {_bytes(ref)});" for to, ref in whole]
        self.body.append("\n".join(["if (now.thread == 0) {", *lines, "}"]))

    def _loop(self, members: str) -> str:
        extent, block = self._apart()
        if block:
            return self._blocked_loop(extent, block)
        body, before, after, last, end = (
            "\n    ".join(line for block in blocks for line in block.split("\n"))
            for blocks in (self.body, [*self._before_steps(), *self.before], self.after, self.last, self._after_steps())
        )
        return f"""
static void take_steps(loop::Frame* frame, int64_t thread) {{
    int64_t k = frame->done;
    bool full = false;
    {before}
  for (const int64_t count = frame->count; k < count && !full;) {{
    const loop::Now now = loop::at(frame, thread, k, {float(self.dt).hex()});
    {body}
    loop::meet(frame, thread);
    {after}
    full |= frame->stop[k & 1] || frame->error[k & 1];
    ++k;
  }}
  if (thread == 0) {{
    frame->done = k;
    {last}
  }}
  {end}
}}
{members}{_entry(self.members.count if members else 0)}"""

    def _apart(self) -> tuple[int, int]:
        """Where a step is one pass, in which no element sees another, and records are rare: elements, and those of a block."""
        kernels = [kernel for kernel in self.plan.kernels if not kernel.fused or kernel.stores]
        rare = all(recording.every > 1 and not recording.sparse for recording in self.recordings)
        if len(kernels) != 1 or not kernels[0].fused or self.plan.copies or self.events.lists or not rare:
            return 0, 0
        (kernel,) = kernels
        operands = {x for node in kernel.nodes for x in loads(node)} - set(kernel.nodes)
        refs = [self.plan.refs[x].expanded(kernel.shape) for x in operands] + list(kernel.stores.values())
        iteration, shared = partition(kernel.shape, refs)
        homes = {ref.buffer.home for ref in refs if any(ref.strides)}
        width = sum(home.dtype.itemsize for home in homes)
        if not shared.startswith("flat") or not width or iteration.shape[0] * width < 2 * _CACHE:
            return 0, 0
        return iteration.shape[0], max(256, _CACHE // width // 64 * 64)

    def _blocked_loop(self, extent: int, block: int) -> str:
        """Each block stays in the innermost cache for all the steps up to one that is recorded."""
        ((number, arguments),) = self.arguments.items()
        at = f"loop::at(frame, thread, {{}}, {float(self.dt).hex()})"
        kept = (
            " || ".join(f"(step + 1) % {every} == 0" for every in sorted({r.every for r in self.recordings})) or "false"
        )
        recorded = self.recorded.replace("\n", "\n    ")
        return f"""
static void take_steps(loop::Frame* frame, int64_t thread) {{
  const loop::Range share = loop::share({extent}, thread, frame->threads);
  for (int64_t k = frame->done, count = frame->count; k < count;) {{
    int64_t last = k;
    for (; last + 1 < count; ++last) {{
      const int64_t step = {at.format("last")}.step;
      if ({kept}) break;
    }}
    for (int64_t low = share.begin; low < share.end; low += {block}) {{
      const int64_t high = share.end - low < {block} ? share.end : low + {block};
      for (int64_t s = k; s <= last; ++s) {{
        const loop::Now now = {at.format("s")};
        pass_{number}({arguments}, low, high);
      }}
    }}
    const loop::Now now = {at.format("last")};
    loop::meet(frame, thread);
    {recorded}
    loop::meet(frame, thread);
    k = last + 1;
    if (thread == 0) frame->done = k;
  }}
}}
{_entry(0)}"""

    def _before_steps(self) -> list[str]:
        """The lists of the spikes that a call begins with, and matrices that are woven for it."""
        lines = [active.made("now.k") for active in self.events.lists if active.spikes.buffer.home.role == "state"]
        lines += [line for woven in self.woven for line in woven.lines("weave_rows")]
        return self._with_now([*lines, "loop::meet(frame, thread);"]) if lines else []

    def _after_steps(self) -> list[str]:
        """Matrices as they were before they were woven."""
        lines = [line for woven in self.woven for line in woven.lines("unweave_rows")]
        return self._with_now(lines) if lines else []

    def _with_now(self, lines: list[str]) -> list[str]:
        now = f"const loop::Now now = loop::at(frame, thread, k, {float(self.dt).hex()});"
        return ["{", f"  {now}", *(f"  {line}" for line in lines), "}"]


def _entry(members: int) -> str:
    """What takes steps in all threads of the frame, and returns 0 or the number of an error of the system."""
    steps = f"2 * frame->threads <= {members} ? take_steps_apart : take_steps" if members else "take_steps"
    return f"""
extern "C" int bdtorch_loop(loop::Frame* frame) {{ return loop::run(frame, {steps}); }}
"""


def _bytes(ref: Ref) -> str:
    return f"INT64_C({ref.numel}) * sizeof({CPP[ref.buffer.dtype]})"


def _keep_values(ref: Ref, every: int, target: str) -> str:
    row = f"((now.step + 1) / {every} - now.frame->first / {every} - 1)"
    start = f"({CPP[ref.buffer.dtype]}*){target} + {row} * INT64_C({ref.numel})"
    copy = f"std::memcpy({start}, {pointer(ref)}, {_bytes(ref)});"
    return copy if every == 1 else f"if ((now.step + 1) % {every} == 0) {copy}"
