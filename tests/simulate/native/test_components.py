"""Passes over unrelated elements of equal number are taken apart, and equal ones are one function."""

from __future__ import annotations

import re

import pytest
import torch

import bdtorch as bt
from bdtorch import _tree as tree
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Step, assert_same, body_of, both

N = 150
STATES = [torch.linspace(-1.0, 1.0 + 0.1 * k, N) for k in range(6)]


def long(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """More operations than are worth a loop of their own."""
    for k in range(10):
        x = 0.5 * x + (0.1 * k) * y
    return x


STEPS: dict[str, Step] = {
    "alike": lambda x, t: ([long(x[k], x[k]) for k in range(6)], {}),
    "two kinds": lambda x, t: ([long(x[k], x[k]) * (1.0 if k < 3 else x[k]) for k in range(6)], {}),
    "one reads a number of another": lambda x, t: ([long(x[k], x[k]) + x[5][:1] for k in range(6)], x[0]),
    "each replaces what the next reads": lambda x, t: ([long(x[k - 1], x[k - 1]) for k in range(6)], x[0]),
    "pairs": lambda x, t: ([long(x[k], x[k ^ 1]) for k in range(6)], x[0]),
    "parts of a whole": lambda x, t: (
        [*x[:4], *torch.cat([long(x[4], x[4]), long(x[5], x[5])]).view(2, N).unbind()],
        x[0],
    ),
    "short work stays together": lambda x, t: ([x[k] + 1.0 for k in range(6)], {}),
}


def printed(step: Step) -> str:
    body = body_of(step, *STATES)
    return generate(body, trace(body, STATES))[1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_nothing_changes(name: str, threads: int) -> None:
    for native, reference in zip(*both(STEPS[name], *STATES, steps=5, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


def test_equal_passes_are_one_function() -> None:
    """However many populations there are, the compiler sees one body."""
    for name, functions, calls in (("alike", 1, 6), ("two kinds", 2, 6), ("short work stays together", 1, 1)):
        text = printed(STEPS[name])
        assert len(re.findall(r"APART void pass_\d+\(", text)) == functions, name
        assert len(re.findall(r"[;}] pass_\d+\(", text)) == calls, name


def test_what_replaces_what_another_reads_stays_with_it() -> None:
    """One loop writes both over each other; two would need a copy."""
    swapped = printed(lambda x, t: ([long(x[1], x[1]), long(x[0], x[0]), *x[2:]], {}))
    assert "memcpy" not in swapped
    assert len(re.findall(r"[;}] pass_\d+\(", swapped)) == 1


def test_areas_of_equal_cells_compile_as_one() -> None:
    """Four areas, each with cells of two sizes: the loop's text has the neuron's equations once."""

    def network(areas: int) -> bt.Network:
        populations, projections = {}, {}
        for k in range(areas):
            populations |= {f"E{k}": bt.neurons.HodgkinHuxley(64), f"I{k}": bt.neurons.HodgkinHuxley(16)}
            pathway = bt.Projection(bt.connect.FixedProbability(0.2), 0.1, bt.synapses.Exponential(5.0))
            projections[f"E{k}", (f"E{k}", f"I{k}")] = pathway
        return bt.Network(populations, projections)

    exponentials = []
    for areas in (1, 4):
        net = network(areas)
        state = bt.initial_state(net, dt=0.1)
        body = Body(net, resolve(10.0, net), {}, state, 0.1)
        flat = tree.leaves(state)
        body.try_out(flat, 0)
        exponentials.append(generate(body, trace(body, flat))[1].count("exp("))
    assert exponentials[0] == exponentials[1] > 0
