"""Solvers beside torchdiffeq and torchsde: time ratios and function calls, measured in one run.

    python benchmarks/solvers.py [--json FILE] [--repeats 5] [--threads 1] [--adaptive]

Fixed and stochastic steps: 1,000 of a [64, 256] system, of which the last state is kept. Equations range from cheap to
such as spend their time in elementary functions, which no solver can save: ``derivative alone`` is the time of as many
evaluations by PyTorch as the peer makes, and its share of the peer's time bounds what a loop without any overhead but the same
arithmetic would win. All sides solve the same problem and take turns; each ratio is of their best times in this run, and of
adaptive solvers the median over pairs of turns. Compilation is reported apart. Figures of work against error are drawn by
``solvers_figures.py``; what keeping every step of a path costs, and what a refined path costs, by ``solvers_sde.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, this file sees only its own folder

import bdtorch
import bdtorch.integrate as integrate
from bdtorch.integrate import ODESolver, odeint
from benchmarks import solvers_sde

STEPS, SHAPE, DT = 1000, (64, 256), 0.01
LORENZ, DURATION, OUTPUTS = 1000, 2.0, (2, 11, 101)
TOLERANCES = {torch.float64: (1e-6, 1e-9), torch.float32: (1e-4, 1e-6)}
"""Relative and absolute, such as the precision resolves."""
TURN = 0.05
"""Seconds, at least, of each turn of a contestant."""

FIXED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda t, y: -y,
    "cubic": lambda t, y: y - y * y * y / 3.0 + 0.5,
    "tanh": lambda t, y: torch.tanh(y) - y,
}
PAIRS = {"Euler": "euler", "Midpoint": "midpoint", "RK4ThreeEighths": "rk4"}  # torchdiffeq's rk4 is the 3/8 rule
STAGES = {"Euler": 1, "Midpoint": 2, "RK4ThreeEighths": 4}


def lorenz(t: Tensor, y: Tensor) -> Tensor:
    x, u, z = y.unbind(-1)
    return torch.stack([10.0 * (u - x), x * (28.0 - z) - u, x * u - 8.0 / 3.0 * z], -1)


def best(repeats: int, *contestants: Callable[[], Any]) -> list[float]:
    """The best time of each, in s. They take turns; a turn is as many calls as fill `TURN`, and its time their mean, so that
    none pays for the caches that another has left cold. With one thread it is that of the processor, which others disturb less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = [float("inf")] * len(contestants)
    for _ in range(repeats):
        for k, contestant in enumerate(contestants):
            began, spent, calls = clock(), 0.0, 0
            while spent < TURN:
                contestant()
                calls, spent = calls + 1, clock() - began
            times[k] = min(times[k], spent / calls)
    return times


def evaluated(f: Callable[[Tensor, Tensor], Tensor], y0: Tensor, stages: int) -> Callable[[], None]:
    """The derivative alone, as often as a run of so many stages calls it."""
    t = torch.tensor(0.0, dtype=y0.dtype)

    def run() -> None:
        for _ in range(STEPS * stages):
            f(t, y0)

    return run


def fixed_step(repeats: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    y0, ends = torch.randn(SHAPE, dtype=dtype), torch.tensor([0.0, STEPS * DT], dtype=dtype)
    return [
        fixed_pair(equation, name, y0, ends, repeats)
        for equation in FIXED
        for name in PAIRS
    ]  # fmt: skip


def fixed_pair(equation: str, name: str, y0: Tensor, ends: Tensor, repeats: int) -> dict[str, Any]:
    f, method = FIXED[equation], getattr(integrate, name)()
    solver = ODESolver(f, method=method, dt=DT, loop=bdtorch.Native(), progress=False)
    began = time.perf_counter()
    ours = solver(y0, ends).y[-1]
    compilation = time.perf_counter() - began

    def peer() -> Tensor:
        return torchdiffeq.odeint(f, y0, ends, method=PAIRS[name], options={"step_size": DT})[-1]

    difference = float((peer() - ours).abs().max())
    native, python, diffeq, derivative = best(
        repeats,
        lambda: solver(y0, ends),
        lambda: odeint(f, y0, ends, method=method, dt=DT, progress=False),
        peer,
        evaluated(f, y0, STAGES[name]),
    )
    kind = str(y0.dtype).removeprefix("torch.")
    print(f"{equation:7} {name:16} {kind}  native {native * 1e3:7.2f} ms  torchdiffeq {diffeq * 1e3:6.1f} ms  "
          f"{diffeq / native:5.1f} times faster  (derivative alone {derivative * 1e3:6.1f} ms; Python loop "
          f"{diffeq / python:.2f}; difference {difference:.0e})", flush=True)  # fmt: skip
    return {
        "equation": equation, "method": name, "dtype": kind, "native_s": native, "python_s": python,
        "torchdiffeq_s": diffeq, "derivative_s": derivative, "native_ratio": diffeq / native,
        "python_ratio": diffeq / python, "compilation_s": compilation, "difference": difference,
    }  # fmt: skip


def paired(repeats: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, float]:
    """Median times of turns of each, in s, and the median of the ratios of neighbouring turns."""
    turns = [best(1, ours, theirs) for _ in range(repeats)]
    mine, other = zip(*turns, strict=True)
    return median(mine), median(other), median(b / a for a, b in turns)


def adaptive(repeats: int, dtype: torch.dtype, outputs: int) -> dict[str, Any]:
    """1,000 Lorenz systems by Dormand and Prince's method, with an equal tolerance on both sides."""
    torch.manual_seed(0)
    y0 = torch.randn(LORENZ, 3, dtype=torch.float64) * 5.0 + torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64)
    y0, times = y0.to(dtype), torch.linspace(0.0, DURATION, outputs, dtype=torch.float64)
    options: dict[str, Any] = dict(zip(("rtol", "atol"), TOLERANCES[dtype], strict=True))
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
    ours = solver(y0, times)  # whose chunks are those of all further runs
    exact = odeint(
        lorenz, y0.double(), times, method=integrate.DOP853(), batch_dims=1, rtol=1e-12, atol=1e-12, progress=False
    ).y
    errors = [float((y.double() - exact).abs().max()) for y in (ours.y, theirs)]
    native, diffeq, ratio = paired(
        repeats, lambda: solver(y0, times), lambda: torchdiffeq.odeint(lorenz, y0, times, method="dopri5", **options)
    )
    kind = str(dtype).removeprefix("torch.")
    print(f"{LORENZ} Lorenz systems, {kind}, {outputs:3} outputs: "
          f"native {native * 1e3:5.1f} ms, torchdiffeq {diffeq * 1e3:5.1f} ms: "
          f"{ratio:.1f} times faster; calls {ours.evaluations} against {calls} ({ours.evaluations / calls:.2f}); "
          f"error {errors[0]:.0e} against {errors[1]:.0e}", flush=True)  # fmt: skip
    return {
        "dtype": kind, "outputs": outputs, "native_s": native, "torchdiffeq_s": diffeq, "native_ratio": ratio,
        "compilation_s": compilation, "calls": ours.evaluations, "torchdiffeq_calls": calls,
        "call_ratio": ours.evaluations / calls, "error": errors[0], "torchdiffeq_error": errors[1],
    }  # fmt: skip


def oscillator(t: Tensor, y: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, 2.0 * (1.0 - x * x) * v - x], -1)


SMALL: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Any, float]] = {
    "decay, 1 number": (lambda t, y: -y, 1.0, 5.0),
    "van der Pol, 2 numbers": (oscillator, [2.0, 0.0], 10.0),
    "Lorenz, 3 numbers": (lorenz, [1.0, 1.0, 20.0], 2.0),
}


def small(repeats: int, name: str, outputs: int) -> dict[str, Any]:
    """One call of `odeint` in plain PyTorch, nothing compiled and nothing kept, in single precision."""
    f, start, end = SMALL[name]
    y0, times = torch.tensor(start), torch.linspace(0.0, end, outputs)
    options: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}
    ours, theirs, ratio = paired(
        repeats,
        lambda: odeint(f, y0, times, method=integrate.DormandPrince5(), progress=False, **options),
        lambda: torchdiffeq.odeint(f, y0, times, method="dopri5", **options),
    )
    print(f"{name:22} {outputs:3} outputs: plain PyTorch {ours * 1e3:5.1f} ms, torchdiffeq {theirs * 1e3:5.1f} ms: "
          f"{ratio:.2f} times faster", flush=True)  # fmt: skip
    return {"equation": name, "outputs": outputs, "python_s": ours, "torchdiffeq_s": theirs, "python_ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adaptive", action="store_true", help="adaptive steps only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {"torch": torch.__version__, "threads": arguments.threads}
    results["lorenz"] = [adaptive(arguments.repeats, dtype, outputs) for dtype in TOLERANCES for outputs in OUTPUTS]
    results["small"] = [small(arguments.repeats, name, outputs) for name in SMALL for outputs in (2, 101)]
    if not arguments.adaptive:
        results |= fixed_and_stochastic(arguments.repeats)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


def fixed_and_stochastic(repeats: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    results["fixed_step"] = [row for dtype in (torch.float32, torch.float64) for row in fixed_step(repeats, dtype)]
    rows = solvers_sde.measure(steps=STEPS, shape=SHAPE, repeats=max(1, repeats // 2))
    results["stochastic"] = [asdict(row) for row in rows]
    results["stochastic_ratios"] = solvers_sde.ratios(rows)
    for one in results["stochastic_ratios"]:
        print(f"{one['case']:26} {one['against']} / {one['loop']}: {one['ratio']:.1f}")
    return results


if __name__ == "__main__":
    main()
