"""Delay and fractional equations: the loops against each other, and what the past costs as runs grow longer.

    python benchmarks/solvers_delay.py [--json FILE]

All ratios are of times taken in this very run, each the least of some repetitions; compilation is reported apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bdtorch
from bdtorch.integrate import RK4, AdamsBashforthMoulton, SumOfExponentials, ddeint, fdeint

SHAPE = (64, 256)
STEPS = 1000
DT = 0.1


def mackey_glass(t: Tensor, x: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    delayed = past[0]
    powers = delayed * delayed
    return 0.2 * delayed / (1.0 + powers * powers * powers * powers * powers) - 0.1 * x


def best(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """The first time, in which loops compile, and the least of the others, in seconds."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times[0], min(times[1:])


def by_hand(x0: np.ndarray) -> np.ndarray:
    """RK4 with a delay line and a cubic between its entries, as one would write it in NumPy for this one equation."""
    steps = round(17.0 / DT)
    values, slopes = np.repeat(x0[None], STEPS + steps + 1, 0), np.zeros((STEPS + steps + 1, *x0.shape))

    def f(x: np.ndarray, delayed: np.ndarray) -> np.ndarray:
        return 0.2 * delayed / (1.0 + (delayed * delayed) ** 5) - 0.1 * x

    for n in range(STEPS):
        k = n + steps
        x, early, late = values[k], values[n], values[n + 1]
        ahead = slopes[n + 1] if n + 1 != steps else 0.0  # the history's slope at the start, where it jumps
        half = 0.5 * (early + late) + 0.125 * DT * (slopes[n] - ahead)
        k1 = f(x, early)
        slopes[k] = k1
        k2 = f(x + 0.5 * DT * k1, half)
        k3 = f(x + 0.5 * DT * k2, half)
        k4 = f(x + DT * k3, late)
        values[k + 1] = x + DT / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        slopes[k + 1] = f(values[k + 1], late)
    return values[-1]


def delays(repeats: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    x0 = 1.0 + 0.2 * torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    times = [0.0, STEPS * DT]
    ends: dict[str, Any] = {}

    def solve(name: str, loop: Any) -> None:
        ends[name] = ddeint(mackey_glass, x0, times, delays=17.0, dt=DT, method=RK4(), loop=loop, progress=False).y[-1]

    def hand() -> None:
        ends["numpy"] = torch.from_numpy(by_hand(x0.numpy()))

    _, python = best(lambda: solve("python", None), 1)
    first, native = best(lambda: solve("native", bdtorch.Native(threads=1)), repeats)
    _, numpy = best(hand, 1)
    torch.testing.assert_close(ends["native"], ends["python"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ends["numpy"], ends["python"], rtol=1e-9, atol=1e-10)
    return {
        "python_s": python, "native_s": native, "native_first_s": first, "numpy_s": numpy,
        "native_over_python": python / native, "native_over_numpy": numpy / native,
    }  # fmt: skip


def fractional(repeats: int) -> list[dict[str, float]]:
    y0 = torch.linspace(0.5, 1.5, 64, dtype=torch.float64)
    rows = []
    for steps in (1000, 4000, 16_000):
        row: dict[str, float] = {"steps": steps}
        ends: dict[str, Tensor] = {}
        for name, method in (
            ("direct", AdamsBashforthMoulton()),
            ("exponentials", AdamsBashforthMoulton(fast=SumOfExponentials(1e-10))),
        ):

            def solve(name: str = name, method: Any = method, steps: int = steps, ends: Any = ends) -> None:
                ends[name] = fdeint(
                    lambda t, y: torch.cos(t) - torch.tanh(y), y0, [0.0, 40.0], alpha=0.8, dt=40.0 / steps, method=method,
                    loop=bdtorch.Native(threads=1), progress=False,
                ).y[-1]  # fmt: skip

            row[f"{name}_first_s"], row[f"{name}_s"] = best(solve, repeats if steps < 10_000 else 1)
        row["difference"] = float((ends["direct"] - ends["exponentials"]).abs().max())
        row["speedup"] = row["direct_s"] / row["exponentials_s"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"delay": delays(options.repeats), "fractional": fractional(options.repeats)}
    for name, value in figures["delay"].items():
        print(f"Mackey-Glass {list(SHAPE)}, {STEPS} steps: {name:20s} {value:10.3f}")
    for row in figures["fractional"]:
        print("  ".join(f"{name} {value:.3g}" for name, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
