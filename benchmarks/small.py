"""Small populations: what a step of a few cells takes, with the rest behind the last whole vector as a vector, or one by one.

    python -m benchmarks.small --json out/benchmarks/small.json --page benchmarks/README.md

Both are run in turns in one process, on one thread whose processor time is taken; medians count. `ratio` is the time over
what the same cells take in a population of 1,024, where nothing is left over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import bdtorch as bt
from bdtorch.simulate.loops.native import passes
from benchmarks import tables

CELLS = ("HodgkinHuxley", "AdEx", "Izhikevich", "LIF")
SIZES = (8, 26, 50, 100)
WHOLE = 1024
DRIVE, DT, STEPS = 10.0, 0.05, 600_000


def seconds(cells: bt.DynamicalSystem) -> float:
    """The processor time of a run, without what comes before its steps as far as a short run tells."""
    spent = []
    for steps in (STEPS // 10, STEPS):
        began = time.process_time()
        loop = bt.Native(threads=1)
        bt.simulate(cells, DRIVE, dt=DT, duration=steps * DT, record={"spikes": bt.spikes()}, loop=loop, progress=False)
        spent.append(time.process_time() - began)
    return (spent[1] - spent[0]) / (STEPS - STEPS // 10)


def measure(kind: str, repeats: int) -> list[dict[str, Any]]:
    """Rows of one kind of cell."""
    make = getattr(bt.neurons, kind)
    populations = {(size, "vectors"): make(size) for size in (*SIZES, WHOLE)}
    with mock.patch.object(passes._Pass, "_lanes", return_value=0):
        for size in SIZES:
            populations[size, "one by one"] = make(size)
            seconds(populations[size, "one by one"])  # whose loop stays with it
    for cells in populations.values():
        seconds(cells)
    spent: dict[tuple[int, str], list[float]] = {key: [] for key in populations}
    for _ in range(repeats):
        for key, cells in populations.items():
            spent[key].append(seconds(cells))
    us = {key: 1e6 * statistics.median(values) for key, values in spent.items()}
    share = us[WHOLE, "vectors"] / WHOLE
    return [
        {
            "cells": kind,
            "number": size,
            "us_per_step": us[size, "vectors"],
            "one_by_one_us_per_step": us[size, "one by one"],
            "ratio": us[size, "vectors"] / (size * share),
            "one_by_one_ratio": us[size, "one by one"] / (size * share),
        }
        for size in SIZES
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows for reading."""
    lines = ["| cells | number | us/step | ratio | one by one us/step | ratio |", "|" + "---|" * 6]
    for row in rows:
        own, other = (f"{row[f'{name}us_per_step']:.3f} | {row[f'{name}ratio']:.1f}" for name in ("", "one_by_one_"))
        lines.append(f"| {row['cells']} | {row['number']} | {own} | {other} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for kind in CELLS for row in measure(kind, arguments.repeats)]
    print(table(rows))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.page:
        tables.write_page(table(rows), arguments.page, "small")


if __name__ == "__main__":
    main()
