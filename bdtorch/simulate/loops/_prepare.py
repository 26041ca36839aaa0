"""The loops as `bdtorch.integrate` sees them: a step function in place of a system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.integrate import Prepared, Step
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import Inputs
from bdtorch.simulate.loops._loop import Loop, LoopError
from bdtorch.simulate.records import Record


class _Stepper(DynamicalSystem):
    """A step function in the place of a system. Its time is the number of the step, so its ``dt`` is 1."""

    def __init__(self, function: Step, device: torch.device) -> None:
        super().__init__(device=device)
        self.function = function

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        raise TypeError("a solver's step has no initial state of its own: the solver hands it one")

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Any]:
        return self.function(state, inputs, t)


def prepare(loop: Loop, step: Step, state: State, sequences: Any, every: int, lends: bool) -> Prepared:
    """Make ``loop`` ready for a step function; see `bdtorch.integrate.TimeLoop`.

    Raises:
        LoopError: the loop is a compiled one, and the state asks for a gradient or belongs to a `torch.func` transform;
            or the step holds something that this loop cannot run.
    """
    flat, spec = tree.flatten(state)
    rows, rows_spec = tree.flatten(sequences)
    system = _Stepper(step, flat[0].device)
    inputs = Inputs(list(range(len(rows))), rows_spec, rows)
    body = Body(system, inputs, {"out": Record(lambda after, out: out, every)}, state, 1.0)
    body.try_out(flat, 0)
    if loop.name == "native" and (torch._C._are_functorch_transforms_active() or body.differentiable):
        raise LoopError(
            "the native loop runs outside torch.func transforms and without gradients; leave `loop` out, "
            "or wrap the call in torch.no_grad()"
        )
    (structure,) = body.structures
    runner = loop.start(body, flat)
    runner.lends = lends

    def advance(state: State, slices: Any, first: int, count: int) -> tuple[State, Any]:
        values, done, parts = tree.leaves(state), 0, []
        window = tree.leaves(slices)
        while done < count:
            rest = [leaf[done:] for leaf in window]
            result = runner.advance(values, rest, first + done, count - done, _never)
            values, done = result.state, done + result.steps
            part = tree.unflatten(result.kept, structure)
            parts.append(tree.map(torch.clone, part) if lends and done < count else part)
        kept = parts[0] if len(parts) == 1 else tree.map(lambda *leaves: torch.cat(leaves), parts[0], *parts[1:])
        return tree.unflatten(values, spec), kept

    return advance


_never: Callable[[], bool] = lambda: False  # noqa: E731
