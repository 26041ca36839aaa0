"""The native loop: the step traced once, printed as C++ with the time loop inside, compiled and cached."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate._collector import collector_paused
from bdtorch.simulate._serial import in_this_thread
from bdtorch.simulate.loops._loop import Loop, LoopError, Runner, expect_pure, expect_repeatable
from bdtorch.simulate.loops.native.gradient import DifferentiableRunner
from bdtorch.simulate.loops.native.graph import Graph
from bdtorch.simulate.loops.native.made import loop_of
from bdtorch.simulate.loops.native.runner import Crew, NativeRunner
from bdtorch.simulate.loops.native.trace import trace

_ELEMENTS_PER_THREAD = 20_000  # below this, meeting other threads costs more than they save
_INTERVAL = 32  # steps between kept states where a run is to be recomputed


def _outside_inference_mode() -> AbstractContextManager[Any]:
    """Within `torch.inference_mode` torch does not take operations apart, such as dropout that drops nothing."""
    if not torch.is_inference_mode_enabled():
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.no_grad())
    return stack


@dataclass(frozen=True)
class Native(Loop):
    """Compile the whole time loop for the CPU.

    Results do not depend on the number of threads, nor on how the run is cut into chunks. Arithmetic follows IEEE rules
    in the order of the model's operations, so a model made of +, -, *, / and comparisons gives the very bits of the
    reference loop; elementary functions, sums and matrix products may differ in the last place.

    Args:
        threads: Number of threads; default one, or as many as `torch.get_num_threads` says where that proves faster.
        recompute: Where a gradient is needed, keep the state only every so many steps (32 for True), and take the steps
            between again on the way back: less memory, for the time of another run forward. By default what the way
            back needs of every step's state is kept.
    """

    threads: int | None = None
    recompute: bool | int = False
    name = "native"

    def __post_init__(self) -> None:
        if self.threads is not None and (type(self.threads) is not int or self.threads < 1):
            raise ValueError(f"`Native(threads=...)`: expected a positive integer or None, got {self.threads!r}")
        if not isinstance(self.recompute, int) or self.recompute < 0:
            raise ValueError(
                f"`Native(recompute=...)`: expected True, False or a number of steps, got {self.recompute!r}"
            )

    def _interval(self) -> int:
        """Steps between kept states, or 0 where all are kept."""
        return _INTERVAL if self.recompute is True else int(self.recompute)

    def start(self, body: Body, state: list[Tensor]) -> Runner:
        if body.system.device.type != "cpu":
            raise LoopError(f"the native loop runs on the CPU, and this system is on {body.system.device}")
        with collector_paused(), _outside_inference_mode():
            return self._start(body, state)

    def _start(self, body: Body, state: list[Tensor]) -> Runner:
        if body.differentiable:
            expect_pure(body, self.name)
            return DifferentiableRunner(body, state, self._made, self.threads or 1, self._interval())
        with in_this_thread(sum(leaf.numel() for leaf in state)):
            graph = trace(body, state, body.start)  # which names the line of what it cannot follow
        expect_pure(body, self.name)
        expect_repeatable(body, state, self.name, graph.results)
        return self._made(body, graph)

    def _made(self, body: Body, graph: Graph) -> NativeRunner:
        loop, constants = loop_of(body, graph)
        return NativeRunner(body, loop, constants, self._crew(loop.work))

    def _crew(self, work: int) -> Crew:
        if self.threads is not None:
            return Crew(self.threads)
        most = min(torch.get_num_threads(), work // _ELEMENTS_PER_THREAD)
        return Crew(1, most) if most > 1 else Crew(1)
