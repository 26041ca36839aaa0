"""`bdtorch.simulate` with a compiled loop; all of the call but tracing and compiling counts as the run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate._body import Body
from bdtorch.simulate.loops import Loop
from bdtorch.simulate.loops._loop import Runner
from bdtorch.simulate.loops.inductor import InductorRunner
from benchmarks.simulators import DT, Case, Run, Simulator


class Timed(Loop):
    """A loop that notes how long it takes to be made ready."""

    def __init__(self, loop: Loop, clock: Callable[[], float]) -> None:
        self.loop = loop
        self.clock = clock
        self.name = loop.name
        self.seconds = 0.0

    def start(self, body: Body, state: list[Tensor]) -> Runner:
        began = self.clock()
        self.runner = self.loop.start(body, state)
        self.seconds = self.clock() - began
        self.before = self._in_chunks()
        return self.runner

    def _in_chunks(self) -> float:
        """Seconds that the inductor loop has spent on compiling chunks, which it does on the way."""
        return sum(self.runner.chunks.paces[False].seconds.values()) if isinstance(self.runner, InductorRunner) else 0.0

    def compilation(self) -> float:
        """Seconds of tracing and compiling until now."""
        return self.seconds + self._in_chunks() - self.before


class Contestant(Simulator):
    """The network as its module in `benchmarks` builds it; compiled loops are cached in `$BDTORCH_CACHE_DIR`."""

    def __init__(self, case: Case) -> None:
        torch.set_num_threads(case.threads)
        module = importlib.import_module(f"benchmarks.{case.stem}")
        self.case = case
        self.drive = module.DRIVE
        self.net = module.build(case.neurons)
        self.state = module.initial_state(self.net)
        self.synapses = sum(pathway.connect.synapses for pathway in self.net.projections.values())

    def run(self) -> Run:
        loop = bt.Inductor() if self.case.simulator == "bdtorch-inductor" else bt.Native(threads=self.case.threads)
        return timed_run(self.net, self.drive, self.state, self.case.duration, loop)


def timed_run(
    net: bt.Network,
    drive: Any,
    state: Any,
    duration: float,
    named: Loop,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Simulate for ``duration`` ms, recording the spikes of all neurons."""
    loop = Timed(named, clock)
    neurons = [name for name, part in net.populations.items() if part.takes_input]
    began = clock()
    sol = bt.simulate(
        net,
        drive,
        dt=DT,
        duration=duration,
        state=state,
        record={name: bt.spikes(name) for name in neurons},
        loop=loop,
        progress=False,
    )
    seconds = clock() - began
    return Run(seconds - loop.compilation(), loop.compilation(), sum(len(sol[name]) for name in neurons))
