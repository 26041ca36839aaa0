"""Members of an ensemble, which see nothing of one another: each takes many steps before the next one does.

What a few members need stays in the caches of a core then, and threads that have members of their own need not meet.
"""

from __future__ import annotations

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import Kernel, kernel_operands
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.plan import Plan
from bdtorch.simulate.loops.native.pointwise import CPP
from bdtorch.simulate.loops.native.printing import pointer

_CACHE = 512 << 10
"""Bytes of what so many members as take their steps together have, and change."""

_SHARED = ("constant", "sequence", "time")  # what nothing writes to


class Members:
    """The loop in which members take steps one block of them after the other, as far as the step allows it.

    A member is an index of the first axis that all states have. The step allows it where every operation takes from each
    state and temporary, and leaves in it, nothing but the same member's.

    Args:
        plan: The step.
        recordings: How often each observed tensor is kept, and whether its nonzeros are.
    """

    def __init__(self, plan: Plan, recordings: list[tuple[int, bool]]) -> None:
        self.plan, self.recordings = plan, recordings
        extents = {ref.shape[:1] for node, ref in plan.refs.items() if node.kind == "state"}
        self.count = extents.pop()[0] if len(extents) == 1 and () not in extents else 0
        self.calls: list[str] = []

    def add_pass(self, kernel: Kernel, reads: dict[Node, Ref], name: str, arguments: str, extent: int) -> None:
        """Note an element-wise pass over so many rows, or elements."""
        refs = [*reads.values(), *kernel.stores.values()]
        whole = bool(self.count) and kernel.shape[:1] == (self.count,) and all(self._is_apart(ref) for ref in refs)
        self._add(whole, extent, f"{name}({arguments}, BEGIN, END);")

    def add_kernel(self, kernel: Kernel, name: str, rows: int) -> None:
        """Note an operation of its own, over so many rows, or none that it could be told."""
        refs = [self.plan.refs[node] for node in (*kernel_operands(kernel), *kernel.nodes)]
        updated = kernel.nodes[0].op.startswith("aten.scatter")
        in_place = not updated or refs[-1].buffer.home is self.plan.refs[kernel.nodes[0].args[0]].buffer.home
        whole = bool(self.count and rows) and in_place and all(self._is_apart(ref) for ref in refs)
        self._add(whole, rows, f"{name}(now, {{BEGIN, END}});")

    def _add(self, whole: bool, extent: int, call: str) -> None:
        if not whole or extent % self.count:
            self.count = 0
            return
        each = f" * {extent // self.count}" if extent != self.count else ""
        self.calls.append(call.replace("BEGIN", f"r.begin{each}").replace("END", f"r.end{each}"))

    def _is_apart(self, ref: Ref) -> bool:
        """Whether the first axis of a view goes through the members, each of which has a part of the buffer to itself."""
        home = ref.buffer.home
        if home.role in _SHARED:
            return True
        if (
            not ref.shape
            or ref.shape[0] % self.count
            or ref.shape[0] * ref.strides[0] != home.numel
            or min(ref.strides) < 0
        ):
            return False
        inner = sum((extent - 1) * stride for extent, stride in zip(ref.shape[1:], ref.strides[1:], strict=True))
        return home.role in ("state", "temporary") and ref.offset + inner < ref.strides[0]

    def steps(self, dt: float, together: bool) -> str:
        """The function that takes steps, or nothing where members hang together or are so few that all find room.

        Args:
            dt: The step, ms.
            together: Whether operations share what is not in the plan.
        """
        copied = [ref for pair in self.plan.copies for ref in (Ref(pair[0], pair[1].shape, pair[1].strides), pair[1])]
        kept = [*self.plan.observed, *copied]
        rare = not any(sparse for _, sparse in self.recordings)
        if together or self.count < 2 or not rare or not all(self._is_kept(ref) for ref in kept):
            return ""
        homes = {buffer.home for buffer in self.plan.buffers if buffer.home.role not in _SHARED}
        width = sum(home.numel * home.dtype.itemsize for home in homes) // self.count
        if width * self.count <= 2 * _CACHE:
            return ""
        block = max(1, _CACHE // width)
        body = "\n      ".join([*self.calls, *self._records(), *self._copies()])
        return f"""
static void take_steps_apart(loop::Frame* frame, int64_t thread) {{
  const loop::Range share = loop::share_rows({self.count}, thread, frame->threads);
  for (int64_t low = share.begin; low < share.end; low += {block}) {{
    const loop::Range r = {{low, share.end - low < {block} ? share.end : low + {block}}};
    int64_t error = 0;
    for (int64_t k = frame->done; k < frame->count && !error; ++k) {{
      loop::Now now = loop::at(frame, thread, k, {float(dt).hex()});
      now.error = &error;
      {body}
      if (error) loop::note_error(frame, k, error);
    }}
  }}
  loop::meet(frame, thread);
  if (thread == 0) loop::end_apart(frame);
}}
"""

    def _is_kept(self, ref: Ref) -> bool:
        return (
            ref.contiguous
            and ref.shape[:1] == (self.count,)
            and (ref.buffer.home.role in _SHARED or self._is_apart(ref))
        )

    def _records(self) -> list[str]:
        buffers, lines = len(self.plan.buffers), []
        for number, (ref, (every, _)) in enumerate(zip(self.plan.observed, self.recordings, strict=True)):
            row = f"((now.step + 1) / {every} - now.frame->first / {every} - 1) * INT64_C({ref.numel})"
            target = f"({CPP[ref.buffer.dtype]}*)now.buffers[{buffers + 2 * number}] + {row}"
            copy = self._copied(target, pointer(ref), ref)
            lines.append(copy if every == 1 else f"if ((now.step + 1) % {every} == 0) {copy}")
        return lines

    def _copies(self) -> list[str]:
        return [
            self._copied(pointer(Ref(state, ref.shape, ref.strides)), pointer(ref), ref)
            for state, ref in self.plan.copies
        ]

    def _copied(self, target: str, source: str, ref: Ref) -> str:
        each = ref.numel // self.count
        start, size = f"r.begin * {each}", f"(r.end - r.begin) * {each} * sizeof({CPP[ref.buffer.dtype]})"
        return f"std::memcpy({target} + {start}, {source} + {start}, {size});"
