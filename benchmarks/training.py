"""Backpropagation through time: a recurrent spiking network, forward, backward and optimizer step.

100 Poisson inputs, 256 recurrent leaky integrate-and-fire neurons, 2 leaky readouts, batch 64, cross-entropy, Adam; about
3 % of the neurons spike in a step (`training_contestants.py`). Every contestant runs in a process of its own; they take
turns for several rounds, so that all see the same moods of the machine. The first losses of bdtorch and plain PyTorch
must agree.

    python benchmarks/training.py --contestants bdtorch,pytorch --steps 500 --json FILE
    python benchmarks/training.py --steps 250,500,1000,2000,4000          # does it grow linearly?

The peers live in an environment of their own:

    python -m venv PEERS && PEERS/bin/pip install torch norse snntorch spikingjelly
    python benchmarks/training.py --contestants bdtorch,pytorch,norse,spikingjelly,snntorch --peers PEERS/bin/python
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("norse", "spikingjelly", "snntorch")


def work(name: str, steps: int, threads: int, repeats: int) -> dict[str, Any]:
    """Iterations of one contestant, after one that is not counted."""
    import torch

    from benchmarks.training_contestants import BATCH, CONTESTANTS, INPUTS, RATE_HZ, READOUTS, Watch

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(steps, BATCH, INPUTS, generator=generator) < RATE_HZ * 1e-3).float()
    labels = torch.randint(0, READOUTS, (BATCH,), generator=generator)
    model, run = CONTESTANTS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def iterate(x: Any) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(x, None).mean(0), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    initial = {key: value.clone() for key, value in model.state_dict().items()}
    began = time.perf_counter()
    iterate(x[:2])  # imports and compilers are not what the memory of a step is
    model.load_state_dict(initial)
    before, first = _peak_mb(), time.perf_counter() - began
    loss = iterate(x)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        iterate(x)
        seconds.append(time.perf_counter() - began)
    memory, watch = _peak_mb() - before, Watch()
    model.load_state_dict(initial)
    with torch.no_grad():
        run(x, watch)
    return {"first_s": first, "loss": loss, "active": watch.mean, "extra_mb": memory, "seconds": seconds}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(names: list[str], steps: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The contestants in turn, round after round; a row for each."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            python = arguments.peers if name in PEERS else sys.executable
            numbers = map(str, (steps, arguments.threads, arguments.repeats))
            command = [python, "-m", "benchmarks.training", "--work", name, *numbers]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name, results in runs.items():
        every = [second for result in results for second in result["seconds"]]
        spread = {"median_s": statistics.median(every), "least_s": min(every)}
        memory = max(result["extra_mb"] for result in results)
        rest = {key: results[0][key] for key in ("first_s", "loss", "active")}
        rows.append({
            "contestant": name, "steps": steps, "threads": arguments.threads, **spread, "extra_mb": memory, **rest,
        })  # fmt: skip
    return rows


def check(rows: list[dict[str, Any]]) -> None:
    """The same network gives the same loss."""
    found = {row["contestant"]: row["loss"] for row in rows}
    for ours, plain in (("bdtorch", "pytorch"), ("bdtorch-graded", "pytorch-graded")):
        if ours in found and plain in found and abs(found[ours] - found[plain]) > 1e-3 * abs(found[plain]):
            raise SystemExit(f"the first losses differ: {ours} {found[ours]}, {plain} {found[plain]}")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, with times as ratios to plain PyTorch where it ran."""
    plain = {(row["contestant"].endswith("-graded"), row["steps"]): row["median_s"] for row in rows
             if row["contestant"].startswith("pytorch")}  # fmt: skip
    lines = [f"{'contestant':15} {'steps':>5} {'s':>7} {'least':>7} {'/ plain':>8} {'extra MB':>9} {'active':>7}"]
    for row in rows:
        base = plain.get((row["contestant"].endswith("-graded"), row["steps"]))
        ratio = f"{row['median_s'] / base:8.2f}" if base else f"{'':8}"
        lines.append(
            f"{row['contestant']:15} {row['steps']:5} {row['median_s']:7.3f} {row['least_s']:7.3f} {ratio} "
            f"{row['extra_mb']:9.0f} {row['active']:7.1%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestants", default="bdtorch,pytorch,bdtorch-graded,pytorch-graded")
    parser.add_argument("--steps", default="500", help="numbers, joined by commas")
    parser.add_argument("--repeats", type=int, default=5, help="iterations of a contestant in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", default=sys.executable, help="the python of the peers' environment")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, *numbers = arguments.work
        print(json.dumps(work(name, *map(int, numbers))))
        return
    rows: list[dict[str, Any]] = []
    for steps in map(int, arguments.steps.split(",")):
        rows += measure(arguments.contestants.split(","), steps, arguments)
    check(rows)
    print(f"{arguments.threads} thread(s); seconds of an iteration: median, and least\n{table(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
