"""Printing calls of operators that users wrote."""

from __future__ import annotations

import torch

from bdtorch.ops import NativeKernel
from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.memory import Ref
from bdtorch.simulate.loops.native.pointwise import CPP, literal
from bdtorch.simulate.loops.native.printing import Printed, pointer

USER_HEADERS = ("view.h", "guarded.h")
"""What the C++ of users, and its calls, are made of."""
_MOST_AXES = 8  # of bdtorch::View


def print_user_kernel(kernel: NativeKernel, node: Node, refs: dict[Node, Ref], out: Ref) -> Printed:
    """The call of an operator's kernel, whose exceptions become errors of the loop."""
    arguments = []
    for value in node.args:
        if isinstance(value, Node):
            arguments.append(_view(node, refs[value], "const "))
        elif isinstance(value, bool | int | float):
            kind = torch.bool if isinstance(value, bool) else torch.int64 if isinstance(value, int) else torch.float64
            arguments.append(literal(value, kind))
        else:
            raise LoopError(f"the native loop cannot pass {value!r} to {node.op}: expected a tensor or a number")
    arguments.append(_view(node, out, ""))
    share = []
    if kernel.shares_last_axis:
        extent = out.shape[-1] if out.shape else 1
        share = [f"const loop::Range r = loop::share({extent}, now.thread, now.threads);"]
        arguments += ["r.begin", "r.end"]
    call = f"{kernel.function}({', '.join(arguments)});"
    lines = [*share, f"loop::guarded(now, {node.number}, [&] {{", f"  {call}", "});"]
    return lines, "rows" if kernel.shares_last_axis else "single"


def _view(node: Node, ref: Ref, const: str) -> str:
    assert ref.contiguous, "the planner lays operands of kernels out contiguously"
    if len(ref.shape) > _MOST_AXES:
        raise LoopError(
            f"the native loop cannot pass {len(ref.shape)} axes to {node.op}: expected at most {_MOST_AXES}"
        )
    sizes = ", ".join(map(str, ref.shape))
    kind = CPP[ref.buffer.dtype]
    return f"bdtorch::View<{const}{kind}>{{{pointer(ref)}, {len(ref.shape)}, {{{sizes}}}}}"
