"""Elementary functions as the stages that `csrc/include/bdtorch/exponential.h` has them in, between which a pass can be cut."""

from __future__ import annotations

from dataclasses import replace

import torch

from bdtorch.simulate.loops.native.graph import Node, rebuilt
from bdtorch.simulate.loops.native.kernel import Kernel
from bdtorch.simulate.loops.native.memory import Ref

STAGES = {
    "bdtorch.sigmoid_joined": "bdtorch::detail::sigmoid_joined",
    "bdtorch.tanh_joined": "bdtorch::detail::tanh_joined",
    "bdtorch.tanh_near": "bdtorch::detail::tanh_near",
    "bdtorch.tanh_whole": "bdtorch::detail::tanh_whole",
}
"""Stages that are no operations by themselves, and their C++ functions."""

_FLOATS = (torch.float32, torch.float64)


def staged(kernel: Kernel, writes: dict[Node, Ref]) -> tuple[Kernel, dict[Node, Ref]]:
    """The same pass with functions taken apart, and what it writes."""
    if not any(_comes_in_stages(node) for node in kernel.nodes):
        return kernel, writes
    nodes: list[Node] = []
    renewed: dict[Node, Node] = {}
    for node in kernel.nodes:
        if any(operand in renewed for operand in node.operands()):
            renewed[node] = replace(node, args=rebuilt(node.args, renewed), kwargs=rebuilt(node.kwargs, renewed))
        if _comes_in_stages(node):
            *before, renewed[node] = _stages(renewed.get(node, node))
            nodes += before
        nodes.append(renewed.get(node, node))
    stores = {renewed.get(node, node): ref for node, ref in kernel.stores.items()}
    written = {renewed.get(node, node): ref for node, ref in writes.items()}
    return replace(kernel, nodes=nodes, stores=stores), written


def _comes_in_stages(node: Node) -> bool:
    if node.op not in ("aten.tanh.default", "aten.sigmoid.default") or node.dtype not in _FLOATS:
        return False
    (x,) = node.args
    return isinstance(x, Node) and x.op != "full"  # of a number, compilers know the value


def _stages(node: Node) -> list[Node]:
    (x,) = node.args
    if node.op == "aten.tanh.default":
        near, whole = replace(node, op="bdtorch.tanh_near"), replace(node, op="bdtorch.tanh_whole")
        return [near, whole, replace(node, op="bdtorch.tanh_joined", args=(x, near, whole))]
    magnitude = replace(node, op="aten.abs.default")
    opposite = replace(node, op="aten.neg.default", args=(magnitude,))
    power = replace(node, op="aten.exp.default", args=(opposite,))
    return [magnitude, opposite, power, replace(node, op="bdtorch.sigmoid_joined", args=(x, power))]
