"""What takes part in `networks.py`: bdtorch, the hand-written floor, and Brian2 where it is installed."""

from __future__ import annotations

import abc
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.simulate._body import Body
from bdtorch.simulate.loops import Loop
from bdtorch.simulate.loops._loop import Runner
from benchmarks.floor import Floor, Wiring

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """A network to run.

    Attributes:
        network: Module with ``build``, ``initial_state``, ``variables``, ``DRIVE`` and ``DT``.
        neurons: Number of neurons.
        duration: Biological time, ms.
        threads: Threads for those who can use them.
        folder: Where contestants may keep files.
    """

    network: ModuleType
    neurons: int
    duration: float
    threads: int
    folder: Path

    @property
    def steps(self) -> int:
        """Number of steps."""
        return round(self.duration / self.network.DT)

    @property
    def name(self) -> str:
        """Stem of the network's files."""
        return self.network.__name__.rpartition(".")[2]


@dataclass(frozen=True)
class Run:
    """One run: seconds in the time loop, seconds to make it ready, and the mean rate in Hz."""

    seconds: float
    setup: float
    rate: float


def wiring_of(net: bt.Network, state: dict, network: ModuleType) -> Wiring:
    """The network's connectivity and initial state as arrays."""
    pathways: list[Any] = [net.projections[name] for name in ("E->E+I", "I->E+I")]
    excites, inhibits = (pathway.connect for pathway in pathways)
    indptr = torch.cat([excites.indptr, excites.indptr[-1] + inhibits.indptr[1:]])
    indices = torch.cat([excites.indices, inhibits.indices])
    variables = torch.stack(network.variables(state))
    return Wiring(excites.n_pre, indptr.numpy(), indices.numpy(), variables.numpy())


class Contestant(abc.ABC):
    """A simulator with the case loaded."""

    synapses: int
    threads: int = 1
    compile_seconds: float | None = None  # where it is known from building the contestant

    @abc.abstractmethod
    def run(self) -> Run:
        """Simulate from the initial state, recording all spikes."""


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


class Bdtorch(Contestant):
    """`bdtorch.simulate` with the native loop. All of the call but tracing and compiling counts as the run."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.threads = case.threads
        self.net = case.network.build(case.neurons)
        self.state = case.network.initial_state(self.net)
        self.synapses = sum(pathway.connect.synapses for pathway in self.net.projections.values())

    def run(self) -> Run:
        loop = _Timed(bt.Native(threads=self.threads))
        began = time.perf_counter()
        sol = bt.simulate(
            self.net,
            self.case.network.DRIVE,
            dt=self.case.network.DT,
            duration=self.case.duration,
            state=self.state,
            record={"E": bt.spikes("E"), "I": bt.spikes("I")},
            loop=loop,
            progress=False,
        )
        seconds = time.perf_counter() - began
        spikes = len(sol["E"]) + len(sol["I"])
        return Run(seconds - loop.seconds, loop.seconds, spikes / self.case.neurons / (self.case.duration * 1e-3))


class HandWritten(Contestant):
    """The floor, on one thread."""

    def __init__(self, case: Case, wiring: Wiring) -> None:
        self.case = case
        self.wiring = wiring
        self.synapses = len(wiring.indices)

    def run(self) -> Run:
        began = time.perf_counter()
        floor = Floor(self.case.name, self.case.folder)
        ready = time.perf_counter()
        step, _ = floor(self.wiring, self.case.steps, self.case.network.DT)
        seconds = time.perf_counter() - ready
        return Run(seconds, ready - began, len(step) / self.case.neurons / (self.case.duration * 1e-3))


class Brian2(Contestant):
    """A C++ standalone program; the run's seconds are those that it reports for its time loop."""

    def __init__(self, case: Case, wiring: Wiring, python: str) -> None:
        if case.name != "coba":
            raise SystemExit("brian2 takes part in network A only")
        self.case = case
        self.threads = case.threads
        self.synapses = len(wiring.indices)
        self.folder = case.folder / "brian2"
        wiring.save(case.folder / "wiring.npz")
        began = time.perf_counter()
        subprocess.run(
            [
                python, str(ROOT / "benchmarks" / "brian.py"), str(case.folder / "wiring.npz"), str(self.folder),
                "--duration", str(case.duration), "--threads", str(case.threads),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.compile_seconds = time.perf_counter() - began

    def run(self) -> Run:
        began = time.perf_counter()
        subprocess.run([str(self.folder / "main")], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        elapsed = time.perf_counter() - began
        results = self.folder / "results"
        seconds = float((results / "last_run_info.txt").read_text().split()[0])
        (count,) = results.glob("_array_recorded_N_*")
        spikes = int(np.fromfile(count, np.int32)[0])
        return Run(seconds, elapsed - seconds, spikes / self.case.neurons / (self.case.duration * 1e-3))


def environment(cache: Path) -> dict[str, str]:
    """The environment of a fresh process that keeps compiled loops in ``cache``."""
    return os.environ | {"BDTORCH_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
