"""A simulation made ready once and run window by window, each with inputs that are only known by then."""

from __future__ import annotations

from typing import Any

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.simulate._body import OUT
from bdtorch.simulate._choose import check_loop, chosen
from bdtorch.simulate._ready import made_ready
from bdtorch.simulate._run import Run
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops import Loop
from bdtorch.simulate.records import Record
from bdtorch.simulate.solution import Solution


class Windows:
    """Runs windows of a system as `simulate` would, but traces and compiles once.

    Parameters may not be replaced, nor change their values, between windows.

    Args:
        system: What is simulated.
        inputs: Those of a window, as an example: structure, shapes and dtypes of a step stay the same.
        dt: Step, ms.
        state: A state, as an example likewise.
        loop: Time loop, as in `simulate`.

    Raises:
        TypeError, ValueError, LoopError: As `simulate` does.
    """

    def __init__(
        self, system: DynamicalSystem, inputs: Any, *, dt: float, state: State, loop: str | Loop = "auto"
    ) -> None:
        check_loop(loop)
        ready = made_ready(
            system, inputs, dt=dt, state=state, t0=0.0, batch_shape=None, seed=0, record=None,
            further={OUT: Record(lambda after, out: out)},
        )  # fmt: skip
        self.system, self.body = system, ready.body
        self.body.try_out(ready.state, 0)
        self._chosen = chosen(loop, system, self.body, ready.state)

    @property
    def loop(self) -> str:
        """Name of the loop that runs."""
        return self._chosen[0].name

    def __call__(self, state: State, inputs: Any, first: int = 0) -> Solution:
        """Take the steps of a window.

        Args:
            state: State before them.
            inputs: Inputs, with a leading axis time.
            first: Number of the first step, counted from t = 0.

        Returns:
            The solution, with outputs.

        Raises:
            FloatingPointError: A state variable became NaN or infinite.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        self.body.inputs = resolve(inputs, self.system)
        steps = self.body.inputs.steps or 0
        run = Run(self.body, tree.leaves(state), first, steps, True, chunk=steps)
        return run.to_the_end(self._chosen, False).whole()
