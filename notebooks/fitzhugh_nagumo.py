# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""Where the FitzHugh-Nagumo neuron begins and ceases to spike, in one parameter and in two."""

# %% [markdown]
# # Rest and spikes of one neuron
#
# The equations have one equilibrium at any current. Continuation follows it, finds where it loses its stability, and
# follows the cycles that are born there; the same module is simulated at many currents in one batch beside it.

# %%
from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import torch

import bdtorch as bt
from notebooks import _show

CURRENTS = (0.0, 2.0)

# %% [markdown]
# ## What to see
#
# Left: rest loses its stability in a Hopf bifurcation at both ends of the range in which the neuron spikes. Both are
# subcritical: the small cycles (dotted) are unstable and lie at currents at which rest is stable still. Where the
# current hardly changes any more they explode into spikes (a canard), and turn in a fold of cycles into the stable
# ones (green), on which the simulated spikes (dots) lie. Right: both Hopf points as the offset of the recovery varies too;
# they are straight lines, which the trace of the Jacobian gives in closed form.


# %%
def hopf_line(a: float, sign: int, b: float = 0.8, tau: float = 12.5) -> float:
    """The current at which the trace of the Jacobian is zero."""
    v = math.sqrt(1.0 - b / tau)
    return a / b + sign * (v / b - v + v**3 / 3.0)


def simulated(neuron: bt.rates.FitzHughNagumo, count: int) -> bt.analyze.Scan:
    """Extrema of the attractors at ``count`` currents within the range of spikes."""
    values = torch.linspace(0.35, 1.4, count, dtype=torch.float64)
    return bt.analyze.scan(neuron, parameter="i_ext", values=values, dt=0.02, duration=200.0, transient=400.0)


def differences(scan: bt.analyze.Scan, cycles: bt.analyze.CycleBranch) -> tuple[float, float]:
    """Simulation against continuation: largest difference of the highest ``v``, and relative one of the period."""
    stable = cycles.stable & (cycles.maximum[:, 0] > 1.0)
    order = cycles.parameter[stable].argsort()
    known = cycles.parameter[stable][order]
    top = torch.tensor([float(x.quantile(0.5)) for x in scan.peaks["v"]], dtype=torch.float64)
    height = (top - _interpolated(scan.values, known, cycles.maximum[stable, 0][order])).abs().max()
    counts = torch.tensor([len(x) for x in scan.peaks["v"]], dtype=torch.float64)
    expected = 200.0 / _interpolated(scan.values, known, cycles.period[stable][order])
    return float(height), float((counts - expected).abs().max())


def _interpolated(at: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    part = (at - x[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1] + part * (y[right] - y[right - 1])


def main(quick: bool = True) -> dict[str, Any]:
    """Diagrams in one and two parameters, and simulations; table and picture."""
    neuron = bt.rates.FitzHughNagumo(1, dtype=torch.float64)
    diagram = bt.analyze.continuation(neuron, parameter="i_ext", bounds=CURRENTS, max_step=0.015 if quick else 0.005)
    hopf = [p.parameters["i_ext"] for p in diagram.of("Hopf")]
    folds = [p.parameters["i_ext"] for p in diagram.of("fold of cycles")]
    scan = simulated(neuron, 22 if quick else 106)
    height, count = differences(scan, diagram.cycles[0])
    plane = bt.analyze.parameter_plane(neuron, {"i_ext": CURRENTS, "a": (0.5, 1.0)})
    offsets = [curve.parameters[:, 0] - 1.25 * curve.parameters[:, 1] for curve in plane.curves]
    off = [float(o.mean()) for o in offsets]
    _show.table(
        "FitzHugh-Nagumo model (closed forms in the place of published numbers)",
        [(f"Hopf point {i + 1}, I", v, hopf_line(0.7, 2 * i - 1)) for i, v in enumerate(hopf)]
        + [(f"fold of cycles {i + 1}, I", v, None) for i, v in enumerate(folds)]
        + [("period of the cycles born", diagram.of("Hopf")[0].coefficients["period"], None)]
        + [("simulated highest v off the cycles', at most", height, None)]
        + [("simulated spikes off those expected, at most", count, None)]
        + [(f"Hopf line {i + 1}, I - 1.25 a", v, hopf_line(0.0, 2 * i - 1)) for i, v in enumerate(off)],
    )
    draw(diagram, scan, plane)
    return {
        "hopf": hopf,
        "folds": folds,
        "height": height,
        "count": count,
        "offsets": off,
        "spread": max(float(o.max() - o.min()) for o in offsets),
        "diagram": diagram,
    }


@_show.styled
def draw(diagram: bt.analyze.Diagram, scan: bt.analyze.Scan, plane: bt.analyze.ParameterPlane) -> None:
    """One parameter with the simulations, and two."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(1.5, 1))
    diagram.plot(left)
    for side in (scan.minimum, scan.maximum):
        left.plot(scan.values.numpy(), side[:, 0].numpy(), ".", color=_show.COLOURS[5], ms=4)
    left.set(xlabel="current $I$", ylabel="$v$", title="Equilibria, cycles, and simulations (dots)")
    left.get_legend().set_loc((0.36, 0.1))
    plane.plot(right)
    right.set(
        xlabel="current $I$", ylabel="offset $a$", title="Where the Hopf points lie", xticks=(0.0, 0.5, 1.0, 1.5, 2.0)
    )
    for x, y, text in ((0.2, 0.9, "rest"), (0.95, 0.75, "spikes"), (1.75, 0.6, "rest")):
        right.text(x, y, text, ha="center")
    _show.keep(figure, "fitzhugh_nagumo")


# %%
if __name__ == "__main__":
    _show.script(main)
