"""The benchmark networks for one, two and three threads, and the choice between numbers of threads."""

from __future__ import annotations

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate.loops.native.runner import Crew
from benchmarks import coba, cobahh


@pytest.mark.parametrize("network", [coba, cobahh], ids=["coba", "cobahh"])
def test_networks_do_not_depend_on_the_number_of_threads(network):
    net = network.build(800)

    def run(threads: int) -> bt.Solution:
        record = {"E": bt.spikes("E"), "I": bt.spikes("I"), "v": bt.trace("E.v", every=7)}
        loop = bt.Native(threads=threads)
        return bt.simulate(net, network.DRIVE, dt=0.1, duration=60.0, record=record, loop=loop)

    one = run(1)
    assert len(one["E"]) > 100 and len(one["I"]) > 10
    for threads in (2, 3):
        several = run(threads)
        assert torch.equal(several["v"], one["v"])
        assert all(torch.equal(several[name].pairs, one[name].pairs) for name in ("E", "I"))


def test_the_fastest_crew_takes_over():
    crew = Crew(1, 2)
    paces = {1: 2.0, 2: 1.0}
    taken = []
    for _ in range(8):
        for threads, until in crew.shifts(160):
            taken.append((threads, until))
            crew.report(threads, paces[threads])
    assert taken[:3] == [(2, 10), (1, 160), (2, 10)]
    assert taken[-1] == (2, 160)
    paces[2] = 5.0  # another program takes the second core
    for _ in range(2):
        for threads, _ in crew.shifts(160):
            crew.report(threads, paces[threads])
    assert list(crew.shifts(160))[-1] == (1, 160)
