# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""A network of 4,000 Hodgkin-Huxley neurons with conductance synapses, composed of channels, synapses and rules."""

# %% [markdown]
# # An excitatory-inhibitory network of Hodgkin-Huxley neurons
#
# The neuron of `channels.py`, 3,200 times excitatory and 800 times inhibitory, connected at random with probability 0.02
# (after Brette et al. 2007, doi:10.1007/s10827-007-0038-6). The network keeps itself active without input.

# %%
from __future__ import annotations

import time

import matplotlib.pyplot as plt

import bdtorch as bt
from notebooks import _show, cells


def network(scale: float = 1.0) -> bt.Network:
    """3,200 and 800 neurons times ``scale``; the in-degree stays that of the whole network."""
    excitatory, inhibitory = round(3200 * scale), round(800 * scale)
    p = min(1.0, 0.02 / scale)
    return bt.Network(
        {"E": cells.neuron(excitatory), "I": cells.neuron(inhibitory)},
        {
            ("E", ("E", "I")): cells.project(p, 0.03),
            ("I", ("E", "I")): cells.project(p, 0.335, inhibitory=True),
        },
        seed=20873,
    )


# %%
def main(quick: bool = True) -> dict[str, float]:
    """200 ms (1 s in full), the raster and the rates."""
    duration = 200.0 if quick else 1000.0
    net = network()
    record = {"E": bt.spikes("E"), "I": bt.spikes("I"), "v": bt.trace("E.v", index=range(50))}
    bt.simulate(net, dt=0.1, duration=0.1, record=record)  # compiles
    began = time.perf_counter()
    sol = bt.simulate(net, dt=0.1, duration=duration, record=record)
    wall = time.perf_counter() - began
    settled = {name: float((sol[name].times > 50.0).sum()) for name in ("E", "I")}
    rates = {name: 1000.0 * count / (sol[name].size * (duration - 50.0)) for name, count in settled.items()}
    irregular = float(bt.analyze.interval_cv(sol["E"]).nanmean())
    result = {"rate_e": rates["E"], "rate_i": rates["I"], "wall_s": wall, "cv": irregular}
    _show.table(
        "4,000 Hodgkin-Huxley neurons",
        [
            ("excitatory rate after 50 ms (Hz)", rates["E"], None),
            ("inhibitory rate after 50 ms (Hz)", rates["I"], None),
            ("variation of intervals, excitatory (CV)", irregular, None),
            (f"wall time of {duration:g} ms (s)", wall, None),
        ],
    )
    draw(sol)
    return result


# %% [markdown]
# What to see: after a common start the spikes become irregular and asynchronous, and stay so without any input.


# %%
@_show.styled
def draw(sol: bt.Solution) -> None:
    """Raster, rate, and three membranes that spike as often as the mean."""
    figure, axes = plt.subplots(3, 1, figsize=(9, 6.5), sharex=True, height_ratios=(3, 1, 1.4))
    populations = {name: sol[name] for name in ("E", "I")}
    bt.plot.raster(populations, ax=axes[0], max_neurons=400)
    bt.plot.rate(populations, bin=2.0, ax=axes[1])
    crossings = ((sol["v"][1:] > 0.0) & (sol["v"][:-1] <= 0.0)).sum(0)
    typical = (crossings - crossings.float().mean()).abs().argsort(stable=True)[:3]
    bt.plot.traces(sol.time("v"), sol["v"][:, typical], ax=axes[2], unit="mV", name="v")
    for ax in axes[:2]:
        ax.set_xlabel("")
    axes[1].set_ylabel("rate (Hz)")
    figure.align_ylabels()
    _show.keep(figure, "cobahh_network")


# %%
if __name__ == "__main__":
    _show.script(main)
