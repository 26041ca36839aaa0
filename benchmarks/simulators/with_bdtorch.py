"""`bdtorch.simulate` with the native loop; all of the call but tracing and compiling counts as the run."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate._body import Body
from bdtorch.simulate.loops import Loop
from bdtorch.simulate.loops._loop import Runner
from benchmarks import balanced
from benchmarks.simulators import DT, NETWORKS, Case, Run, Simulator
from benchmarks.wiring import Wiring


class _Timed(Loop):
    """A loop that notes how long it takes to be made ready."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.name = loop.name
        self.seconds = 0.0

    def start(self, body: Body, state: list[Tensor]) -> Runner:
        began = time.perf_counter()
        runner = self.loop.start(body, state)
        self.seconds = time.perf_counter() - began
        return runner


class Contestant(Simulator):
    """The network as its module in `benchmarks` builds it; compiled loops are cached in `$BDTORCH_CACHE_DIR`."""

    def __init__(self, case: Case) -> None:
        self.case = case
        torch.set_num_threads(case.threads)
        self.module = importlib.import_module(f"benchmarks.{case.stem}")
        self.net = self.module.build(case.neurons)
        self.state = self.module.initial_state(self.net)
        self.synapses = sum(pathway.connect.synapses for pathway in self.net.projections.values())

    def run(self) -> Run:
        loop = _Timed(bt.Native(threads=self.case.threads))
        began = time.perf_counter()
        sol = bt.simulate(
            self.net,
            self.module.DRIVE,
            dt=DT,
            duration=self.case.duration,
            state=self.state,
            record={"E": bt.spikes("E"), "I": bt.spikes("I")},
            loop=loop,
            progress=False,
        )
        seconds = time.perf_counter() - began
        return Run(seconds - loop.seconds, loop.seconds, len(sol["E"]) + len(sol["I"]))


def wiring_of(net: bt.Network, state: dict, module: Any) -> Wiring:
    """The network's connectivity and initial state as arrays."""
    pathways: list[Any] = [net.projections[name] for name in (balanced.EXCITATION, balanced.INHIBITION)]
    excites, inhibits = (pathway.connect for pathway in pathways)
    indptr = torch.cat([excites.indptr, excites.indptr[-1] + inhibits.indptr[1:]])
    indices = torch.cat([excites.indices, inhibits.indices])
    variables = torch.stack(module.variables(state))
    return Wiring(excites.n_pre, indptr.numpy(), indices.numpy(), variables.numpy())


def write_wiring(network: str, neurons: int, file: Path) -> None:
    """Write what the other simulators read."""
    module = importlib.import_module(f"benchmarks.{NETWORKS[network][0]}")
    net = module.build(neurons)
    wiring_of(net, module.initial_state(net), module).save(file)
