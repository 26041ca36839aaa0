"""Backpropagation through time in the native loop.

A chunk of steps is one node of autograd's graph. Forward, the loop also keeps of each step's state what the way back
needs. Backward is the same kind of loop over the traced vector-Jacobian product of the step (`reverse.py`), which runs
through the kept states from the last to the first: its state is the gradient with respect to the model's state and the
gradients summed so far. Products that make up the gradient of a matrix are taken for many steps at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import Advance, LoopError, Runner, expect_repeatable
from bdtorch.simulate.loops.native.graph import Graph
from bdtorch.simulate.loops.native.outer import add_outer
from bdtorch.simulate.loops.native.reverse import Factor, Reversed, reversed_graph, sum_over_steps
from bdtorch.simulate.loops.native.runner import NativeRunner
from bdtorch.simulate.loops.native.trace import trace

MakeRunner = Callable[[Any, Graph], NativeRunner]

_CHUNK_BYTES, _BLOCK_BYTES = 1 << 27, 1 << 22  # of kept states in a chunk, of postponed products in a block
_LONGEST = 512  # steps of a chunk or block


class DifferentiableRunner(Runner):
    """Runs chunks that autograd can go back through.

    Args:
        body: The step.
        state: The state at the start, as an example.
        make: Compiles a traced body.
        threads: How many threads share the postponed products.
        interval: Steps between kept states; those between are taken again on the way back. 0: nothing is taken again.
    """

    def __init__(self, body: Body, state: list[Tensor], make: MakeRunner, threads: int, interval: int) -> None:
        self.body = body
        self.make = make
        self.threads = threads
        self.interval = interval
        self.parameters = {
            name: x
            for name, x in (*body.system.named_parameters(), *(body.parameters or {}).items())
            if x.requires_grad
        }
        self.observing = [k for k, (x, sparse) in enumerate(zip(body.observed, body.sparse, strict=True)) if not sparse]
        self.reverse = Reversed(body, state, body.inputs.sequences, body.inputs.constants(), self.parameters)
        self.reduced = reversed_graph(self.reverse)
        after = len(state) + len(body.inputs.sequences) + len(self.reverse.shown)
        needed = self.reduced.inputs
        self.needed = [k for k in range(len(state)) if k in needed or after + k in needed]
        self.plain = _Kept(body, state, list(range(len(state))), interval) if interval else self._every_step()
        graph = trace(self.plain, state, body.start)  # type: ignore[arg-type]
        self._check_sources(graph.captured)
        expect_repeatable(body, state, "native", graph.results[: len(state) + len(body.observed)])
        self.forward_runner = self._made(self.plain, graph)
        self.replay_runner: NativeRunner | None = None if interval else self.forward_runner
        # Traced now, since what the step reads may be another by the time of the way back, as under `functional_call`.
        self.replayed = trace(self._every_step(), state, body.start) if interval else graph  # type: ignore[arg-type]
        self.held = _constants(self.reduced.graph, self.replayed)
        self.backward_runner: NativeRunner | None = None
        self.fixed_chunk = _steps_within(_CHUNK_BYTES, state)

    def _made(self, body: _Kept, graph: Graph) -> NativeRunner:
        made = self.make(body, graph)
        made.with_room = len(body.leaves)
        return made

    def _every_step(self) -> _Kept:
        return _Kept(self.body, self.reverse.state, self.needed, 1)

    def _check_sources(self, captured: list[Tensor]) -> None:
        """A gradient must not be lost: what requires one must come through a door that this node knows."""
        known = {id(x) for x in (*self.parameters.values(), *self.body.inputs.constants())}
        for x in captured:
            if id(x) not in known:
                raise LoopError(
                    f"the native loop cannot run this model: a tensor that requires a gradient, of shape {tuple(x.shape)}, "
                    "is neither a parameter of the system nor part of its state or inputs; pass it as one of these"
                )

    def advance(
        self, state: list[Tensor], sequences: list[Tensor], first: int, count: int, stop: Callable[[], bool]
    ) -> Advance:
        constants = self.body.inputs.constants()
        outcome = _Outcome(self, first, count, len(state), len(sequences), len(constants))
        flat = _Chunk.apply(outcome, *state, *sequences, *constants, *self.parameters.values())
        kept, outcome.kept = outcome.kept, []  # what the node kept of its own outputs would keep the node, for ever
        for number, values in zip(self.observing, flat[len(state) :], strict=True):
            kept[number] = values
        return Advance(list(flat[: len(state)]), outcome.steps, kept)

    def replay(self, state: list[Tensor], sequences: list[Tensor], first: int, count: int) -> dict[int, Tensor]:
        """Take steps again, and keep the states that the way back needs: as `_Kept.trajectories`."""
        if self.replay_runner is None:
            self.replay_runner = self._made(self._every_step(), self.replayed)
        return self._every_step().trajectories(
            state, self.replay_runner.advance(state, sequences, first, count, _never)
        )

    def check_constants(self) -> None:
        """What the way back reads must be what it was, as autograd has it of all that it saves."""
        for x, version in self.held:
            if x._version != version:
                raise RuntimeError(
                    f"a tensor of shape {tuple(x.shape)} that the gradient needs, such as a buffer of the system, has been "
                    "modified by an inplace operation since the simulation; change it after `backward`, or put a new one in "
                    "its place"
                )

    def back(self) -> NativeRunner:
        """The compiled reversed loop, made at the first backward pass."""
        if self.backward_runner is None:
            self.backward_runner = self.make(self.reverse, self.reduced.graph)
            self.backward_runner.backward = True
        return self.backward_runner


def _never() -> bool:
    return False


def _constants(*graphs: Graph) -> list[tuple[Tensor, int]]:
    """The tensors that graphs take as they are, and how often each has been written to."""
    constants = {id(node.source): node.source for graph in graphs for node in graph.nodes if node.kind == "constant"}
    return [(x, x._version) for x in constants.values() if not x.is_inference()]


def _steps_within(limit: int, tensors: list[Tensor]) -> int:
    """How many steps that keep these tensors fit into so many bytes.

    A function of nothing else, for the bits of a sum depend on where it is cut.
    """
    return max(1, min(_LONGEST, limit // max(1, sum(x.numel() * x.element_size() for x in tensors))))


class _Kept:
    """A body that also shows some leaves of the state after every so many steps."""

    def __init__(self, body: Body, state: list[Tensor], leaves: list[int], every: int) -> None:
        self.body = body
        self.leaves = leaves
        self.system, self.alone, self.inputs, self.dt = body.system, body.alone, body.inputs, body.dt
        self.every = body.every + [every] * len(leaves)
        self.sparse = body.sparse + [False] * len(leaves)
        self.observed = body.observed + [state[k].detach() for k in leaves]

    def __call__(self, state: list[Tensor], slices: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        after, observed = self.body(state, slices, t)
        return after, [*observed, *(after[k] for k in self.leaves)]

    def trajectories(self, state: list[Tensor], result: Advance) -> dict[int, Tensor]:
        """By leaf, the states before the first step and after each that was kept."""
        after = result.kept[len(self.body.observed) :]
        return {k: _with_first(state[k].detach(), values) for k, values in zip(self.leaves, after, strict=True)}  # type: ignore[arg-type]


def _with_first(first: Tensor, rest: Tensor) -> Tensor:
    """Put a row in front of records that were kept with room for it."""
    whole = rest.as_strided((len(rest) + 1, *first.shape), (first.numel(), *rest.stride()[1:]), 0)
    whole[0] = first
    return whole


@dataclasses.dataclass(eq=False)
class _Outcome:
    """What passes beside autograd between a chunk's caller, its forward and its backward."""

    runner: DifferentiableRunner
    first: int
    count: int
    states: int
    sequences: int
    constants: int
    steps: int = 0
    kept: list[Any] = dataclasses.field(default_factory=list)

    def parts(self, flat: list[Any]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """Split a flat list into those of state, sequences, constants and parameters."""
        a = self.states
        b = a + self.sequences
        c = b + self.constants
        return flat[:a], flat[a:b], flat[b:c], flat[c:]


class _Chunk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outcome: _Outcome, *flat: Tensor) -> tuple[Tensor, ...]:
        runner = outcome.runner
        state, sequences, _, _ = outcome.parts(list(flat))
        result = runner.forward_runner.advance(state, sequences, outcome.first, outcome.count, _never)
        outcome.steps, outcome.kept = result.steps, result.kept[: len(runner.body.observed)]
        ctx.outcome = outcome
        ctx.save_for_backward(*flat, *runner.plain.trajectories(state, result).values())
        values: list[Tensor] = [result.kept[number] for number in runner.observing]  # type: ignore[misc]
        outputs = (*result.state, *values)
        ctx.mark_non_differentiable(*(x for x in outputs if not x.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            found = _Chunk._gradients(ctx.outcome, list(ctx.saved_tensors), gradients)
        if not torch.is_grad_enabled():
            return found
        # A second derivative may be asked for, by any of these.
        sources = [x for x in (*ctx.saved_tensors, *gradients) if x.requires_grad]
        places = [k for k, x in enumerate(found) if x is not None]
        outputs = dict(zip(places, _Last.apply(len(places), *(found[k] for k in places), *sources), strict=True))
        return tuple(outputs.get(k) for k in range(len(found)))

    @staticmethod
    def _gradients(outcome: _Outcome, saved: list[Tensor], gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        runner = outcome.runner
        runner.check_constants()
        count = outcome.states + outcome.sequences + outcome.constants + len(runner.parameters)
        state, sequences, constants, parameters = outcome.parts(saved[:count])
        way = _WayBack(outcome, sequences, [*constants, *parameters], gradients)
        kept = dict(zip(runner.plain.leaves, saved[count:], strict=True))
        for begin, end, trajectories in _segments(outcome, state, sequences, kept):
            way.go(begin, end, trajectories)
        into_state, into_sequences, into_sums = way.finish()
        return (None, *into_state, *into_sequences, *into_sums)


class _Last(torch.autograd.Function):
    """Gradients as they are, of which there is no other derivative."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "the native loop has no second derivatives: take `loop='reference'` where a gradient is differentiated again"
        )


def _segments(
    outcome: _Outcome, state: list[Tensor], sequences: list[Tensor], kept: dict[int, Tensor]
) -> Iterator[tuple[int, int, dict[int, Tensor]]]:
    """From the last to the first: steps ``begin`` to ``end`` of a chunk, and the states before, between and after them."""
    runner = outcome.runner
    if not runner.interval:
        yield 0, outcome.steps, kept
        return
    begins = [0, *(k for k in range(1, outcome.steps + 1) if (outcome.first + k) % runner.interval == 0)]
    ends = [*begins[1:], outcome.steps]
    for number in reversed(range(len(begins))):
        begin, end = begins[number], ends[number]
        if begin < end:
            before = [kept[k][number] for k in range(len(state))]
            window = [sequence[begin:end] for sequence in sequences]
            yield begin, end, runner.replay(before, window, outcome.first + begin, end - begin)


class _WayBack:
    """The gradients of one chunk on their way through the reversed loop."""

    def __init__(
        self, outcome: _Outcome, sequences: list[Tensor], summed: list[Tensor], gradients: tuple[Tensor, ...]
    ) -> None:
        self.outcome = outcome
        self.runner = outcome.runner
        self.reverse, self.reduced = self.runner.reverse, self.runner.reduced
        self.sequences = [sequence.detach() for sequence in sequences]
        self.shown: list[Tensor] = []
        for number, gradient in zip(self.runner.observing, gradients[outcome.states :], strict=True):
            if number in self.reverse.shown:
                self.shown.append(_spread(gradient, outcome, self.runner.body.every[number]))
        self.summed = [x.dtype for x in summed]
        self.sums = [sum_over_steps(x) for x in summed]
        self.carry = [gradients[k] for k in self.reverse.floating] + [self.sums[k] for k in self.reduced.carried]
        self.into = {k: torch.zeros_like(self.sequences[k]) for k in self.reverse.moving}

    def go(self, begin: int, end: int, trajectories: dict[int, Tensor]) -> None:
        """Through the steps from ``end`` back to ``begin``, block by block."""
        block = _steps_within(_BLOCK_BYTES, self.reverse.observed)
        loop = self.runner.back()
        for high in range(end, begin, -block):
            low = max(begin, high - block)
            window = self._window(low, high, begin, trajectories)
            result = loop.advance(self.carry, window, self.outcome.first + low, high - low, _never)
            self.carry = result.state
            for k, values in zip(self.reverse.moving, result.kept, strict=False):
                self.into[k][low:high] = values  # type: ignore[assignment]
            for outer in self.reduced.products:
                left, right = (self._factor(factor, window, result.kept) for factor in (outer.left, outer.right))
                add_outer(self.sums[outer.total], left, right, self.runner.threads)

    def _factor(self, factor: Factor, window: list[Tensor], kept: list[Any]) -> Tensor:
        values: Tensor = (window if factor.is_input else kept)[factor.number]
        return values.reshape(-1, values.shape[-1])

    def _window(self, low: int, high: int, begin: int, trajectories: dict[int, Tensor]) -> list[Tensor]:
        """The inputs of the reversed loop; those that it does not need are left empty."""
        none = torch.empty(0)
        leaves = range(self.outcome.states)
        before = [trajectories[k][low - begin : high - begin] if k in trajectories else none for k in leaves]
        after = [trajectories[k][low - begin + 1 : high - begin + 1] if k in trajectories else none for k in leaves]
        return before + [x[low:high] for x in (*self.sequences, *self.shown)] + after

    def finish(self) -> tuple[list[Tensor | None], list[Tensor | None], list[Tensor | None]]:
        """The gradients of state, sequences, and constants and parameters; None where a step does not use one."""
        into_state: list[Tensor | None] = [None] * self.outcome.states
        floating = len(self.reverse.floating)
        for k, gradient in zip(self.reverse.floating, self.carry[:floating], strict=True):
            into_state[k] = gradient
        for k, total in zip(self.reduced.carried, self.carry[floating:], strict=True):
            self.sums[k] = total
        sums = [
            None if k in self.reverse.idle else total.to(dtype)
            for k, (total, dtype) in enumerate(zip(self.sums, self.summed, strict=True))
        ]
        return into_state, [self.into.get(k) for k in range(self.outcome.sequences)], sums


def _spread(gradient: Tensor, outcome: _Outcome, every: int) -> Tensor:
    """The gradient of a record at every step: zero where nothing was kept."""
    if every == 1:
        return gradient
    number = torch.arange(outcome.first + 1, outcome.first + outcome.steps + 1)
    whole = gradient.new_zeros((outcome.steps, *gradient.shape[1:]))
    return whole.index_copy(0, (number % every == 0).nonzero()[:, 0], gradient)
