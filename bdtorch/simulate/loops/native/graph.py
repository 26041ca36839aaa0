"""The traced step as a graph of ATen operations on tensors."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._site import Site


@dataclass(eq=False)
class Node:
    """One tensor in the step.

    Attributes:
        number: Position in the trace.
        kind: ``"state"``, ``"sequence"``, ``"time"``, ``"constant"`` or ``"op"``.
        shape: Shape of the tensor.
        dtype: Its dtype.
        op: Name of the operation, such as ``"aten.add.Tensor"`` (kind ``"op"``).
        args: Positional arguments: nodes, Python values, and lists of them.
        kwargs: Keyword arguments.
        compute: Dtype in which an element-wise operation computes, after type promotion.
        source: Number of the state leaf or input sequence; the tensor itself for a constant, perhaps of another dtype.
        site: Line of the model's code that asked for the operation, which prints as such.
        output: Which tensor of an operation that returns several.
        finite: Whether a constant is known to hold neither NaN nor infinity: all that code may depend on of its values.
    """

    number: int
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    op: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    compute: torch.dtype | None = None
    source: Any = None
    site: Site | None = None
    output: int | None = None
    finite: bool = False
    _operands: tuple[tuple[Any, ...], list[Node]] | None = None  # found among which arguments
    _loads: tuple[tuple[Any, ...], list[Node]] | None = None  # see `kernel.loads`

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def operands(self) -> list[Node]:
        """The tensors among the arguments."""
        if self._operands is None or self._operands[0] is not self.args:
            self._operands = (self.args, _nodes((self.args, tuple(self.kwargs.values()))))
        return self._operands[1]

    def __repr__(self) -> str:
        return f"%{self.number} {self.op or self.kind} {list(self.shape)}"


def _nodes(value: Any) -> list[Node]:
    if isinstance(value, Node):
        return [value]
    if isinstance(value, (tuple, list)):
        return [node for item in value for node in _nodes(item)]
    return []


@dataclass(eq=False)
class Graph:
    """The step: from state, input slices and time to the new state and what is observed.

    Attributes:
        nodes: Everything that the outputs need, in an order in which it can be computed.
        state: The node of each new state leaf.
        observed: The node of each observed tensor.
        captured: Tensors from outside the step that require a gradient.
        results: What the step gave as it was traced, the new state and what is observed.
    """

    nodes: list[Node]
    state: list[Node]
    observed: list[Node]
    captured: list[Tensor]
    results: list[Tensor] = field(default_factory=list)


def pruned(state: list[Node], observed: list[Node], captured: list[Tensor]) -> Graph:
    """The graph of all that the outputs need."""
    needed: set[Node] = set()
    pending = [*state, *observed]
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending.extend(node.operands())
    return Graph(sorted(needed, key=lambda node: node.number), state, observed, captured)


def is_constant(value: Any) -> bool:
    """Whether nothing in ``value`` changes during the loop."""
    return all(node.kind == "constant" or node.op == "full" for node in _nodes(value))


def replaced(nodes: list[Node], substitutes: dict[Node, Node]) -> list[Node]:
    """The nodes with some of what they are made of replaced; what depends on none of that stays as it is."""
    done = dict(substitutes)
    needed = pruned(nodes, [], []).nodes  # in an order in which what a node is made of comes first
    for node in needed:
        if node in done:
            continue
        if all(done[operand] is operand for operand in node.operands()):
            done[node] = node
            continue
        done[node] = dataclasses.replace(node, args=rebuilt(node.args, done), kwargs=rebuilt(node.kwargs, done))
    return [done[node] for node in nodes]


def rebuilt(value: Any, done: dict[Node, Node]) -> Any:
    """Arguments of an operation with some of the nodes among them replaced."""
    if isinstance(value, Node):
        return done.get(value, value)
    if isinstance(value, (tuple, list)):
        return type(value)(rebuilt(item, done) for item in value)
    return {key: rebuilt(item, done) for key, item in value.items()} if isinstance(value, dict) else value
