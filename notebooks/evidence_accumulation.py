# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""A spiking network with adapting thresholds counts cues over seconds, trained by backpropagation and by e-prop."""

# %% [markdown]
# # Accumulating evidence with an LSNN
#
# Seven cues appear left or right; more than a second later a recall signal asks on which side there were more (Bellec et
# al. 2020, doi:10.1038/s41467-020-17236-y). Fifty neurons are regular and fifty have a threshold that every spike raises
# for two seconds, which is all the memory there is. BrainPy's script gives the regular half an adaptation of strength 1,
# 57 times that of the adapting half; here it is 0, as in the paper.
#
# One module is simulated, trained by `BPTT`, and trained by `EProp`. Backpropagation through 2,250 steps needs the
# gradient of the reset (`ALIF(reset_gradient=True)`): without it gradients grow to 1e17. e-prop leaves it out by definition.
#
# Measured on 1,024 fresh trials of the whole task, with batches of 64 trials: backpropagation answers 93.7 % after 200
# iterations, e-prop with symmetric feedback 94.0 % after 50, each of which takes less than a second on one core. From three
# other seeds of network and trials, e-prop had 95.2 % after 70, 94.0 % after 190 and 93.3 % after 80, backpropagation from
# one 95.5 % after 190. Random and adaptive feedback run with ``--full``. From two seeds, after 300 iterations, adaptive
# feedback had 93.4 and 93.3 %, random feedback 92.9 and 92.3 %. A rate of learning that stays as it is, as in the published
# code, or falls over 450 iterations instead of 300, makes little of that: from one seed random feedback then first passes
# 93 % after 360 and 290 iterations, and goes on between 92 and 94 %, where 0.8 % are the chance of 1,024 trials. The
# published code stops where it first finds 93 % on 512 trials, for which it looks every ten iterations.

# %%
from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import bdtorch as bt
from notebooks import _show

DT = 1.0  # ms
REGULAR, ADAPTIVE, INPUTS = 50, 50, 40
RECALL = 150  # ms, during which the answer is read
SOLVED = 0.93  # the published code stops where the error on its trials is below 0.07
RATE = 10.0  # Hz


def network(seed: int = 0, *, reset_gradient: bool = True) -> bt.Sequential:
    """50 LIF and 50 ALIF neurons, all to all, and two leaky readouts."""
    beta = torch.zeros(REGULAR + ADAPTIVE)
    beta[REGULAR:] = 1.7 * (1.0 - math.exp(-DT / 2000.0)) / (1.0 - math.exp(-DT / 20.0))
    cell = bt.neurons.ALIF(
        REGULAR + ADAPTIVE,
        tau=20.0,
        tau_a=2000.0,
        beta=beta,
        v_th=0.6,
        r=1.0 / (1.0 - math.exp(-DT / 20.0)),  # a weight is what one spike adds to v
        surrogate=bt.surrogate.Triangle(0.3 / 0.6, 0.6),
        reset_gradient=reset_gradient,
    )
    layer = bt.Recurrent(
        bt.neurons.Refractory(cell, 5.0), INPUTS, connect_rec=bt.connect.AllToAll(autapses=False), seed=seed
    )
    return bt.Sequential(layer, bt.Readout(REGULAR + ADAPTIVE, 2, tau=20.0, seed=seed))


# %% [markdown]
# ## The task
#
# Ten input neurons fire at 40 Hz during each cue on the left, ten for the right, ten during recall, and ten are noise at
# 10 Hz. A trial prefers a side, on which a cue lies with probability 0.7.


# %%
class Trials:
    """Batches of spikes ``(batch, time, 40)`` and the side with more cues, ``(batch,)``."""

    def __init__(self, number: int, size: int, cues: int, delay: int, seed: int) -> None:
        self.number, self.size, self.cues, self.delay = number, size, cues, delay
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.draw() for _ in range(self.number))

    def draw(self) -> tuple[Tensor, Tensor]:
        """One batch."""
        first = torch.rand(self.size, 1, generator=self.generator) < 0.5
        preferred = torch.rand(self.size, self.cues, generator=self.generator) < 0.7
        left = preferred == first
        rates = torch.zeros(self.size, 150 * self.cues + self.delay, 4)  # Hz: left, right, recall, noise
        for cue in range(self.cues):
            shown = slice(150 * cue + 50, 150 * cue + 150)
            rates[:, shown, 0], rates[:, shown, 1] = 40.0 * left[:, cue, None], 40.0 * ~left[:, cue, None]
        rates[:, -RECALL:, 2], rates[..., 3] = 40.0, 10.0
        probability = (1e-3 * DT * rates).repeat_interleave(INPUTS // 4, -1)
        spikes = (torch.rand(probability.shape, generator=self.generator) < probability).float()
        return spikes, (left.sum(1) > self.cues // 2).long()


def cross_entropy(out: Tensor, side: Tensor) -> Tensor:
    """Mean over the recall period."""
    return nn.functional.cross_entropy(out[:, -RECALL:].flatten(0, 1), side[:, None].expand(-1, RECALL).reshape(-1))


def correct(out: Tensor, side: Tensor) -> Tensor:
    """Fraction of trials whose mean readout during recall is right."""
    return (out[:, -RECALL:].mean(1).argmax(-1) == side).float().mean()


# %% [markdown]
# ## Two ways to train
#
# Both stop as soon as 1,024 trials that are drawn afresh are answered well enough; the table then reports another 1,024.


# %%
def accuracy(model: bt.Sequential, trials: Trials) -> float:
    """Fraction correct."""
    with torch.no_grad():
        found = [correct(bt.simulate(model, x.transpose(0, 1), dt=DT).out.transpose(0, 1), y) for x, y in trials]
    return float(torch.stack(found).mean())


def by_backpropagation(model: bt.Sequential, trials: Trials, validation: Trials, epochs: int) -> list[float]:
    """Epochs of ten updates; returns their accuracies."""
    trainer = bt.train.BPTT(
        model,
        cross_entropy,
        torch.optim.Adam(model.parameters(), 3e-3),
        dt=DT,
        clip_norm=1.0,
        penalties=[bt.train.RatePenalty("z", RATE, 1e-3)],
        record={"z": bt.trace("0.out")},
        metrics={"correct": correct},
    )

    def solved(epoch: bt.train.Epoch) -> bool:
        return epoch.metrics["correct"] > SOLVED - 0.02 and accuracy(model, validation) > SOLVED + 0.01

    return [epoch.metrics["correct"] for epoch in trainer.fit(trials, epochs, progress=False, after_epoch=solved)]


def loss_of_step(y: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """e-prop's loss, step by step: `cross_entropy` is its sum."""
    side, recall = target
    return recall * nn.functional.cross_entropy(y, side) / RECALL


def by_eprop(
    model: bt.Sequential, trials: Trials, validation: Trials, epochs: int, *, feedback: str = "symmetric"
) -> list[float]:
    """The same by eligibility traces, forward in time at constant memory."""
    learner = bt.train.EProp(model, loss_of_step, feedback=feedback, rate=RATE, rate_weight=2e-6)
    optimizer = torch.optim.Adam(learner.parameters(), 5e-3)  # those of the model, and adaptive feedback
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * trials.number)
    history = []
    for _ in range(epochs):
        found = []
        for x, side in trials:
            steps = x.shape[1]
            recall = (torch.arange(steps) >= steps - RECALL).float()
            optimizer.zero_grad()
            _, sol = learner.backward(x.transpose(0, 1).contiguous(), (side.expand(steps, -1), recall), dt=DT)
            optimizer.step()
            schedule.step()
            found.append(correct(sol.out.transpose(0, 1), side))
        history.append(float(torch.stack(found).mean()))
        if history[-1] > SOLVED - 0.03 and accuracy(model, validation) > SOLVED + 0.015:
            break
    return history


# %%
def main(quick: bool = True) -> dict[str, float]:
    """The whole task both ways; e-prop with every kind of feedback where it need not be quick."""
    task = {"cues": 7, "delay": 1200}
    plans = {"BPTT": (network(), by_backpropagation, 0)}
    for feedback in ("symmetric",) if quick else ("symmetric", "random", "adaptive"):
        name = "e-prop" if feedback == "symmetric" else f"e-prop, {feedback} feedback"
        plans[name] = (network(1, reset_gradient=False), functools.partial(by_eprop, feedback=feedback), 10)
    result: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    rows = []
    for name, (model, train, seed) in plans.items():
        curves[name] = train(model, Trials(10, 64, seed=seed + 1, **task), Trials(16, 64, seed=seed + 2, **task), 30)
        result[f"iterations_{name}"] = 10 * len(curves[name])
        result[f"accuracy_{name}"] = accuracy(model, Trials(16, 64, seed=seed + 3, **task))
        rows += [
            (f"{name}: test accuracy", result[f"accuracy_{name}"], "at least 0.93"),
            (f"{name}: iterations until then", result[f"iterations_{name}"], "at most 2000 (BrainPy 300)"),
        ]
    _show.table("Accumulating evidence", rows)
    draw(plans["BPTT"][0], curves, Trials(1, 1, seed=18, **task))
    return result


# %% [markdown]
# What to see: the cues drive the network, the thresholds of adapting neurons stay up through the silent delay, and the
# readouts part when the recall signal comes.


# %%
@_show.styled
def draw(model: bt.Sequential, curves: dict[str, list[float]], trials: Trials) -> None:
    """A trial: inputs, spikes, thresholds, readouts; and the learning curves."""
    x, side = trials.draw()
    record = {"z": bt.trace("0.out"), "a": bt.trace("0.cell.neuron.a")}
    with torch.no_grad():
        sol = bt.simulate(model, x.transpose(0, 1), dt=DT, record=record, keep_out=True)
    figure, axes = plt.subplots(5, 1, figsize=(9, 10), height_ratios=(1, 2, 1.2, 1, 1.4))
    for ax, spikes, label in ((axes[0], x[0], "input"), (axes[1], sol["z"][:, 0], "neuron")):
        time, index = spikes.nonzero(as_tuple=True)
        ax.plot(time, index, ".", color=_show.COLOURS[5], ms=2.6, mew=0)
        ax.set(ylabel=label, xlim=(0, x.shape[1]))
        ax.tick_params(labelbottom=False)
    axes[0].set_yticks([5, 15, 25, 35], ["left", "right", "recall", "noise"])
    axes[1].set_yticks([REGULAR / 2, REGULAR + ADAPTIVE / 2], ["regular", "adapting"])
    axes[1].axhline(REGULAR - 0.5, color=_show.BEHIND, lw=0.8)
    beta = model.layers[0].cell.neuron.beta[REGULAR::5]
    axes[2].plot(0.6 + beta * sol["a"][:, 0, REGULAR::5], color=_show.COLOURS[0], alpha=0.6, lw=0.9)
    axes[2].set(ylabel="thresholds", xlim=(0, x.shape[1]))
    axes[2].tick_params(labelbottom=False)
    for k, name in enumerate(("right", "left")):
        axes[3].plot(sol.out[:, 0, k], color=_show.COLOURS[k], label=name + (" (correct)" if int(side) == k else ""))
    axes[3].set(ylabel="readouts", xlabel="time (ms)", xlim=(0, x.shape[1]))
    axes[3].legend(loc="upper center", bbox_to_anchor=(0.7, 1.05), ncols=2)
    axes[3].axvspan(x.shape[1] - RECALL, x.shape[1], color=_show.SHADE, zorder=0)
    for name, curve in curves.items():
        axes[4].plot(10 * torch.arange(1, len(curve) + 1), curve, "o-", label=name)
    axes[4].axhline(SOLVED, color=_show.BEHIND, lw=0.8, label=f"{SOLVED:g}, wanted")
    axes[4].set(xlabel="iterations", ylabel="fraction correct\n(training)")
    axes[4].legend(loc="lower right")
    figure.align_ylabels()
    _show.keep(figure, "evidence_accumulation")


# %%
if __name__ == "__main__":
    _show.script(main)
