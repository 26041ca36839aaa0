"""Systems made of one function, and their runs through the native and the reference loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch._system import Parametrised
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.records import Record

Step = Callable[[list[Tensor], Tensor], tuple[Sequence[Tensor], Any]]
"""``(state, t) -> (new state, output)``"""


class Stepping(bt.DynamicalSystem):
    """A system whose state is a list of given tensors, whatever their dtypes, and whose step is a function."""

    def __init__(self, step: Step, *state: Tensor) -> None:
        floating = list(dict.fromkeys(leaf.dtype for leaf in state if leaf.is_floating_point()))
        super().__init__((), dtype=floating[0] if floating else None)
        self.parts = nn.ModuleList(Parametrised(dtype=dtype) for dtype in floating[1:])
        self.function = step
        self.initial = {f"x{number}": leaf for number, leaf in enumerate(state)}

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
        return dict(self.initial)

    def step(self, state: dict[str, Tensor], inputs: Any, t: Tensor, dt: float) -> tuple[dict[str, Tensor], Any]:
        after, out = self.function(list(state.values()), t)
        return dict(zip(state, after, strict=True)), out


def run(step: Step, *state: Tensor, loop: Any, steps: int = 3, **options: Any) -> bt.Solution:
    """Run a step from the given state, and keep every output."""
    system = Stepping(step, *state)
    with torch.no_grad():
        return bt.simulate(
            system, dt=0.1, duration=steps * 0.1, loop=loop, check_finite=False, keep_out=True, **options
        )


def both(step: Step, *state: Tensor, steps: int = 3, threads: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """All outputs and final states of the native loop, and those of the reference loop."""
    loops = (bt.Native(threads=threads), "reference")
    native, reference = (run(step, *state, loop=loop, steps=steps) for loop in loops)
    return flat(native), flat(reference)


def flat(solution: bt.Solution) -> list[Tensor]:
    """Every tensor that a run leaves."""
    return [*torch.utils._pytree.tree_leaves(solution.out), *solution.state.values()]


def assert_same(native: Tensor, reference: Tensor, *, exact: bool, units: float = 16) -> None:
    """Equal to the bit (zeros of either sign alike, as are all NaN), or within some units of the epsilon."""
    assert native.dtype == reference.dtype and native.shape == reference.shape
    if exact or not native.is_floating_point():
        torch.testing.assert_close(native, reference, rtol=0.0, atol=0.0, equal_nan=True)
    else:
        tolerance = units * torch.finfo(native.dtype).eps
        torch.testing.assert_close(native, reference, rtol=tolerance, atol=tolerance, equal_nan=True)


def body_of(step: Step, *state: Tensor) -> Body:
    """What the loops are handed."""
    system = Stepping(step, *state)
    body = Body(system, resolve(None, system), {"out": Record(lambda after, out: out)}, system.initial, 0.1)
    body.try_out(list(state), 0)
    return body
