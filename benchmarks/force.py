"""Learning a readout by recursive least squares (FORCE), beside BrainPy, in one run.

    BRAINPY_PYTHON=.venv-brainpy/bin/python python -m benchmarks.force [--sizes 100,1000] [--precision 32,64] [--json FILE]

Three ways, all with alpha 0.1 in BrainPy's sense, P(0) = 0.1 I, and the very same weights on both sides:

- ``fit``: as BrainPy's users do it, and its paper in figure 4E. `bp.OnlineTrainer(fit_method=bp.algorithms.RLS(0.1))`
  fits a `Dense` on a `Reservoir` (recurrent connectivity 0.1, three coordinates of the Lorenz system five samples
  ahead), without progress bar. A call of `fit` compiles anew every time. Here: `simulate`, then `fit_online`
  in the native loop.
- ``loop``: the same, but BrainPy's step (reservoir, readout, its `RLS`) stands in a loop that was compiled once.
- ``feedback``: FORCE proper: the readout feeds back into a chaotic network (gain 1.5) while it learns a sum of sines, so
  that no step can begin before the last has learnt. BrainPy's loop is compiled once; here `train.Force`.

One core; each side gets one call to compile and then the median of three. Weights at the end are compared, and errors
over the last fifth.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import ran, timed

SAMPLES = {100: 10_000, 500: 4_000, 1000: 2_000, 2000: 500}
WAYS = ("fit", "loop", "feedback")
AHEAD, REPEATS = 5, 3
Call = Callable[[], tuple[np.ndarray, float]]
"""Learns anew: weights ``(n, targets)`` and the mean absolute error over the last fifth."""


# The problems, as arrays that both sides read


def write_problem(folder: Path, size: int) -> None:
    """Weights and series, in double precision."""
    generator = np.random.default_rng(size)
    samples = SAMPLES[size]
    connected = generator.random((size, size)) < 0.1
    recurrent = np.where(connected, generator.standard_normal((size, size)) / math.sqrt(0.1 * size), 0.0)
    series = _lorenz(samples + AHEAD)
    t = np.arange(samples) / 100.0
    wave = (np.sin(2 * np.pi * t) + 0.5 * np.sin(4 * np.pi * t) + 0.3 * np.sin(6 * np.pi * t))[:, None]
    np.savez(
        folder / f"{size}.npz", recurrent=recurrent, inputs=generator.uniform(-0.1, 0.1, (3, size)), x=series[:-AHEAD],
        y=series[AHEAD:], wave=wave, feedback=generator.uniform(-1.0, 1.0, (1, size)),
        start=0.5 * generator.standard_normal(size),
    )  # fmt: skip


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


def _last_error(predictions: Any, targets: Any) -> float:
    n = len(targets) // 5
    return float(np.abs(np.asarray(predictions)[-n:] - np.asarray(targets)[-n:]).mean())


# The sides


def bdtorch_side(path: Path, way: str, precision: int) -> Call:
    """`EchoState` and `fit_online`, or `Force`."""
    import torch

    import bdtorch as bt

    torch.set_num_threads(1)
    dtype = torch.float64 if precision == 64 else torch.float32
    data = {key: torch.from_numpy(value).to(dtype) for key, value in np.load(path).items()}
    # As is quicker: stored with its zeros where it lies in the first caches.
    connect, weight = None, data["recurrent"]
    if len(weight) > 256:
        connect, weight = bt.connect.CSR.from_dense(weight)
    if way == "feedback":
        cell = bt.rates.LeakyRate(len(data["start"]), tau=10.0, x_init=data["start"], dtype=dtype)
        net = bt.train.Force(
            cell, 1, gain=1.0, connect=connect, w_feedback=data["feedback"], rule=bt.train.RLS(10.0)
        )  # fmt: skip
        net.recurrent.weight.copy_(1.5 * weight)

        def learn() -> tuple[np.ndarray, float]:
            sol = bt.simulate(net, {"target": data["wave"]}, dt=1.0, progress=False)
            return sol.state.readout.weight.numpy().T, _last_error(sol.out, data["wave"])

        return learn
    system = bt.reservoirs.EchoState(
        len(data["start"]), 3, leak=0.3, spectral_radius=None, connect=connect, weight=0.9 * weight,
        weight_in=data["inputs"], dtype=dtype,
    )  # fmt: skip

    def fit() -> tuple[np.ndarray, float]:
        activity = bt.simulate(system, data["x"], dt=1.0, progress=False).out
        found = bt.train.fit_online(activity, data["y"], bt.train.RLS(10.0), bias=False, loop="native")
        return found.readout.weight.detach().numpy().T, _last_error(found.predictions, data["y"])

    return fit


def brainpy_side(path: Path, way: str, precision: int) -> Call:
    """`OnlineTrainer`, or its `RLS` in one compiled loop."""
    import brainpy as bp
    import brainpy.math as bm
    import jax.numpy as jnp

    if precision == 64:
        bm.enable_x64()
    kind = jnp.float64 if precision == 64 else jnp.float32
    data = {key: jnp.asarray(value, kind) for key, value in np.load(path).items()}
    if way == "fit":
        return _trainer(bp, bm, data)
    feeds_back = way == "feedback"
    targets, inputs = (data["wave"], data["wave"]) if feeds_back else (data["y"], data["x"])
    recurrent = (1.5 if feeds_back else 0.9) * data["recurrent"]
    size, n_out = len(recurrent), targets.shape[1]
    rule = bp.algorithms.RLS(alpha=0.1)
    rule.register_target(feature_in=size, identifier="readout")
    spread = rule.implicit_vars["readout" + rule.postfix]
    spread.value = spread.value.astype(kind)
    x, rate, out = bm.Variable(data["start"]), bm.Variable(data["start"]), bm.Variable(jnp.zeros(n_out, kind))
    weight = bm.Variable(jnp.zeros((size, n_out), kind))
    fade = math.exp(-0.1)

    def step(u: Any, target: Any) -> Any:
        if feeds_back:
            current = rate.value @ recurrent + out.value @ data["feedback"]
            x.value = current + (x.value - current) * fade
            rate.value = jnp.tanh(x.value)
        else:
            drive = u @ data["inputs"] + rate.value @ recurrent
            rate.value = 0.7 * rate.value + 0.3 * jnp.tanh(drive)
        y = rate.value @ weight.value
        weight.value = weight.value + rule.call(target, rate.value, y, identifier="readout")
        out.value = y
        return y

    loop = bm.jit(lambda: bm.for_loop(step, (inputs, targets), progress_bar=False))

    def learn() -> tuple[np.ndarray, float]:
        x.value, out.value, weight.value = data["start"], jnp.zeros(n_out, kind), jnp.zeros((size, n_out), kind)
        rate.value = jnp.zeros(size, kind)
        spread.value = 0.1 * jnp.eye(size, dtype=kind)
        predictions = loop()
        return np.asarray(weight.value), _last_error(predictions, targets)

    return learn


def _trainer(bp: Any, bm: Any, data: dict[str, Any]) -> Call:
    size = len(data["start"])

    class Reader(bp.DynamicalSystem):
        def __init__(self) -> None:
            super().__init__(mode=bm.batching_mode)
            self.reservoir = bp.dyn.Reservoir(3, size, mode=bm.batching_mode)
            self.reservoir.Win, self.reservoir.Wrec = data["inputs"], 0.9 * data["recurrent"]
            self.readout = bp.dnn.Dense(
                size, 3, W_initializer=bp.init.ZeroInit(), b_initializer=None, mode=bm.training_mode
            )

        def update(self, x: Any) -> Any:
            return self.readout(self.reservoir(x))

    x, y = data["x"][None], data["y"][None]

    models = [Reader() for _ in range(1 + REPEATS)]
    trainers = [
        bp.OnlineTrainer(model, fit_method=bp.algorithms.RLS(alpha=0.1), progress_bar=False) for model in models
    ]

    def fit() -> tuple[np.ndarray, float]:
        model, trainer = models.pop(), trainers.pop()
        predictions = trainer.fit([x, y])
        return np.asarray(model.readout.W.value), _last_error(np.asarray(predictions)[0], data["y"])

    return fit


# Running them


def side(name: str, path: Path, way: str, precision: int) -> None:
    """One side of one problem: times, error, and the weights in a file."""
    call = {"bdtorch": bdtorch_side, "brainpy": brainpy_side}[name](path, way, precision)
    times, (weight, error) = timed(call, REPEATS)
    np.save(path.with_name(f"{name}.npy"), weight)
    print(json.dumps({**times, "error": error}))


def compared(folder: Path, size: int, way: str, precision: int) -> dict[str, Any]:
    """Both sides of one problem."""
    path = folder / f"{size}.npz"
    if not path.exists():
        write_problem(folder, size)
    ours, theirs = (ran(name, "benchmarks.force", path, way, precision) for name in ("bdtorch", "brainpy"))
    a, b = (np.load(folder / f"{name}.npy").astype(float) for name in ("bdtorch", "brainpy"))
    difference = float(np.abs(a - b).max() / np.abs(b).max())
    return {"units": size, "way": way, "precision": precision, "samples": SAMPLES[size], "bdtorch": ours,
            "brainpy": theirs, "difference": difference}  # fmt: skip


def table_row(row: dict[str, Any]) -> str:
    """A line of the table; times by the clock, and the ratio by the processor's seconds too."""
    ours, theirs = row["bdtorch"], row["brainpy"]
    each = [f"{1e6 * side['median'] / row['samples']:.2f}" for side in (ours, theirs)]
    ratios = [f"{theirs[key] / ours[key]:.1f}" for key in ("median", "processor")]
    errors = f"{ours['error']:.2g}, {theirs['error']:.2g}"
    cells = [f"{row['units']:,}", row["precision"], row["way"], *each, *ratios, errors, f"{row['difference']:.1e}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """All problems, a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100,500,1000,2000", help=f"of {', '.join(map(str, SAMPLES))}")
    parser.add_argument("--precision", default="32", help="32, 64, or both")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--side", nargs=4, metavar=("NAME", "FILE", "WAY", "PRECISION"), help="used by the program itself"
    )
    arguments = parser.parse_args()
    if arguments.side:
        name, path, way, precision = arguments.side
        side(name, Path(path), way, int(precision))
        return
    rows = []
    print(
        "| units | precision | way | bdtorch us/sample | BrainPy us/sample | ratio | by the processor's | errors | difference |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, arguments.sizes.split(",")):
            for precision in map(int, arguments.precision.split(",")):
                for way in arguments.ways.split(","):
                    row = compared(Path(folder), size, way, precision)
                    rows.append(row)
                    print(table_row(row), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
