"""One simulator in its own process: ``python -m benchmarks.simulators brian2 --network A ...``.

It loads the network, simulates once for every line that it reads, and answers each time with a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.simulators import MODULES, Case


def peak_megabytes() -> float:
    """The most memory that this process has held; `resource.getrusage` would include the parent's before the exec."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what libraries and compilers print must not come between the answers
    os.dup2(2, 1)
    case = Case.parse()
    if case.threads == 1:
        os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    began = time.perf_counter()
    module = importlib.import_module(f"benchmarks.simulators.{MODULES[case.simulator]}")
    import_s, imported_mb = time.perf_counter() - began, peak_megabytes()
    contestant = None
    for _ in sys.stdin:
        began = time.perf_counter()
        if contestant is None:
            contestant = module.Contestant(case)
        run = contestant.run()
        answer = asdict(run) | {
            "total_s": time.perf_counter() - began,
            "synapses": contestant.synapses,
            "import_s": import_s,
            "peak_mb": run.peak_mb or peak_megabytes(),
            "peak_above_import_mb": run.peak_mb or peak_megabytes() - imported_mb,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
