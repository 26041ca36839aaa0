"""Processor seconds of stochastic solvers, against torchsde and against a plain loop in the same run.

    python benchmarks/solvers_sde.py [--steps 1000] [--batch 64] [--size 256] [--repeats 3] [--threads 1] [--json FILE]

The system is ``dy = (sin y - y) dt + s cos(y) dW`` in single precision with diagonal noise (s cos(y) becomes s for
additive noise, which torchsde solves fastest if told that it is diagonal), 1,000 steps of a [64, 256] state, all steps
kept. Each solver runs once untimed, which is reported apart and for the native loop includes tracing; the solvers of a
case then take turns, and the best turn counts. Time is that of the processor (of all threads together), so that other
programs disturb little. torchsde takes part where it is installed; ratios are its time over ours. That all solve the
same equation is to be seen from the mean and standard deviation of the end.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.integrate import (
    SRA1,
    SRI2,
    Additive,
    BrownianPath,
    Calculus,
    Diagonal,
    EulerMaruyama,
    Milstein,
    StochasticHeun,
    StochasticIntegrator,
    sdeint,
)

SIGMA = 0.5
DT = 2.0**-7


@dataclass(frozen=True)
class Case:
    """A method, by the names of both libraries."""

    name: str
    method: StochasticIntegrator
    torchsde_name: str
    calculus: Calculus = Calculus.ITO
    additive: bool = False

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(y, SIGMA) if self.additive else SIGMA * torch.cos(y)


CASES = (
    Case("Euler-Maruyama", EulerMaruyama(), "euler"),
    Case("Milstein", Milstein(), "milstein"),
    Case("Heun", StochasticHeun(), "heun", Calculus.STRATONOVICH),
    Case("SRA1", SRA1(), "srk", additive=True),
    Case("SRI2", SRI2(), "srk"),
)


def drift(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(y) - y


@dataclass(frozen=True)
class Row:
    """A contestant's seconds, its first run's seconds, and the mean and standard deviation of its final state."""

    case: str
    contestant: str
    seconds: float
    first: float
    mean: float
    spread: float


def timed(case: str, runs: dict[str, Callable[[], Tensor]], repeats: int) -> list[Row]:
    def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
        began = time.process_time()
        end = run()
        return time.process_time() - began, end

    firsts = {name: seconds(run) for name, run in runs.items()}
    turns = [{name: seconds(run)[0] for name, run in runs.items()} for _ in range(repeats)]
    return [
        Row(case, name, min(turn[name] for turn in turns), first, float(end.mean()), float(end.std()))
        for name, (first, end) in firsts.items()
    ]


def plain(case: Case, y0: Tensor, steps: int) -> Callable[[], Tensor]:
    """Euler-Maruyama as one writes it by hand, with torch's own generator."""

    def run() -> Tensor:
        y, root, kept = y0, math.sqrt(DT), []
        for step in range(steps):
            t = torch.tensor(step * DT)
            y = y + DT * drift(t, y) + root * case.diffusion(t, y) * torch.randn_like(y)
            kept.append(y)
        return torch.stack(kept)[-1]

    return run


def ours(case: Case, y0: Tensor, steps: int, loop: Any) -> Callable[[], Tensor]:
    times = torch.arange(steps + 1, dtype=torch.float64) * DT

    def run() -> Tensor:
        noise = Additive() if case.additive else Diagonal()
        return sdeint(
            drift, case.diffusion, y0, times, dt=DT, method=case.method, noise=noise, calculus=case.calculus, loop=loop,
            progress=False,
        ).y[-1]  # fmt: skip

    return run


def theirs(case: Case, y0: Tensor, steps: int) -> Callable[[], Tensor] | None:
    try:
        import torchsde
    except ImportError:
        return None

    class Equation(torch.nn.Module):
        noise_type = "diagonal"
        sde_type = "ito" if case.calculus is Calculus.ITO else "stratonovich"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return drift(t, y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return case.diffusion(t, y)

    times = torch.arange(steps + 1) * DT
    return lambda: torchsde.sdeint(Equation(), y0, times, dt=DT, method=case.torchsde_name)[-1]


def refined(y0: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """What it costs to see a path that was begun at a coarser step."""
    case, times = CASES[0], torch.arange(steps + 1, dtype=torch.float64) * DT
    runs = {}
    for depth in (0, 1, 3):
        path = BrownianPath(DT * 2**depth)

        def run(path: BrownianPath = path) -> Tensor:
            return sdeint(
                drift, case.diffusion, y0, times, dt=DT, method=case.method, path=path, loop=bt.Native(), progress=False
            ).y[-1]

        runs[f"native, {depth} halvings"] = run
    return runs


def measure(arguments: argparse.Namespace) -> list[Row]:
    y0 = torch.zeros(arguments.batch, arguments.size)
    rows = []
    with torch.no_grad():
        for case in CASES:
            loops = {"native": bt.Native(), "python": None}
            runs = {name: ours(case, y0, arguments.steps, loop) for name, loop in loops.items()}
            if case is CASES[0]:
                runs["plain loop"] = plain(case, y0, arguments.steps)
            if (other := theirs(case, y0, arguments.steps)) is not None:
                runs["torchsde"] = other
            rows += timed(case.name, runs, arguments.repeats)
        rows += timed("Euler-Maruyama on a refined path", refined(y0, arguments.steps), arguments.repeats)
    return rows


def ratios(rows: list[Row]) -> list[dict[str, Any]]:
    """The times of torchsde and of the plain loop over that of each of our loops."""
    table = {(row.case, row.contestant): row.seconds for row in rows}
    return [
        {"case": case, "loop": loop, "against": other, "ratio": table[case, other] / table[case, loop]}
        for case in dict.fromkeys(row.case for row in rows)
        for other in ("torchsde", "plain loop")
        for loop in ("native", "python")
        if (case, other) in table
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments)
    for row in rows:
        print(
            f"{row.case:32} {row.contestant:20} {row.seconds:8.3f} s  first {row.first:7.3f} s  "
            f"end {row.mean:+.4f} +- {row.spread:.4f}"
        )
    compared = ratios(rows)
    for one in compared:
        print(f"{one['case']:32} {one['against']} / {one['loop']}: {one['ratio']:.1f}")
    if arguments.json:
        setting = {"torch": torch.__version__, "processor": platform.processor(), **vars(arguments)}
        setting["json"] = str(setting["json"])
        results = {"setting": setting, "results": [asdict(row) for row in rows], "ratios": compared}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
