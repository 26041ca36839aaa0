"""Loops that were made for a system, and stay with it.

Every run traces its step, since nothing else tells for sure what it would compute by now: a step may look at attributes,
closures, globals, files. What is made of the trace (plan, C++, library) is taken from an earlier run of the system where
the traces are the same but for the values of constants, which the code does not contain. So a parameter that an optimizer
has changed makes no new loop, and a number that has changed does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from bdtorch.ops import native_kernel
from bdtorch.simulate._body import Body
from bdtorch.simulate._kept import Key, kept_with
from bdtorch.simulate._site import Site
from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native.compiler import compiled, toolchain
from bdtorch.simulate.loops.native.emit import Recording, source
from bdtorch.simulate.loops.native.graph import Graph
from bdtorch.simulate.loops.native.headers import includes_others
from bdtorch.simulate.loops.native.keys import key_of_step
from bdtorch.simulate.loops.native.memory import Buffer
from bdtorch.simulate.loops.native.narrow import narrowed
from bdtorch.simulate.loops.native.operations import PRODUCTS
from bdtorch.simulate.loops.native.plan import Plan, plan
from bdtorch.simulate.loops.native.pointwise import CPP
from bdtorch.simulate.loops.native.simplify import simplified
from bdtorch.simulate.loops.native.split import split
from bdtorch.simulate.loops.native.visits import share_visits
from bdtorch.simulate.loops.native.widen import widened
from bdtorch.simulate.loops.native.woven import weave

_KEPT = 16  # loops of one system that are kept; a run that is differentiated takes three


@dataclass(frozen=True, eq=False)
class Made:
    """A compiled loop, without the constants of the model.

    Attributes:
        function: The loop.
        buffers: What it is handed. The source of a constant is its number among the constants of the traced step.
        sites: For every operation, by the number that the loop reports its errors by: its name and its line.
        work: Elements that a step computes.
    """

    function: Callable[[int], int]
    buffers: list[Buffer]
    sites: dict[int, tuple[str, Site | None]]
    work: int


def loop_of(body: Body, graph: Graph) -> tuple[Made, list[Tensor]]:
    """The loop of a traced step, kept or new, and the constants that it is to be handed."""
    note_finite(graph)
    constants = [node.source for node in graph.nodes if node.kind == "constant"]
    if any(includes_others(kernel.source) for node in graph.nodes if (kernel := native_kernel(node.op)) is not None):
        return _make(body, graph, constants), constants  # who knows what became of these files
    kept = kept_with(body.system, "native", _KEPT)
    key = Key((key_of_step(graph, body.every, body.sparse, body.dt), toolchain()))
    loop: Made | None = kept.get(key)
    if loop is None:
        loop = _make(body, graph, constants)
        kept.put(key, loop)
    return loop, constants


def _make(body: Body, graph: Graph, constants: list[Tensor]) -> Made:
    graph = prepared(graph)  # whose numbers the loop reports its errors by
    layout, text = generate(body, graph)
    numbers = {id(tensor): number for number, tensor in enumerate(constants)}
    buffers = [
        replace(buffer, source=numbers[id(buffer.source)]) if buffer.role == "constant" else buffer
        for buffer in layout.buffers
    ]
    operations = [node for node in graph.nodes if node.kind == "op"]
    sites = {node.number: (node.op, node.site) for node in operations}
    return Made(_function_of(compiled(text)), buffers, sites, sum(node.numel for node in operations))


def _function_of(library: ctypes.CDLL) -> Callable[[int], int]:
    function = library.bdtorch_loop
    function.argtypes = [ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


def note_finite(graph: Graph) -> None:
    """Look at the constants whose finiteness decides on the code: of a product with zeros, which then leaves them out."""
    for node in graph.nodes:
        if node.op in PRODUCTS:
            right = node.args[-1]
            if right.kind == "constant":
                right.finite = bool(right.source.isfinite().all())


def prepared(graph: Graph) -> Graph:
    """A traced step in the form that is laid out."""
    return narrowed(simplified(split(widened(graph))))


def generate(body: Body, graph: Graph, in_long_runs: bool = True) -> tuple[Plan, str]:
    """Lay a traced step out and print it; for calls of few steps, without what is done for each call to gain in every step."""
    for node in graph.nodes:
        if node.dtype not in CPP:
            of = f"the state variable {body.names[node.source]!r}" if node.kind == "state" else f"{node} ({node.site})"
            raise LoopError(f"the native loop cannot run this model: dtype {node.dtype} of {of}")
    layout = plan(graph)
    share_visits(layout)
    woven = weave(layout) if in_long_runs else []
    recordings = [Recording(every, sparse) for every, sparse in zip(body.every, body.sparse, strict=True)]
    return layout, source(layout, recordings, woven, body.dt)
