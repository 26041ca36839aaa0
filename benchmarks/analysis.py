"""Slow points of a continuous attractor, beside BrainPy, in one run.

    BRAINPY_PYTHON=.venv-brainpy/bin/python python -m benchmarks.analysis [--json FILE]

512 units, 629 starts (the very same), mean square of the derivative at most 1e-7; accepted are those that reach it, with
the derivative evaluated anew in double precision for both. One core; each side gets one call to compile, apart, and then
the median of three. BrainPy's finder compiles in every call; what a call of one iteration takes is taken off its times.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import ran, timed

UNITS, STARTS, TOLERANCE, REPEATS = 512, 629, 1e-7, 3


# The problem, as arrays that both sides read


def write_problem(folder: Path) -> None:
    """Starts of the search, and weights."""
    generator = np.random.default_rng(0)
    angles = -math.pi + 2.0 * math.pi / UNITS * np.arange(UNITS)
    centres = -math.pi + 0.01 * np.arange(STARTS)
    starts = 20.0 * np.exp(-(_around(angles - centres[:, None]) ** 2)) + 0.01 * generator.standard_normal(
        (STARTS, UNITS)
    )
    distance = _around(angles[:, None] - angles)
    weight = 4.0 / (math.sqrt(2.0 * math.pi) * 0.5) * np.exp(-(distance**2) / (2.0 * 0.5**2))
    np.savez(folder / "ring.npz", starts=starts.astype(np.float32), weight=weight)


def _around(difference: np.ndarray) -> np.ndarray:
    return (difference + math.pi) % (2.0 * math.pi) - math.pi


# The sides: each makes a call that returns an array


def bdtorch_ring(folder: Path) -> Callable[[], np.ndarray]:
    """Gauss-Newton, the default of `slow_points`, in single precision."""
    import torch

    import bdtorch as bt

    data = np.load(folder / "ring.npz")
    system = bt.rates.ContinuousAttractor(UNITS, k=0.1, a=0.5, j0=4.0, dtype=torch.float32)
    starts = torch.from_numpy(data["starts"])

    def call() -> np.ndarray:
        found = bt.analyze.slow_points(system, starts, tolerance=0.5 * UNITS * TOLERANCE, unique=None)
        return found.ends.numpy()

    return call


def brainpy_ring(folder: Path) -> Callable[[], np.ndarray]:
    """`SlowPointFinder` by gradient descent, with the optimiser of its published script."""
    import brainpy as bp
    import brainpy.math as bm

    data = np.load(folder / "ring.npz")
    weight, starts = bm.asarray(data["weight"].astype(np.float32)), bm.asarray(data["starts"])

    def derivative(u: Any) -> Any:
        square = u * u
        return square / (1.0 + 0.1 * bm.sum(square, axis=-1, keepdims=True)) @ weight - u

    def find(batch: int, most: int) -> np.ndarray:
        finder = bp.analysis.SlowPointFinder(f_cell=derivative, f_type="continuous", verbose=False)
        optimizer = bp.optim.Adam(lr=bp.optim.ExponentialDecay(0.2, 1, 0.999))
        finder.find_fps_with_gd_method(starts, tolerance=TOLERANCE, num_batch=batch, num_opt=most, optimizer=optimizer)
        return np.asarray(finder.fixed_points)

    def call() -> np.ndarray:
        return find(200, 10_000)

    call.overhead = lambda: find(1, 1)  # type: ignore[attr-defined]
    return call


# Running them


def side(name: str, folder: Path) -> None:
    """One side: times of a first call and of further ones; the ends in a file."""
    if name == "bdtorch":
        import torch

        torch.set_num_threads(1)
    call = {"bdtorch": bdtorch_ring, "brainpy": brainpy_ring}[name](folder)
    times, ends = timed(call, REPEATS)
    np.save(folder / f"{name}-ring.npy", ends)
    if hasattr(call, "overhead"):
        began, spent = time.perf_counter(), time.process_time()
        call.overhead()
        times["median"] -= time.perf_counter() - began
        times["processor"] -= time.process_time() - spent
    print(json.dumps(times))


def accepted(folder: Path, name: str) -> int:
    """How many ends are within the tolerance, evaluated anew in double precision."""
    weight, u = np.load(folder / "ring.npz")["weight"], np.load(folder / f"{name}-ring.npy").astype(float)
    derivative = u**2 / (1.0 + 0.1 * (u**2).sum(1, keepdims=True)) @ weight - u
    return int(((derivative**2).mean(1) <= TOLERANCE).sum())


def main() -> None:
    """Both sides; a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", nargs=2, metavar=("NAME", "FOLDER"), help="used by the program itself")
    arguments = parser.parse_args()
    if arguments.side:
        name, where = arguments.side
        side(name, Path(where))
        return
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        write_problem(folder)
        times = {name: ran(name, "benchmarks.analysis", folder) for name in ("bdtorch", "brainpy")}
        reached = {name: accepted(folder, name) for name in times}
    print(f"slow points, {UNITS} units, {STARTS} starts, one core")
    print("| | s a call | the processor's | first call | accepted |\n|---|---|---|---|---|")
    for name, seconds in times.items():
        print(
            f"| {name} | {seconds['median']:.3f} | {seconds['processor']:.3f} | {seconds['first']:.2f} | {reached[name]} |"
        )
    ratio, by_processor = (times["brainpy"][key] / times["bdtorch"][key] for key in ("median", "processor"))
    print(f"ratio {ratio:.1f}, by the processor's seconds {by_processor:.1f}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"times": times, "accepted": reached, "ratio": ratio}))


if __name__ == "__main__":
    main()
