"""What a call of `simulate` costs besides its steps: the first of a system, and those that follow.

    python -m benchmarks.repeated --json FILE

Every call takes ten steps. The first of a process with an empty cache compiles, that of a second process finds the loop on
disk, and later calls find it with the system: of these the median of 50 is given, each with another seed, or, where a
parameter is trained, after a step of the optimiser. `--naive` makes every call plan and print its loop anew, as before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.compile import in_a_process

CASES = ("LIF", "trained LIF", "A 400", "A", "B", "C", "D")
CALLS = 50


def prepared(case: str) -> Callable[[int], Any]:
    """A call with a seed."""
    import torch

    import bdtorch as bt

    torch.set_num_threads(1)
    options: dict[str, Any] = {"dt": 0.1, "duration": 1.0, "loop": bt.Native(threads=1), "progress": False}
    if case == "LIF":
        neuron = bt.neurons.LIF(1)
        return lambda seed: bt.simulate(neuron, 20.0, seed=seed, **options)
    if case == "trained LIF":
        return _training(bt, torch, options)
    import importlib

    from benchmarks.compile import NETWORKS

    name, _, size = case.partition(" ")
    module = importlib.import_module(f"benchmarks.{NETWORKS[name]}")
    net = module.build(int(size or (1000 if name == "D" else 4000)))
    state = module.initial_state(net)
    record = {name: bt.spikes(name) for name, part in net.populations.items() if part.takes_input}
    return lambda seed: bt.simulate(net, module.DRIVE, state=state, record=record, **options)


def _training(bt: Any, torch: Any, options: dict[str, Any]) -> Callable[[int], Any]:
    """A gradient step on the time constants of ten neurons, through the run."""
    neuron = bt.neurons.LIF(10, tau=torch.nn.Parameter(torch.linspace(5.0, 20.0, 10)))
    optimizer = torch.optim.SGD(neuron.parameters(), lr=0.01)

    def step(seed: int) -> None:
        optimizer.zero_grad()
        bt.simulate(neuron, 30.0, seed=seed, **options).state.v.sum().backward()
        optimizer.step()

    return step


def measure(case: str) -> dict[str, float]:
    """Run a case in this process."""
    call = prepared(case)
    seconds = []
    for seed in range(CALLS + 1):
        began = time.perf_counter()
        call(seed)
        seconds.append(time.perf_counter() - began)
    return {"first_s": seconds[0], "later_s": statistics.median(seconds[1:])}


def forget() -> None:
    """Keep no loop with a system."""
    from bdtorch.simulate import _kept

    _kept.Kept.put = lambda self, key, thing: None  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--naive", action="store_true")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.naive:
        forget()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"--cases: expected some of {', '.join(CASES)}, got {', '.join(unknown)}")
    further = ["--naive"] if arguments.naive else []
    print(f"{'case':12} {'first, compiling ms':>20} {'first, on disk ms':>18} {'later ms':>10}", flush=True)
    rows = []
    for case in arguments.cases:
        with TemporaryDirectory() as cache:
            cold = in_a_process(case, cache, "benchmarks.repeated", *further)
            warm = in_a_process(case, cache, "benchmarks.repeated", *further)
        row = {"case": case, "cold_s": cold["first_s"], "warm_s": warm["first_s"], "later_s": warm["later_s"]}
        rows.append(row)
        cold_ms, warm_ms, later_ms = (1e3 * float(row[key]) for key in ("cold_s", "warm_s", "later_s"))
        print(f"{case:12} {cold_ms:20.0f} {warm_ms:18.1f} {later_ms:10.2f}", flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
