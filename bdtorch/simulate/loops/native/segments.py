"""Cutting the operations of an element-wise pass into loops, so that a processor finds enough of them to do at once.

A processor works ahead by some two hundred vector instructions. Where the operations on one element wait for one another, as
those of the stages of a Runge-Kutta step do, that many lie within the work on a few elements, and most of the time goes by
waiting. Cut into loops of shorter chains, the same work is on many elements at a time. No result changes by it.
"""

from __future__ import annotations

import bisect
import itertools

import torch

from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.kernel import loads
from bdtorch.simulate.loops.native.reciprocal import known_divisor

_COSTS = {
    "div": (4, 14), "reciprocal": (4, 14), "sqrt": (4, 16), "rsqrt": (8, 30), "exp": (18, 55), "expm1": (22, 60),
    "exprel": (28, 75), "linoid": (28, 75),
    "log": (30, 80), "log1p": (36, 90), "sin": (40, 90), "cos": (40, 90), "sigmoid": (32, 90), "tanh": (26, 80),
    "bdtorch.sigmoid_joined": (10, 30), "bdtorch.tanh_joined": (10, 30), "bdtorch.tanh_near": (15, 45),
    "bdtorch.tanh_whole": (3, 6),
}  # fmt: skip
"""Instructions, and cycles from operand to result, of the operations that take many."""

_KNOWN_DIVISOR = (2, 8)
_SIMPLE = (1, 4)  # of all others
_AHEAD = 55  # cycles of waiting that a processor can fill with other elements' work
_WHOLE = 100  # cycles of the longest chain below which a pass with choices stays one loop: not all make vectors
_LEAST = 50  # the same of a pass of nothing but numbers
_NEAR = 40  # cycles that can be filled in such passes: in one loop, a midpoint step of a cubic takes 1.3 times as long
_TURNS = 2  # vectors in turns by which a whole pass waits less; more of them leave too few registers
_HANDED = 2  # instructions by which a value gets from one loop to a later one


def segments(nodes: list[Node], interleaved: int = 1) -> list[list[Node]]:
    """The operations of a pass, which stand in order, as loops one after the other.

    The cuts are made where the fewest instructions are to be expected: those of a loop count as often as its longest chain
    exceeds what the processor can see, and values that a cut separates from their use count by themselves.

    Args:
        nodes: The operations.
        interleaved: How many vectors of elements the compiler works on in turns, and so how much less waiting there is, in
            the pass as a whole; parts of it may well be without the narrow elements that are the reason.
    """
    ready = _ready(nodes)
    edges = sorted(set(ready.values()))
    short = not edges or edges[-1] < _WHOLE
    if short and (not edges or edges[-1] < _LEAST or any(node.dtype == torch.bool for node in nodes)):
        return [nodes]
    place = {edge: number for number, edge in enumerate(edges)}
    instructions, begins = [0] * len(edges), list(edges)  # of the nodes that are ready at each edge
    for node, edge in ready.items():
        count, cycles = _cost(node)
        instructions[place[edge]] += count
        begins[place[edge]] = min(begins[place[edge]], edge - cycles)
    ahead = _NEAR if short else _AHEAD
    cuts = _cheapest(
        edges, instructions, begins, _crossings(nodes, ready, place), ahead, ahead * min(interleaved, _TURNS)
    )
    parts: list[list[Node]] = [[] for _ in cuts]
    for node in nodes:
        parts[bisect.bisect_left(cuts, place[ready[node]])].append(node)
    return parts


def instructions(nodes: list[Node]) -> int:
    """What the operations on one element, or one vector, may take."""
    return sum(_cost(node)[0] for node in nodes)


def _ready(nodes: list[Node]) -> dict[Node, int]:
    """The cycle in which each operation is ready, when all begin as late as the first that needs them lets them.

    So what is quickly made of memory is made where it is needed, and not handed on. Results that nothing else needs come
    with what they are made of.
    """
    early: dict[Node, int] = {}
    users: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        operands = [x for x in loads(node) if x in early]
        early[node] = max((early[x] for x in operands), default=0) + _cost(node)[1]
        for operand in operands:
            users[operand].append(node)
    late: dict[Node, int] = {}
    for node in reversed(nodes):
        if users[node]:
            waiting = [late[user] - _cost(user)[1] for user in users[node] if user in late]
            results = [early[user] - _cost(user)[1] for user in users[node] if user not in late]
            late[node] = min(waiting) if waiting else max(results)
    for node in nodes:
        if node not in late:
            made = max((late[x] for x in loads(node) if x in late), default=0)
            late[node] = max(early[node], made + _cost(node)[1])
    return late


def _cost(node: Node) -> tuple[int, int]:
    if known_divisor(node):
        return _KNOWN_DIVISOR
    if node.op in _COSTS:
        return _COSTS[node.op]
    return _COSTS.get(node.op.split(".")[-2] if "." in node.op else node.op, _SIMPLE)


def _crossings(nodes: list[Node], ready: dict[Node, int], place: dict[int, int]) -> list[int]:
    """How many values a cut after each edge separates from a use."""
    last = {node: place[ready[node]] for node in nodes}
    for node in nodes:
        for operand in loads(node):
            if operand in last:
                last[operand] = max(last[operand], place[ready[node]])
    change = [0] * (len(place) + 1)
    for node, end in last.items():
        change[place[ready[node]]] += 1
        change[end] -= 1
    return list(itertools.accumulate(change))


def _cheapest(
    edges: list[int], instructions: list[int], begins: list[int], crossings: list[int], ahead: int, ahead_whole: int
) -> list[int]:
    """The last edge of each loop, by dynamic programming over the edges."""
    best: list[tuple[float, int]] = []  # cost of all up to an edge, and the edge before its loop
    for end in range(len(edges)):
        choices: list[tuple[float, int]] = []
        count, begin = 0, edges[end]
        for first in range(end, -1, -1):
            count, begin = count + instructions[first], min(begin, begins[first])
            before = best[first - 1][0] + _HANDED * crossings[first - 1] if first else 0.0
            seen = ahead_whole if end - first == len(edges) - 1 else ahead
            choices.append((before + count * max(1.0, (edges[end] - begin) / seen), first - 1))
        best.append(min(choices, key=lambda choice: (choice[0], choice[1])))
    cuts = [len(edges) - 1]
    while (before := best[cuts[0]][1]) >= 0:
        cuts.insert(0, before)
    return cuts if edges else []
