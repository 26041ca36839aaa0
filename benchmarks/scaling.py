"""Cost against size: what a neuron's step and a synaptic event take in network A, from 1,000 to 1,000,000 neurons.

    python benchmarks/scaling.py --json out/benchmarks/scaling.json --picture docs/images/scaling.png --page benchmarks/README.md

The network runs in pairs, in the same compiled loop: driven as usual, and with too little drive for any spike. The second
run gives the time of a neuron's step, and what the first takes longer, divided by the synapses of all its spikes, that of
an event; medians over the pairs count. Every neuron has 80 synapses on average at all sizes. One thread, whose processor
time is taken. It wants an idle machine: a neighbour's use of shared caches and memory falls on either run of a pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, this file sees only its own folder

import torch  # noqa: E402

import bdtorch as bt  # noqa: E402
from benchmarks import coba, tables  # noqa: E402
from benchmarks.simulators import DT  # noqa: E402
from benchmarks.simulators.with_bdtorch import timed_run  # noqa: E402

SIZES = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
SYNAPSES_PER_NEURON = 80.0
SILENT_DRIVE = 5.0  # mV; the cells would rest 5 mV below threshold
SETTLING = 100.0  # ms
NEURON_STEPS = 400_000_000  # of a run, within the bounds of its number of steps
TWO_BYTES = 2**15  # neurons up to which the native loop stores indices in two bytes
FEWEST_STEPS, MOST_STEPS = 4000, 400_000


def measure(neurons: int, repeats: int, neuron_steps: int) -> dict[str, Any]:
    """The two costs at one size, medians of ``repeats`` pairs of runs."""
    net = coba.build(neurons)
    at_rest = coba.initial_state(net)  # where it stays with little drive; from its own activity it would keep firing
    active = bt.simulate(net, coba.DRIVE, dt=DT, duration=SETTLING, loop=bt.Native(threads=1), progress=False).state
    steps = min(max(neuron_steps // neurons, FEWEST_STEPS), MOST_STEPS)
    drives = {coba.DRIVE: active, SILENT_DRIVE: at_rest}
    pairs: list[dict[float, float]] = []
    spikes: dict[float, int] = {}
    for _ in range(repeats + 1):
        pairs.append({})
        for drive, state in drives.items():
            run = timed_run(net, drive, state, round(steps * DT, 1), bt.Native(threads=1), time.process_time)
            spikes[drive], pairs[-1][drive] = run.spikes, run.seconds
    del pairs[0]  # which compiled
    busy, silent = (statistics.median(pair[drive] for pair in pairs) for drive in drives)
    longer = statistics.median(pair[coba.DRIVE] - pair[SILENT_DRIVE] for pair in pairs)
    events = (spikes[coba.DRIVE] - spikes[SILENT_DRIVE]) * SYNAPSES_PER_NEURON
    return {
        "neurons": neurons,
        "synapses": sum(pathway.connect.synapses for pathway in net.projections.values()),
        "steps": steps,
        "rate_hz": spikes[coba.DRIVE] / neurons / (steps * DT * 1e-3),
        "ns_per_neuron_step": silent / neurons / steps * 1e9,
        "ns_per_event": longer / events * 1e9,
        "us_per_step": busy / steps * 1e6,
    }


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """A step beside a line of proportion, and both costs, over the number of neurons."""
    from matplotlib import pyplot as plt

    neurons = [row["neurons"] for row in rows]
    steps = [row["us_per_step"] for row in rows]
    with plt.rc_context(bt.plot.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.2))
        axes[0].loglog(neurons, steps, "o-", label="measured")
        proportional = [steps[0] * n / neurons[0] for n in neurons]
        axes[0].loglog(neurons, proportional, ":", color="0.5", label="in proportion to the smallest")
        axes[0].set(xlabel="neurons", ylabel="a step of 0.1 ms (µs)", title="Network A, 80 synapses a neuron, one core")
        axes[0].legend()
        axes[1].semilogx(neurons, [row["ns_per_neuron_step"] for row in rows], "o-", label="a neuron's step")
        axes[1].semilogx(neurons, [row["ns_per_event"] for row in rows], "s-", label="a synaptic event")
        axes[1].axvline(TWO_BYTES, color="0.5", ls=":", lw=1.0, label="two-byte indices end")
        axes[1].set(xlabel="neurons", ylabel="ns", ylim=(0, None), title="What each takes")
        axes[1].legend()
        figure.savefig(file, dpi=140)
    plt.close(figure)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| neurons | synapses | rate Hz | us/step | ns a neuron's step | ns a synaptic event |", "|" + "---|" * 6]
    for row in rows:
        costs = f"{row['us_per_step']:.2f} | {row['ns_per_neuron_step']:.2f} | {row['ns_per_event']:.2f}"
        lines.append(f"| {row['neurons']:,} | {row['synapses']:,} | {row['rate_hz']:.1f} | {costs} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"type": lambda text: [int(word) for word in text.split(",")], "default": list(SIZES)}
    parser.add_argument("--sizes", **sizes, help="numbers of neurons, separated by commas")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--neuron-steps", type=int, default=NEURON_STEPS, help="roughly how long a run is")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--page", type=Path, help="Markdown file whose table is written anew")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    torch.set_num_threads(1)  # or the time of those that wait for work would count
    torch.set_flush_denormal(True)  # a silent network's conductances decay to such numbers, which take long
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
    if arguments.page:
        tables.write_page(markdown(rows), arguments.page, "scaling")


if __name__ == "__main__":
    main()
