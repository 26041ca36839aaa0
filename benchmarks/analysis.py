"""Slow points of a continuous attractor and online learning of a readout, beside BrainPy, in one run.

    BRAINPY_PYTHON=.venv-brainpy/bin/python python -m benchmarks.analysis

Both sides run in processes of their own and take turns. A side gets one call to compile, apart, and then the median of
three. BrainPy's finder compiles in every call; what a call of one iteration takes is taken off its times.

Slow points: 512 units, 629 starts (the very same), mean square of the derivative at most 1e-7; accepted are those that
reach it, with the derivative evaluated anew in double precision for both. FORCE: recursive least squares (alpha 0.1) of
the three coordinates of the Lorenz system, five samples ahead, from the activity of the very same reservoir, which each
side runs itself; double precision; weights compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

UNITS, STARTS, TOLERANCE = 512, 629, 1e-7
RESERVOIRS, AHEAD, REPEATS = (100, 1000), 5, 3


# The problems, as arrays that both sides read


def write_problem(folder: Path, samples: int) -> None:
    """Starts of the search, series and reservoirs."""
    generator = np.random.default_rng(0)
    angles = -math.pi + 2.0 * math.pi / UNITS * np.arange(UNITS)
    centres = -math.pi + 0.01 * np.arange(STARTS)
    starts = 20.0 * np.exp(-(_around(angles - centres[:, None]) ** 2)) + 0.01 * generator.standard_normal(
        (STARTS, UNITS)
    )
    distance = _around(angles[:, None] - angles)
    weight = 4.0 / (math.sqrt(2.0 * math.pi) * 0.5) * np.exp(-(distance**2) / (2.0 * 0.5**2))
    np.savez(folder / "ring.npz", starts=starts.astype(np.float32), weight=weight)
    series = _lorenz(samples + AHEAD)
    for size in RESERVOIRS:
        matrix = generator.standard_normal((size, size)) / math.sqrt(size)
        matrix *= 0.9 / abs(np.linalg.eigvals(matrix)).max()
        np.savez(
            folder / f"reservoir{size}.npz", recurrent=matrix, inputs=generator.uniform(-0.1, 0.1, (3, size)),
            x=series[:-AHEAD], y=series[AHEAD:],
        )  # fmt: skip


def _around(difference: np.ndarray) -> np.ndarray:
    return (difference + math.pi) % (2.0 * math.pi) - math.pi


def _lorenz(count: int, dt: float = 0.01) -> np.ndarray:
    def slope(v: np.ndarray) -> np.ndarray:
        return np.array([10.0 * (v[1] - v[0]), v[0] * (28.0 - v[2]) - v[1], v[0] * v[1] - 8.0 / 3.0 * v[2]])

    states = [np.array([17.677, 12.931, 43.914])]
    for _ in range(count - 1):
        v = states[-1]
        a = slope(v)
        b = slope(v + 0.5 * dt * a)
        c = slope(v + 0.5 * dt * b)
        states.append(v + dt / 6.0 * (a + 2.0 * b + 2.0 * c + slope(v + dt * c)))
    return np.array(states)


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


def bdtorch_force(folder: Path, size: int) -> Callable[[], np.ndarray]:
    """`EchoState` in the native loop, then `fit_online` with `RLS`."""
    import torch

    import bdtorch as bt

    data = {key: torch.from_numpy(value) for key, value in np.load(folder / f"reservoir{size}.npz").items()}
    system = bt.reservoirs.EchoState(
        size, 3, leak=0.3, spectral_radius=None, weight=data["recurrent"], weight_in=data["inputs"], dtype=torch.float64
    )

    def call() -> np.ndarray:
        activity = bt.simulate(system, data["x"], dt=1.0, progress=False).out
        return bt.train.fit_online(activity, data["y"], bt.train.RLS(0.1), bias=False).readout.weight.detach().numpy().T

    return call


def brainpy_force(folder: Path, size: int) -> Callable[[], np.ndarray]:
    """Its `RLS` in one compiled loop over reservoir and readout, as its `OnlineTrainer` has it."""
    import brainpy.math as bm
    import jax.numpy as jnp

    bm.enable_x64()
    data = {key: jnp.asarray(value) for key, value in np.load(folder / f"reservoir{size}.npz").items()}

    from brainpy.algorithms import RLS

    rule = RLS(alpha=10.0)  # it starts from alpha times the identity, where bdtorch divides
    rule.register_target(feature_in=size, identifier="readout")
    activity, weight = bm.Variable(jnp.zeros(size)), bm.Variable(jnp.zeros((size, 3)))
    spread = rule.implicit_vars["readout" + rule.postfix]

    def step(x: Any, y: Any) -> None:
        drive = x @ data["inputs"] + activity.value @ data["recurrent"]
        activity.value = 0.7 * activity.value + 0.3 * jnp.tanh(drive)
        out = activity.value @ weight.value
        weight.value = weight.value + rule.call(y, activity.value, out, identifier="readout")

    loop = bm.jit(lambda x, y: bm.for_loop(step, (x, y), progress_bar=False))

    def call() -> np.ndarray:
        activity.value, weight.value = jnp.zeros(size), jnp.zeros((size, 3))
        spread.value = 10.0 * jnp.eye(size)
        loop(data["x"], data["y"])
        return np.asarray(weight.value)

    return call


# Running them


def side(name: str, problem: str, folder: Path) -> None:
    """One side of one problem: time of the first call and of further ones, and what the last returned."""
    if name == "bdtorch":
        import torch

        torch.set_num_threads(1)
    maker = {"bdtorch": (bdtorch_ring, bdtorch_force), "brainpy": (brainpy_ring, brainpy_force)}[name]
    call = maker[0](folder) if problem == "ring" else maker[1](folder, int(problem))
    seconds = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - began)
    np.save(folder / f"{name}-{problem}.npy", result)
    began, overhead = time.perf_counter(), 0.0
    if hasattr(call, "overhead"):
        call.overhead()
        overhead = time.perf_counter() - began
    print(json.dumps({"first": seconds[0], "median": statistics.median(seconds[1:]) - overhead}))


def _ran(python: str, name: str, problem: str, folder: Path) -> dict[str, float]:
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, python, "-m", "benchmarks.analysis", "--side", name, problem, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed at {problem}:\n{done.stderr}")
    times: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return times


def accepted(folder: Path, name: str) -> int:
    """How many ends are within the tolerance, evaluated anew in double precision."""
    weight, u = np.load(folder / "ring.npz")["weight"], np.load(folder / f"{name}-ring.npy").astype(float)
    derivative = u**2 / (1.0 + 0.1 * (u**2).sum(1, keepdims=True)) @ weight - u
    return int(((derivative**2).mean(1) <= TOLERANCE).sum())


def main() -> None:
    """Both problems, both sides; a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000, help="of the series that is learnt")
    parser.add_argument("--side", nargs=3, metavar=("NAME", "PROBLEM", "FOLDER"), help="used by the program itself")
    arguments = parser.parse_args()
    if arguments.side:
        name, problem, where = arguments.side
        side(name, problem, Path(where))
        return
    pythons = {"bdtorch": sys.executable, "brainpy": os.environ.get("BRAINPY_PYTHON", ".venv-brainpy/bin/python")}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        write_problem(folder, arguments.samples)
        print(f"{'one core, seconds':34} {'bdtorch':>9} {'BrainPy':>9} {'ratio':>7}  first calls, compilation included")
        for problem in ("ring", *map(str, RESERVOIRS)):
            times = {name: _ran(python, name, problem, folder) for name, python in pythons.items()}
            ours, theirs = times["bdtorch"], times["brainpy"]
            if problem == "ring":
                label = "slow points"
                note = f"accepted {accepted(folder, 'bdtorch')} and {accepted(folder, 'brainpy')} of {STARTS}"
            else:
                label = f"FORCE, {problem} units, {arguments.samples} samples"
                a, b = (np.load(folder / f"{name}-{problem}.npy") for name in ("bdtorch", "brainpy"))
                note = f"weights differ by {abs(a - b).max() / abs(b).max():.1e}"
            ratio = theirs["median"] / ours["median"]
            first = f"{ours['first']:.2f} {theirs['first']:.2f}"
            print(f"{label:34} {ours['median']:9.3f} {theirs['median']:9.3f} {ratio:7.1f}  {first}; {note}", flush=True)


if __name__ == "__main__":
    main()
