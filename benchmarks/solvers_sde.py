"""Processor seconds of stochastic solvers, against torchsde and against a plain loop in the same run.

    python benchmarks/solvers_sde.py [--steps 1000] [--batch 64] [--size 256] [--repeats 3] [--threads 1] [--keep] [--json FILE]

Two systems with diagonal noise in single precision: ``dy = -y/2 dt + 0.3 y dW`` and ``dy = (sin y - y) dt + cos(y)/2 dW``;
where the method wants additive noise it is of strength 1/2, which torchsde solves fastest if told that it is diagonal. 1,000
steps of a [64, 256] state, of which the last is kept; with ``--keep``, all. Each solver runs once untimed, which is reported
apart and for the native loop includes tracing; the solvers of a case then take turns, and the best turn counts. Time is that of
the processor (of all threads together), so that other programs disturb little. Ratios are torchsde's time over ours. That all
solve the same equation is to be seen from the mean and standard deviation of the end.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
Function = Callable[[Tensor, Tensor], Tensor]
EQUATIONS: dict[str, tuple[Function, Function]] = {
    "geometric": (lambda t, y: -0.5 * y, lambda t, y: 0.3 * y),
    "sine": (lambda t, y: torch.sin(y) - y, lambda t, y: SIGMA * torch.cos(y)),
}
"""Drift and diffusion."""


@dataclass(frozen=True)
class Case:
    """A method, by the names of both libraries, and an equation."""

    method_name: str
    method: StochasticIntegrator
    torchsde_name: str
    calculus: Calculus = Calculus.ITO
    additive: bool = False
    equation: str = "geometric"

    @property
    def name(self) -> str:
        return f"{self.equation} {self.method_name}"

    def drift(self, t: Tensor, y: Tensor) -> Tensor:
        return EQUATIONS[self.equation][0](t, y)

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(y, SIGMA) if self.additive else EQUATIONS[self.equation][1](t, y)


METHODS = (
    Case("Euler-Maruyama", EulerMaruyama(), "euler"),
    Case("Milstein", Milstein(), "milstein"),
    Case("Heun", StochasticHeun(), "heun", Calculus.STRATONOVICH),
    Case("SRA1", SRA1(), "srk", additive=True),
    Case("SRI2", SRI2(), "srk"),
)
CASES = tuple(replace(case, equation=equation) for equation in EQUATIONS for case in METHODS)


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
        y, root = y0, math.sqrt(DT)
        for step in range(steps):
            t = torch.tensor(step * DT)
            y = y + DT * case.drift(t, y) + root * case.diffusion(t, y) * torch.randn_like(y)
        return y

    return run


def output_times(steps: int, keep: bool) -> Tensor:
    return torch.arange(0, steps + 1, 1 if keep else steps, dtype=torch.float64) * DT


def ours(case: Case, y0: Tensor, steps: int, keep: bool, loop: Any) -> Callable[[], Tensor]:
    times = output_times(steps, keep)

    def run() -> Tensor:
        noise = Additive() if case.additive else Diagonal()
        return sdeint(
            case.drift, case.diffusion, y0, times, dt=DT, method=case.method, noise=noise, calculus=case.calculus, loop=loop,
            progress=False,
        ).y[-1]  # fmt: skip

    return run


def theirs(case: Case, y0: Tensor, steps: int, keep: bool) -> Callable[[], Tensor] | None:
    try:
        import torchsde
    except ImportError:
        return None

    class Equation(torch.nn.Module):
        noise_type = "diagonal"
        sde_type = "ito" if case.calculus is Calculus.ITO else "stratonovich"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return case.drift(t, y)

        def g(self, t: Tensor, y: Tensor) -> Tensor:
            return case.diffusion(t, y)

    times = output_times(steps, keep).to(y0.dtype)
    return lambda: torchsde.sdeint(Equation(), y0, times, dt=DT, method=case.torchsde_name)[-1]


def refined(y0: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """What it costs to see a path that was begun at a coarser step."""
    case, times = CASES[0], output_times(steps, False)
    runs = {}
    for depth in (0, 1, 3):
        path = BrownianPath(DT * 2**depth)

        def run(path: BrownianPath = path) -> Tensor:
            return sdeint(
                case.drift,
                case.diffusion,
                y0,
                times,
                dt=DT,
                method=case.method,
                path=path,
                loop=bt.Native(),
                progress=False,
            ).y[-1]

        runs[f"native, {depth} halvings"] = run
    return runs


def measure(*, steps: int, shape: tuple[int, int], repeats: int, keep: bool = False, halve: bool = False) -> list[Row]:
    """Every case; with ``halve``, also paths that were begun at coarser steps."""
    y0, rows = torch.full(shape, 0.5), []
    with torch.no_grad():
        for case in CASES:
            loops = {"native": bt.Native(), "python": None}
            runs = {name: ours(case, y0, steps, keep, loop) for name, loop in loops.items()}
            if case.method_name == METHODS[0].method_name:
                runs["plain loop"] = plain(case, y0, steps)
            if (other := theirs(case, y0, steps, keep)) is not None:
                runs["torchsde"] = other
            rows += timed(case.name, runs, repeats)
        if halve:
            rows += timed("Euler-Maruyama on a refined path", refined(y0, steps), repeats)
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
    parser.add_argument("--keep", action="store_true", help="keep every step")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = (arguments.batch, arguments.size)
    rows = measure(steps=arguments.steps, shape=shape, repeats=arguments.repeats, keep=arguments.keep, halve=True)
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
