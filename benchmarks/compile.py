"""What it takes to start: tracing, generating and compiling the native loops of the networks and of every notebook.

    python -m benchmarks.compile --json FILE
    python -m benchmarks.compile --cases A,B,ventral_stream

Each case is a process of its own with an empty cache, after its imports. A case may need several loops, such as one back
through time; of the slowest the time is given as well. The second process finds them all in the cache. A notebook runs in
its quick setting, of which only what is named here is measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {"A": "coba", "B": "cobahh", "C": "brunel", "D": "stdp"}
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[!_]*.py") if "def main(quick" in path.read_text())
CASES = (*NETWORKS, "BPTT", *NOTEBOOKS)


class Clock:
    """Seconds spent in some functions, those that they call among them excluded."""

    def __init__(self) -> None:
        self.seconds = {"trace": 0.0, "generate": 0.0, "compile": 0.0}
        self.loops: list[float] = []
        self.pending = 0.0  # of a loop that is not yet compiled
        self.inside = 0.0  # spent in timed functions since one of them began

    def timed(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is noted under a name."""

        def wrapped(*arguments: Any) -> Any:
            before, self.inside, began = self.inside, 0.0, time.perf_counter()
            try:
                return function(*arguments)
            finally:
                whole = time.perf_counter() - began
                own = whole - self.inside
                self.inside = before + whole
                self.seconds[kind] += own
                self.pending += own
                if kind == "compile":
                    self.loops.append(self.pending)
                    self.pending = 0.0

        return wrapped


def watch() -> Clock:
    """Time the parts of the native loop from now on."""
    from bdtorch.simulate.loops import native
    from bdtorch.simulate.loops.native import gradient, made, outer, reverse

    clock = Clock()
    for module, names in ((native, ("trace",)), (made, ("generate", "compiled")), (gradient, ("trace", "reversed_graph")),
                          (reverse, ("trace",)), (outer, ("compiled",))):  # fmt: skip
        for name in names:
            kind = {"compiled": "compile", "generate": "generate"}.get(name, "trace")
            setattr(module, name, clock.timed(kind, getattr(module, name)))
    return clock


def prepared(case: str) -> Callable[[], Any]:
    """What a case does, imported and built."""
    import torch

    import bdtorch as bt

    torch.set_num_threads(1)
    if case == "BPTT":
        from benchmarks.training import work

        return lambda: work("bdtorch", 50, 1, 1)
    if case not in NETWORKS:
        return importlib.import_module(f"notebooks.{case}").main
    module = importlib.import_module(f"benchmarks.{NETWORKS[case]}")
    net = module.build(1000 if case == "D" else 4000)
    state = module.initial_state(net)
    record = {name: bt.spikes(name) for name, part in net.populations.items() if part.takes_input}
    return lambda: bt.simulate(
        net, module.DRIVE, dt=0.1, duration=1.0, state=state, record=record, loop=bt.Native(threads=1), progress=False
    )


def measure(case: str) -> dict[str, Any]:
    """Run a case in this process."""
    run = prepared(case)
    clock = watch()
    run()
    return {"case": case, "loops": len(clock.loops), "slowest_s": max(clock.loops, default=0.0)} | {
        f"{kind}_s": seconds for kind, seconds in clock.seconds.items()
    }


def in_a_process(case: str, cache: str, module: str = "benchmarks.compile", *further: str) -> dict[str, Any]:
    """Run a case of a module in a process with a cache folder of its own."""
    environment = os.environ | {"BDTORCH_CACHE_DIR": cache, "MPLBACKEND": "Agg"}
    command = [sys.executable, "-m", module, *further, "--one", case]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"--cases: expected some of {', '.join(CASES)}, got {', '.join(unknown)}")
    head = ("trace s", "generate s", "compile s", "slowest loop s", "warm, all s")
    print(f"{'case':26} {'loops':>5} " + " ".join(f"{name:>14}" for name in head), flush=True)
    rows = []
    for case in arguments.cases:
        with tempfile.TemporaryDirectory() as cache:
            row = in_a_process(case, cache)
            again = in_a_process(case, cache)
        row["warm_s"] = sum(again[key] for key in ("trace_s", "generate_s", "compile_s"))
        rows.append(row)
        keys = ("trace_s", "generate_s", "compile_s", "slowest_s", "warm_s")
        print(f"{case:26} {row['loops']:5} " + " ".join(f"{row[key]:14.2f}" for key in keys), flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
