"""The figures and the table of docs/solvers.md: work against error, family by family.

    python benchmarks/solvers_figures.py [--folder docs/images] [--page docs/solvers.md]

Work is counted in calls of the derivative (of drift and diffusion together), so the figures do not depend on the machine.
With ``--page`` the table of methods between its marks is written anew.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdtorch import integrate, plot
from bdtorch.integrate import BrownianPath, Calculus, ddeint, fdeint, methods, odeint, sdeint

Curves = dict[str, list[tuple[float, float]]]
"""For each method, points of work and error."""

BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"


def brusselator(t: Tensor, y: Tensor) -> Tensor:
    u, v = y.unbind(-1)
    return torch.stack([1.0 + u * u * v - 4.0 * u, 3.0 * u - u * u * v], -1)


def adaptive() -> Curves:
    """The Brusselator up to t = 20, at tolerances of 1e-3 and below; dashed: SciPy's solvers."""
    y0, ends = torch.tensor([1.5, 3.0], dtype=torch.float64), [0.0, 20.0]
    exact = odeint(brusselator, y0, ends, method=integrate.DOP853(), rtol=1e-13, atol=1e-13).y[-1]
    peers: dict[str, Any] = {"SciPy RK45": integrate.SciPy("RK45"), "SciPy DOP853": integrate.SciPy("DOP853")}
    names = ("BogackiShampine", "CashKarp", "DormandPrince5", "Tsit5", "DOP853", "Rodas4")
    chosen = {name: getattr(integrate, name)() for name in names} | peers
    curves: Curves = {}
    for name, method in chosen.items():
        exponents = range(3, 8) if getattr(method, "order", 5) < 5 else range(3, 11)
        for tolerance in (10.0**-k for k in exponents):
            sol = odeint(brusselator, y0, ends, method=method, rtol=tolerance, atol=tolerance, progress=False)
            curves.setdefault(name, []).append((sol.evaluations, float((sol.y[-1] - exact).abs().max())))
    return curves


def fixed() -> Curves:
    """The same up to t = 2 in equal steps."""
    y0, ends = torch.tensor([1.5, 3.0], dtype=torch.float64), [0.0, 2.0]
    exact = odeint(brusselator, y0, ends, method=integrate.DOP853(), rtol=1e-13, atol=1e-13).y[-1]
    stages = {entry.name: entry.stages for entry in methods("ODE")}
    curves: Curves = {}
    for name in ("Euler", "Heun", "SSPRK3", "RK4", "ExponentialEuler", "ExponentialRK2", "Tsit5"):
        for steps in (2**k for k in range(5, 11)):
            y = odeint(brusselator, y0, ends, method=getattr(integrate, name)(), dt=2.0 / steps, progress=False).y[-1]
            curves.setdefault(name, []).append((steps * (stages[name] or 1), float((y - exact).abs().max())))
    return curves


def stochastic() -> Curves:
    """Geometric Brownian motion up to t = 1: root mean square error of 2,000 paths."""
    drift, spread, paths = 1.5, 0.8, 2000
    path = BrownianPath(2.0**-4, 7, (paths,))
    w = path.motion(16, 1)[-1, :, 0]
    curves: Curves = {}
    for name, calls in (("EulerMaruyama", 2), ("DerivativeFreeMilstein", 3), ("StochasticHeun", 4), ("SRI1", 6)):
        method = getattr(integrate, name)()
        calculus = Calculus.ITO if Calculus.ITO in method.calculi else Calculus.STRATONOVICH
        growth = drift - 0.5 * spread**2 if calculus is Calculus.ITO else drift
        for dt in (2.0**-k for k in range(4, 10)):
            y = sdeint(
                lambda t, y: drift * y, lambda t, y: spread * y, torch.ones(paths, 1, dtype=torch.float64),
                torch.tensor([0.0, 1.0]), dt=dt, method=method, calculus=calculus, path=path, progress=False,
            ).y[-1, :, 0]  # fmt: skip
            error = float((y - torch.exp(growth + spread * w)).square().mean().sqrt())
            curves.setdefault(name, []).append((calls / dt, error))
    return curves


def delayed() -> Curves:
    """y'(t) = -y(t - 1) from a constant history, up to t = 5, against the polynomials of the method of steps."""
    exact = sum((-1.0) ** k * (5.0 - (k - 1)) ** k / math.factorial(k) for k in range(7))
    stages = {entry.name: entry.stages for entry in methods("ODE")}
    curves: Curves = {}
    for name in ("Euler", "Heun", "Kutta3", "RK4"):
        for steps in (10, 20, 40, 80, 160):
            y = ddeint(
                lambda t, y, past: -past[0], torch.ones(1, dtype=torch.float64), [0.0, 5.0], delays=1.0, dt=5.0 / steps,
                method=getattr(integrate, name)(), progress=False,
            ).y[-1]  # fmt: skip
            curves.setdefault(name, []).append((steps * (stages[name] or 1), abs(float(y) - exact)))
    return curves


def fractional() -> Curves:
    """D^0.5 y = -y up to t = 1, against the Mittag-Leffler function, here exp(t) erfc(sqrt(t))."""
    exact = math.e * math.erfc(1.0)
    curves: Curves = {}
    for name, calls in (("CaputoEuler", 1), ("GrunwaldLetnikov", 1), ("L1", 4), ("AdamsBashforthMoulton", 2)):
        for steps in (2**k for k in range(4, 11)):
            y = fdeint(
                lambda t, y: -y, torch.ones(1, dtype=torch.float64), [0.0, 1.0], alpha=0.5, dt=1.0 / steps,
                method=getattr(integrate, name)(), progress=False,
            ).y[-1]  # fmt: skip
            curves.setdefault(name, []).append((steps * calls, abs(float(y) - exact)))
    return curves


FIGURES: dict[str, tuple[tuple[str, Callable[[], Curves]], ...]] = {
    "solvers_ordinary": (("Brusselator, adaptive steps", adaptive), ("Brusselator, fixed steps", fixed)),
    "solvers_families": (
        ("stochastic: geometric Brownian motion", stochastic),
        ("delayed: $y'(t) = -y(t - 1)$", delayed),
        ("fractional: $D^{1/2} y = -y$", fractional),
    ),
}


def draw(name: str, folder: Path) -> None:
    import matplotlib.pyplot as plt

    panels = FIGURES[name]
    with plt.rc_context(plot.STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 4.4))
        for ax, (title, curves) in zip(axes, panels, strict=True):
            for number, (label, points) in enumerate(curves().items()):
                style = "--" if label.startswith("SciPy") else "os^vDP"[number % 6] + "-"
                fill = {} if number < len(plot.COLOURS) else {"markerfacecolor": "white"}
                ax.loglog(*zip(*points, strict=True), style, label=label, linewidth=1, **fill)
            ax.set(xlabel="calls of the derivative", ylabel="error", title=title)
            ax.xaxis.set_minor_formatter("")
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
        figure.savefig(folder / f"{name}.png", dpi=110)
    plt.close(figure)


def table() -> str:
    """The methods as Markdown; those for delay equations are the ordinary ones."""
    lines = ["| method | kind | order | stages | source |", "|---|---|---|---|---|"]
    for entry in (*methods("ODE"), *methods("SDE"), *methods("FDE")):
        order = "exact" if entry.order is None else f"{entry.order:g}"
        if entry.embedded_order is not None:
            order += f" ({entry.embedded_order})"
        if entry.weak_order is not None:
            order += f", weak {entry.weak_order:g}"
        kind = entry.kind if entry.family == "ODE" else f"{entry.family}: {entry.kind}"
        lines.append(f"| `{entry.name}` | {kind} | {order} | {entry.stages or ''} | {entry.source} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    for name in FIGURES:
        draw(name, arguments.folder)
    if arguments.page:
        text = arguments.page.read_text()
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        arguments.page.write_text(f"{before}\n{table()}\n{after}")


if __name__ == "__main__":
    main()
