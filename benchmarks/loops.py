"""The inductor loop beside the native one on networks A to D: time of a step, and of tracing and compiling.

    python -m benchmarks.loops --networks A,B,C,D --duration 300

Both run in turn in one process, on one thread, with empty caches. A step is timed in the processor's seconds, which are
those of the clock on an idle core; compiling, which other processes do, by the clock. The inductor loop measures its chunks
(`bdtorch.Inductor()`), and in a run this short stays with those of one step.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time

from benchmarks.simulators import DT, NETWORKS


def compare(network: str, duration: float, repeats: int) -> list[str]:
    """A row for each loop: network, loop, microseconds a step, seconds of compiling, rate."""
    import torch  # after the caches have been named

    import bdtorch as bt
    from benchmarks.simulators.with_bdtorch import timed_run

    torch.set_num_threads(1)
    stem, neurons, _ = NETWORKS[network]
    module = importlib.import_module(f"benchmarks.{stem}")
    net = module.build(neurons)
    state = module.initial_state(net)
    loops = {"native": bt.Native(threads=1), "inductor": bt.Inductor()}
    firsts = {name: timed_run(net, module.DRIVE, state, duration, loop) for name, loop in loops.items()}
    runs = {name: [] for name in loops}  # in turn, so that what else the machine does falls on both
    for _ in range(repeats):
        for name, loop in loops.items():
            runs[name].append(timed_run(net, module.DRIVE, state, duration, loop, time.process_time))
    rows = []
    for name in loops:
        step = statistics.median(run.seconds for run in runs[name]) / (duration / DT) * 1e6
        rate = runs[name][-1].spikes / neurons / (duration * 1e-3)
        rows.append(f"| {network} | {name} | {step:.1f} | {firsts[name].compile_s:.1f} | {rate:.1f} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=lambda text: text.split(","), default=["A"])
    parser.add_argument("--duration", type=float, default=300.0, help="biological time of a run, ms")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BDTORCH_CACHE_DIR"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        print("| network | loop | us/step | compile s | rate Hz |\n|---|---|---|---|---|", flush=True)
        for network in arguments.networks:
            print(*compare(network, arguments.duration, arguments.repeats), sep="\n", flush=True)


if __name__ == "__main__":
    main()
