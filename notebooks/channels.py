# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""A potassium channel by itself, and a Hodgkin-Huxley neuron composed of channels."""

# %% [markdown]
# # From a channel to a neuron
#
# A channel is a dynamical system of its own: here it is clamped at voltages and compared with its closed form. Three of
# them make a neuron, without another equation being written.

# %%
from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import bdtorch as bt
from notebooks import _show, cells

DT = 0.01  # ms

# %% [markdown]
# ## The potassium channel under voltage clamp
#
# $\dot n = \alpha(v) (1 - n) - \beta(v)\, n$ at a constant voltage relaxes exponentially. The rate $\alpha$ has a removable
# singularity at $v = v_T + 15$ mV, with the value 0.16 per ms; the channel is exact there too.


# %%
def clamp(voltages: Tensor, duration: float = 30.0) -> tuple[Tensor, Tensor, Tensor]:
    """Times, the simulated gate from rest at -90 mV, and its closed form, ``(time, voltages)``."""
    channel = bt.channels.PotassiumTM(10.0, -90.0, v_t=cells.V_T, dtype=torch.float64)
    rest = channel.init_state((len(voltages),), v=-90.0)
    sol = bt.simulate(channel, bt.Constant(voltages), dt=DT, duration=duration, state=rest, record={"n": bt.trace("n")})
    alpha, beta = channel.rates(voltages)["n"]
    end = alpha / (alpha + beta)
    exact = end + (rest.n - end) * torch.exp(-(alpha + beta) * sol.t[:, None])
    return sol.t, sol["n"], exact


# %% [markdown]
# ## The neuron


# %%
def fire(current: float, duration: float = 500.0) -> bt.Solution:
    """The composed neuron from -60 mV under a constant current, uA/cm2."""
    neuron = cells.neuron(1, v_init=-60.0).to(torch.float64)
    record = {name: bt.trace(name) for name in ("v", "channels.Na.m", "channels.Na.h", "channels.K.n")}
    return bt.simulate(neuron, current, dt=DT, duration=duration, record={**record, "spikes": bt.spikes()})


def main(quick: bool = True) -> dict[str, float]:
    """Clamp the channel, let the neuron fire, and compare."""
    voltages = torch.tensor([-80.0, -60.0, cells.V_T + 15.0, -40.0, 0.0, 40.0], dtype=torch.float64)
    t, gate, exact = clamp(voltages)
    quiet, active = fire(0.0), fire(2.0)
    singular = bt.channels.PotassiumTM(v_t=cells.V_T, dtype=torch.float64).rates(voltages[2])["n"][0]
    result = {
        "clamp_error": float((gate - exact).abs().max()),
        "alpha_at_singularity": float(singular),
        "rest": float(quiet["v"][-1]),
        "rate": active["spikes"].rate,
        "peak": float(active["v"].max()),
    }
    _show.table(
        "A potassium channel, and a neuron of three channels",
        [
            ("clamp: largest distance from closed form", result["clamp_error"], 0),
            ("alpha where 0/0 would stand (1/ms)", result["alpha_at_singularity"], 0.16),
            ("resting potential (mV)", result["rest"], None),
            ("rate at 2 uA/cm2 (Hz)", result["rate"], None),
            ("peak of the spikes (mV)", result["peak"], None),
        ],
    )
    draw(t, gate, exact, voltages, active)
    return result


# %% [markdown]
# What to see: higher voltages open the channel further and faster, along the closed form (dots); in the neuron the sodium
# gate $m$ follows the spike, $h$ shuts it, and the potassium gate $n$ brings the potential back below rest.


# %%
@_show.styled
def draw(t: Tensor, gate: Tensor, exact: Tensor, voltages: Tensor, sol: bt.Solution) -> None:
    """The clamped gate and its closed form; the neuron's potential and its gates around the last spikes."""
    figure, axes = plt.subplot_mosaic("AB;AC", figsize=(9, 4.2), height_ratios=(1.2, 1))
    clamped, potential, gates = axes["A"], axes["B"], axes["C"]
    every = slice(None, None, len(t) // 15)
    columns = zip(voltages.tolist(), gate.unbind(1), exact.unbind(1), _show.shades(len(voltages)), strict=True)
    for voltage, simulated, wanted, colour in columns:
        clamped.plot(t, simulated, color=colour, label=f"{voltage:g}")
        clamped.plot(t[every], wanted[every], ".", color=colour)
    clamped.set(xlabel="time (ms)", ylabel="open fraction $n$", title="Potassium gate under clamp", xlim=(0.0, 18.0))
    clamped.legend(title="voltage (mV)", loc="upper right", bbox_to_anchor=(1.0, 0.9), ncols=2)
    late = sol.t > sol.t_end - 40.0
    shown = sol.t[late] - (sol.t_end - 40.0)
    potential.plot(shown, sol["v"][late, 0], color=_show.COLOURS[5])
    potential.set(
        ylabel="$v$ (mV)", title="The neuron they make, at 2 µA/cm²", xlim=(0.0, 40.0), yticks=(-80, -40, 0, 40)
    )
    potential.tick_params(labelbottom=False)
    for label, name in (("m", "Na.m"), ("h", "Na.h"), ("n", "K.n")):
        gates.plot(shown, sol[f"channels.{name}"][late, 0], label=f"${label}$")
    gates.set(xlabel="time (ms)", ylabel="open fraction", xlim=(0.0, 40.0), ylim=(-0.03, 1.03))
    gates.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _show.keep(figure, "channels")


# %%
if __name__ == "__main__":
    _show.script(main)
