# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""An excitatory-inhibitory rate network under Dale's law learns perceptual decisions."""

# %% [markdown]
# # Dale's law and perceptual decisions
#
# Fifty leaky rate units, forty excitatory and ten inhibitory, weigh noisy evidence for left or right and hold the choice
# until they may report it (after Song, Yang & Wang 2016, doi:10.1371/journal.pcbi.1004792). The sign of a weight belongs
# to its sender: here to the rows of the recurrent matrix.

# %%
from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import bdtorch as bt
from notebooks import _show

DT, TAU, NOISE = 20.0, 100.0, 0.15  # ms, ms, standard deviation of the recurrent noise
UNITS, EXCITATORY = 50, 40
COHERENCES = (0.0, 6.4, 12.8, 25.6, 51.2)  # percent
FIXATE, LEFT, RIGHT = 0, 1, 2

# %% [markdown]
# ## The network
#
# `bdtorch.train.dale` fixes the signs by a parametrisation of `torch.nn.utils.parametrize`; only excitatory units project
# to the readout, by a mask. The recurrent noise is a `NoisyFlow` around the rate unit.


# %%
def network(seed: int = 0) -> bt.Sequential:
    """Rate units under Dale's law, and a readout of the excitatory ones."""
    torch.manual_seed(seed)
    units = bt.rates.LeakyRate(UNITS, tau=TAU, activation=torch.relu)
    strength = NOISE * (2.0 / TAU) ** 0.5  # per square root of ms
    signs = torch.ones(UNITS)
    signs[EXCITATORY:] = -1.0
    weight = torch.rand(UNITS, UNITS) * (2.0 / EXCITATORY) ** 0.5 * 0.5
    weight[EXCITATORY:] *= EXCITATORY / (UNITS - EXCITATORY)  # few inhibitory units balance many excitatory ones
    layer = bt.Recurrent(
        bt.NoisyFlow(units, {"x": strength}),
        3,
        w_in=bt.init.Uniform(0.0, 0.5),
        w_rec=weight * signs[:, None],
        bias=nn.Parameter(torch.zeros(UNITS)),
        seed=seed,
    )
    bt.train.dale(layer.recurrent, signs)
    bt.train.masked(layer.recurrent, ~torch.eye(UNITS, dtype=torch.bool))
    readout = bt.Readout(UNITS, 3, bias=True, seed=seed)
    bt.train.masked(readout.output, (signs > 0)[:, None].expand(UNITS, 3).clone())
    return bt.Sequential(layer, readout)


# %% [markdown]
# ## The task
#
# A cue says to fixate; two channels carry evidence, whose difference is the coherence, under noise; when the cue goes,
# the choice is to be reported. Durations differ from batch to batch.


# %%
def trials(
    count: int, fixation: float, stimulus: float, coherence: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs ``(count, time, 3)`` (cue, left, right) and what to report in each step, ``(count, time)``."""
    steps = [round(span / DT) for span in (fixation, stimulus, 100.0)]
    total = sum(steps)
    right = torch.rand(count, generator=generator) < 0.5
    signed = torch.where(right, 1.0, -1.0) * coherence / 100.0
    x = torch.zeros(count, total, 3)
    x[:, : steps[0] + steps[1], 0] = 1.0
    shown = slice(steps[0], steps[0] + steps[1])
    noise = torch.randn(count, steps[1], 2, generator=generator) / DT**0.5
    x[:, shown, 1] = 0.5 * (1.0 - signed)[:, None] + noise[..., 0]
    x[:, shown, 2] = 0.5 * (1.0 + signed)[:, None] + noise[..., 1]
    y = torch.zeros(count, total, dtype=torch.int64)
    y[:, steps[0] + steps[1] :] = torch.where(right, RIGHT, LEFT)[:, None]
    return x, y


class Batches:
    """Batches of 64 trials with durations drawn anew."""

    def __init__(self, number: int, seed: int) -> None:
        self.number, self.generator = number, torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.number):
            fixation = (50.0, 100.0, 200.0, 400.0)[int(torch.randint(4, (), generator=self.generator))]
            stimulus = (100.0, 200.0, 400.0, 800.0)[int(torch.randint(4, (), generator=self.generator))]
            chosen = torch.randint(len(COHERENCES), (64,), generator=self.generator)
            yield trials(64, fixation, stimulus, torch.tensor(COHERENCES)[chosen], self.generator)


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    """Mean over steps and trials; the report weighs as much as the wait."""
    weight = torch.where(y == FIXATE, 1.0, 5.0)
    loss = nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none")
    return (weight.flatten() * loss).sum() / weight.sum()


def correct(out: Tensor, y: Tensor) -> Tensor:
    """Fraction of trials whose report, in the last step, is right."""
    return (out[:, -1].argmax(-1) == y[:, -1]).float().mean()


# %%
def main(quick: bool = True) -> dict[str, float]:
    """Train, and test at every coherence with 500 ms of fixation and of stimulus."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    trainer = bt.train.BPTT(model, cross_entropy, optimizer, dt=DT, clip_norm=1.0, metrics={"correct": correct})
    trainer.fit(Batches(100, seed=1), 12 if quick else 30, progress=False)
    generator = torch.Generator().manual_seed(2)
    accuracy, pictures = {}, {}
    for coherence in COHERENCES:
        x, y = trials(400, 500.0, 500.0, torch.full((400,), coherence), generator)
        with torch.no_grad():
            sol = bt.simulate(model, x.transpose(0, 1), dt=DT, keep_out=True, record={"rate": bt.trace("0.out")})
        accuracy[coherence] = float(correct(sol.out.transpose(0, 1), y))
        pictures[coherence] = (sol.out.softmax(-1), y)
    layer = model.layers[0]
    matrix = layer.recurrent.weight.detach()
    lawful = bool((matrix[:EXCITATORY] >= 0).all() and (matrix[EXCITATORY:] <= 0).all())
    _show.table(
        "Perceptual decisions under Dale's law: fraction correct by coherence",
        [(f"coherence {coherence:g} %", value, None) for coherence, value in accuracy.items()]
        + [("every sender has one sign", lawful, None)],
    )
    draw(pictures, matrix)
    return {"lawful": lawful, **{f"accuracy_{coherence:g}": value for coherence, value in accuracy.items()}}


# %% [markdown]
# What to see: the network waits while the cue is on, whatever the evidence; its report is at chance without evidence and
# right almost always at the highest coherence. Rows of the weight matrix have one colour.


# %%
@_show.styled
def draw(pictures: dict[float, tuple[Tensor, Tensor]], matrix: Tensor) -> None:
    """Mean probability of the right report through a trial, by coherence; and the weights."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(1.6, 1))
    for (coherence, (probability, y)), colour in zip(pictures.items(), _show.shades(len(pictures)), strict=True):
        steps = torch.arange(probability.shape[0]) * DT
        right = probability.gather(-1, y[:, -1].expand(len(steps), -1)[..., None]).mean(1)
        axes[0].plot(steps, right, color=colour, label=f"{coherence:g} %")
    axes[0].axvspan(500.0, 1000.0, color=_show.SHADE, zorder=0)
    axes[0].set(
        xlabel="time (ms)",
        ylabel="probability of the correct report",
        title="Mean of 400 trials; stimulus shaded, report at 1 s",
    )
    axes[0].set(xlim=(0.0, float(steps[-1])), ylim=(0.0, 1.02))
    axes[0].legend(title="coherence", loc="upper left")
    limit = float(matrix.abs().max())
    image = axes[1].imshow(matrix.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[1].set(xlabel="to neuron", ylabel="from neuron", title="Recurrent weights")
    axes[1].axhline(EXCITATORY - 0.5, color=_show.COLOURS[5], lw=0.8)
    axes[1].set_yticks(
        [EXCITATORY / 2, (EXCITATORY + UNITS) / 2], ["excitatory", "inhibitory"], rotation=90, va="center"
    )
    figure.colorbar(image, ax=axes[1], label="weight")
    _show.keep(figure, "dale_network")


# %%
if __name__ == "__main__":
    _show.script(main)
