"""The benchmark networks: the hand-written loops compute what bdtorch computes, and the program compares like with like."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bdtorch as bt
from benchmarks import balanced, coba, tables, wiring
from benchmarks.drawn import drawn
from benchmarks.floor import Floor
from benchmarks.networks import check, row_of
from benchmarks.simulators import DT, Case
from benchmarks.simulators.by_hand import Contestant as HandWritten
from benchmarks.simulators.with_bdtorch import Contestant as Bdtorch
from benchmarks.wiring import PlasticWiring, Wiring

ROOT = Path(__file__).parents[2]
SMALL = {"A": 1000, "B": 400, "C": 1500}


def loaded(network, duration, folder, threads=1):
    neurons = SMALL[network]
    wires = drawn(network, neurons, duration)
    wires.save(folder / "wiring.npz")
    return Case(network, neurons, duration, threads, folder, folder / "wiring.npz", "bdtorch"), wires


@pytest.mark.parametrize("network", SMALL)
def test_the_floor_fires_at_the_rate_of_bdtorch(network, tmp_path):
    case, _ = loaded(network, 1000.0, tmp_path)
    bdtorch, floor = Bdtorch(case), HandWritten(case)
    assert bdtorch.synapses == floor.synapses
    ours, theirs = bdtorch.run().spikes, floor.run().spikes
    assert ours > case.neurons
    assert theirs == pytest.approx(ours, rel=0.1)


@pytest.mark.parametrize("network", SMALL)
def test_the_floor_starts_with_the_spikes_of_bdtorch(network, tmp_path):
    """Before rounding has grown into different trains, the very same neurons fire in the same steps."""
    case, wires = loaded(network, 10.0, tmp_path)
    step, index = Floor(case.stem, tmp_path)(wires, case.steps, DT)
    contestant = Bdtorch(case)
    record = {name: bt.spikes(name) for name in ("E", "I")}
    sol = bt.simulate(
        contestant.net, contestant.drive, dt=DT, duration=10.0, state=contestant.state, record=record, loop="reference"
    )
    ours = set(map(tuple, sol["E"].pairs.tolist()))
    ours |= {(when, which + wires.excitatory) for when, which in sol["I"].pairs.tolist()}
    theirs = set(zip(step.tolist(), index.tolist(), strict=True))
    assert len(ours) > 20
    assert len(ours ^ theirs) <= 0.02 * len(ours)


def plastic_wiring(inputs=101, neurons=21, steps=3000, rate=0.02):
    rng = np.random.default_rng(0)
    when, which = np.nonzero(rng.random((steps, inputs)) < rate)
    weights = rng.uniform(0, 0.01, (inputs, neurons)).astype(np.float32)
    state = np.stack([np.full(neurons, -60.0), np.zeros(neurons)]).astype(np.float32)
    return PlasticWiring(weights, state, when.astype(np.int32), which.astype(np.int32))


def plain_stdp(wires, steps):
    """Network D in double precision, pair by pair: the oracle of its floor."""
    w, (v, g) = wires.weights.astype(float), wires.state.astype(float)
    x, y, spikes = np.zeros(wires.inputs), np.zeros(wires.neurons), []
    for step in range(steps):
        steady = -74.0 / (1.0 + g)
        v = steady + (v - steady) * np.exp(-DT / 10.0 * (1.0 + g))
        fired = v >= -54.0
        v[fired] = -60.0
        g, x, y = g * np.exp(-DT / 5.0), x * np.exp(-DT / 20.0), y * np.exp(-DT / 20.0)
        for i in wires.input_index[wires.input_step == step]:
            g += w[i]
            w[i] = np.clip(w[i] - y, 0.0, 0.01)
            x[i] += 1e-4
        for j in np.flatnonzero(fired):
            w[:, j] = np.clip(w[:, j] + x, 0.0, 0.01)
            y[j] += 1.05e-4
            spikes.append((step + 1, int(j)))
    return spikes


def test_the_floor_of_network_d_follows_the_pair_rule(tmp_path):
    wires = plastic_wiring()
    step, index = Floor("stdp", tmp_path)(wires, 3000, DT, most_hz=1000.0)
    expected = plain_stdp(wires, 3000)
    assert len(expected) > 100
    assert set(zip(step.tolist(), index.tolist(), strict=True)) == set(expected)


def test_the_wiring_is_that_of_the_network(tmp_path):
    case, wires = loaded("A", 1.0, tmp_path)
    dense = np.zeros((wires.neurons, wires.neurons), np.float32)
    rows = np.repeat(np.arange(wires.neurons), np.diff(wires.indptr))
    np.add.at(dense, (rows, wires.indices), 1.0)
    net = coba.build(case.neurons)
    parts = [net.projections[name].connect.to_dense() for name in (balanced.EXCITATION, balanced.INHIBITION)]
    torch.testing.assert_close(torch.from_numpy(dense), torch.cat(parts))


def test_the_pathways_are_the_two_parts_of_the_wiring(tmp_path):
    _, wires = loaded("A", 1.0, tmp_path)
    for excites, sources in ((True, range(wires.excitatory)), (False, range(wires.excitatory, wires.neurons))):
        indptr, indices = wires.pathway(excites)
        assert len(indptr) == len(sources) + 1
        for row, source in enumerate(sources):
            whole = wires.indices[wires.indptr[source] : wires.indptr[source + 1]]
            np.testing.assert_array_equal(indices[indptr[row] : indptr[row + 1]], whole)


@pytest.mark.parametrize("kind", [Wiring, PlasticWiring])
def test_a_saved_wiring_is_read_back(kind, tmp_path):
    wires = drawn("A", 200, 1.0) if kind is Wiring else plastic_wiring()
    wires.save(tmp_path / "wiring.npz")
    again = wiring.load(tmp_path / "wiring.npz")
    assert type(again) is kind
    for name, value in vars(wires).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_the_floor_refuses_to_write_past_its_record(tmp_path):
    case, wires = loaded("A", 1000.0, tmp_path)
    with pytest.raises(RuntimeError, match="more than 1 spikes"):
        Floor(case.stem, tmp_path)(wires, case.steps, DT, most_hz=1.0)


def test_the_floor_leaves_the_arithmetic_of_the_process_alone(tmp_path):
    Floor("coba", tmp_path)
    smallest = np.full(16, np.finfo(np.float32).smallest_subnormal)
    assert (smallest * np.float32(1.0)).min() > 0.0


def program(*arguments):
    command = [sys.executable, "benchmarks/networks.py", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_the_program_writes_a_row_for_each_simulator(tmp_path):
    rows_file = tmp_path / "rows.json"
    done = program(
        "--neurons", "1000", "--duration", "1000", "--repeats", "1", "--threads", "1,2", "--json", str(rows_file)
    )
    assert not done.returncode, done.stderr
    rows = json.loads(rows_file.read_text())
    assert [(row["simulator"], row["threads"]) for row in rows] == [("bdtorch", 1), ("bdtorch", 2), ("floor", 1)]
    for row in rows:
        assert row["synapses"] == rows[0]["synapses"]
        assert row["us_per_step"] == pytest.approx(row["seconds_per_biological_second"] * 100)
        assert 0 < row["first_result_warm_s"] < row["first_result_s"]
        assert row["compile_s"] < row["first_result_s"]
        assert 0 < row["peak_above_import_mb"] < row["peak_mb"]


@pytest.mark.slow
def test_the_inductor_loop_has_a_row_beside_the_native_one(tmp_path):
    rows_file = tmp_path / "rows.json"
    simulators = ["bdtorch", "bdtorch-inductor"]
    done = program(
        "--neurons", "1000", "--duration", "300", "--repeats", "1", "--simulators", ",".join(simulators),
        "--json", str(rows_file),
    )  # fmt: skip
    assert not done.returncode, done.stderr
    rows = json.loads(rows_file.read_text())
    assert [row["simulator"] for row in rows] == simulators
    assert all(row["compile_s"] > 0.1 and row["us_per_step"] > 0 for row in rows)


PEERS = {"brian2": "BRIAN2_PYTHON", "brainpy": "BRAINPY_PYTHON"}


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("network", ["A", "D"])
def test_the_peers_fire_at_the_rate_of_the_floor(peer, network, tmp_path):
    """Where their environments are there (`make bench-peers`)."""
    python = Path(os.environ.get(PEERS[peer], ROOT / f".venv-{peer}" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"{peer} is not installed")
    size = {"A": "1000", "D": "40"}[network]
    done = program(
        "--network", network, "--neurons", size, "--duration", "500", "--repeats", "1", "--simulators", f"floor,{peer}",
        f"--{peer}-python", str(python), "--json", str(tmp_path / "rows.json"),
    )  # fmt: skip
    assert not done.returncode, done.stderr


def test_simulators_that_are_not_known_are_refused():
    done = program("--simulators", "bdtorch,genesis")
    assert done.returncode
    assert "genesis" in done.stderr


def answer(**changes):
    names = ("seconds", "total_s", "import_s", "compile_s", "peak_mb", "peak_above_import_mb")
    return dict.fromkeys(names, 1.0) | {"spikes": 2000, "synapses": 80} | changes


def rows_of(tmp_path, *answers):
    case = Case("A", 100, 1000.0, 1, tmp_path, tmp_path, "floor")
    return [row_of(case, each, each, [each]) for each in answers]


def test_like_is_compared_with_like(tmp_path):
    check(rows_of(tmp_path, answer(), answer(spikes=2050)))


def test_spikes_that_depend_on_threads_are_refused(tmp_path):
    rows = rows_of(tmp_path, answer(), answer(spikes=2001))
    with pytest.raises(SystemExit, match="threads"):
        check([row | {"simulator": "bdtorch"} for row in rows])


@pytest.mark.parametrize(("change", "message"), [({"spikes": 0}, "rates"), ({"spikes": 2400}, "rates"),
                                                 ({"synapses": 81}, "synapses")])  # fmt: skip
def test_different_networks_are_not_compared(change, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        check(rows_of(tmp_path, answer(), answer(**change)))


def test_a_worker_that_fails_says_why(tmp_path):
    networks = importlib.import_module("benchmarks.networks")
    worker = networks.Worker(Case("A", 100, 1.0, 1, tmp_path, tmp_path / "missing.npz", "floor"), sys.executable)
    try:
        with pytest.raises(SystemExit, match="No such file"):
            worker.run()
    finally:
        worker.close()


def test_a_page_keeps_all_but_its_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- networks: begin -->\nold\n<!-- networks: end -->\nafter\n")
    rows = [row | {"ratio": None, "comparison": 0} for row in rows_of(tmp_path, answer(), answer(spikes=2050))]
    tables.write_page(tables.markdown(rows), page)
    written = page.read_text()
    assert written.startswith("before\n") and written.endswith("after\n") and "\nold\n" not in written
    lines = [line for line in written.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
    assert " 20.00 " in lines[2] and " 20.50 " in lines[3]
