"""The simulators that `networks.py` compares, each behind the same small interface, each in a process of its own."""

from __future__ import annotations

import abc
import argparse
from dataclasses import dataclass, field
from pathlib import Path

MODULES = {
    "bdtorch": "with_bdtorch",
    "bdtorch-inductor": "with_bdtorch",
    "floor": "by_hand",
    "brian2": "with_brian2",
    "brian2-synaptic": "with_brian2",
    "brainpy": "with_brainpy",
}
"""Module of each simulator; ``brian2-synaptic`` keeps network D's traces per synapse, as its documentation does.
``bdtorch`` is its native loop."""

NETWORKS = {"A": ("coba", 4000, 1000.0), "B": ("cobahh", 4000, 1000.0), "C": ("brunel", 10_000, 1000.0),
            "D": ("stdp", 1000, 10_000.0)}  # fmt: skip
"""Stem of each network's files, its usual number of neurons, and the biological time of a run, ms."""

DT = 0.1
"""Step of all networks, ms."""


@dataclass(frozen=True)
class Case:
    """A network to run.

    Attributes:
        network: Letter of the network.
        neurons: Number of neurons.
        duration: Biological time, ms.
        threads: Number of threads, for those who can use them.
        folder: Where the simulator may keep files; what it finds there it may use again.
        wiring: File of synapses and initial values.
        simulator: Name of the simulator.
    """

    network: str
    neurons: int
    duration: float
    threads: int
    folder: Path
    wiring: Path
    simulator: str

    @property
    def stem(self) -> str:
        """Stem of the network's files."""
        return NETWORKS[self.network][0]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return round(self.duration / DT)

    def arguments(self) -> list[str]:
        """The command line that `parse` understands."""
        names = ("network", "neurons", "duration", "threads", "folder", "wiring")
        return [self.simulator, *(word for name in names for word in (f"--{name}", str(getattr(self, name))))]

    @classmethod
    def parse(cls) -> Case:
        """The case that the command line describes."""
        parser = argparse.ArgumentParser()
        parser.add_argument("simulator", choices=MODULES)
        parser.add_argument("--network", choices=NETWORKS, required=True)
        for name, kind in (("neurons", int), ("duration", float), ("threads", int), ("folder", Path), ("wiring", Path)):
            parser.add_argument(f"--{name}", type=kind, required=True)
        return cls(**vars(parser.parse_args()))


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seconds: In the time loop, and in what has to be done before and after it each time.
        compile_s: For tracing, generating and compiling, 0 where that was done before.
        spikes: Number of spikes.
        peak_mb: Peak memory, where the simulation is a process of its own.
    """

    seconds: float
    compile_s: float
    spikes: int
    peak_mb: float | None = field(default=None)


class Simulator(abc.ABC):
    """A simulator with a network loaded; a subclass named ``Contestant`` stands in each module."""

    synapses: int

    @abc.abstractmethod
    def __init__(self, case: Case) -> None: ...

    @abc.abstractmethod
    def run(self) -> Run:
        """Simulate from the initial state."""
