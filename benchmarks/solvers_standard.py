"""Standard problems solved to a tolerance: steps, calls of the derivative and errors beside those of SciPy's solvers.

    python benchmarks/solvers_standard.py [--page docs/solvers.md]

The 25 problems of Hull, Enright, Fellen & Sedgwick (1972), doi:10.1137/0709052, known as DETEST, by their letters, and four stiff
ones: Robertson's, van der Pol's with mu = 1000, HIRES and the Oregonator (Hairer & Wanner (1996), section IV.10,
doi:10.1007/978-3-642-05221-7). Nothing here depends on the machine. With ``--page`` the tables between its marks are
written anew.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, this file sees only its own folder

from bdtorch import integrate

BEGIN, END = "<!-- standard problems: begin -->", "<!-- standard problems: end -->"
Function = Callable[[Tensor, Tensor], Tensor]


class Problem(NamedTuple):
    """``dy/dt = f(t, y)`` from ``start`` at time 0 up to ``end``; ``scale`` multiplies the absolute tolerance."""

    f: Function
    start: tuple[float, ...]
    end: float = 20.0
    scale: tuple[float, ...] = ()


def _chain(rates: Tensor) -> Function:
    """Each decays into the next; the last does not decay."""
    flow = torch.cat([rates, rates.new_zeros(1)])

    def f(t: Tensor, y: Tensor) -> Tensor:
        lost = flow * y
        return torch.cat([-lost[:1], lost[:-1] - lost[1:]])

    return f


def _diffusion(t: Tensor, y: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(y, (1, 1))
    return padded[:-2] - 2.0 * y + padded[2:]


def _torus(t: Tensor, y: Tensor) -> Tensor:
    r = (y[0] ** 2 + y[1] ** 2).sqrt()
    return torch.stack([-y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r])


def _two_body(t: Tensor, y: Tensor) -> Tensor:
    return torch.cat([y[2:], -y[:2] / (y[:2] ** 2).sum() ** 1.5])


def _kepler(eccentricity: float) -> Problem:
    speed = math.sqrt((1.0 + eccentricity) / (1.0 - eccentricity))
    return Problem(_two_body, (1.0 - eccentricity, 0.0, 0.0, speed))


_MASSES = torch.tensor(
    [0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778]
).double()
_PLANETS = (
    3.42947415189, 3.35386959711, 1.35494901715, 6.64145542550, 5.97156957878, 2.18231499728, 11.2630437207,
    14.6952576794, 6.27960525067, -30.1552268759, 1.65699966404, 1.43785752721, -21.1238353380, 28.4465098142,
    15.3882659679, -0.557160570446, 0.505696783289, 0.230578543901, -0.415570776342, 0.365682722812, 0.169143213293,
    -0.325325669158, 0.189706021964, 0.0877265322780, -0.0240476254170, -0.287659532608, -0.117219543175,
    -0.176860753121, -0.216393453025, -0.0148647893090,
)  # fmt: skip


def _five_bodies(t: Tensor, y: Tensor) -> Tensor:
    place, speed = y[:15].reshape(5, 3), y[15:]
    pull = place / (place**2).sum(-1, keepdim=True) ** 1.5
    apart = place.unsqueeze(0) - place.unsqueeze(1)  # [j, k]: from j to k
    cube = ((apart**2).sum(-1, keepdim=True) + torch.eye(5).unsqueeze(-1)) ** 1.5
    others = (_MASSES.reshape(1, 5, 1) * (apart / cube - pull.unsqueeze(0) * (1.0 - torch.eye(5)).unsqueeze(-1))).sum(1)
    return torch.cat([speed, (2.95912208286 * (others - (1.00000597682 + _MASSES).unsqueeze(-1) * pull)).flatten()])


def _oscillator(force: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Function:
    return lambda t, y: torch.stack([y[1], force(t, y[0], y[1])])


def _van_der_pol(mu: float) -> Function:
    return _oscillator(lambda t, x, v: mu * (1.0 - x * x) * v - x)


def _robertson(t: Tensor, y: Tensor) -> Tensor:
    slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return torch.stack([back - slow, slow - back - fast, fast])


def _hires(t: Tensor, y: Tensor) -> Tensor:
    a, b, c, d, e, f, g, h = y
    bound = 280.0 * f * h - 1.81 * g
    return torch.stack([
        -1.71 * a + 0.43 * b + 8.32 * c + 0.0007, 1.71 * a - 8.75 * b, -10.03 * c + 0.43 * d + 0.035 * e,
        8.32 * b + 1.71 * c - 1.12 * d, -1.745 * e + 0.43 * f + 0.43 * g,
        -280.0 * f * h + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g, bound, -bound,
    ])  # fmt: skip


def _oregonator(t: Tensor, y: Tensor) -> Tensor:
    a, b, c = y
    return torch.stack([77.27 * (b + a * (1.0 - 8.375e-6 * a - b)), (c - (1.0 + a) * b) / 77.27, 0.161 * (a - c)])


DETEST: dict[str, Problem] = {
    "A1": Problem(lambda t, y: -y, (1.0,)),
    "A2": Problem(lambda t, y: -0.5 * y**3, (1.0,)),
    "A3": Problem(lambda t, y: y * torch.cos(t), (1.0,)),
    "A4": Problem(lambda t, y: 0.25 * y * (1.0 - y / 20.0), (1.0,)),
    "A5": Problem(lambda t, y: (y - t) / (y + t), (4.0,)),
    "B1": Problem(lambda t, y: torch.stack([2.0 * (y[0] - y[0] * y[1]), y[0] * y[1] - y[1]]), (1.0, 3.0)),
    "B2": Problem(lambda t, y: torch.stack([y[1] - y[0], y[0] - 2.0 * y[1] + y[2], y[1] - y[2]]), (2.0, 0.0, 1.0)),
    "B3": Problem(lambda t, y: torch.stack([-y[0], y[0] - y[1] ** 2, y[1] ** 2]), (1.0, 0.0, 0.0)),
    "B4": Problem(_torus, (3.0, 0.0, 0.0)),
    "B5": Problem(lambda t, y: torch.stack([y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]), (0.0, 1.0, 1.0)),
    "C1": Problem(_chain(torch.ones(9, dtype=torch.float64)), (1.0, *(0.0,) * 9)),
    "C2": Problem(_chain(torch.arange(1.0, 10.0, dtype=torch.float64)), (1.0, *(0.0,) * 9)),
    "C3": Problem(_diffusion, (1.0, *(0.0,) * 9)),
    "C4": Problem(_diffusion, (1.0, *(0.0,) * 50)),
    "C5": Problem(_five_bodies, _PLANETS),
    **{f"D{k + 1}": _kepler(0.1 + 0.2 * k) for k in range(5)},
    "E1": Problem(
        _oscillator(lambda t, x, v: -(v / (t + 1.0) + (1.0 - 0.25 / (t + 1.0) ** 2) * x)),
        (0.6713967071418030, 0.09540051444747446),  # Bessel's function of order 1/2 and its slope, at 1
    ),
    "E2": Problem(_van_der_pol(1.0), (2.0, 0.0)),
    "E3": Problem(_oscillator(lambda t, x, v: x**3 / 6.0 - x + 2.0 * torch.sin(2.78535 * t)), (0.0, 0.0)),
    "E4": Problem(_oscillator(lambda t, x, v: 0.032 - 0.4 * v * v), (30.0, 0.0)),
    "E5": Problem(_oscillator(lambda t, x, v: (1.0 + v * v).sqrt() / (25.0 - t)), (0.0, 0.0)),
}

STIFF: dict[str, Problem] = {
    "Robertson": Problem(_robertson, (1.0, 0.0, 0.0), 4e10, (1e-2, 1e-8, 1e-2)),
    "van der Pol, mu = 1000": Problem(_van_der_pol(1000.0), (2.0, 0.0), 2000.0),
    "HIRES": Problem(_hires, (1.0, *(0.0,) * 6, 0.0057), 321.8122, (1e-2,) * 8),
    "Oregonator": Problem(_oregonator, (1.0, 2.0, 3.0), 360.0),
}

Result = tuple[int, int, float]
"""Accepted steps, calls of the derivative, and the largest error at the end in units of the tolerance there."""


def _right(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    return lambda t, y: problem.f(torch.tensor(t, dtype=torch.float64), torch.tensor(y)).numpy()


@functools.cache
def reference(name: str, stiff: bool) -> np.ndarray:
    """The end, by SciPy's most exact means."""
    problem = (STIFF if stiff else DETEST)[name]
    atol = 1e-13 * np.array(problem.scale or 1.0)
    method, rtol = ("Radau", 3e-12) if stiff else ("DOP853", 1e-13)
    end: np.ndarray = solve_ivp(
        _right(problem), (0.0, problem.end), problem.start, method=method, rtol=rtol, atol=atol
    ).y[:, -1]
    return end


def _excess(end: np.ndarray, exact: np.ndarray, rtol: float, atol: Any) -> float:
    return float(np.max(np.abs(end - exact) / (atol + rtol * np.abs(exact))))


def ours(name: str, method: Any, tolerance: float, *, stiff: bool = False) -> Result:
    problem = (STIFF if stiff else DETEST)[name]
    atol = tolerance * np.array(problem.scale or [1.0] * len(problem.start))
    solution = integrate.odeint(
        problem.f, torch.tensor(problem.start, dtype=torch.float64), [0.0, problem.end], method=method, rtol=tolerance,
        atol=torch.tensor(atol), progress=False,
    )  # fmt: skip
    end = solution.y[-1].numpy()
    return int(solution.steps), solution.evaluations, _excess(end, reference(name, stiff), tolerance, atol)


def scipys(name: str, method: str, tolerance: float, *, stiff: bool = False) -> Result:
    problem = (STIFF if stiff else DETEST)[name]
    atol = tolerance * np.array(problem.scale or 1.0)
    solution = solve_ivp(_right(problem), (0.0, problem.end), problem.start, method=method, rtol=tolerance, atol=atol)
    error = _excess(solution.y[:, -1], reference(name, stiff), tolerance, atol)
    return len(solution.t) - 1, int(solution.nfev), error


def tables() -> str:
    """Both sets as Markdown."""
    return "\n\n".join([
        _table(DETEST, ("BogackiShampine", "DormandPrince5", "Tsit5", "DOP853"), ("RK23", "RK45", "DOP853"), 1e-6, False),
        _table(STIFF, ("Rodas4", "Kvaerno3", "Kvaerno5"), ("Radau", "BDF"), 1e-5, True),
    ])  # fmt: skip


def _table(
    problems: dict[str, Problem], own: tuple[str, ...], peers: tuple[str, ...], tolerance: float, stiff: bool
) -> str:
    heads = ["problem", *(f"`{name}`" for name in own), *(f"SciPy {name}" for name in peers)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for problem in problems:
        results = [ours(problem, getattr(integrate, name)(), tolerance, stiff=stiff) for name in own]
        results += [scipys(problem, name, tolerance, stiff=stiff) for name in peers]
        cells = [f"{steps}, {calls}, {error:.2g}" for steps, calls, error in results]
        lines.append("| " + " | ".join([problem, *cells]) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    text = tables()
    if arguments.page:
        page = arguments.page.read_text()
        before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
        arguments.page.write_text(f"{before}\n{text}\n{after}")


if __name__ == "__main__":
    main()
