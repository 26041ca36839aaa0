"""The reversed step of backpropagation through time: traced, and reduced to what must happen step by step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from bdtorch.ops.csr import dtype_of_sums
from bdtorch.simulate._body import Body
from bdtorch.simulate.loops.native.graph import Graph, Node, pruned, replaced
from bdtorch.simulate.loops.native.trace import trace


class Reversed:
    """The body of the reversed loop: the vector-Jacobian product of one step.

    Its state: the gradient with respect to every floating leaf of the model's state, and the sums for constant inputs and
    parameters. Its inputs: the model's state before the step, the step's input slices, the gradients of what it showed,
    and the model's state after the step. What it shows: the gradients with respect to the input slices that want one, and
    the state after the step as it finds it, which `reversed_graph` replaces by the one that is known.
    """

    def __init__(
        self,
        body: Body,
        state: list[Tensor],
        sequences: list[Tensor],
        constants: list[Tensor],
        parameters: dict[str, Tensor],
    ) -> None:
        self.body = body
        self.system, self.alone, self.dt = body.system, body.alone, body.dt
        self.state, self.sequences = state, sequences
        self.constants, self.parameters = constants, parameters
        self.floating = [k for k, x in enumerate(state) if x.is_floating_point()]
        self.shown = [
            k for k, (x, sparse) in enumerate(zip(body.observed, body.sparse, strict=True))
            if x.is_floating_point() and not sparse
        ]  # fmt: skip
        self.moving = [k for k, x in enumerate(sequences) if x.requires_grad]
        slices = [x.detach()[0] if len(x) else x.new_zeros(x.shape[1:]) for x in sequences]
        example = [x.detach() for x in state] + slices + [torch.zeros_like(body.observed[k]) for k in self.shown]
        example += [x.detach().clone() for x in state]
        self.inputs = dataclasses.replace(body.inputs, sequences=[x[None] for x in example])
        self.idle: set[int] = set()  # sums of constants and parameters that no step uses, known once traced
        self.keep([slices[k] for k in self.moving])

    def keep(self, observed: list[Tensor]) -> None:
        """Declare what the loop keeps of every step."""
        self.observed = observed
        self.every = [1] * len(observed)
        self.sparse = [False] * len(observed)

    def carry(self) -> list[Tensor]:
        """An example of the reversed loop's state."""
        floating = [self.state[k].detach() for k in self.floating]
        return floating + [sum_over_steps(x.detach()) for x in (*self.constants, *self.parameters.values())]

    def __call__(self, carry: list[Tensor], slices: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        states, sequences, shown = len(self.state), len(self.sequences), len(self.shown)
        with torch.enable_grad(), _own_saved_tensors():
            state, inputs, constants, parameters = (
                [_leaf(x) for x in group]
                for group in (
                    slices[:states], slices[states : states + sequences], self.constants, self.parameters.values(),
                )
            )  # fmt: skip
            after, observed = self._replaced(constants, parameters)(state, inputs, t)
            outputs = [after[k] for k in self.floating] + [observed[k] for k in self.shown]
            gradients = carry[: len(self.floating)] + slices[states + sequences : states + sequences + shown]
            sources = [state[k] for k in self.floating] + [inputs[k] for k in self.moving] + constants + parameters
            pulled = _pull(outputs, sources, gradients)
        a, b = len(self.floating), len(self.floating) + len(self.moving)
        self.idle = {number for number, more in enumerate(pulled[b:]) if more is None}
        sums = [
            total if more is None else total + more.to(total.dtype)
            for total, more in zip(carry[a:], pulled[b:], strict=True)
        ]
        into = [torch.zeros_like(x) if g is None else g for g, x in zip(pulled[:b], sources[:b], strict=True)]
        return into[:a] + sums, into[a:b] + after

    def _replaced(self, constants: list[Tensor], parameters: list[Tensor]) -> Body:
        """The model's body over these constants and parameters."""
        body = copy.copy(self.body)
        body.inputs = body.inputs.with_constants(constants)
        named = dict(zip(self.parameters, parameters, strict=True))
        body.parameters = {**(body.parameters or {}), **named} or None
        return body


def sum_over_steps(x: Tensor) -> Tensor:
    """Where the gradient by ``x`` is summed, in float32 for numbers of two bytes: many small parts are too much for these."""
    return torch.zeros_like(x, dtype=dtype_of_sums(x), memory_format=torch.contiguous_format)


def _own_saved_tensors() -> contextlib.AbstractContextManager[object]:
    """What the caller does with saved tensors, such as recomputing them later, is not for this graph.

    Without a caller's hooks there are none at all, for `torch.func` takes none.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_() if x.is_floating_point() else x.detach()


def _pull(outputs: list[Tensor], sources: list[Tensor], gradients: list[Tensor]) -> list[Tensor | None]:
    """Vector-Jacobian product; None where a source has no part in the outputs."""
    pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if y.requires_grad]
    if not pairs or not sources:
        return [None] * len(sources)
    ends, weights = zip(*pairs, strict=True)
    return list(torch.autograd.grad(ends, sources, weights, allow_unused=True))


@dataclasses.dataclass(frozen=True)
class Factor:
    """One side of a postponed product, at every step: an input of the reversed loop, or something that it shows."""

    is_input: bool
    number: int


@dataclasses.dataclass(frozen=True)
class Outer:
    """The sum over steps and batch of ``left_i right_j``, part of the gradient of a matrix.

    Attributes:
        total: Number of the sum, among those of constants and parameters.
        left: Factor of shape ``(rows, n)``.
        right: Factor of shape ``(rows, m)``.
    """

    total: int
    left: Factor
    right: Factor


@dataclasses.dataclass(eq=False)
class Reduced:
    """The reversed step without what need not happen step by step.

    Attributes:
        graph: The step; its state holds no sum that is made of postponed products alone.
        carried: Numbers of the sums that the loop carries.
        products: What is to be summed over all steps at once.
        inputs: Numbers of the inputs that it needs, counted as those of `Reversed`.
    """

    graph: Graph
    carried: list[int]
    products: list[Outer]
    inputs: set[int]


def reversed_graph(body: Reversed) -> Reduced:
    """Trace the reversed step and reduce it.

    The state after the step is known, so that what only serves to compute it again falls away; and products that are
    summed over time are postponed, to be taken for many steps at once.
    """
    graph = trace(body, body.carry())  # type: ignore[arg-type]
    floating, shown = len(body.floating), len(body.moving)
    first = len(body.state) + len(body.sequences) + len(body.shown)
    known = {
        node: Node(-number - 1, "sequence", node.shape, node.dtype, source=first + number)
        for number, node in enumerate(graph.observed[shown:])
        if node.kind == "op"
    }
    outputs = replaced([*graph.state, *graph.observed[:shown]], known)
    state, observed = outputs[: len(graph.state)], outputs[len(graph.state) :]
    products: list[Outer] = []
    carried: list[int] = []
    for total, node in enumerate(state[floating:]):
        pairs = _outer_products(node, floating + total)
        if pairs is None:
            carried.append(total)
            continue
        for left, right in pairs:
            products.append(Outer(total, _factor(left, observed), _factor(right, observed)))
    kept = state[:floating] + [state[floating + total] for total in carried]
    body.keep([torch.empty(node.shape, dtype=node.dtype) for node in observed])
    reduced = pruned(kept, observed, graph.captured)
    places = {number: place for place, number in enumerate([*range(floating), *(floating + k for k in carried)])}
    inputs = {factor.number for outer in products for factor in (outer.left, outer.right) if factor.is_input}
    for node in reduced.nodes:
        if node.kind == "state":
            node.source = places[node.source]
        elif node.kind == "sequence":
            inputs.add(node.source)
    return Reduced(reduced, carried, products, inputs)


def _factor(node: Node, observed: list[Node]) -> Factor:
    if node.kind == "sequence":
        return Factor(True, node.source)
    if node not in observed:
        observed.append(node)
    return Factor(False, observed.index(node))


def _outer_products(node: Node, total: int) -> list[tuple[Node, Node]] | None:
    """The pairs that a sum grows by in a step, where it grows by outer products alone."""
    if node.kind == "state":
        return [] if node.source == total else None
    if node.op != "aten.add.Tensor" or len(node.args) > 2 or node.kwargs:
        return None
    sum_so_far, more = node.args
    grows = isinstance(sum_so_far, Node) and sum_so_far.kind == "state" and sum_so_far.source == total
    return _pairs(more) if grows else None


def _pairs(node: Any) -> list[tuple[Node, Node]] | None:
    """``node`` as a sum of products ``left.T @ right``."""
    if not isinstance(node, Node) or len(node.shape) != 2:
        return None
    if _is_transpose(node):
        inner = _pairs(node.args[0])
        return None if inner is None else [(right, left) for left, right in inner]
    if node.op == "aten.add.Tensor" and len(node.args) == 2 and not node.kwargs:
        parts = [_pairs(x) for x in node.args]
        return None if parts[0] is None or parts[1] is None else parts[0] + parts[1]
    if node.op != "aten.mm.default" or not _is_transpose(node.args[0]):
        return None
    left, right = node.args[0].args[0], node.args[1]
    constant = any(x.kind == "constant" or x.op == "full" for x in (left, right))
    return None if constant or left.dtype != node.dtype or right.dtype != node.dtype else [(left, right)]


def _is_transpose(node: Node) -> bool:
    if len(node.shape) != 2:
        return False
    swaps = node.op == "aten.transpose.int" and node.args[1] % 2 != node.args[2] % 2
    permutes = node.op == "aten.permute.default" and [axis % 2 for axis in node.args[1]] == [1, 0]
    return node.op == "aten.t.default" or swaps or permutes
