"""Running the two sides of a comparison in processes of their own, on one core, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PYTHONS = {"bdtorch": sys.executable, "brainpy": os.environ.get("BRAINPY_PYTHON", ".venv-brainpy/bin/python")}


def ran(name: str, module: str, *arguments: object) -> Any:
    """What ``python -m module --side name arguments...`` prints last, as JSON, on the first core this process may use."""
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, PYTHONS[name], "-m", module, "--side", name, *map(str, arguments)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} failed at {' '.join(map(str, arguments))}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(call: Callable[[], Any], repeats: int) -> tuple[dict[str, float], Any]:
    """Seconds of a first call, which compiles, the median of further ones, and of the processor's; what the last returned.

    The processor's seconds, of all threads, are those by the clock where nothing else runs on the core.
    """
    seconds, processor = [], []
    for _ in range(1 + repeats):
        began, spent = time.perf_counter(), time.process_time()
        result = call()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - spent)
    times = {
        "first": seconds[0],
        "median": statistics.median(seconds[1:]),
        "processor": statistics.median(processor[1:]),
    }
    return times, result
