"""Whole networks: bdtorch's native loop against a loop written by hand for each network, and Brian2 if installed.

    python benchmarks/networks.py [--network A] [--neurons 4000] [--simulators bdtorch,floor] [--threads 1]
                                  [--repeats 5] [--duration 1000] [--json FILE] [--brian2-python PYTHON]

All sides have the same synapses and initial values and record every spike; that their rates agree is checked. They take
turns, and the medians of their runs are compared; `ratio` is a simulator's time over the floor's. `us_per_step` is all
of a call but tracing and compiling; `compile_s` is these two with an empty cache. `first_result_s` is the whole of the
first `simulate` in a fresh process, imports and the building of the network apart: cold, with an empty cache; and warm,
with what the cold one left. The floor uses one thread whatever `--threads` says.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, this file sees only its own folder

NETWORKS = {"A": ("coba", 4000), "B": ("cobahh", 4000), "C": ("brunel", 10_000)}
TOLERANCE = 0.05  # of rates: the networks are chaotic, and the sides round differently


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row for each simulator."""
    # Here and not at the top: a process that runs the floor is to show the floor's memory, not torch's.
    import torch

    from benchmarks import contestants

    torch.set_num_threads(arguments.threads)
    stem, usual = NETWORKS[arguments.network]
    module = importlib.import_module(f"benchmarks.{stem}")
    neurons = arguments.neurons or usual
    case = contestants.Case(module, neurons, arguments.duration, arguments.threads, folder)
    bdtorch = contestants.Bdtorch(case)
    wiring = contestants.wiring_of(bdtorch.net, bdtorch.state, module)
    wiring.save(folder / "wiring.npz")
    everyone = {
        "bdtorch": lambda: bdtorch,
        "floor": lambda: contestants.HandWritten(case, wiring),
        "brian2": lambda: contestants.Brian2(case, wiring, arguments.brian2_python),
    }
    taking_part = {name: everyone[name]() for name in arguments.simulators}
    runs: dict[str, list[contestants.Run]] = {name: [] for name in taking_part}
    for repeat in range(arguments.repeats + 1):
        for name, contestant in taking_part.items():
            run = contestant.run()
            if repeat:  # the first run compiles
                runs[name].append(run)
    rows = []
    for name, contestant in taking_part.items():
        seconds = statistics.median(run.seconds for run in runs[name])
        row = {
            "network": arguments.network,
            "neurons": neurons,
            "synapses": contestant.synapses,
            "simulator": name,
            "threads": contestant.threads,
            "seconds_per_biological_second": seconds / (arguments.duration * 1e-3),
            "us_per_step": seconds / case.steps * 1e6,
            "rate_hz": runs[name][-1].rate,
        }
        if name == "brian2":  # a program of its own, which has no first call
            row |= {"compile_s": contestant.compile_seconds, "first_result_s": None, "peak_mb": None}
        else:
            row |= first_results(arguments, name, folder)
        rows.append(row)
    check(rows)
    return with_ratio(rows)


def first_results(arguments: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    """What a fresh process needs, with an empty cache and with a full one."""
    from benchmarks.contestants import environment

    cache = folder / f"cache-{name}"
    cache.mkdir()
    command = [
        sys.executable, __file__, "--probe", name, "--network", arguments.network, "--neurons", str(arguments.neurons),
        "--duration", str(arguments.duration), "--threads", str(arguments.threads), "--folder", str(folder),
    ]  # fmt: skip
    cold, warm = (
        json.loads(subprocess.run(command, env=environment(cache), check=True, capture_output=True, text=True).stdout)
        for _ in range(2)
    )
    return {
        "compile_s": cold["setup"],
        "first_result_s": {"cold": cold["seconds"], "warm": warm["seconds"]},
        "peak_mb": warm["peak_mb"],
    }


def probe(arguments: argparse.Namespace) -> dict[str, float]:
    """The first run of this process."""
    stem, usual = NETWORKS[arguments.network]
    if arguments.probe == "floor":
        from benchmarks.floor import Floor, Wiring

        wiring = Wiring.load(arguments.folder / "wiring.npz")
        began = time.perf_counter()
        floor = Floor(stem, arguments.folder / "cache-floor")
        setup = time.perf_counter() - began
        floor(wiring, round(arguments.duration / 0.1), 0.1)
    else:
        import torch

        from benchmarks import contestants

        torch.set_num_threads(arguments.threads)
        module = importlib.import_module(f"benchmarks.{stem}")
        neurons = arguments.neurons or usual
        case = contestants.Case(module, neurons, arguments.duration, arguments.threads, arguments.folder)
        contestant = contestants.Bdtorch(case)
        began = time.perf_counter()
        setup = contestant.run().setup
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "setup": setup, "peak_mb": peak_megabytes()}


def peak_megabytes() -> float:
    """The most memory that this process has held; `resource.getrusage` would include the parent's before the exec."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def check(rows: list[dict[str, Any]]) -> None:
    """Refuse to compare what is not the same network."""
    first = rows[0]
    for row in rows:
        pair = f"{row['simulator']} and {first['simulator']}"
        if row["synapses"] != first["synapses"]:
            raise SystemExit(f"{pair} differ in synapses: {row['synapses']} and {first['synapses']}")
        if not row["rate_hz"] > 0 or abs(row["rate_hz"] / first["rate_hz"] - 1) > TOLERANCE:
            raise SystemExit(f"{pair} fire at other rates, or not at all: {row['rate_hz']} and {first['rate_hz']} Hz")


def with_ratio(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its time over the floor's, where there is one."""
    floor = next((row["us_per_step"] for row in rows if row["simulator"] == "floor"), None)
    return [row | {"ratio": None if floor is None else row["us_per_step"] / floor} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for reading."""
    head = f"{'simulator':10} {'threads':>7} {'us/step':>9} {'s per bio s':>11} {'ratio':>6} {'rate Hz':>8}"
    head += f" {'compile s':>9} {'first cold':>10} {'warm':>7} {'peak MB':>8}"
    lines = [f"network {rows[0]['network']}: {rows[0]['neurons']} neurons, {rows[0]['synapses']} synapses", head]

    def number(value: float | None, width: int, digits: int) -> str:
        return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"

    for row in rows:
        first = row["first_result_s"] or {"cold": None, "warm": None}
        lines.append(
            f"{row['simulator']:10} {row['threads']:7} {row['us_per_step']:9.2f} "
            f"{row['seconds_per_biological_second']:11.4f} {number(row['ratio'], 6, 2)} {row['rate_hz']:8.2f} "
            f"{number(row['compile_s'], 9, 2)} {number(first['cold'], 10, 2)} {number(first['warm'], 7, 2)} "
            f"{number(row['peak_mb'], 8, 0)}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="A")
    parser.add_argument("--neurons", type=int, default=0, help="default: the network's usual size")
    parser.add_argument("--simulators", type=lambda text: text.split(","), default=["bdtorch", "floor"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--duration", type=float, default=1000.0, help="biological time of a run, ms")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--brian2-python", default=".venv-brian2/bin/python")
    parser.add_argument("--probe", choices=("bdtorch", "floor"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name in arguments.simulators:
        if name not in ("bdtorch", "floor", "brian2"):
            parser.error(f"--simulators: expected bdtorch, floor or brian2, got {name!r}")
    if arguments.probe:
        print(json.dumps(probe(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
