"""Two-byte indices for the connectivity of loops that read it over and over."""

from __future__ import annotations

from dataclasses import replace

import torch

from bdtorch.simulate.loops.native.graph import Graph, Node, pruned

_INDICES = 2  # position of the indices among the arguments
_MOST = torch.iinfo(torch.int16).max + 1


def narrowed(graph: Graph) -> Graph:
    """The same step, with constant indices of event-driven products copied to two bytes where they fit.

    A product spends its time on reading indices from memory, so half as many bytes are up to twice as fast; the copy is
    made once for each run.
    """
    made: dict[Node, Node] = {}
    for node in graph.nodes:
        if _extent(node) <= _MOST and node.args[_INDICES].kind == "constant":
            wide = node.args[_INDICES]
            if wide not in made:
                made[wide] = replace(wide, dtype=torch.int16)
            node.args = (*node.args[:_INDICES], made[wide], *node.args[_INDICES + 1 :])
    return pruned(graph.state, graph.observed, graph.captured) if made else graph


def _extent(node: Node) -> float:
    """How many values the indices of an event-driven product have to tell apart; of anything else, no number does."""
    if node.op == "bdtorch._event_csr_raw.default":
        return node.shape[-1]
    return node.args[0].shape[-1] if node.op == "bdtorch._event_csr_t_raw.default" else float("inf")
