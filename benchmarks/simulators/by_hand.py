"""The loops of `benchmarks/floor`, on one thread."""

from __future__ import annotations

import time

from benchmarks import wiring
from benchmarks.floor import Floor
from benchmarks.simulators import DT, Case, Run, Simulator


class Contestant(Simulator):
    """A floor; its library stays in the folder of the case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.wiring = wiring.load(case.wiring)
        self.synapses = self.wiring.synapses

    def run(self) -> Run:
        began = time.perf_counter()
        floor = Floor(self.case.stem, self.case.folder)
        ready = time.perf_counter()
        step, _ = floor(self.wiring, self.case.steps, DT)
        return Run(time.perf_counter() - ready, ready - began, len(step))
