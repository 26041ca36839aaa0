# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""One echo state network forecasts the Lorenz system, trained in three ways: ridge, FORCE, backpropagation."""

# %% [markdown]
# # One reservoir, three trainers
#
# A hundred tanh units hear the three coordinates of the Lorenz system and predict them five samples ahead. The same
# module is read out by ridge regression, by recursive least squares (the rule of FORCE learning, each sample seen once),
# and trained whole by backpropagation through time. The last fifth of the series is held out.

# %%
from __future__ import annotations

from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import bdtorch as bt
from notebooks import _show
from notebooks.lorenz import trajectory

AHEAD, WASHOUT = 5, 100  # samples


class Series(NamedTuple):
    """Inputs and what they are to predict; the first ``train`` samples are for training."""

    x: Tensor
    y: Tensor
    train: int


def lorenz_series(duration: float = 100.0) -> Series:
    """Samples every 0.01 time units."""
    data = trajectory(duration, 0.01)
    return Series(data[:-AHEAD], data[AHEAD:], int(0.8 * (len(data) - AHEAD)))


def reservoir() -> bt.reservoirs.EchoState:
    """A hundred units that are driven gently enough to stay in the bend of the tanh."""
    return bt.reservoirs.EchoState(
        100,
        3,
        leak=1.0,
        spectral_radius=0.6,
        weight_in=bt.init.Uniform(-0.03, 0.03),
        bias=bt.init.Uniform(-1.0, 1.0),
        seed=2,
        dtype=torch.float64,
    )


def activity(system: bt.reservoirs.EchoState, x: Tensor) -> Tensor:
    """What the readout reads: the units, and the input itself."""
    return torch.cat([bt.simulate(system, x, dt=1.0).out, x], -1)


# %% [markdown]
# ## Ridge regression and recursive least squares read a fixed reservoir


# %%
def by_ridge(series: Series) -> Tensor:
    """Closed form, penalty 1e-6."""
    features = activity(reservoir(), series.x)
    ridge = bt.train.Ridge(1e-6)
    ridge.add(features[WASHOUT : series.train], series.y[WASHOUT : series.train])
    return ridge.solve()(features).detach()


def by_force(series: Series) -> Tensor:
    """Recursive least squares, one pass; held out with the weights as they are at the end."""
    features = activity(reservoir(), series.x)
    fit = bt.train.fit_online(
        features[WASHOUT : series.train], series.y[WASHOUT : series.train], bt.train.RLS(alpha=1e-4)
    )
    held_out = fit.readout(features[series.train :]).detach()
    return torch.cat([series.y[:WASHOUT], fit.predictions, held_out])


# %% [markdown]
# ## Backpropagation trains its weights too
#
# The recurrent and input weights become parameters, and nothing else changes. Inputs and targets are standardised, and
# the network predicts how far the state moves, so that gradients are of one size.


# %%
class Forecaster(bt.DynamicalSystem):
    """A reservoir with trained weights and a linear readout of its units and inputs."""

    def __init__(self) -> None:
        seed = reservoir()
        super().__init__(3, dtype=torch.float64)
        self.units = bt.reservoirs.EchoState(
            100,
            3,
            leak=1.0,
            spectral_radius=None,
            weight=nn.Parameter(seed.recurrent.weight),
            weight_in=nn.Parameter(8.0 * seed.input.weight),
            bias=nn.Parameter(seed.bias),
            dtype=torch.float64,
        )
        self.readout = nn.Linear(103, 3, dtype=torch.float64)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> bt.reservoirs.EchoState.State:
        return self.units.init_state(batch_shape)

    def step(self, state, inputs, t, dt):  # type: ignore[no-untyped-def]
        state, x = self.units.step(state, inputs, t, dt)
        return state, self.readout(torch.cat([x, inputs], -1))


def by_backpropagation(series: Series, epochs: int) -> Tensor:
    """Adam over pieces of 64 samples, in batches of 32."""
    mean, scale = series.x[: series.train].mean(0), series.x[: series.train].std(0)
    x, move = (series.x - mean) / scale, series.y - series.x
    size = move[: series.train].std(0)
    pieces = [part[: series.train // 64 * 64].reshape(-1, 64, 3) for part in (x, move / size)]
    torch.manual_seed(0)
    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*pieces), batch_size=32, shuffle=True)
    trainer = bt.train.BPTT(
        model,
        lambda out, y: (out[:, 8:] - y[:, 8:]).square().mean(),
        optimizer,
        dt=1.0,
        scheduler=schedule,
        clip_norm=1.0,
    )
    trainer.fit(data, epochs, progress=False)
    with torch.no_grad():
        return series.x + size * bt.simulate(model, x, dt=1.0).out


# %% [markdown]
# ## What to see
#
# All three forecasts lie on the series (lines of falling width, one upon the other); below, how far each is off. The
# published figures are mean absolute errors on the *training* series; here both errors are given on both parts, and the
# comparison is with what was held out. How hard the task is say two forecasts without a network: that nothing moves, and
# the best linear one from the present state.


# %%
def by_linear_regression(series: Series) -> Tensor:
    """What the present state alone gives."""
    ridge = bt.train.Ridge(1e-6)
    ridge.add(series.x[WASHOUT : series.train], series.y[WASHOUT : series.train])
    return ridge.solve()(series.x).detach()


def errors(prediction: Tensor, series: Series) -> dict[str, float]:
    """Mean absolute and squared errors on both parts."""
    error = prediction - series.y
    train, test = error[WASHOUT : series.train], error[series.train :]
    return {
        "train_mae": float(train.abs().mean()),
        "train_mse": float(train.square().mean()),
        "test_mae": float(test.abs().mean()),
        "test_mse": float(test.square().mean()),
    }


def main(quick: bool = True) -> dict[str, dict[str, float]]:
    """Train in all three ways; table and picture."""
    series = lorenz_series()
    predictions = {
        "ridge": by_ridge(series),
        "FORCE": by_force(series),
        "backpropagation": by_backpropagation(series, 40 if quick else 100),
    }
    without = {"no change": series.x, "linear regression": by_linear_regression(series)}
    results = {name: errors(prediction, series) for name, prediction in (predictions | without).items()}
    published = {"ridge": 0.001057, "FORCE": 0.171304, "backpropagation": 1.276112}
    rows = []
    for name, values in results.items():
        rows += [(f"{name}, {key.replace('_', ' ').upper()}", value, None) for key, value in values.items()]
        rows[-4] = (*rows[-4][:2], published.get(name))
    _show.table("Lorenz, five samples ahead (published: mean absolute errors on the training series)", rows)
    draw(predictions, series)
    return results


@_show.styled
def draw(predictions: dict[str, Tensor], series: Series) -> None:
    """X over the first held-out time units, and each trainer's error."""
    stretch = slice(series.train, series.train + 800)
    t = 0.01 * torch.arange(len(series.y))[stretch]
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True)
    axes[0].plot(t, series.y[stretch, 0], color=_show.BEHIND, lw=5.0, label="$x$")
    for (name, prediction), width in zip(predictions.items(), (3.2, 2.0, 0.8), strict=True):
        axes[0].plot(t, prediction[stretch, 0], lw=width, label=name)
        axes[1].semilogy(t, (prediction - series.y)[stretch].norm(dim=1), lw=0.9, label=name)
    still = (series.x - series.y)[stretch].norm(dim=1)
    axes[1].semilogy(t, still, color=_show.BEHIND, lw=0.9, label="no change")
    axes[0].set(ylabel="$x$", title="Held-out forecast, five samples ahead", ylim=(-20.0, 30.0))
    axes[1].set(xlabel="time (units of the Lorenz equations)", ylabel="distance from\nthe truth", ylim=(1e-5, 1e3))
    axes[0].legend(loc="upper right", ncols=4)
    axes[1].legend(loc="upper right", ncols=4)
    figure.align_ylabels()
    _show.keep(figure, "echo_state_lorenz")


# %%
if __name__ == "__main__":
    _show.script(main)
