"""The benchmark networks: the hand-written loops compute what bdtorch computes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bdtorch as bt
from benchmarks import brunel, coba, cobahh
from benchmarks.contestants import Bdtorch, Case, HandWritten, wiring_of
from benchmarks.floor import Floor, Wiring

ROOT = Path(__file__).parents[2]
SMALL = {coba: 1000, cobahh: 400, brunel: 1500}


def loaded(network, duration, folder, threads=1):
    case = Case(network, SMALL[network], duration, threads, folder)
    bdtorch = Bdtorch(case)
    return case, bdtorch, wiring_of(bdtorch.net, bdtorch.state, network)


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.__name__.rpartition(".")[2])
def test_the_floor_fires_at_the_rate_of_bdtorch(network, tmp_path):
    case, bdtorch, wiring = loaded(network, 1000.0, tmp_path)
    assert len(wiring.indices) == bdtorch.synapses
    ours, theirs = bdtorch.run().rate, HandWritten(case, wiring).run().rate
    assert ours > 1.0
    assert theirs == pytest.approx(ours, rel=0.1)


@pytest.mark.parametrize("network", SMALL, ids=lambda network: network.__name__.rpartition(".")[2])
def test_the_floor_starts_with_the_spikes_of_bdtorch(network, tmp_path):
    """Before rounding has grown into different trains, the very same neurons fire in the same steps."""
    case, bdtorch, wiring = loaded(network, 10.0, tmp_path)
    step, index = Floor(case.name, tmp_path)(wiring, case.steps, network.DT)
    record = {name: bt.spikes(name) for name in ("E", "I")}
    sol = bt.simulate(
        bdtorch.net, network.DRIVE, dt=network.DT, duration=10.0, state=bdtorch.state, record=record, loop="reference"
    )
    ours = set(map(tuple, sol["E"].pairs.tolist()))
    ours |= {(when, which + wiring.excitatory) for when, which in sol["I"].pairs.tolist()}
    theirs = set(zip(step.tolist(), index.tolist(), strict=True))
    assert len(ours) > 20
    assert len(ours ^ theirs) <= 0.02 * len(ours)


def test_the_wiring_is_that_of_the_network(tmp_path):
    _, bdtorch, wiring = loaded(coba, 1.0, tmp_path)
    dense = np.zeros((wiring.neurons, wiring.neurons), np.float32)
    rows = np.repeat(np.arange(wiring.neurons), np.diff(wiring.indptr))
    np.add.at(dense, (rows, wiring.indices), 1.0)
    parts = [bdtorch.net.projections[name].connect.to_dense() for name in ("E->E+I", "I->E+I")]
    torch.testing.assert_close(torch.from_numpy(dense), torch.cat(parts))


def test_a_saved_wiring_is_read_back(tmp_path):
    _, _, wiring = loaded(coba, 1.0, tmp_path)
    wiring.save(tmp_path / "wiring.npz")
    again = Wiring.load(tmp_path / "wiring.npz")
    assert again.excitatory == wiring.excitatory
    for name in ("indptr", "indices", "state"):
        np.testing.assert_array_equal(getattr(again, name), getattr(wiring, name))


def test_the_floor_refuses_to_write_past_its_record(tmp_path):
    case, _, wiring = loaded(coba, 1000.0, tmp_path)
    with pytest.raises(RuntimeError, match="more than 1 spikes"):
        Floor(case.name, tmp_path)(wiring, case.steps, coba.DT, most_hz=1.0)


def test_the_floor_leaves_the_arithmetic_of_the_process_alone(tmp_path):
    Floor("coba", tmp_path)
    smallest = np.full(16, np.finfo(np.float32).smallest_subnormal)
    assert (smallest * np.float32(1.0)).min() > 0.0


def test_the_program_writes_a_row_for_each_simulator(tmp_path):
    rows_file = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/networks.py", "--neurons", "1000", "--duration", "1000", "--repeats", "1"]
    done = subprocess.run([*command, "--json", str(rows_file)], cwd=ROOT, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    rows = json.loads(rows_file.read_text())
    assert [row["simulator"] for row in rows] == ["bdtorch", "floor"]
    for row in rows:
        assert row["synapses"] == rows[0]["synapses"]
        assert row["us_per_step"] == pytest.approx(row["seconds_per_biological_second"] * 100)
        assert 0 < row["first_result_s"]["warm"] < row["first_result_s"]["cold"]
        assert row["peak_mb"] > 0


def test_simulators_that_are_not_known_are_refused():
    command = [sys.executable, "benchmarks/networks.py", "--simulators", "bdtorch,genesis"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode
    assert "genesis" in done.stderr
