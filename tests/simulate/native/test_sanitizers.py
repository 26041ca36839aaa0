"""Generated loops under the compiler's sanitizers: no race between threads, no access outside an array."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = """
    import sys
    sys.path.insert(0, {root!r})
    import torch
    import bdtorch as bt
    from bdtorch.simulate.loops.native import compiler, made
    from benchmarks import coba
    from tests.simulate.native.stepping import run
    from tests.simulate.native.test_random_graphs import Program, initial, step

    torch.set_num_threads(1)
    compiler.FLAGS = (*(flag for flag in compiler.FLAGS if flag != "-O3"), "-O1", "-g", "-fsanitize={kind}")
    programs = [Program(seed) for seed in range({programs})]
    if {fault}:  # a loop whose threads never meet
        source = made.source
        made.source = lambda *args: source(*args).replace("loop::meet(now.frame, now.thread);", "")
    state = [leaf for p in programs for leaf in initial(torch.Generator().manual_seed(p.seed))]
    run(step(programs), *state, loop=bt.Native(threads=3), steps=20)
    sol = bt.simulate(coba.build(400), 20.0, dt=0.1, duration=5.0, record={{"E": bt.spikes("E"), "v": bt.trace("E.v")}},
                      loop=bt.Native(threads=3))
    print("done", len(sol["E"]) > 0, file=sys.stderr)
"""


def report(kind: str, library: str, folder: Path, fault: bool = False) -> str:
    """What the sanitizer says about a process whose generated loops it watches."""
    command = ["g++", f"-print-file-name={library}"]
    preload = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        "BDTORCH_CACHE_DIR": str(folder),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "exitcode=0 ignore_noninstrumented_modules=1",
        "PYTHONMALLOC": "malloc",
    }
    script = textwrap.dedent(RUN).format(root=str(ROOT), kind=kind, programs=8, fault=fault)
    # Without randomised addresses, for which the thread sanitizer has too little room on newer kernels.
    done = subprocess.run(
        ["setarch", "-R", sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    return done.stderr


@pytest.mark.slow
def test_no_race(tmp_path):
    text = report("thread", "libtsan.so", tmp_path)
    assert "done True" in text and "ThreadSanitizer" not in text, text[-4000:]


@pytest.mark.slow
def test_a_missing_barrier_is_seen(tmp_path):
    assert "WARNING: ThreadSanitizer: data race" in report("thread", "libtsan.so", tmp_path, fault=True)


@pytest.mark.slow
def test_no_access_outside(tmp_path):
    text = report("address", "libasan.so", tmp_path)
    assert "done True" in text and "AddressSanitizer" not in text, text[-4000:]
