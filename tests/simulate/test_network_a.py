"""The COBA benchmark network: its rate, and its spike trains bit for bit."""

import subprocess
import sys

import pytest
import torch

import bdtorch as bt
from benchmarks.coba import build

RECORD = {"E": bt.spikes("E"), "I": bt.spikes("I")}


@pytest.fixture(scope="module")
def whole() -> bt.Solution:
    return bt.simulate(build(), 20.0, dt=0.1, duration=1000.0, record=RECORD, loop=bt.Native(threads=1))


def test_rate(whole):
    rate = 0.8 * whole["E"].rate + 0.2 * whole["I"].rate
    assert 19.0 < rate < 23.0


def test_two_threads_give_the_same_bits(whole):
    sol = bt.simulate(build(), 20.0, dt=0.1, duration=1000.0, record=RECORD, loop=bt.Native(threads=2))
    for name in RECORD:
        assert torch.equal(sol[name].pairs, whole[name].pairs)


def test_ten_chunks_give_the_same_bits(whole):
    state, t, pieces = None, 0.0, []
    for _ in range(10):
        sol = bt.simulate(build(), 20.0, dt=0.1, duration=100.0, record=RECORD, state=state, t0=t)
        state, t = sol.state, sol.t_end
        pieces.append(sol)
    for name in RECORD:
        assert torch.equal(torch.cat([piece[name].pairs for piece in pieces]), whole[name].pairs)


def test_the_reference_loop_gives_the_same_bits(whole):
    sol = bt.simulate(build(), 20.0, dt=0.1, duration=200.0, record=RECORD, loop="reference", progress=False)
    for name in RECORD:
        early = whole[name].step <= 2000
        assert torch.equal(sol[name].pairs, whole[name].pairs[early])


RESUME = """
import sys, torch, bdtorch as bt
from benchmarks.coba import build
net = build()
state, t = bt.load(sys.argv[1], bt.initial_state(net, dt=0.1))
sol = bt.simulate(net, 20.0, dt=0.1, duration=500.0, state=state, t0=t, record={"E": bt.spikes("E")})
torch.save(sol["E"].pairs, sys.argv[2])
"""


def test_a_run_resumed_from_disk_in_a_new_process_gives_the_same_bits(whole, tmp_path):
    half = bt.simulate(build(), 20.0, dt=0.1, duration=500.0, record=RECORD)
    bt.save(tmp_path / "half.safetensors", half.state, t=half.t_end)
    command = [sys.executable, "-c", RESUME, str(tmp_path / "half.safetensors"), str(tmp_path / "pairs.pt")]
    subprocess.run(command, check=True, cwd=".")
    rest = torch.load(tmp_path / "pairs.pt")
    assert torch.equal(torch.cat([half["E"].pairs, rest]), whole["E"].pairs)
