"""Whole networks: bdtorch's native loop against a loop written by hand for each network, Brian2 and BrainPy.

    python benchmarks/networks.py --network A --neurons 4000 --simulators bdtorch,floor,brian2,brainpy --threads 1 --json FILE
    python benchmarks/networks.py --all --json out/benchmarks/networks.json --page benchmarks/README.md

All simulators read the same synapses and initial values from a file and run the same time; that their numbers of
synapses are equal and their rates within 8 % is checked. Each is a process of its own, pinned to one core unless there
are more threads; they take turns, and the medians of their runs are compared. `benchmarks/README.md` says how to install
Brian2 and BrainPy, and what the columns mean.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # as a script, this file sees only its own folder

from benchmarks import tables  # noqa: E402
from benchmarks.simulators import MODULES, NETWORKS, Case  # noqa: E402

TOLERANCE = 0.08  # of rates: the networks are chaotic, and the simulators round differently
EVERYTHING = (
    "--network A --neurons 4000 --simulators bdtorch,floor,brian2,brainpy",
    "--network A --neurons 20000 --simulators bdtorch,floor,brian2,brainpy --repeats 3",
    "--network A --neurons 100000 --simulators bdtorch,floor --repeats 3 --duration 500",
    "--network A --neurons 400000 --simulators bdtorch,floor --repeats 3 --duration 200",
    "--network A --neurons 100000 --simulators bdtorch,brian2,brainpy --repeats 3 --duration 500 --threads 1,2",
    "--network B --neurons 4000 --simulators bdtorch,floor,brian2,brainpy --repeats 3",
    "--network B --neurons 20000 --simulators bdtorch,floor,brian2,brainpy --repeats 2 --duration 500",
    "--network B --neurons 20000 --simulators bdtorch --repeats 3 --duration 500 --threads 1,2",
    "--network C --neurons 10000 --simulators bdtorch,floor,brian2,brainpy",
    "--network D --simulators bdtorch,floor,brian2,brian2-synaptic,brainpy --repeats 2",
    "--network A --neurons 4000 --simulators bdtorch,bdtorch-inductor --repeats 3",
    "--network B --neurons 4000 --simulators bdtorch,bdtorch-inductor --repeats 3",
    "--network C --neurons 10000 --simulators bdtorch,bdtorch-inductor --repeats 3",
    "--network D --simulators bdtorch,bdtorch-inductor --repeats 3 --duration 1000",
)


class Worker:
    """A simulator in its own process, which runs when it is told to."""

    def __init__(self, case: Case, python: str) -> None:
        case.folder.mkdir(exist_ok=True)
        environment = os.environ | {
            "BDTORCH_CACHE_DIR": str(case.folder),
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": str(case.threads),
            "NUMBA_NUM_THREADS": str(case.threads),
        }
        self.case = case
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.simulators", *case.arguments()],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Simulate once more.

        Raises:
            SystemExit: The simulator failed.
        """
        assert self.process.stdin is not None and self.process.stdout is not None  # both are pipes
        try:
            self.process.stdin.write("run\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.errors.seek(0)
            raise SystemExit(
                f"{self.case.simulator} failed on network {self.case.network}:\n{self.errors.read()[-4000:]}"
            )
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # what could not be written to a process that failed
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One row for each simulator."""
    from benchmarks.drawn import drawn  # here, so that reading the command line does not import torch

    _, usual, usual_duration = NETWORKS[arguments.network]
    neurons, duration = arguments.neurons or usual, arguments.duration or usual_duration
    drawn(arguments.network, neurons, duration).save(folder / "wiring.npz")
    cases = [
        Case(
            arguments.network, neurons, duration, threads, folder / f"{name}-{threads}", folder / "wiring.npz", name
        )
        for name in arguments.simulators
        for threads in (arguments.threads if name != "floor" else [1])
    ]  # fmt: skip
    pythons = [python_of(case.simulator, arguments) for case in cases]
    workers = [Worker(case, python) for case, python in zip(cases, pythons, strict=True)]
    first = [worker.run() for worker in workers]
    runs: list[list[dict[str, Any]]] = [[] for _ in workers]
    for _ in range(arguments.repeats):
        for worker, of_worker in zip(workers, runs, strict=True):
            of_worker.append(worker.run())
    for worker in workers:
        worker.close()
    rows = [
        row_of(case, cold, warm_start(case, python), of_case)
        for case, python, cold, of_case in zip(cases, pythons, first, runs, strict=True)
    ]
    check(rows)
    return with_ratio(rows)


def python_of(simulator: str, arguments: argparse.Namespace) -> str:
    """The interpreter that has the simulator."""
    if simulator.startswith("brian2"):
        return arguments.brian2_python
    return arguments.brainpy_python if simulator == "brainpy" else sys.executable


def warm_start(case: Case, python: str) -> dict[str, Any]:
    """The first run of a second process, which finds what the first has left in its folder."""
    worker = Worker(case, python)
    try:
        return worker.run()
    finally:
        worker.close()


def row_of(case: Case, cold: dict[str, Any], warm: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written about one simulator."""
    seconds = statistics.median(run["seconds"] for run in runs)
    biological = case.duration * 1e-3
    compile_s = cold["compile_s"]
    if case.simulator == "brainpy":  # compiles somewhere within its first run
        compile_s = cold["seconds"] - seconds
    return {
        "network": case.network,
        "neurons": case.neurons,
        "synapses": cold["synapses"],
        "simulator": case.simulator,
        "threads": case.threads,
        "seconds_per_biological_second": seconds / biological,
        "us_per_step": seconds / case.steps * 1e6,
        "rate_hz": runs[-1]["spikes"] / case.neurons / biological,
        "import_s": cold["import_s"],
        "compile_s": compile_s,
        "first_result_s": cold["total_s"],
        "first_result_warm_s": warm["total_s"],
        "peak_mb": warm["peak_mb"],
        "peak_above_import_mb": warm["peak_above_import_mb"],
    }


def check(rows: list[dict[str, Any]]) -> None:
    """Refuse to compare what is not the same network."""
    first = rows[0]
    for row in rows:
        pair = f"{row['simulator']} and {first['simulator']}"
        if row["synapses"] != first["synapses"]:
            raise SystemExit(f"{pair} differ in synapses: {row['synapses']} and {first['synapses']}")
        own = next(other for other in rows if other["simulator"] == row["simulator"])
        if row["simulator"] == "bdtorch" and row["rate_hz"] != own["rate_hz"]:
            raise SystemExit(f"bdtorch's spikes depend on the number of threads: {row['rate_hz']}, {own['rate_hz']} Hz")
        if not row["rate_hz"] > 0 or abs(row["rate_hz"] / first["rate_hz"] - 1) > TOLERANCE:
            raise SystemExit(f"{pair} fire at other rates, or not at all: {row['rate_hz']} and {first['rate_hz']} Hz")


def with_ratio(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its time over the floor's, where there is one."""
    floor = next((row["us_per_step"] for row in rows if row["simulator"] == "floor"), None)
    return [row | {"ratio": None if floor is None else row["us_per_step"] / floor} for row in rows]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every comparison of the README of this folder")
    parser.add_argument("--network", choices=NETWORKS, default="A")
    parser.add_argument("--neurons", type=int, default=0, help="default: the network's usual size")
    parser.add_argument("--simulators", type=lambda text: text.split(","), default=["bdtorch", "floor"])
    numbers = {"type": lambda text: [int(word) for word in text.split(",")], "default": [1]}
    parser.add_argument("--threads", **numbers, help="or several numbers, such as 1,2, to compare")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--duration", type=float, default=0.0, help="biological time of a run, ms; default 1 s, D: 10 s"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, help="Markdown file whose table is written anew")
    parser.add_argument("--brian2-python", default=os.environ.get("BRIAN2_PYTHON", ".venv-brian2/bin/python"))
    parser.add_argument("--brainpy-python", default=os.environ.get("BRAINPY_PYTHON", ".venv-brainpy/bin/python"))
    return parser


def main() -> None:
    options = parser()
    arguments = options.parse_args()
    tasks = [arguments]
    if arguments.all:
        pythons = ["--brian2-python", arguments.brian2_python, "--brainpy-python", arguments.brainpy_python]
        tasks = [options.parse_args([*line.split(), *pythons]) for line in EVERYTHING]
    rows = []
    for number, task in enumerate(tasks):
        unknown = sorted(set(task.simulators) - set(MODULES))
        if unknown:
            options.error(f"--simulators: expected some of {', '.join(MODULES)}, got {', '.join(unknown)}")
        with tempfile.TemporaryDirectory() as folder:
            found = measure(task, Path(folder))
        print(tables.text(found), end="\n\n", flush=True)
        rows += [row | {"comparison": number} for row in found]
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.page:
        tables.write_page(tables.markdown(rows), arguments.page)


if __name__ == "__main__":
    main()
