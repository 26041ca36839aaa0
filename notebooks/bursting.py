# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""Why two neurons burst: the slow variable carries the fast subsystem to and fro between rest and spikes."""

# %% [markdown]
# # Bursts, taken apart
#
# Of three variables one is slow. Held still it is a parameter of the other two, whose equilibria and cycles continuation
# finds; let go, it drifts along whichever of them attracts, until that ends. Each module is simulated as it is, and
# analysed as it is.

# %%
from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch

import bdtorch as bt
from notebooks import _show


def hindmarsh_rose(b: float, i_ext: float, r: float) -> bt.neurons.HindmarshRose:
    """Square-wave bursts (b = 3) or bursts around a whole loop (b = 2.5)."""
    return bt.neurons.HindmarshRose(1, b=b, i_ext=i_ext, r=r, x_r=-1.6, dtype=torch.float64)


def fitzhugh_rinzel(mu: float) -> bt.neurons.FitzHughRinzel:
    """Elliptic bursts."""
    return bt.neurons.FitzHughRinzel(1, mu=mu, dtype=torch.float64)


# %% [markdown]
# ## What to see
#
# Left, Hindmarsh-Rose with b = 3: while z rises along the cycles the neuron spikes, until they touch the unstable branch
# in a homoclinic orbit; it falls to the lower branch, z sinks, and past the fold it spikes again: a square wave.
# Middle, b = 2.5: the cycles shrink to a Hopf point and the upper branch ends in a second fold. Right, FitzHugh-Rinzel:
# no fold of equilibria at all; rest gives way at a subcritical Hopf point, spikes at a fold of cycles, and bursts begin
# and end with small oscillations that overshoot both.

# %%
BURSTERS: dict[str, dict[str, Any]] = {
    "Hindmarsh-Rose, b = 3": {
        "slow": "z",
        "duration": 1600.0,
        "skip": 1000.0,
        "bounds": (-11.0, 3.4),
        "dt": 0.05,
        "max_step": 0.005,
    },
    "Hindmarsh-Rose, b = 2.5": {
        "slow": "z",
        "duration": 2000.0,
        "skip": 800.0,
        "bounds": (-0.5, 3.0),
        "dt": 0.05,
        "max_step": 0.01,
    },
    "FitzHugh-Rinzel": {"slow": "y", "duration": 5200.0, "skip": 4000.0, "bounds": (-0.02, 0.06), "dt": 0.1},
}


def main(quick: bool = True) -> dict[str, Any]:
    """The three bursters; table and picture."""
    neurons = {
        "Hindmarsh-Rose, b = 3": hindmarsh_rose(3.0, 2.0, 0.004 if quick else 0.001),
        "Hindmarsh-Rose, b = 2.5": hindmarsh_rose(2.5, 1.5, 0.004 if quick else 0.001),
        "FitzHugh-Rinzel": fitzhugh_rinzel(0.0004 if quick else 0.0001),
    }
    longer = 1.0 if quick else 4.0
    results = {}
    for name, neuron in neurons.items():
        options = BURSTERS[name] | {key: longer * BURSTERS[name][key] for key in ("duration", "skip")}
        results[name] = bt.analyze.fast_slow(neuron, **options)
    rows: list[tuple[str, Any, Any]] = []
    published = {
        "Hindmarsh-Rose, b = 3": (-4 / 3, 0.0),
        "Hindmarsh-Rose, b = 2.5": (-5 / 3, 0.0),
        "FitzHugh-Rinzel": (),
    }
    for name, result in results.items():
        found = sorted(round(float(p.x[0]), 9) + 0.0 for p in result.diagram.of("fold"))
        rows += [(f"{name}: fold at x", x, want) for x, want in zip(found, published[name], strict=True)]
        rows += [
            (f"{name}: {p.kind} at {result.slow}", p.parameters[result.slow], None) for p in result.diagram.of("Hopf")
        ]
        rows += [
            (f"{name}: fold of cycles at {result.slow}", p.parameters[result.slow], None)
            for p in result.diagram.of("fold of cycles")
        ]
    _show.table("Bursters (beside the folds of the cubic, in closed form)", rows)
    draw(results)
    return results


@_show.styled
def draw(results: dict[str, bt.analyze.FastSlow]) -> None:
    """Each fast subsystem with the trajectory over it, and the trajectory in time below."""
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.2), height_ratios=(2.2, 1))
    for (above, below), (name, result) in zip(axes.T, results.items(), strict=True):
        result.plot(above)
        slow = result.trajectory.x[:, result.names.index(result.slow)]
        margin = 0.4 * float(slow.max() - slow.min())
        above.set(xlim=(float(slow.min()) - margin, float(slow.max()) + margin), title=name)
        above.set(xlabel=f"${result.slow}$", ylabel=f"${result.names[0]}$")
        t, x = result.trajectory.t, result.trajectory.x[:, 0]
        below.plot((t - t[0]).numpy(), x.numpy(), color=_show.COLOURS[0], lw=0.6)
        below.set(xlabel="time (dimensionless)", ylabel=f"${result.names[0]}$")
    handles: dict[str, Any] = {}
    for above in axes[0]:
        drawn, labels = above.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
        above.get_legend().remove()
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    _show.keep(figure, "bursting")


# %%
if __name__ == "__main__":
    _show.script(main)
