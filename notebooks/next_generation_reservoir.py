# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""A next-generation reservoir infers the Lorenz system's z from x and y."""

# %% [markdown]
# # Seeing z in x and y
#
# A reservoir without a network: the current input and a few past ones, and all their products, are features, and ridge
# regression reads the hidden coordinate $z$ of the Lorenz system from $x$ and $y$ (Gauthier et al. 2021,
# doi:10.1038/s41467-021-25801-2). All figures are on data that the fit has not seen.

# %%
from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import bdtorch as bt
from notebooks import _show
from notebooks.lorenz import trajectory

# %% [markdown]
# The reservoir is a dynamical system like any other: its state holds the past inputs, `simulate` runs it.


# %%
def features(data: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Features of x and y, and z, from where all features come from data."""
    reservoir = bt.reservoirs.NextGeneration(2, delay=4, stride=stride, degrees=(0, 1, 2), dtype=torch.float64)
    out = bt.simulate(reservoir, data[:, :2], dt=1.0).out
    return out[reservoir.warm_up :], data[reservoir.warm_up :, 2]


def infer(data: Tensor, stride: int, train: int) -> dict[str, Tensor]:
    """Fit on the first ``train`` samples; predict those that follow."""
    x, z = features(data, stride)
    ridge = bt.train.Ridge(0.05, intercept=False)  # the constant is among the features
    ridge.add(x[:train], z[:train])
    prediction = ridge.solve()(x)[:, 0].detach()
    return {"z": z, "prediction": prediction, "trained": torch.arange(len(z)) < train}


def normalised_error(result: dict[str, Tensor], trained: bool) -> float:
    """Root mean squared error over the standard deviation of z."""
    chosen = result["trained"] == trained
    error = result["prediction"] - result["z"]
    return float(error[chosen].square().mean().sqrt() / result["z"][chosen].std())


# %% [markdown]
# The paper's setting: a step of 0.05, 400 training points, 4 inputs 5 steps apart, ridge penalty 0.05, from ten points
# of the attractor.


# %%
def main(quick: bool = True) -> dict[str, float]:
    """Both settings, their table and their picture."""
    starts = trajectory(40.0 if quick else 400.0, 4.0)[1:]
    data = trajectory(65.0, 0.05, starts)
    runs = [infer(one, 5, 400) for one in data.unbind(1)]
    train, test = (torch.tensor([normalised_error(run, part) for run in runs]) for part in (True, False))
    dense = infer(trajectory(70.0, 0.02), 5, 1000)
    _show.table(
        f"z from x and y: normalised root mean squared error, {len(runs)} starts",
        [
            ("dt 0.05, training", float(train.mean()), "(9.5 +- 0.1) 1e-3"),
            ("dt 0.05, unseen", float(test.mean()), "(1.75 +- 0.3) 1e-2"),
            ("dt 0.05, unseen, standard deviation", float(test.std()), None),
            ("dt 0.02, unseen", normalised_error(dense, False), None),
        ],
    )
    draw(runs[0], 0.05)
    return {"train": float(train.mean()), "test": float(test.mean()), "dense": normalised_error(dense, False)}


# %% [markdown]
# What to see: the prediction lies on the truth beyond the training data; errors stay small through the whole unseen
# stretch, and are largest at the tips of the fast excursions.


# %%
@_show.styled
def draw(result: dict[str, Tensor], dt: float) -> None:
    """Truth and prediction, and their difference."""
    t = dt * torch.arange(len(result["z"]))
    edge = float(t[result["trained"]][-1])
    figure, axes = plt.subplots(2, 1, figsize=(9, 4.8), height_ratios=(3, 1))
    axes[0].plot(t, result["z"], color=_show.BEHIND, lw=3.0, label="$z$")
    axes[0].plot(t, result["prediction"], color=_show.COLOURS[1], lw=1.0, label="inferred from $x$ and $y$")
    axes[1].plot(t, result["prediction"] - result["z"], color=_show.COLOURS[1], lw=0.8)
    for ax in axes:
        ax.axvspan(0.0, edge, color=_show.SHADE, lw=0, zorder=0)
    axes[0].set(
        ylabel="$z$",
        title="A part of the series; training shaded",
        xlim=(edge - 4.0, edge + 16.0),
        ylim=(0.0, 55.0),
        xticks=range(16, 37, 4),
    )
    axes[0].legend(loc="upper right", ncols=2)
    axes[1].set(ylabel="error of $z$", title="The whole series", xlim=(0.0, float(t[-1])))
    axes[1].set_xlabel("time (units of the Lorenz equations)")
    figure.align_ylabels()
    _show.keep(figure, "next_generation_reservoir")


# %%
if __name__ == "__main__":
    _show.script(main)
