"""Nanoseconds per random number, against torch's generator in the same run.

    python benchmarks/ops/random_numbers.py [--n 4096 1000000] [--threads 1] [--json FILE]

Two things are timed: the ops, as an eager step calls them, and for three of them the kernels of ``bdtorch/random.h`` as
a generated loop compiles them (g++ -O3, with and without -march=native). torch draws with an explicit generator; its
Bernoulli draw is ``rand(n) < p``. Ratios are torch's time over ours: above 1, ours is faster.

(Not named random.py: a script's directory comes first on the import path, and torch imports the standard `random`.)
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import platform
import shutil
import subprocess
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from bdtorch import ops

KERNEL_SOURCE = """
#include <bdtorch/random.h>
#define EXPORT(name, T, call) \\
  extern "C" void name(int64_t key, int64_t step, int64_t begin, int64_t end, T* out) { bdtorch::call; }
EXPORT(uniform_float32, float, uniform_fill(key, step, begin, end, out))
EXPORT(uniform_float64, double, uniform_fill(key, step, begin, end, out))
EXPORT(normal_float32, float, normal_fill(key, step, begin, end, out))
EXPORT(normal_float64, double, normal_fill(key, step, begin, end, out))
EXPORT(bernoulli_float32, bool, bernoulli_fill(key, step, begin, end, 0.1f, out))
EXPORT(bernoulli_float64, bool, bernoulli_fill(key, step, begin, end, 0.1, out))
"""
DISTRIBUTIONS = ("uniform", "normal", "bernoulli", "exponential", "poisson", "binomial")
WITH_KERNELS = ("uniform", "normal", "bernoulli")  # what the kernels above draw
DTYPES = (torch.float32, torch.float64)


def nanoseconds_per_number(call: Callable[[], object], n: int) -> float:
    """The best of several runs, each long enough for the clock."""
    call()
    number = max(1, 2_000_000 // n)
    return min(timeit.repeat(call, number=number, repeat=7)) / number / n * 1e9


def torch_draw(distribution: str, n: int, dtype: torch.dtype) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    if distribution == "normal":
        return lambda: torch.randn(n, generator=generator, dtype=dtype)
    if distribution == "exponential":
        return lambda: torch.empty(n, dtype=dtype).exponential_(generator=generator)
    if distribution == "poisson":
        rate = torch.full((n,), 3.0, dtype=dtype)
        return lambda: torch.poisson(rate, generator=generator)
    if distribution == "binomial":
        trials, p = torch.full((n,), 20.0, dtype=dtype), torch.full((n,), 0.3, dtype=dtype)
        return lambda: torch.binomial(trials, p, generator=generator)
    if distribution == "uniform":
        return lambda: torch.rand(n, generator=generator, dtype=dtype)
    return lambda: torch.rand(n, generator=generator, dtype=dtype) < 0.1


def bdtorch_draw(distribution: str, n: int, dtype: torch.dtype) -> Callable[[], object]:
    key, counter, p = ops.make_key(0), torch.tensor(3), torch.tensor(0.1, dtype=dtype)
    if distribution == "bernoulli":
        return lambda: ops.bernoulli(key, counter, p, n)
    if distribution == "poisson":
        return lambda: ops.poisson(key, counter, 30 * p, n)
    if distribution == "binomial":
        return lambda: ops.binomial(key, counter, 20, 3 * p, n)
    draw = {"normal": ops.normal, "uniform": ops.uniform, "exponential": ops.exponential}[distribution]
    return lambda: draw(key, counter, n, dtype=dtype)


def compile_kernels(directory: Path, extra_flags: list[str]) -> ctypes.CDLL:
    (directory / "kernels.cpp").write_text(KERNEL_SOURCE)
    library = directory / f"kernels{len(extra_flags)}.so"
    flags = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
    command = ["g++", *flags, *extra_flags, f"-I{ops.include_dir()}", str(directory / "kernels.cpp")]
    subprocess.run([*command, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def kernel_draw(kernels: ctypes.CDLL, distribution: str, n: int, dtype: torch.dtype) -> Callable[[], object]:
    name = str(dtype).removeprefix("torch.")
    out = torch.empty(n, dtype=torch.bool if distribution == "bernoulli" else dtype)
    function = getattr(kernels, f"{distribution}_{name}")
    arguments = [ctypes.c_int64(value) for value in (1, 3, 0, n)]
    pointer = ctypes.c_void_p(out.data_ptr())
    return lambda: (function(*arguments, pointer), out)


class Row(NamedTuple):
    """One measurement, ns a number."""

    what: str
    distribution: str
    dtype: str
    n: int
    torch_ns: float
    bdtorch_ns: float


def measure(sizes: list[int]) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        kernels = {}
        if shutil.which("g++"):
            kernels["kernel -O3"] = compile_kernels(Path(name), [])
            kernels["kernel -O3 native"] = compile_kernels(Path(name), ["-march=native"])
        for n, distribution, dtype in itertools.product(sizes, DISTRIBUTIONS, DTYPES):
            draws = {"op": bdtorch_draw(distribution, n, dtype)}
            if distribution in WITH_KERNELS:
                draws |= {what: kernel_draw(library, distribution, n, dtype) for what, library in kernels.items()}
            torch_ns = nanoseconds_per_number(torch_draw(distribution, n, dtype), n)
            for what, draw in draws.items():
                rows.append(Row(what, distribution, str(dtype), n, torch_ns, nanoseconds_per_number(draw, n)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[4096, 1_000_000], help="numbers per call")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments.n)
    for row in rows:
        print(
            f"{row.what:18} {row.distribution:9} {row.dtype:13} n={row.n:<8} torch {row.torch_ns:6.2f} ns  "
            f"bdtorch {row.bdtorch_ns:6.2f} ns  ratio {row.torch_ns / row.bdtorch_ns:5.2f}"
        )
    if arguments.json:
        setting = {"torch": torch.__version__, "threads": arguments.threads, "processor": platform.processor()}
        arguments.json.write_text(
            json.dumps({"setting": setting, "results": [row._asdict() for row in rows]}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
