"""Keys of operations and of whole steps: equal for what computes the same."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from bdtorch.ops import native_kernel
from bdtorch.simulate.loops.native.graph import Graph, Node

_EXACT = (int, bool, str, type(None))


def key_of(value: Any) -> Hashable:
    """Equal for arguments that are the same nodes and the same values, to the bit and of the same types."""
    kind = type(value)
    if kind is Node:
        return kind, value.number
    if kind in _EXACT:
        return kind, value
    if kind is list or kind is tuple:
        return tuple([key_of(item) for item in value])
    if kind is dict:
        return tuple([(name, key_of(value[name])) for name in sorted(value)])
    if isinstance(value, (list, tuple)):
        return tuple([key_of(item) for item in value])
    return kind, repr(value)  # which tells -0.0 from 0.0, and takes one NaN for another


def key_of_step(graph: Graph, every: list[int], sparse: list[bool], dt: float) -> Hashable:
    """Equal for traced steps of which the same code is generated, so that they differ in values of constants alone.

    Args:
        graph: The step as it was traced.
        every: For every observed tensor, how often it is kept.
        sparse: For every observed tensor, whether only its nonzeros are kept.
        dt: Step, ms, which is the unit of the loop's time.
    """
    first: dict[int, int] = {}  # node that holds a tensor
    nodes: list[Hashable] = []
    for node in graph.nodes:
        layout = node.kind, node.number, node.shape, node.dtype
        if node.kind == "op":
            arguments = key_of(node.args), key_of(node.kwargs) if node.kwargs else ()
            kernel = native_kernel(node.op)
            nodes.append((*layout, node.op, arguments, node.compute, node.output, node.site, kernel))
        elif node.kind == "constant":
            nodes.append((*layout, first.setdefault(id(node.source), node.number), node.finite))
        else:
            nodes.append((*layout, node.source))
    results = [node.number for node in graph.state], [node.number for node in graph.observed]
    return tuple(nodes), tuple(map(tuple, results)), tuple(every), tuple(sparse), repr(dt)
