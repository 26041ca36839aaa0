"""Cost against size: what a neuron's step and a synaptic event take in network A, from 1,000 to 1,000,000 neurons.

    python benchmarks/scaling.py --json out/benchmarks/scaling.json --picture docs/images/scaling.png

The network runs twice, in the same compiled loop: driven as usual, and with too little drive for any spike. The second
gives the time of a neuron's step, and what the first takes longer, divided by the synapses of all its spikes, that of an
event. Every neuron has 80 synapses on average at all sizes. One core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, this file sees only its own folder

import bdtorch as bt  # noqa: E402
from benchmarks import coba  # noqa: E402
from benchmarks.simulators import DT  # noqa: E402
from benchmarks.simulators.with_bdtorch import timed_run  # noqa: E402

SIZES = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
SYNAPSES_PER_NEURON = 80.0
SILENT_DRIVE = 5.0  # mV; the cells would rest 5 mV below threshold
NEURON_STEPS = 200_000_000  # of a run, within the bounds of its number of steps
FEWEST_STEPS, MOST_STEPS = 2000, 100_000


def measure(neurons: int, repeats: int, neuron_steps: int) -> dict[str, Any]:
    """The two costs at one size: of ``repeats`` runs in turn, the shortest of each kind."""
    net = coba.build(neurons)
    state = coba.initial_state(net)
    steps = min(max(neuron_steps // neurons, FEWEST_STEPS), MOST_STEPS)
    best: dict[float, float] = {}
    spikes: dict[float, int] = {}
    for repeat in range(repeats + 1):
        for drive in (coba.DRIVE, SILENT_DRIVE):
            run = timed_run(net, drive, state, round(steps * DT, 1), bt.Native(threads=1))
            spikes[drive] = run.spikes
            if repeat:  # the first run compiles
                best[drive] = min(run.seconds, best.get(drive, run.seconds))
    events = (spikes[coba.DRIVE] - spikes[SILENT_DRIVE]) * SYNAPSES_PER_NEURON
    return {
        "neurons": neurons,
        "synapses": sum(pathway.connect.synapses for pathway in net.projections.values()),
        "steps": steps,
        "rate_hz": spikes[coba.DRIVE] / neurons / (steps * DT * 1e-3),
        "ns_per_neuron_step": best[SILENT_DRIVE] / neurons / steps * 1e9,
        "ns_per_event": (best[coba.DRIVE] - best[SILENT_DRIVE]) / events * 1e9,
        "us_per_step": best[coba.DRIVE] / steps * 1e6,
    }


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Both costs over the number of neurons."""
    from matplotlib import pyplot as plt

    neurons = [row["neurons"] for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.2), layout="constrained")
    axes[0].loglog(neurons, [row["us_per_step"] for row in rows], "o-")
    axes[0].set(xlabel="neurons", ylabel="a step of 0.1 ms / µs", title="network A, one core")
    axes[1].semilogx(neurons, [row["ns_per_neuron_step"] for row in rows], "o-", label="a neuron's step")
    axes[1].semilogx(neurons, [row["ns_per_event"] for row in rows], "s-", label="a synaptic event")
    axes[1].set(xlabel="neurons", ylabel="ns", ylim=(0, None))
    axes[1].legend()
    figure.savefig(file, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"type": lambda text: [int(word) for word in text.split(",")], "default": list(SIZES)}
    parser.add_argument("--sizes", **sizes, help="numbers of neurons, separated by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--neuron-steps", type=int, default=NEURON_STEPS, help="roughly how long a run is")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    rows = []
    print(f"{'neurons':>9} {'rate Hz':>8} {'us/step':>10} {'ns/neuron-step':>14} {'ns/event':>9}")
    for neurons in arguments.sizes:
        row = measure(neurons, arguments.repeats, arguments.neuron_steps)
        rows.append(row)
        print(
            f"{neurons:9} {row['rate_hz']:8.2f} {row['us_per_step']:10.2f} "
            f"{row['ns_per_neuron_step']:14.3f} {row['ns_per_event']:9.3f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.picture:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
