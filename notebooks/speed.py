# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""What compiled stepping, event-driven operators and their scaling are worth, measured on the machine at hand."""

# %% [markdown]
# # Where the speed comes from
#
# Three questions of the BrainPy paper (figures 6 to 8), asked again. Networks fire as they should here: in the published
# scripts of figures 6B to 7C a slip in the refractory test leaves them all but silent, which flatters whatever is driven
# by events. The comparison with other simulators takes environments of its own; its figures are read from the
# table that `benchmarks/networks.py` writes.

# %%
from __future__ import annotations

import re
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import bdtorch as bt
from benchmarks import coba
from benchmarks.simulators.with_bdtorch import Timed
from notebooks import _show

DT = 0.1  # ms
FLOPS = 12  # floating point operations of one step of an integrate-and-fire neuron, as the paper counts them


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """Median time of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def simulated(system: bt.DynamicalSystem, drive: float, steps: int, loop: Any, record: Any) -> float:
    """Median time of a run, without tracing and compiling, which come once."""
    times = []
    for _ in range(3):
        timed = Timed(loop, time.perf_counter)
        began = time.perf_counter()
        bt.simulate(system, drive, dt=DT, duration=steps * DT, loop=timed, record=record)
        times.append(time.perf_counter() - began - timed.seconds)
    return statistics.median(times)


# %% [markdown]
# ## Why compile: element-wise work is bound by calls and memory
#
# A matrix-vector product spends its time on arithmetic. A step of integrate-and-fire neurons with as many operations is a
# dozen small calls in eager mode, each of which reads and writes everything; fused into one pass it reads and writes once.


# %%
def population(neurons: int, loop: Any, steps: int) -> float:
    """Operations per second (in 10^9) of a driven population."""
    cells = bt.neurons.Refractory(bt.neurons.LIF(neurons, v_th=20.0, integrator=bt.integrate.Euler()), period=2.0)
    none = {"none": bt.trace("v", index=0, every=steps)}
    return FLOPS * neurons * steps / simulated(cells, 25.0, steps, loop, none) * 1e-9


def product(size: int) -> float:
    """Operations per second (in 10^9) of a matrix-vector product."""
    matrix, vector = torch.randn(size, size), torch.randn(size)
    return (2 * size**2 - size) / seconds(lambda: matrix @ vector, 20) * 1e-9


def why_compile(sizes: list[int]) -> dict[str, list[float]]:
    """Rates of the same number of operations, as a product and as neurons, compiled or not."""
    rows: dict[str, list[float]] = {"matrix-vector product": [], "neurons, native": [], "neurons, eager": []}
    for size in sizes:
        neurons = (2 * size**2 - size) // FLOPS
        rows["matrix-vector product"].append(product(size))
        rows["neurons, native"].append(population(neurons, bt.Native(threads=1), max(10, 20_000_000 // neurons)))
        rows["neurons, eager"].append(population(neurons, bt.Reference(), max(5, 1_000_000 // neurons)))
    return rows


# %% [markdown]
# ## A whole network, compiled and not


# %%
def network_step(neurons: int, loop: Any, steps: int) -> float:
    """Microseconds of a step of network A."""
    return simulated(coba.build(neurons), coba.DRIVE, steps, loop, {"E": bt.spikes("E")}) / steps * 1e6


def compiled_or_not(sizes: list[int], steps: int) -> dict[str, list[float]]:
    """Microseconds of a step over sizes; the eager loop runs a twentieth of the steps."""
    return {
        "native": [network_step(size, bt.Native(threads=1), steps) for size in sizes],
        "eager": [network_step(size, bt.Reference(), steps // 20) for size in sizes],
    }


# %% [markdown]
# ## Events against all synapses
#
# The same product of spikes and weights, of 4,000 by 4,000 neurons with 2 % of the synapses present: as a dense matrix, as
# torch's sparse one, and event by event. At 22 Hz and steps of 0.1 ms, 0.2 % of the neurons are active in a step.


# %%
def products(actives: list[float], neurons: int = 4000, density: float = 0.02) -> dict[str, list[float]]:
    """Microseconds of a product at each share of active neurons."""
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    matrix = bt.connect.FixedProbability(density).build(neurons, neurons, seed=1)
    weights = torch.full((matrix.synapses,), 0.6)
    sparse = bt.connect.to_torch(matrix, weights).to_sparse_csr()
    dense, transposed = sparse.to_dense(), sparse.to_sparse_csc().t()
    rows: dict[str, list[float]] = {"dense": [], "sparse": [], "events": []}
    for active in actives:
        spikes = torch.rand(neurons, generator=torch.Generator().manual_seed(2)) < active
        floats = spikes.float()
        calls = {
            "dense": lambda x=floats: x @ dense,
            "sparse": lambda x=floats: transposed @ x,
            "events": lambda x=spikes: bt.ops.event_csr(x, weights, matrix.indices, matrix.indptr, neurons),
        }
        expected = calls["dense"]()
        for name, call in calls.items():
            torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-4)
            rows[name].append(seconds(call, 7) * 1e6)
    return rows


# %% [markdown]
# ## Beside other simulators


# %%
def measured_elsewhere() -> dict[tuple[str, int], dict[str, float]]:
    """Microseconds a step of one thread, by network, size and simulator, from the table in `benchmarks/README.md`."""
    page = (Path(__file__).resolve().parents[1] / "benchmarks" / "README.md").read_text()
    rows: dict[tuple[str, int], dict[str, float]] = {}
    key = ("", 0)
    table = page[page.index("networks: begin") : page.index("networks: end")]
    for line in re.findall(r"^\| .*\|$", table, re.M):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "network":
            continue
        if cells[0]:
            key = (cells[0], int(cells[1].replace(",", "")))
        if cells[3] == "1":
            rows.setdefault(key, {}).setdefault(cells[4], float(cells[5]))
    return rows


# %% [markdown]
# ## What to see
#
# Eager neurons waste most of the machine: a matrix product of as many operations runs far faster. Compiled, they are as
# fast as it, and a network gains more than its neurons do. The time of an event-driven product follows the number of spikes,
# while dense and sparse ones pay for all synapses at any activity.


# %%
def main(quick: bool = True) -> dict[str, Any]:
    """Measure, print and draw."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sizes = [300, 1000, 3000] if quick else [1000, 5000, 9000, 13000, 17000]
        neurons = [400, 4000, 16_000] if quick else [400, 4000, 12_000, 24_000, 36_000]
        actives = [0.0002, 0.002, 0.02, 0.2, 1.0]
        rates = why_compile(sizes)
        steps = compiled_or_not(neurons, 4000 if quick else 10_000)
        times = products(actives)
    finally:
        torch.set_num_threads(threads)
    elsewhere = measured_elsewhere()
    result = {
        "population_speedup": rates["neurons, native"][0] / rates["neurons, eager"][0],
        "network_speedup": steps["eager"][1] / steps["native"][1],
        "events_against_dense": times["dense"][1] / times["events"][1],
        "events_against_sparse": times["sparse"][1] / times["events"][1],
        "elsewhere": elsewhere,
    }
    _show.table(
        "Speed on this machine, one core",
        [
            ("population, compiled over eager", result["population_speedup"], None),
            ("network A of 4,000, compiled over eager", result["network_speedup"], None),
            ("0.2 % active: events over dense", result["events_against_dense"], None),
            ("0.2 % active: events over torch.sparse", result["events_against_sparse"], None),
        ],
    )
    draw(sizes, rates, neurons, steps, actives, times, elsewhere)
    return result


@_show.styled
def draw(
    sizes: list[int],
    rates: dict[str, list[float]],
    neurons: list[int],
    steps: dict[str, list[float]],
    actives: list[float],
    times: dict[str, list[float]],
    elsewhere: dict[tuple[str, int], dict[str, float]],
) -> None:
    """Four panels."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.8))
    for name, values in rates.items():
        axes[0, 0].loglog([2 * size**2 for size in sizes], [1e9 * value for value in values], "o-", label=name)
    axes[0, 0].set(xlabel="operations of a call", ylabel="operations per second", title="One step, one core")
    for name, values in steps.items():
        axes[0, 1].loglog(neurons, values, "o-", label=name)
    axes[0, 1].set(xlabel="neurons", ylabel="µs per step", title="Network A (COBA), one core")
    for name, values in times.items():
        axes[1, 0].loglog([100 * active for active in actives], values, "o-", label=name)
    axes[1, 0].set(xlabel="active neurons (%)", ylabel="µs per product", title="4,000 x 4,000, 2 % of the synapses")
    axes[1, 0].axvline(0.2, color=_show.BEHIND, lw=0.8, zorder=0)
    axes[1, 0].annotate("22 Hz ", (0.2, 0.06), xycoords=("data", "axes fraction"), ha="right", fontsize="small")
    others(axes[1, 1], elsewhere)
    for ax in axes.flat:
        ax.grid(axis="y", color=_show.SHADE, lw=0.8)
    for ax in axes.flat[:3]:
        ax.legend()
    _show.keep(figure, "speed")


def others(ax: Any, elsewhere: dict[tuple[str, int], dict[str, float]]) -> None:
    """Other simulators' times over bdtorch's, a row for each network."""
    keys = [key for key, row in elsewhere.items() if {"bdtorch", "brian2"} <= set(row)]
    names = {"floor": "C++ by hand", "brian2": "Brian2", "brainpy": "BrainPy"}
    for (name, label), shape in zip(names.items(), "os^", strict=True):
        shown = [
            (elsewhere[key][name] / elsewhere[key]["bdtorch"], place)
            for place, key in enumerate(keys)
            if name in elsewhere[key]
        ]
        ax.plot(*zip(*shown, strict=True), shape, ms=6, label=label, clip_on=False)
    ax.axvline(1.0, color=_show.COLOURS[5], lw=0.8)
    ax.set_xscale("log")
    ax.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    ax.minorticks_off()
    ax.set_yticks(range(len(keys)), [f"{network}, {size:,}" for network, size in keys])
    ax.set(xlabel="time / time of bdtorch", title="Other simulators", ylim=(len(keys) - 0.5, -0.5))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)


# %%
if __name__ == "__main__":
    _show.script(main)
