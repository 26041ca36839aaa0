"""Records streamed to a file: equal to those in memory, flat in memory, whole or not there, and readable by the rest."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch import _tree as tree
from bdtorch.simulate._interrupt import Interrupt
from benchmarks import coba
from tests.simulate.native.stepping import Stepping

matplotlib = pytest.importorskip("matplotlib")
h5py = pytest.importorskip("h5py")
ROOT = Path(__file__).parents[2]


def lif(**options: Any) -> bt.DynamicalSystem:
    return bt.neurons.LIF(4, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=1.0, **options)


RECORD = {
    "s": bt.spikes(),
    "v": bt.trace("v", every=7),
    "one": bt.trace("v", index=2, every=3),
    "all": lambda state, out: {"state": state, "values": {"values": out}},
}


def expect_equal(stored: Any, kept: Any) -> None:
    if isinstance(kept, bt.Spikes):
        for part in ("step", "index", "batch"):
            assert torch.equal(getattr(stored, part), getattr(kept, part))
        for part in ("size", "batch_shape", "dt", "start", "stop"):
            assert getattr(stored, part) == getattr(kept, part)
    else:
        pairs = list(zip(tree.named_leaves(stored), tree.named_leaves(kept), strict=True))
        assert all(a[0] == b[0] and a[1].dtype == b[1].dtype and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("loop", ["reference", "native", bt.Inductor(chunk=2)], ids=str)
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_records_in_a_file_are_those_in_memory(tmp_path: Path, loop: Any, batch: tuple[int, ...]) -> None:
    current = torch.linspace(0.5, 3.0, 4).expand(61, *batch, 4).contiguous()
    arguments = {"dt": 0.5, "t0": 5.0, "record": RECORD, "loop": loop}
    kept = bt.simulate(lif(), current, **arguments)
    streamed = bt.simulate(lif(), current, **arguments, stream=tmp_path / "run.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]
    assert torch.equal(streamed.state.v, kept.state.v)
    assert list(streamed.records) == list(kept.records) and len(kept["s"]) > 0
    again = bt.load_records(tmp_path / "run.h5")
    for name in RECORD:
        expect_equal(streamed[name], kept[name])
        expect_equal(again[name], kept[name])
        assert torch.equal(again.time(name), kept.time(name))
    assert again.attributes == {
        "version": bt.__version__, "model": "LIF", "dt": 0.5, "start": 10, "steps": 61, "loop": kept.loop,
        "ended": "complete",
    }  # fmt: skip


def test_records_without_elements(tmp_path: Path) -> None:
    record = {
        "none": bt.Record(lambda state, out: state.v[:0]),
        "s": bt.Record(lambda state, out: out[:0], sparse=True),
    }
    sol = bt.simulate(lif(), 1.5, dt=0.5, duration=5.0, record=record, stream=tmp_path / "run.h5")
    assert sol["none"].shape == (10, 0) and len(sol["s"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_parts_and_what_takes_records(tmp_path: Path) -> None:
    record = {"E": bt.spikes("E"), "v": bt.trace("E.v", every=7)}
    net = coba.build(200)
    whole = bt.simulate(net, 20.0, dt=0.1, duration=100.0, record=record, stream=tmp_path / "run.h5").records
    head = bt.simulate(net, 20.0, dt=0.1, duration=30.0, record=record)
    rest = bt.simulate(net, 20.0, dt=0.1, duration=40.0, t0=head.t_end, state=head.state, record=record)
    for name in record:
        expect_equal(whole.between(name, 0.0, 30.0), head[name])
        expect_equal(whole.between(name, 30.0, 70.0), rest[name])
        expect_equal(whole.between(name, -5.0, 1e4), whole[name])
    assert len(whole.between("E", 70.0, 20.0)) == 0 and whole.between("v", 70.0, 20.0).shape == (0, 160)
    assert len(whole["E"]) > 10
    bt.plot.raster(whole["E"])
    matplotlib.pyplot.close("all")
    assert bt.analyze.interval_cv(whole["E"]).shape == (160,)
    with pytest.raises(KeyError, match=r"'I' was not recorded; records: 'E', 'v'"):
        whole["I"]
    with pytest.raises(ValueError, match=r"`between\(begin=...\)`: expected a multiple of dt"):
        whole.between("v", 0.05, 1.0)
    with pytest.raises(ValueError, match=r"`between\(end=...\)`: expected a finite number of ms, got inf"):
        whole.between("v", 0.0, float("inf"))
    assert "E" in whole and "I" not in whole and len(whole) == 2


MEMORY = """
    import resource
    import bdtorch as bt
    lif = bt.neurons.LIF(64, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=1.0)
    record = {"s": bt.spikes(), "v": bt.trace("v")}
    for duration in (10_000.0, 100_000.0):
        sol = bt.simulate(lif, 1.2, dt=0.1, duration=duration, record=record, stream="run.h5", loop="native")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, len(sol["s"]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_duration(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEMORY)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    (short, few), (long, many) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert many > 9 * few > 0
    assert long - short < 40, (short, long)  # MB; the trace alone has 256


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_ctrl_c_leaves_a_whole_file(tmp_path: Path, loop: str) -> None:
    Interrupt.last = -math.inf
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        bt.simulate(lif(), 2.0, dt=0.1, duration=1.0, record=RECORD, loop=loop)  # compiles
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.warns(UserWarning, match="interrupted"):
            sol = bt.simulate(lif(), 2.0, dt=0.1, duration=1e9, record=RECORD, loop=loop, stream=tmp_path / "run.h5")
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert sol.records.attributes["ended"] == "interrupted" and sol.records.attributes["steps"] == sol.steps > 0
    kept = bt.simulate(lif(), 2.0, dt=0.1, duration=sol.t_end, record=RECORD, loop=loop)
    for name in ("s", "v", "one"):
        expect_equal(sol[name], kept[name])


def blowing_up(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Tensor]:
    return [x[0] * 10.0], x[0] > 3.0


def test_what_came_before_a_nan_is_kept(tmp_path: Path) -> None:
    record = {"s": bt.Record(lambda state, out: out, sparse=True), "x": bt.trace("x0")}
    found = []
    for stream in (None, tmp_path / "run.h5"):
        with pytest.raises(FloatingPointError, match="'x0' of element 1 became inf") as caught:
            bt.simulate(Stepping(blowing_up, torch.ones(3)*torch.tensor([1e-3, 1.0, 1e-3])), dt=0.1, duration=10.0,
                        record=record, loop="native", stream=stream)  # fmt: skip
        found.append(caught.value.solution)
    kept, streamed = found
    assert streamed.steps == kept.steps == 38 and streamed.records.attributes["ended"] == "FloatingPointError"
    for name in record:
        expect_equal(streamed[name], kept[name])


def test_an_error_of_the_step_keeps_what_was_recorded(tmp_path: Path) -> None:
    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Tensor]:
        return [x[0] + 1], x[0]

    class Failing(Stepping):
        taken = 0

        def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> Any:
            Failing.taken += 1
            if Failing.taken > 301:
                raise RuntimeError("the battery is flat")
            return super().step(state, inputs, t, dt)

    system = Failing(step, torch.zeros(2))
    with pytest.raises(RuntimeError, match="battery"):
        bt.simulate(system, dt=0.1, duration=1e4, record={"x": bt.trace("x0")}, loop="reference",
                    stream=tmp_path / "run.h5")  # fmt: skip
    records = bt.load_records(tmp_path / "run.h5")
    assert records.attributes["ended"] == "RuntimeError"
    steps = records.attributes["steps"]
    assert steps >= 64 and torch.equal(records["x"][:, 0], torch.arange(1.0, steps + 1))


def test_a_run_that_does_not_begin_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "run.h5"
    target.write_text("mine")
    system = Stepping(lambda x, t: ([torch.fft.fft(x[0]).abs()], x[0]), torch.ones(4))
    with pytest.raises(bt.LoopError):
        bt.simulate(system, dt=0.1, duration=1.0, record={"x": bt.trace("x0")}, loop="native", stream=target)
    assert target.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


LIMITED = """
    import resource
    import bdtorch as bt
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    system = bt.neurons.LIF(500, v_init=bt.init.Normal(0.0, 5.0))
    try:
        bt.simulate(system, 25.0, dt=0.1, duration=1e6, record={"v": bt.trace("v")}, stream="run.h5", loop="reference")
    except OSError as error:
        print(error)
"""


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "`simulate(stream=...)`: " in done.stdout and "run.h5' cannot be written: File too large" in done.stdout, (
        done.stderr
    )
    assert done.returncode == 0 and not done.stderr  # HDF5 takes the process with it where a file cannot be closed
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]
    assert (tmp_path / "run.h5").read_text() == "mine"


ENDLESS = """
    import bdtorch as bt
    lif = bt.neurons.LIF(4, tau=10.0, v_rest=0.0, v_reset=0.0, v_th=1.0)
    record = {"s": bt.spikes(), "v": bt.trace("v", every=1000)}
    bt.simulate(lif, 2.0, dt=0.1, duration=1e9, record=record, stream="run.h5", loop="native")
"""


def test_a_killed_process_leaves_what_it_had_written(tmp_path: Path) -> None:
    """Under its temporary name, in a file that can be read."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ENDLESS)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 100_000 for path in tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.kill()
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".run.h5.")
    records = bt.load_records(left)
    assert records.attributes["ended"] == "unfinished" and len(records["s"]) > 0


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(stream: Any, inputs: Any = 1.0, **options: Any) -> bt.Solution:
        return bt.simulate(lif(), inputs, dt=0.1, duration=1.0, stream=stream, **{"record": RECORD} | options)

    good = tmp_path / "run.h5"
    for path in (tmp_path, tmp_path / "no" / "run.h5"):
        with pytest.raises(ValueError, match=r"stream=...\)`: expected a file in a folder that exists"):
            run(path)
    with pytest.raises(TypeError, match="expected the path of a file, got 3"):
        run(3)
    for options in ({"record": None}, {"record": {}}, {"keep_out": True}):
        with pytest.raises(ValueError, match="expected records and no `keep_out`"):
            run(good, **options)
    with pytest.raises(ValueError, match="names without '/', got 'a/b'"):
        run(good, record={"a/b": bt.spikes()})
    with pytest.raises(ValueError, match=r"variables with names without '/', got 'a/b'"):
        run(good, record={"x": lambda state, out: {"a/b": out}})
    with pytest.raises(TypeError, match=r"dtype that NumPy has, got torch.bfloat16 in the record 'x'"):
        run(good, record={"x": lambda state, out: state.v.bfloat16()})
    with pytest.raises(ValueError, match="expected no gradient to be needed"):
        run(good, inputs=torch.ones(10, 4, requires_grad=True))
    with pytest.raises(ValueError, match=r"expected no torch\.func transform"):
        torch.func.vmap(lambda i: run(good, inputs=i).state.v)(torch.ones(2))
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"`simulate\(stream=...\)`: expected h5py to be installed"):
        run(good)


def test_files_that_hold_no_records(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`load_records\(path=...\)`: there is no file"):
        bt.load_records(tmp_path / "no.h5")
    (tmp_path / "text").write_text("no HDF5")
    with pytest.raises(ValueError, match="expected HDF5"):
        bt.load_records(tmp_path / "text")
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(ValueError, match=r"expected format 'bdtorch-records-1', got None"):
        bt.load_records(tmp_path / "other.h5")


def test_an_input_of_no_steps_leaves_empty_records(tmp_path: Path) -> None:
    for loop in ("reference", "native", "auto"):
        sol = bt.simulate(lif(), torch.zeros(0, 4), dt=0.1, loop=loop)
        assert sol.out.shape == (0, 4) and sol.steps == 0
    sol = bt.simulate(lif(), torch.zeros(0, 4), dt=0.1, record=RECORD, stream=tmp_path / "run.h5")
    assert len(sol["s"]) == 0 and sol["v"].shape == (0, 4)
