# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""Five areas of the ventral visual system: a pulse into V1 climbs the hierarchy, later in every higher area."""

# %% [markdown]
# # A wave through the ventral visual stream
#
# V1, V2, V4, TEO and TEpd of the macaque, each the excitatory-inhibitory network of `cobahh_network.py`, joined by excitatory
# projections whose probabilities and delays come from tract tracing (the network of the BrainPy paper, Wang et al. 2023,
# doi:10.7554/eLife.86365, figures 2D and 3D). One module of ten populations and 28 projections. A current of 1 uA/cm2
# enters the excitatory cells of V1 from 400 to 500 ms.

# %%
from __future__ import annotations

import itertools
import math
import time
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch

import bdtorch as bt
from notebooks import _show, cells

AREAS = ("V1", "V2", "V4", "TEO", "TEpd")
PROBABILITY = {  # by target, from each of AREAS
    "V1": (0.0, 0.732157, 0.12773, 0.0270346, 0.00363082),
    "V2": (0.763562, 0.0, 0.151331, 0.00327419, 0.00105268),
    "V4": (0.0130467, 0.390847, 0.0, 0.237817, 0.0748788),
    "TEO": (0.0, 0.0246153, 0.255873, 0.0, 0.231322),
    "TEpd": (0.0, 0.000175445, 0.0273894, 0.137626, 0.0),
}
DELAY = {  # ms, both ways
    ("V1", "V2"): 2.657143, ("V1", "V4"): 4.228571, ("V1", "TEO"): 4.257143, ("V1", "TEpd"): 7.285714,
    ("V2", "V4"): 2.685714, ("V2", "TEO"): 3.485714, ("V2", "TEpd"): 5.657143,
    ("V4", "TEO"): 2.8, ("V4", "TEpd"): 4.714286, ("TEO", "TEpd"): 3.057143,
}  # fmt: skip
EXCITATION, INHIBITION = 0.006, 0.268  # mS/cm2
DT, ON, OFF, DURATION = 0.1, 400.0, 500.0, 800.0  # ms

# %% [markdown]
# ## What had to change
#
# With the published numbers alone no wave is to be seen. At its leak reversal of -60 mV the cell is so near its threshold
# that the networks fire before any stimulus, and a cell of V2 receives some 2,400 synapses from V1 of the same strength as
# its 64 local ones: excitation between the areas outruns the local inhibition, and from the start the areas fire at 75 Hz
# and more, or are driven into depolarisation block. Two numbers were changed, and the first alone is enough for the order:
#
# 1. `HOLD`: a constant current of -0.3 uA/cm2 into every cell, so that the areas are silent until the pulse comes.
# 2. `GAIN`: synapses between areas have 0.05 times the strength of local ones, so that activity ends with its cause.
#    At the published strength (gain 1) the wave climbs in the same order, but activity does not end with the pulse: some
#    areas go on firing, others are silenced by depolarisation block.
#
# The delays are rounded to the step of 0.1 ms. In the quick setting each area has a quarter of the cells; probabilities
# within areas are four times larger, and so are the strengths between areas: the mean input of a cell is that of the
# whole network.

# %%
HOLD, GAIN = -0.3, 0.05


def network(scale: float = 1.0, gain: float = GAIN, seed: int = 0) -> bt.Network:
    """Five areas of 3,200 and 800 cells times ``scale``; populations are named ``V1_E``, ``V1_I``, ..."""
    populations: dict[str, bt.neurons.ConductanceBased] = {}
    projections: dict[tuple[str, tuple[str, ...]], bt.Projection] = {}
    within = min(1.0, 0.02 / scale)
    start = bt.init.Uniform(-70.0, -60.0)
    for area in AREAS:
        excitatory, inhibitory = f"{area}_E", f"{area}_I"
        populations[excitatory] = cells.neuron(round(3200 * scale), start)
        populations[inhibitory] = cells.neuron(round(800 * scale), start)
        own = (excitatory, inhibitory)
        projections[excitatory, own] = cells.project(within, EXCITATION)
        projections[inhibitory, own] = cells.project(within, INHIBITION, inhibitory=True)
    for target, source in itertools.product(AREAS, AREAS):
        probability = PROBABILITY[target][AREAS.index(source)]
        if probability > 0.0:
            delay = DELAY.get((source, target)) or DELAY[target, source]
            route = (f"{source}_E", (f"{target}_E", f"{target}_I"))
            projections[route] = cells.project(probability, EXCITATION * gain / scale, delay=round(delay, 1))
    return bt.Network(populations, projections, seed=seed)


def respond(net: bt.Network, pulse: float = 1.0, hold: float = HOLD, seed: int = 0) -> bt.Solution:
    """Spikes of the excitatory cells of every area, through 800 ms with a pulse (uA/cm2) into V1."""
    times = DT * torch.arange(round(DURATION / DT))
    inputs = {name: torch.tensor(hold) for name in net.populations}
    inputs["V1_E"] = hold + pulse * ((times >= ON - DT / 2) & (times < OFF - DT / 2))
    record = {area: bt.spikes(f"{area}_E") for area in AREAS}
    return bt.simulate(net, inputs, dt=DT, duration=DURATION, record=record, seed=seed)


# %% [markdown]
# The latency of an area is the time from the onset of the pulse to the first at which its rate over the last 4 ms is above
# what it was in the 200 ms before the pulse, by five of its standard deviations then and at least 5 Hz.


# %%
class Response(NamedTuple):
    """Of one area, Hz and ms."""

    before: float
    peak: float
    after: float
    latency: float


def response(spikes: bt.Spikes, bin: float = 0.5, window: int = 8) -> Response:
    """Rate before the pulse, its peak during it, in the last 200 ms, and the latency (NaN where there is no response)."""
    times, rate = bt.analyze.population_rate(spikes, bin)
    recent = torch.nn.functional.pad(rate, (window - 1, 0)).unfold(0, window, 1).mean(-1)
    ends = times + bin / 2
    before = recent[(ends > ON - 200.0) & (ends <= ON)]
    during = (ends > ON) & (ends <= OFF)
    threshold = before.mean() + max(5.0 * float(before.std()), 5.0)
    above = ends[during][recent[during] > threshold]
    latency = float(above[0]) - ON if len(above) else math.nan
    after = recent[ends > DURATION - 200.0].mean()
    return Response(float(before.mean()), float(recent[during].max()), float(after), latency)


def main(quick: bool = True) -> dict[str, float]:
    """A quarter of the cells (all of them in full): latencies at both strengths, and a run without the pulse."""
    scale = 0.25 if quick else 1.0
    result: dict[str, float] = {}
    net = network(scale)
    began = time.perf_counter()
    sol = respond(net)
    result["wall_s"] = time.perf_counter() - began
    silent, strong = respond(net, pulse=0.0), respond(network(scale, gain=1.0))
    bare = respond(network(scale, gain=1.0), hold=0.0)
    rows: list[tuple[str, float, None]] = []
    for area in AREAS:
        seen, at_gain_1 = response(sol[area]), response(strong[area])
        result[f"latency_{area}"], result[f"latency_strong_{area}"] = seen.latency, at_gain_1.latency
        result[f"peak_{area}"], result[f"before_{area}"] = seen.peak, seen.before
        result[f"peak_without_pulse_{area}"] = response(silent[area]).peak
        result[f"after_{area}"], result[f"after_strong_{area}"] = seen.after, at_gain_1.after
        result[f"before_bare_{area}"] = response(bare[area]).before
        rows += [(f"{area}: latency (ms)", seen.latency, None), (f"{area}: peak rate (Hz)", seen.peak, None)]
        rows += [(f"{area}: peak rate without the pulse (Hz)", result[f"peak_without_pulse_{area}"], None)]
        rows += [(f"{area}: latency at gain 1 (ms)", at_gain_1.latency, None)]
        rows += [(f"{area}: rate at gain 1, last 200 ms (Hz)", at_gain_1.after, None)]
        rows += [(f"{area}: published numbers, before the pulse (Hz)", result[f"before_bare_{area}"], None)]
    rows += [("wall time of the first 800 ms, with compiling (s)", result["wall_s"], None)]
    _show.table(f"Five areas of {round(4000 * scale):,} cells", rows)
    draw(sol)
    return result


# %% [markdown]
# What to see: nothing before the pulse, then a volley in V1 which comes to V2, V4, TEO and TEpd one after the other, and
# once more for the second volley of V1; after the pulse the areas are silent again. Volleys are synchronous, since the
# cells are alike, receive no noise, and have forgotten their initial voltages. The paper prints rasters and no numbers.


# %%
@_show.styled
def draw(sol: bt.Solution) -> None:
    """Rasters of the five areas with the pulse shaded, and their rates around its onset."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 7), height_ratios=(1.5, 1))
    spikes = {area: sol[area] for area in AREAS}
    bt.plot.raster(spikes, ax=axes[0], max_neurons=1000)
    bt.plot.rate(spikes, bin=2.0, ax=axes[1])
    axes[1].get_legend().remove()  # areas have their colours in the raster
    axes[1].set(xlim=(ON - 10.0, OFF + 20.0), ylabel="rate (Hz)")
    for ax in axes:
        ax.axvspan(ON, OFF, color=_show.SHADE, zorder=0)
    axes[0].set_title("Spikes of excitatory cells; current into V1 while shaded")
    axes[1].set_title("Their rates in bins of 2 ms, around the pulse")
    _show.keep(figure, "ventral_stream")


# %%
if __name__ == "__main__":
    _show.script(main)
