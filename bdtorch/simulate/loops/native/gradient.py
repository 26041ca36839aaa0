"""Backpropagation through time in the native loop.

A chunk of steps is one node of autograd's graph. Forward, the loop also keeps the state before each step. Backward is
the same kind of loop over the traced vector-Jacobian product of the step: its state is the gradient with respect to the
model's state and the gradients summed so far, its inputs are the kept states in reverse. Each step is computed again
within the reversed step, so nothing but the states is kept.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bdtorch.simulate._body import Body
from bdtorch.simulate.loops._loop import Advance, LoopError, Runner
from bdtorch.simulate.loops.native.runner import NativeRunner

MakeRunner = Callable[[Any, list[Tensor]], NativeRunner]


class DifferentiableRunner(Runner):
    """Runs chunks that autograd can go back through.

    Args:
        body: The step.
        state: The state at the start, as an example.
        make: Traces and compiles a body.
        recompute: Keep only the state at the start of a chunk, and run the chunk again before going back through it.
    """

    def __init__(self, body: Body, state: list[Tensor], make: MakeRunner, recompute: bool) -> None:
        self.body = body
        self.make = make
        self.recompute = recompute
        self.parameters = {
            name: x
            for name, x in (*body.system.named_parameters(), *(body.parameters or {}).items())
            if x.requires_grad
        }
        self.observing = [k for k, (x, sparse) in enumerate(zip(body.observed, body.sparse, strict=True)) if not sparse]
        self.kept_runner = make(_Kept(body, state), state)
        self._check_sources(self.kept_runner.graph.captured)
        self.plain_runner = make(body, state) if recompute else self.kept_runner
        self.backward_runner: Runner | None = None

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
        kept = list(outcome.kept)
        for number, values in zip(self.observing, flat[len(state) :], strict=True):
            kept[number] = values
        return Advance(list(flat[: len(state)]), outcome.steps, kept)

    def back(self, example: _Reversed, carry: list[Tensor]) -> Runner:
        """The compiled reversed loop, made at the first backward pass."""
        if self.backward_runner is None:
            self.backward_runner = self.make(example, carry)
        return self.backward_runner


class _Kept:
    """A body that also shows the state after each step."""

    def __init__(self, body: Body, state: list[Tensor]) -> None:
        self.body = body
        self.system, self.inputs, self.dt = body.system, body.inputs, body.dt
        self.every = body.every + [1] * len(state)
        self.sparse = body.sparse + [False] * len(state)
        self.observed = body.observed + [leaf.detach() for leaf in state]

    def __call__(self, state: list[Tensor], slices: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        after, observed = self.body(state, slices, t)
        return after, [*observed, *after]


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
        engine = runner.plain_runner if runner.recompute else runner.kept_runner
        result = engine.advance(state, sequences, outcome.first, outcome.count, lambda: False)
        observed = len(runner.body.observed)
        outcome.steps, outcome.kept = result.steps, result.kept[:observed]
        trajectory = [] if runner.recompute else _before(state, result.kept[observed:])
        ctx.outcome = outcome
        ctx.save_for_backward(*flat, *trajectory)
        values = _dense(result.kept, runner.observing)
        outputs = (*result.state, *values)
        ctx.mark_non_differentiable(*(x for x in outputs if not x.is_floating_point()))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        outcome: _Outcome = ctx.outcome
        runner = outcome.runner
        saved = list(ctx.saved_tensors)
        count = outcome.states + outcome.sequences + outcome.constants + len(runner.parameters)
        flat, trajectory = saved[:count], saved[count:]
        state, sequences, constants, parameters = outcome.parts(flat)
        if runner.recompute:
            again = runner.kept_runner.advance(state, sequences, outcome.first, outcome.steps, lambda: False)
            trajectory = _before(state, again.kept[len(runner.body.observed) :])
        reverse = _Reversed(
            runner.body, state, sequences, constants, dict(zip(runner.parameters, parameters, strict=True))
        )
        carry = reverse.start(gradients[: outcome.states])
        steps = outcome.steps
        window = [sequence[:steps].flip(0) for sequence in (*trajectory, *sequences)]
        numbers = torch.arange(outcome.first, outcome.first + steps, dtype=torch.float64)
        window.append((numbers * runner.body.dt).flip(0))
        for number, gradient in zip(runner.observing, gradients[outcome.states :], strict=True):
            if runner.body.observed[number].is_floating_point():
                window.append(_spread(gradient, outcome, runner.body.every[number]).flip(0))
        result = runner.back(reverse, carry).advance(carry, window, 0, steps, lambda: False)
        into_state, into_constants, into_parameters = reverse.finish(result.state)
        shown = _dense(result.kept, range(len(result.kept)))
        into_sequences = reverse.per_step([kept.flip(0) for kept in shown], outcome)
        return (None, *into_state, *into_sequences, *into_constants, *into_parameters)


def _dense(kept: list[Tensor | tuple[Tensor, Tensor]], numbers: Iterable[int]) -> list[Tensor]:
    """The kept values of records that are not sparse."""
    return [kept[number] for number in numbers]  # type: ignore[misc]


def _before(state: list[Tensor], after: list[Any]) -> list[Tensor]:
    """The states before each step, from the first one and those after each step."""
    return [torch.cat([first.detach()[None], rest[:-1]]) for first, rest in zip(state, after, strict=True)]


def _spread(gradient: Tensor, outcome: _Outcome, every: int) -> Tensor:
    """The gradient of a record at every step: zero where nothing was kept."""
    if every == 1:
        return gradient
    number = torch.arange(outcome.first + 1, outcome.first + outcome.steps + 1)
    whole = gradient.new_zeros((outcome.steps, *gradient.shape[1:]))
    return whole.index_copy(0, (number % every == 0).nonzero()[:, 0], gradient)


class _Reversed:
    """The body of the reversed loop: the vector-Jacobian product of one step.

    Its state: the gradient with respect to every floating leaf of the model's state, and the sums for constant inputs and
    parameters. Its inputs: the model's state before the step, the step's input slices, its time, and the gradients of
    what it showed. What it shows: the gradients with respect to the floating input slices.
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
        self.system, self.dt = body.system, body.dt
        self.state, self.sequences = state, sequences
        self.constants, self.parameters = constants, parameters
        self.floating = [k for k, x in enumerate(state) if x.is_floating_point()]
        self.shown = [
            k for k, (x, sparse) in enumerate(zip(body.observed, body.sparse, strict=True))
            if x.is_floating_point() and not sparse
        ]  # fmt: skip
        self.moving = [k for k, x in enumerate(sequences) if x.is_floating_point()]
        self.observed = [sequences[k][0] for k in self.moving]
        self.every = [1] * len(self.observed)
        self.sparse = [False] * len(self.observed)
        example = [x[None] for x in state] + [x[:1] for x in sequences] + [torch.zeros(1, dtype=torch.float64)]
        example += [torch.zeros_like(body.observed[k])[None] for k in self.shown]
        self.inputs = dataclasses.replace(body.inputs, sequences=example)

    def start(self, gradients: tuple[Tensor, ...]) -> list[Tensor]:
        """The reversed loop's state before its first step."""
        into_state = [gradients[k].contiguous() for k in self.floating]
        return into_state + [torch.zeros_like(x) for x in (*self.constants, *self.parameters.values())]

    def finish(self, carry: list[Tensor]) -> tuple[list[Tensor | None], list[Tensor], list[Tensor]]:
        """Its state after the last step, as gradients of state, constants and parameters."""
        into_state: list[Tensor | None] = [None] * len(self.state)
        for k, gradient in zip(self.floating, carry, strict=False):
            into_state[k] = gradient
        rest = carry[len(self.floating) :]
        return into_state, rest[: len(self.constants)], rest[len(self.constants) :]

    def per_step(self, kept: list[Tensor], outcome: _Outcome) -> list[Tensor | None]:
        """What it showed, as gradients of the sequences; steps that were not taken have none."""
        into: list[Tensor | None] = [None] * len(self.sequences)
        for k, gradient in zip(self.moving, kept, strict=True):
            missing = outcome.count - outcome.steps
            into[k] = torch.cat([gradient, gradient.new_zeros((missing, *gradient.shape[1:]))]) if missing else gradient
        return into

    def __call__(self, carry: list[Tensor], slices: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        del t  # time runs backward, and comes as an input
        states, sequences = len(self.state), len(self.sequences)
        with torch.enable_grad():
            state, inputs, constants, parameters = (
                [_leaf(x) for x in group]
                for group in (
                    slices[:states], slices[states : states + sequences], self.constants, self.parameters.values(),
                )
            )  # fmt: skip
            after, observed = self._replaced(constants, parameters)(state, inputs, slices[states + sequences])
            shown = [observed[k] for k in self.shown]
            outputs = [after[k] for k in self.floating] + shown
            gradients = carry[: len(self.floating)] + slices[states + sequences + 1 :]
            sources = [state[k] for k in self.floating] + [inputs[k] for k in self.moving] + constants + parameters
            pulled = _pull(outputs, sources, gradients)
        a, b = len(self.floating), len(self.floating) + len(self.moving)
        sums = [total + more for total, more in zip(carry[a:], pulled[b:], strict=True)]
        return pulled[:a] + sums, pulled[a:b]

    def _replaced(self, constants: list[Tensor], parameters: list[Tensor]) -> Body:
        """The model's body over these constants and parameters."""
        body = copy.copy(self.body)
        places = iter(constants)
        leaves = [next(places) if isinstance(leaf, Tensor) else leaf for leaf in body.inputs.leaves]
        body.inputs = dataclasses.replace(body.inputs, leaves=leaves)
        named = dict(zip(self.parameters, parameters, strict=True))
        body.parameters = {**(body.parameters or {}), **named} or None
        return body


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_() if x.is_floating_point() else x


def _pull(outputs: list[Tensor], sources: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Vector-Jacobian product; zeros where a source has no part in the outputs."""
    pairs = [(y, g) for y, g in zip(outputs, gradients, strict=True) if y.requires_grad]
    if not pairs or not sources:
        return [torch.zeros_like(x) for x in sources]
    ends, weights = zip(*pairs, strict=True)
    pulled = torch.autograd.grad(ends, sources, weights, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(pulled, sources, strict=True)]
