"""The benchmark networks for one, two and three threads, and the choice between numbers of threads."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate._interrupt import Interrupt
from bdtorch.simulate.loops.native import events, made, runner
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


def sparse_network(
    sizes: tuple[int, ...], weight: object, delay: float | None = None, seed: int = 3, probability: float = 0.003
) -> bt.Network:
    """Populations that excite one another, some of whose neurons have no synapses at all."""

    def cells(count: int) -> bt.DynamicalSystem:
        lif = bt.neurons.LIF(count, tau=20.0, v_rest=0.0, v_reset=0.0, v_th=1.0, v_init=bt.init.Uniform(0.0, 1.0))
        return bt.neurons.Refractory(lif, period=1.0)

    names = [f"P{k}" for k in range(len(sizes))]
    projections = {
        (name, tuple(names)): bt.Projection(
            bt.connect.FixedProbability(probability), weight=weight, synapse=bt.synapses.Exponential(3.0),
            receptor=bt.synapses.Current(), delay=delay,
        )
        for name in names
    }  # fmt: skip
    return bt.Network(dict(zip(names, map(cells, sizes), strict=True)), projections, seed=seed)


@pytest.mark.parametrize("sizes", [(1001,), (700, 333), (65, 1, 130), (1,)], ids=str)
@pytest.mark.parametrize("weight", [0.05, bt.init.Uniform(0.0, 0.1)], ids=["shared", "own"])
@pytest.mark.parametrize("delay", [None, 0.5])
def test_any_shares_of_any_populations_give_the_reference_bits(sizes, weight, delay):
    net = sparse_network(sizes, weight, delay)
    state = bt.initial_state(net, dt=0.1, seed=1)
    record = {name: bt.spikes(name) for name in net.populations} | {"v": bt.trace("P0.v")}

    def run(loop: object) -> bt.Solution:
        return bt.simulate(net, 4.0, dt=0.1, duration=8.0, state=state, record=record, loop=loop)

    reference = run("reference")
    assert len(reference["P0"]) > 0
    runs = [run(bt.Native(threads=threads)) for threads in (1, 2, 3, 5)]
    torch.testing.assert_close(runs[0]["v"], reference["v"], rtol=1e-5, atol=1e-5)
    for native_run in runs:
        assert torch.equal(native_run["v"], runs[0]["v"])
        assert all(torch.equal(native_run[name].pairs, reference[name].pairs) for name in net.populations)


def test_a_record_of_spikes_that_is_full_ends_the_chunk(monkeypatch):
    net = sparse_network((300, 100), 0.05)
    state = bt.initial_state(net, dt=0.1, seed=1)

    def run(threads: int) -> bt.Solution:
        record = {name: bt.spikes(name) for name in net.populations}
        return bt.simulate(net, 5.0, dt=0.1, duration=40.0, state=state, record=record, loop=bt.Native(threads=threads))

    roomy = run(1)
    assert len(roomy["P0"]) > 3 * 300
    monkeypatch.setattr(runner, "_SPARSE_ENTRIES", 1)
    for threads in (1, 2, 3):
        narrow = run(threads)
        assert all(torch.equal(narrow[name].pairs, roomy[name].pairs) for name in net.populations)


def test_a_record_of_spikes_has_room_for_the_rate_that_was_seen(monkeypatch):
    """Or a busy network's chunks would all end early, and each of its threads begin anew for each of them."""
    net = sparse_network((300, 100), 0.05)
    state = bt.initial_state(net, dt=0.1, seed=1)
    state = bt.simulate(net, 20.0, dt=0.1, duration=50.0, state=state, loop="native").state  # firing steadily
    advances = []
    advance = runner.NativeRunner.advance

    def noted(self, state, sequences, first, count, stop):
        result = advance(self, state, sequences, first, count, stop)
        advances.append((count, result.steps))
        return result

    monkeypatch.setattr(runner, "_SPARSE_ENTRIES", 1)
    monkeypatch.setattr(runner.NativeRunner, "advance", noted)
    record = {name: bt.spikes(name) for name in net.populations}
    solution = bt.simulate(net, 20.0, dt=0.1, duration=100.0, state=state, record=record, loop="native")
    assert len(solution["P0"]) > 10 * 300  # of which a chunk without foresight could keep twice 300
    (asked, taken), *later = advances
    assert taken <= asked
    assert later
    assert all(count == steps for count, steps in later)


def test_cuts_of_another_number_of_threads_are_forgotten(monkeypatch):
    monkeypatch.setattr(events, "_SMALL", 0)  # and they are found in eight bytes too

    def ends(n):  # of chunks as short as a step too
        return [(3, 0, n // 3), (2, n // 3, n // 2), (3, n // 2, n)]

    monkeypatch.setattr(Crew, "shifts", lambda self, n: [(size, end) for size, begin, end in ends(n) if begin < end])
    net = sparse_network((300, 100), 0.05)
    state = bt.initial_state(net, dt=0.1, seed=1)
    several, one = (
        bt.simulate(net, 5.0, dt=0.1, duration=10.0, state=state, record={"v": bt.trace("P1.v")}, loop=loop)
        for loop in (bt.Native(threads=3), "reference")
    )
    torch.testing.assert_close(several["v"], one["v"], rtol=1e-5, atol=1e-5)


def test_cuts_reach_the_last_target_that_two_bytes_can_name():
    net = sparse_network((2**15,), 0.05, probability=1e-4)
    assert max(int(p.connect.indices.max()) for p in net.projections.values()) == 2**15 - 1
    state = bt.initial_state(net, dt=0.1, seed=1)
    record = {"P0": bt.spikes("P0"), "v": bt.trace("P0.v", every=10)}
    several, one = (
        bt.simulate(net, 4.0, dt=0.1, duration=2.0, state=state, record=record, loop=bt.Native(threads=threads))
        for threads in (2, 1)
    )
    assert len(one["P0"]) > 1000
    assert torch.equal(several["v"], one["v"]) and torch.equal(several["P0"].pairs, one["P0"].pairs)


def test_threads_meet_once_a_step_in_a_network_without_delays():
    texts = []
    net = sparse_network((300, 100), 0.05)
    generate = made.generate

    def kept(*args):
        texts.append(generate(*args))
        return texts[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "generate", kept)
        bt.simulate(
            net, 5.0, dt=0.1, duration=1.0, record={"P0": bt.spikes("P0"), "P1": bt.spikes("P1")}, loop="native"
        )
    (step,) = (text.split("for (const int64_t count")[1] for _, text in texts)
    assert step.count("loop::meet(") == 1


def taken_by(crew: Crew, paces: dict[int, float], chunks: int = 1) -> list[tuple[int, int]]:
    """The shifts of some chunks of 160 steps, in which so many threads take so long."""
    taken = []
    for _ in range(chunks):
        for threads, until in crew.shifts(160):
            taken.append((threads, until))
            crew.report(threads, paces[threads])
    return taken


def test_the_fastest_crew_takes_over():
    crew = Crew(1, 2)
    taken = taken_by(crew, {1: 2.0, 2: 1.0}, chunks=8)
    assert taken[:5] == [(2, 5), (1, 10), (2, 15), (1, 20), (2, 160)]
    assert taken[-1] == (2, 160)
    taken_by(crew, {1: 2.0, 2: 5.0}, chunks=2)  # another program takes the second core
    assert list(crew.shifts(160))[-1] == (1, 160)


def test_crews_are_compared_at_the_same_time():
    crew = Crew(1, 2)
    quiet, busy = {1: 1.0, 2: 1.5}, {1: 5.0, 2: 7.5}
    taken_by(crew, busy, chunks=1)
    for _ in range(20):  # a network that falls silent is no proof that two threads are faster
        assert taken_by(crew, quiet)[-1] == (1, 160)
        assert taken_by(crew, busy)[-1] == (1, 160)


def test_a_crew_that_was_held_up_once_is_not_blamed():
    crew = Crew(1, 2)
    shifts = crew.shifts(160)
    for pace in (2.0, 9.0, 2.0, 1.0):
        crew.report(next(shifts)[0], pace)
    assert next(shifts) == (1, 160)


def test_a_crew_that_gains_next_to_nothing_is_left_at_home():
    assert taken_by(Crew(1, 2), {1: 1.0, 2: 0.95}, chunks=4)[-1] == (1, 160)
    assert taken_by(Crew(1, 2), {1: 1.0, 2: 0.85}, chunks=4)[-1] == (2, 160)
    assert taken_by(Crew(3), {3: 1.0}) == [(3, 160)]


def test_far_more_threads_than_cores_get_on_and_give_the_same_bits():
    net = sparse_network((700, 333), 0.05)
    state = bt.initial_state(net, dt=0.1, seed=1)
    many, one = (
        bt.simulate(net, 4.0, dt=0.1, duration=2.0, state=state, record={"v": bt.trace("P0.v")}, loop=loop)
        for loop in (bt.Native(threads=9), bt.Native(threads=1))
    )
    assert torch.equal(many["v"], one["v"])


def test_an_interrupt_ends_a_run_of_several_threads():
    net = sparse_network((700, 333), 0.05)
    state = bt.initial_state(net, dt=0.1, seed=1)
    loop = bt.Native(threads=2)
    bt.simulate(net, 4.0, dt=0.1, duration=1.0, state=state, loop=loop, keep_out=False)  # compiles
    Interrupt.last = -math.inf
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.warns(UserWarning, match="interrupted at t = "):
            sol = bt.simulate(net, 4.0, dt=0.1, duration=1e9, state=state, loop=loop, progress=False, keep_out=False)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    again = bt.simulate(net, 4.0, dt=0.1, duration=sol.t_end, state=state, loop="native", progress=False)
    assert torch.equal(sol.state["P0"].neuron.v, again.state["P0"].neuron.v)


CHILDREN = """
import os, resource
import torch
import bdtorch as bt

def run(threads):
    cells = bt.neurons.LIF(1000, tau=20.0, v_init=bt.init.Uniform(-70.0, -50.0))
    return bt.simulate(cells, 25.0, dt=0.1, duration=5.0, loop=bt.Native(threads=threads), progress=False).state.v

before = run(2)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(run(3), before) else 1)
assert os.waitpid(child, 0)[1] == 0, "a forked process gives other results"
assert torch.equal(run(2), before)

in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20), resource.RLIM_INFINITY))  # no room for a hundred stacks
try:
    run(100)
except OSError as error:
    assert "cannot begin 100 threads" in str(error), error
else:
    raise AssertionError("expected an OSError")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert torch.equal(run(2), before)
"""


def expect_success(program: str, cache: Path, timeout: float) -> None:
    """Run a program in a process of its own, to the end and without a failure."""
    environment = {**os.environ, "BDTORCH_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=root, check=False, timeout=timeout
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are kept on Linux only")
def test_threads_outlast_neither_a_fork_nor_a_failure_to_begin(tmp_path):
    expect_success(CHILDREN, tmp_path, timeout=120)


FORKED = """
import os, signal, threading, warnings
import torch
import bdtorch as bt
from bdtorch.simulate._kept import Alone

cells = bt.neurons.LIF(10, v_init=bt.init.Uniform(-70.0, -50.0))
before = bt.simulate(cells, 25.0, dt=0.1, duration=5.0).state.v
held, enough = threading.Event(), threading.Event()

def hold():
    with Alone(cells):  # as a run does while it traces the step
        held.set()
        enough.wait()

threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    warnings.simplefilter("error")
    torch.set_num_threads(2)
    try:
        bt.simulate(cells, 25.0, dt=0.1, duration=5.0)
    except UserWarning as warning:
        assert "call torch.set_num_threads(1) in the forked process" in str(warning)
    else:
        os._exit(1)
    torch.set_num_threads(1)
    os._exit(0 if torch.equal(bt.simulate(cells, 25.0, dt=0.1, duration=5.0).state.v, before) else 2)
enough.set()
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_says_what_pytorch_would_wait_for_and_waits_for_no_thread_of_its_parent(tmp_path):
    expect_success(FORKED, tmp_path, timeout=60)
