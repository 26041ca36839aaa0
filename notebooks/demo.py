"""The main job, end to end: simulate a spiking network, and learn from real data.

Prints a short report and writes `report.json` and pictures to `out/`. Run it with `make demo`, or from the root of the
repository with `python -m notebooks.demo`.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import bdtorch as bt
from benchmarks import coba, digits

OUT = Path(__file__).resolve().parents[1] / "out"
DT, DURATION = 0.1, 1000.0  # ms


def simulate_coba() -> dict[str, float]:
    """One second of 4,000 conductance-based neurons, and its raster."""
    net = coba.build(4000)
    record = {"E": bt.spikes("E"), "I": bt.spikes("I"), "v": bt.trace("E.v", index=range(3))}
    torch.set_num_threads(1)
    began = time.perf_counter()
    bt.simulate(net, 20.0, dt=DT, duration=1.0, record=record)
    ready = time.perf_counter() - began
    walls = []
    for _ in range(3):
        began = time.perf_counter()
        sol = bt.simulate(net, 20.0, dt=DT, duration=DURATION, record=record)
        walls.append(time.perf_counter() - began)
    wall = statistics.median(walls)
    rate = 0.8 * sol["E"].rate + 0.2 * sol["I"].rate
    synapses = sum(pathway.connect.synapses for pathway in net.projections.values())
    print(f"COBA network: 4,000 neurons, {synapses:,} synapses, {DURATION / 1000:g} s of biological time")
    print(f"  ready after    {ready:6.2f} s   (trace, compile, first millisecond; compiled once and then cached)")
    print(f"  wall time      {wall:6.3f} s   ({DURATION * 1e-3 / wall:.0f} times as fast as real time, one core)")
    print(f"  per step       {wall / sol.steps * 1e6:6.1f} microseconds, {sol.loop} loop")
    print(f"  mean rate      {rate:6.1f} Hz")
    draw_coba(sol, OUT / "coba.png")
    return {"coba_rate_hz": rate, "coba_us_per_step": wall / sol.steps * 1e6, "coba_wall_s": wall}


def draw_coba(sol: bt.Solution, path: Path) -> None:
    """Raster, population rate and three membranes."""
    with matplotlib.rc_context(bt.plot.STYLE):
        figure, axes = plt.subplots(3, 1, figsize=(9, 6.5), sharex=True, height_ratios=(3, 1, 1.4))
    populations = {name: sol[name] for name in ("E", "I")}
    bt.plot.raster(populations, ax=axes[0], max_neurons=400)
    bt.plot.rate(populations, bin=5.0, ax=axes[1]).set_ylabel("rate (Hz)")
    bt.plot.traces(sol.time("v"), sol["v"], ax=axes[2]).set_ylabel("v (mV)")
    for ax in axes[:-1]:
        ax.set_xlabel("")
    figure.align_ylabels()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def classify_digits() -> dict[str, float]:
    """Handwritten digits through a spiking reservoir and a ridge readout."""
    result = digits.run(picture=OUT / "digits.png")
    print(f"digits: 1,797 scans as Poisson spikes into a recurrent reservoir of {result['neurons']:,} neurons")
    print(f"  held out       {result['digits_accuracy']:6.2%}   reservoir and ridge readout")
    print(f"  held out       {result['pixels_accuracy']:6.2%}   ridge readout on the pixels, same split")
    print(f"  rates          {result['rate_e_hz']:6.1f} Hz excitatory, {result['rate_i_hz']:.1f} Hz inhibitory")
    print(f"  wall time      {result['wall_s']:6.1f} s")
    return {name: result[name] for name in ("digits_accuracy", "pixels_accuracy")}


def main() -> None:
    """Run both parts and write the report."""
    began = time.perf_counter()
    OUT.mkdir(exist_ok=True)
    report = {**simulate_coba(), **classify_digits()}
    report["total_wall_s"] = time.perf_counter() - began
    (OUT / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"total {report['total_wall_s']:.1f} s; pictures and report.json are in {OUT.name}/")


if __name__ == "__main__":
    main()
