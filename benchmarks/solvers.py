"""Solvers of ordinary differential equations beside torchdiffeq: time ratios and function calls, measured in one run.

    python benchmarks/solvers.py [--json FILE] [--repeats 5]

Both sides solve the same problem in float64 and take turns; each ratio is of their best times in this run. Compilation is
reported apart. Figures of work against error are drawn by ``solvers_figures.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

import bdtorch
import bdtorch.integrate as integrate
from bdtorch.integrate import ODESolver, odeint

STEPS, SHAPE, DT = 1000, (64, 256), 0.01
LORENZ, DURATION = 1000, 2.0

FIXED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda t, y: -y,
    "cubic": lambda t, y: y - y * y * y / 3.0 + 0.5,
    "tanh": lambda t, y: torch.tanh(y) - y,
}
PAIRS = {"Euler": "euler", "Midpoint": "midpoint", "RK4ThreeEighths": "rk4"}  # torchdiffeq's rk4 is the 3/8 rule


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    x, u, z = y.unbind(-1)
    return torch.stack([10.0 * (u - x), x * (28.0 - z) - u, x * u - 8.0 / 3.0 * z], -1)


def best(repeats: int, *contestants: Callable[[], Any]) -> list[float]:
    """The best time of each, in s; they take turns."""
    times = [float("inf")] * len(contestants)
    for _ in range(repeats):
        for k, contestant in enumerate(contestants):
            began = time.perf_counter()
            contestant()
            times[k] = min(times[k], time.perf_counter() - began)
    return times


def fixed_step(repeats: int) -> list[dict[str, Any]]:
    results = []
    y0, ends = torch.randn(SHAPE, dtype=torch.float64), torch.tensor([0.0, STEPS * DT], dtype=torch.float64)
    for equation, f in FIXED.items():
        for name, theirs in PAIRS.items():
            method = getattr(integrate, name)()
            solver = ODESolver(f, method=method, dt=DT, loop=bdtorch.Native(), progress=False)
            began = time.perf_counter()
            ours = solver(y0, ends).y[-1]
            compilation = time.perf_counter() - began
            peer = lambda: torchdiffeq.odeint(f, y0, ends, method=theirs, options={"step_size": DT})  # noqa: B023, E731
            difference = float((peer()[-1] - ours).abs().max())
            native, python, diffeq = best(
                repeats,
                lambda: solver(y0, ends),  # noqa: B023
                lambda: odeint(f, y0, ends, method=method, dt=DT, progress=False),  # noqa: B023
                peer,
            )
            results.append(
                {
                    "equation": equation, "method": name, "native_s": native, "python_s": python, "torchdiffeq_s": diffeq,
                    "native_ratio": diffeq / native, "python_ratio": diffeq / python, "compilation_s": compilation,
                    "difference": difference,
                }
            )  # fmt: skip
            print(f"{equation:8} {name:16} native {native * 1e3:8.2f} ms   torchdiffeq {diffeq * 1e3:8.1f} ms   "
                  f"{diffeq / native:5.1f} times faster   "
                  f"(Python loop {diffeq / python:.2f}, difference {difference:.0e})")  # fmt: skip
    return results


def adaptive(repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    y0 = torch.randn(LORENZ, 3, dtype=torch.float64) * 5.0 + torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64)
    times = torch.linspace(0.0, DURATION, 11, dtype=torch.float64)
    options: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-9}
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return lorenz(t, y)

    theirs = torchdiffeq.odeint(counted, y0, times, method="dopri5", **options)
    method = integrate.DormandPrince5()
    solver = ODESolver(lorenz, method=method, batch_dims=1, loop=bdtorch.Native(), progress=False, **options)
    began = time.perf_counter()
    ours = solver(y0, times)
    compilation = time.perf_counter() - began
    exact = odeint(lorenz, y0, times, method=integrate.DOP853(), batch_dims=1, rtol=1e-12, atol=1e-12, progress=False).y
    errors = [float((y - exact).abs().max()) for y in (ours.y, theirs)]
    native, python, diffeq = best(
        repeats,
        lambda: solver(y0, times),
        lambda: odeint(lorenz, y0, times, method=method, batch_dims=1, progress=False, **options),
        lambda: torchdiffeq.odeint(lorenz, y0, times, method="dopri5", **options),
    )
    needed = int((ours.steps + ours.rejections).max()) * method.evaluations + 2
    print(f"{LORENZ} Lorenz systems: native {native * 1e3:.1f} ms, Python loop {python * 1e3:.1f} ms, torchdiffeq "
          f"{diffeq * 1e3:.1f} ms: {diffeq / native:.1f} times faster; calls {ours.evaluations} against {calls} "
          f"({ours.evaluations / calls:.2f}); error {errors[0]:.0e} against {errors[1]:.0e}")  # fmt: skip
    return {
        "native_s": native, "python_s": python, "torchdiffeq_s": diffeq, "native_ratio": diffeq / native,
        "python_ratio": diffeq / python, "compilation_s": compilation, "calls": ours.evaluations, "needed_calls": needed,
        "torchdiffeq_calls": calls, "call_ratio": ours.evaluations / calls, "error": errors[0], "torchdiffeq_error": errors[1],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {"torch": torch.__version__, "threads": arguments.threads}
    results["fixed_step"] = fixed_step(arguments.repeats)
    results["lorenz"] = adaptive(arguments.repeats)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
