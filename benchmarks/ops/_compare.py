"""What the benchmarks of single operators share: contestants in turn, a table, a file."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """An operator and what does the same in torch's operations; `steps` is the number of events, or of elements."""

    name: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    steps: int


def random_csr(n: int, density: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, indices and indptr of an n x n matrix whose entries exist independently of each other."""
    generator = torch.Generator().manual_seed(0)
    connected = torch.rand(n, n, generator=generator) < density
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])
    indices = connected.nonzero()[:, 1].to(torch.int32)
    return torch.randn(len(indices), generator=generator), indices, indptr


def median_microseconds(contestants: dict[str, Callable[[], object]], rounds: int = 30) -> dict[str, float]:
    """The median time of a call for each contestant; every sample lasts about 5 ms."""
    calls = {}
    for name, call in contestants.items():
        call()
        start = time.perf_counter()
        call()
        calls[name] = max(1, int(0.005 / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            samples[name].append((time.perf_counter() - start) / calls[name] * 1e6)
    return {name: statistics.median(times) for name, times in samples.items()}


def measure(cases: Iterator[Case], rounds: int) -> list[dict[str, Any]]:
    """A row for each case, whose two sides must agree."""
    rows = []
    for case in cases:
        torch.testing.assert_close(case.ours(), case.theirs(), rtol=1e-3, atol=1e-3)
        us = median_microseconds({"bdtorch": case.ours, "torch": case.theirs}, rounds)
        ns = us["bdtorch"] * 1e3 / max(1, case.steps)
        rows.append({"case": case.name, "us": us, "ratio": us["torch"] / us["bdtorch"], "steps": case.steps, "ns": ns})
    return rows


def main(description: str, cases: Callable[[int], Iterator[Case]], n: int) -> None:
    """The command line: a table of times, how many times faster than torch, and time per event or element."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--n", type=int, default=n, help="neurons of each side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(cases(arguments.n), arguments.rounds)
    print(f"{'case':60} {'bdtorch us':>12} {'torch us':>12} {'ratio':>8} {'ns/step':>8}")
    for row in rows:
        times = row["us"]
        print(f"{row['case']:60} {times['bdtorch']:12.1f} {times['torch']:12.1f} {row['ratio']:8.2f} {row['ns']:8.2f}")
    if arguments.json:
        setting = {"torch": torch.__version__, "n": arguments.n, "threads": arguments.threads}
        arguments.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")
