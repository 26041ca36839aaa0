"""Loops by compilers of several makes, versions and targets. What needs clang is skipped where there is none."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import bdtorch as bt
from bdtorch import _tree as tree
from bdtorch.simulate.loops import LoopError
from bdtorch.simulate.loops.native import compiler
from tests.simulate.native import test_kernels, test_two_bytes, test_woven
from tests.simulate.native.stepping import assert_same, both, run
from tests.simulate.test_export import MODELS

FLOAT = torch.float32
CLANG = shutil.which("clang++")
needs_clang = pytest.mark.skipif(CLANG is None, reason="there is no clang++")


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BDTORCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def simple() -> bt.Solution:
    return run(lambda x, t: ([x[0] * 0.5], x[0]), torch.linspace(-1.0, 1.0, 9), loop="native")


def saying(folder: Path, version: str) -> str:
    """A compiler that says it has a version, and is g++ otherwise."""
    script = folder / "c++"
    script.write_text(f'#!/bin/sh\ncase "$*" in *--version*) echo \'{version}\';; *) exec g++ "$@";; esac\n')
    script.chmod(0o755)
    return str(script)


FREE = "\nCopyright (C) 2015 Free Software Foundation, Inc."


@pytest.mark.parametrize(
    "version",
    [
        f"g++ (GCC) 4.8.5 20150623 (Red Hat 4.8.5-44){FREE}",
        f"c++ (Debian 8.3.0-6) 8.3.0{FREE}",
        "Ubuntu clang version 12.0.1-19ubuntu3\nTarget: x86_64-pc-linux-gnu",
        "Apple clang version 11.0.3 (clang-1103.0.32.62)\nTarget: x86_64-apple-darwin19.6.0",
    ],
)
def test_a_compiler_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, fresh_cache: Path, tmp_path: Path, version: str
) -> None:
    monkeypatch.setenv("CXX", f"{saying(tmp_path, version)} -DX")
    first = version.splitlines()[0].replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")
    with pytest.raises(
        LoopError, match=rf"needs g\+\+ 9 or clang\+\+ 13, or newer .*c\+\+ -DX' says that it is '{first}': set \$CXX"
    ):
        simple()


@pytest.mark.parametrize(
    "version",
    [
        f"g++ (Ubuntu 9.4.0-1ubuntu1~20.04.1) 9.4.0{FREE}",
        f"x86_64-conda-linux-gnu-c++ (conda-forge gcc 14.2.0-1) 14.2.0{FREE}",
        "Apple clang version 15.0.0 (clang-1500.3.9.4)",
        "clang version 13.0.1",
        "Intel(R) oneAPI DPC++/C++ Compiler 2023.0.0 (2023.0.0.20221201)",
        "a compiler of which nobody has heard",
    ],
)
def test_others_are_taken(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path, tmp_path: Path, version: str) -> None:
    monkeypatch.setenv("CXX", saying(tmp_path, version))
    assert simple().loop == "native"


def test_two_compilers_have_two_entries(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> None:
    for command in ("g++", "g++ -fno-plt", *([CLANG] if CLANG else [])) * 2:
        monkeypatch.setenv("CXX", command)
        simple()
    assert len(list(fresh_cache.glob("loop-*.so"))) == (3 if CLANG else 2)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86")
@pytest.mark.parametrize("command", ["g++", pytest.param("clang++", marks=needs_clang)])
def test_no_vector_instructions_are_needed(tmp_path: Path, command: str) -> None:
    """Loops compile for processors without AVX, with AVX2 and with AVX-512, without a warning."""
    for name in ("stdp", "mixed"):
        model = MODELS[name]()
        bt.export_loop(tmp_path, model.system, model.inputs, dt=0.1, record=model.record, name=name)
    quiet = ["-Wno-unused", "-Wno-ignored-qualifiers", "-Wno-tautological-compare", "-Wno-int-in-bool-context"]
    for name in ("stdp", "mixed"):
        for target in ("x86-64", "x86-64-v3", "x86-64-v4"):
            done = subprocess.run(
                [command, "-std=c++17", "-O0", f"-march={target}", "-Wall", "-Wextra", *quiet, f"-I{tmp_path / 'include'}",
                 "-S", tmp_path / f"{name}_loop.cpp", "-o", tmp_path / "loop.s"], capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86")
@pytest.mark.parametrize("command", ["g++", "g++-9", "g++-10", "g++-11"])
def test_passes_with_spikes_become_vectors(tmp_path: Path, command: str) -> None:
    """Of floats, counters and truth values: one by one, neurons would take six times as long."""
    if shutil.which(command) is None:
        pytest.skip(f"there is no {command}")
    model = MODELS["coba"]()
    bt.export_loop(tmp_path, model.system, model.inputs, dt=0.1, record=model.record, name="coba")
    flags = [flag for flag in compiler.FLAGS if not flag.startswith("-m") and flag != "-shared"]
    done = subprocess.run(
        [command, *flags, "-march=x86-64-v3", "-fopt-info-vec", f"-I{tmp_path / 'include'}", "-c",
         tmp_path / "coba_loop.cpp", "-o", tmp_path / "loop.o"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    passes = [line for line in done.stderr.splitlines() if "coba_loop.cpp" in line and "loop vectorized" in line]
    text = (tmp_path / "coba_loop.cpp").read_text().splitlines()
    heads = {text[int(line.split(":")[1]) - 1].split("=")[0] for line in passes}
    assert heads == {"for (int64_t i0 "}, done.stderr


def assert_lowered(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for native, reference in zip(
        *both(lambda x, t: ([x[0] * 0.5], function(x[0])), torch.linspace(-1, 1, 9)), strict=True
    ):
        assert_same(native, reference, exact=False)


@needs_clang
@pytest.mark.parametrize("name", MODELS)
def test_clang_gives_the_bits_of_gcc(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On any number of threads."""
    model = MODELS[name]()
    results = []
    for command, threads in (("g++", 1), (str(CLANG), 1), (str(CLANG), 3)):
        monkeypatch.setenv("CXX", command)
        sol = bt.simulate(
            model.system, model.inputs, dt=0.1, duration=0.1 * model.steps, batch_shape=model.batch_shape,
            record=model.record, loop=bt.Native(threads=threads),
        )  # fmt: skip
        spikes = [
            record.step * 10**6 + record.train for record in sol.records.values() if isinstance(record, bt.Spikes)
        ]
        assert all(len(x) > 0 for x in spikes)
        results.append([*tree.leaves(sol.state), *spikes])
    for one, other, third in zip(*results, strict=True):
        assert torch.equal(one, other) and torch.equal(other, third)


@needs_clang
@pytest.mark.parametrize(
    "test",
    [
        *(partial(test_woven.test_no_result_tells, dtype, (401, 403), True, 3) for dtype in (FLOAT, torch.bfloat16)),
        partial(test_kernels.test_sparse_products, FLOAT, 3),
        partial(test_kernels.test_dense_event_products, FLOAT, 3),
        partial(test_kernels.test_recursive_least_squares, FLOAT, 3),
        partial(test_two_bytes.test_kernels_read_weights_of_two_bytes, torch.float16, 1),
        partial(assert_lowered, lambda x: torch.lgamma(x + 3)),
    ],
)  # fmt: skip
def test_kernels_compiled_by_clang(monkeypatch: pytest.MonkeyPatch, test: Callable[[], None]) -> None:
    """Vectors wherever their numbers may lie in memory, alternatives that `if constexpr` drops, functions of the C library."""
    monkeypatch.setenv("CXX", str(CLANG))
    test()
