"""Generated loops under the compiler's sanitizers: no race between threads, no access outside an array, nothing undefined."""

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
    from tests.simulate.native import test_kernels
    from tests.simulate.native.stepping import run
    from tests.simulate.native.test_random_graphs import Program, initial, step

    torch.set_num_threads(1)
    compiler.FLAGS = (*(flag for flag in compiler.FLAGS if flag != "-O3"), "-O1", "-g", "-fsanitize={kind}")
    programs = [Program(seed) for seed in range({programs})]
    old, new = {fault!r}
    source = made.source
    made.source = lambda *args: source(*args).replace(old, new)
    if not programs:
        run(lambda x, t: ([x[0] * 0.5], x[0]), torch.ones(9), loop="native")
        sys.exit()
    state = [leaf for p in programs for leaf in initial(torch.Generator().manual_seed(p.seed))]
    run(step(programs), *state, loop=bt.Native(threads=3), steps=20)
    sol = bt.simulate(coba.build(400), 20.0, dt=0.1, duration=5.0, record={{"E": bt.spikes("E"), "v": bt.trace("E.v")}},
                      loop=bt.Native(threads=3))
    if "address" in {kind!r}:  # vectors wherever their numbers may lie
        test_kernels.test_dense_event_products(torch.float32, 3)
        test_kernels.test_changes_of_weights(torch.float32, 3, "pre")
    print("done", len(sol["E"]) > 0, file=sys.stderr)
"""


def report(kind: str, folder: Path, fault: tuple[str, str] = ("", ""), programs: int = 8) -> str:
    """What the sanitizers say about a process whose generated loops they watch, with a text in them replaced by a fault."""
    libraries = ["libtsan.so"] if kind == "thread" else ["libasan.so", "libubsan.so"]
    commands = [["g++", f"-print-file-name={library}"] for library in libraries]
    preload = " ".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in commands)
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        "BDTORCH_CACHE_DIR": str(folder),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "exitcode=0 ignore_noninstrumented_modules=1",
        "PYTHONMALLOC": "malloc",
    }
    script = textwrap.dedent(RUN).format(root=str(ROOT), kind=kind, programs=programs, fault=fault)
    # Without randomised addresses, for which the thread sanitizer has too little room on newer kernels.
    done = subprocess.run(
        ["setarch", "-R", sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    return done.stderr


@pytest.mark.slow
def test_no_race(tmp_path):
    text = report("thread", tmp_path)
    assert "done True" in text and "ThreadSanitizer" not in text, text[-4000:]


@pytest.mark.slow
def test_a_missing_barrier_is_seen(tmp_path):
    text = report("thread", tmp_path, fault=("loop::meet(now.frame, now.thread);", ""))
    assert "WARNING: ThreadSanitizer: data race" in text


@pytest.mark.slow
def test_no_access_outside_and_nothing_undefined(tmp_path):
    text = report("address,undefined", tmp_path)
    assert "done True" in text and "AddressSanitizer" not in text and "runtime error" not in text, text[-4000:]


@pytest.mark.slow
def test_a_shift_too_far_is_seen(tmp_path):
    start = "int64_t k = frame->done;"
    fault = (start, f"{start} frame->patience |= 1 << (frame->threads + 31);")
    assert "runtime error: shift exponent 32 is too large" in report("address,undefined", tmp_path, fault, programs=0)
