"""What a precision costs and what it gives: errors of spike times, memory and speed in double, mixed and single precision.

    python benchmarks/precision.py --json out/benchmarks/precision.json

1. A Hodgkin-Huxley neuron with 100 Poisson inputs: how far its spikes lie from those in double precision.
2. Network A, 4,000 neurons with a weight for each synapse: when the first spike differs from the run in double, and rates.
3. Network A, 100,000 neurons: seconds of a biological second, memory of connectivity and weights, and of the state.
4. Networks A, B and C where the compiler may fuse products and sums (``-ffp-contract=fast``), which the native loop
   forbids: what that would gain.

One core; of several runs in turn, the shortest.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, this file sees only its own folder

import torch  # noqa: E402

import bdtorch as bt  # noqa: E402
from bdtorch import _tree as tree  # noqa: E402
from bdtorch.simulate.loops.native import compiler  # noqa: E402
from benchmarks import coba  # noqa: E402
from benchmarks.simulators import DT  # noqa: E402
from benchmarks.simulators.with_bdtorch import timed_run  # noqa: E402

DOUBLE, MIXED, SINGLE = "double", "double neurons, single projections", "single"


def stored_in(net: bt.Network, dtype: torch.dtype) -> None:
    """Store weights in ``dtype``."""
    for pathway in net.projections.values():
        pathway.weight = pathway.weight.to(dtype)


PRECISIONS: dict[str, Callable[[bt.Network], Any]] = {
    DOUBLE: lambda net: net.double(),
    MIXED: lambda net: net.populations.double(),
    SINGLE: lambda net: None,
    "single, weights in float16": lambda net: stored_in(net, torch.float16),
    "single, weights in bfloat16": lambda net: stored_in(net, torch.bfloat16),
    "double neurons, weights in float16": lambda net: (net.populations.double(), stored_in(net, torch.float16)),
}


def as_in(state: Any, like: Any) -> Any:
    """The same values in the dtypes of another state."""
    return tree.map(lambda x, y: x.to(y.dtype), state, like)


def driven_neuron() -> bt.Network:
    """A Hodgkin-Huxley neuron that noise drives over its threshold."""
    excite = bt.Projection(
        bt.connect.AllToAll(), bt.init.Uniform(0.01, 0.05), bt.synapses.Exponential(3.0), bt.synapses.Conductance(0.0)
    )
    populations = {"inputs": bt.stimuli.Poisson(100, rate=20.0), "cell": bt.neurons.HodgkinHuxley(1)}
    return bt.Network(populations, {("inputs", "cell"): excite}, seed=1)


def spikes_of(net: bt.Network, state: Any, inputs: Any, duration: float, dt: float, names: list[str]) -> bt.Solution:
    start = as_in(state, bt.initial_state(net, dt=dt))
    record = {name: bt.spikes(name) for name in names}
    return bt.simulate(net, inputs, dt=dt, duration=duration, state=start, record=record, loop=bt.Native(threads=1))


def neuron_errors(duration: float) -> list[dict[str, Any]]:
    """Of every precision, how far spikes lie from those in double: the largest and the mean distance."""
    dt, times, rows = 0.01, {}, []
    state = bt.initial_state(driven_neuron(), dt=dt)
    for name, convert in PRECISIONS.items():
        net = driven_neuron()
        convert(net)
        net.populations["inputs"].float()  # whose random numbers then are the same
        sol = spikes_of(net, state, {"cell": 6.0}, duration, dt, ["cell"])
        times[name] = sol["cell"].step.double() * dt
        exact, found = times[DOUBLE], times[name]
        distance = (exact[:, None] - found).abs().min(1).values if len(found) else torch.full((1,), torch.inf)
        row = {
            "precision": name,
            "spikes": len(found),
            "mean_ms": float(distance.mean()),
            "worst_ms": float(distance.max()),
        }
        rows.append(row)
    return rows


def network(neurons: int, convert: Callable[[bt.Network], Any]) -> bt.Network:
    """Network A with a weight for each synapse, which differs from the mean by up to a half."""
    net, generator = coba.build(neurons), torch.Generator().manual_seed(1)
    for pathway in net.projections.values():
        pathway.weight = pathway.weight * (0.5 + torch.rand(pathway.connect.weight_shape, generator=generator))
    convert(net)
    return net


def network_errors(neurons: int, duration: float) -> list[dict[str, Any]]:
    """Of every precision, the time of the first spike that is not that of the run in double, and the rate."""
    state, rows, exact = coba.initial_state(coba.build(neurons)), [], set()
    for name, convert in PRECISIONS.items():
        sol = spikes_of(network(neurons, convert), state, coba.DRIVE, duration, DT, ["E", "I"])
        found = {
            (s, k, i) for k in ("E", "I") for s, i in zip(sol[k].step.tolist(), sol[k].train.tolist(), strict=True)
        }
        exact = exact or found
        different = exact ^ found
        first = min(different)[0] * DT if different else None
        rows.append({"precision": name, "differs_at_ms": first, "rate_hz": len(found) / neurons / duration * 1e3})
    return rows


def memory_mb(tensors: list[torch.Tensor]) -> float:
    return sum(x.numel() * x.element_size() for x in tensors) / 1e6


def network_costs(neurons: int, duration: float, repeats: int) -> list[dict[str, Any]]:
    """Of every precision, seconds of a biological second, and the memory of stored structure and of the state."""
    state, rows = coba.initial_state(coba.build(neurons)), []
    nets = {name: network(neurons, convert) for name, convert in PRECISIONS.items()}
    starts = {name: as_in(state, bt.initial_state(net, dt=DT)) for name, net in nets.items()}
    runs: dict[str, list[Any]] = {name: [] for name in nets}
    for _ in range(repeats + 1):  # the first compiles
        for name, net in nets.items():
            runs[name].append(timed_run(net, coba.DRIVE, starts[name], duration, bt.Native(threads=1)))
    for name, net in nets.items():
        start = starts[name]
        row = {
            "precision": name,
            "seconds_per_biological_second": min(run.seconds for run in runs[name][1:]) / duration * 1e3,
            "rate_hz": runs[name][0].spikes / neurons / duration * 1e3,
            "weights_mb": memory_mb([pathway.weight for pathway in net.projections.values()]),
            "structure_mb": memory_mb([x for x in net.buffers() if not x.is_floating_point()]),
            "state_mb": memory_mb(tree.tensors(start)),
        }
        rows.append(row)
    return rows


def contraction(repeats: int) -> list[dict[str, Any]]:
    """How much faster loops are where the compiler fuses products and sums."""
    strict, rows = compiler.FLAGS, []
    fused = tuple(flag.replace("contract=off", "contract=fast") for flag in strict)
    for name, stem, duration in (("A", "coba", 2000.0), ("B", "cobahh", 300.0), ("C", "brunel", 500.0)):
        module = importlib.import_module(f"benchmarks.{stem}")
        net = module.build(10_000 if stem == "brunel" else 4000)
        state, best = module.initial_state(net), {}
        for repeat in range(repeats + 1):
            for flags in (strict, fused):
                compiler.FLAGS = flags
                seconds = timed_run(net, module.DRIVE, state, duration, bt.Native(threads=1)).seconds
                if repeat:
                    best[flags] = min(seconds, best.get(flags, seconds))
        compiler.FLAGS = strict
        rows.append({"network": name, "fused_per_strict": best[fused] / best[strict]})
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table for a page, and for the terminal."""
    print(f"\n{title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        cells = (f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values())
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=100_000, help="size of the network whose costs are measured")
    parser.add_argument("--duration", type=float, default=200.0, help="ms of it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--errors-for", type=float, default=1000.0, help="ms of the runs that are compared")
    parser.add_argument("--without", default="", help="parts to leave out: neuron,network,costs,contraction")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "neuron": lambda: neuron_errors(given.errors_for * 10),
        "network": lambda: network_errors(min(given.neurons, 4000), given.errors_for),
        "costs": lambda: network_costs(given.neurons, given.duration, given.repeats),
        "contraction": lambda: contraction(given.repeats),
    }
    results = {}
    for name, measure in parts.items():
        if name not in given.without.split(","):
            results[name] = measure()
            show(name, results[name])
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
