# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
"""One spiking network, trained by learners that know nothing of bdtorch: a plain PyTorch loop, and Lightning."""

# %% [markdown]
# # Training from outside
#
# A system is an `nn.Module` and `simulate` is differentiable, so any learner will do. A recurrent layer of spiking
# neurons tells which half of its inputs is more active: in a loop written by hand, in Lightning, and with `train.BPTT`.

# %%
from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import bdtorch as bt
from notebooks import _show

RATE, STEPS = 1e-2, 40


def model() -> bt.Sequential:
    """The same at every call."""
    cell = bt.neurons.LIF(32, tau=10.0, v_th=1.0, v_reset=0.0, surrogate=bt.surrogate.SuperSpike(10.0))
    return bt.Sequential(
        bt.Recurrent(cell, 20, w_in=bt.init.Normal(0.0, 1.0), seed=1), bt.Readout(32, 2, tau=10.0, seed=2)
    )


def data() -> DataLoader[tuple[Tensor, ...]]:
    """Spikes of 20 inputs, ``(batch, time, 20)``, of which one half fires more; in a fixed order."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (512,), generator=generator)
    halves = torch.arange(20) // 10
    p = torch.where(halves == y[:, None], 0.3, 0.1)
    x = (torch.rand(512, STEPS, 20, generator=generator) < p[:, None]).float()
    return DataLoader(TensorDataset(x, y), batch_size=64)


def loss_of(system: bt.Sequential, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the mean readout."""
    out = bt.simulate(system, x.transpose(0, 1), dt=1.0, progress=False).out
    return torch.nn.functional.cross_entropy(out.mean(0), y)


# %% [markdown]
# ## By hand


# %%
def by_hand(epochs: int) -> list[float]:
    """The loss of every update."""
    system, losses = model(), []
    optimizer = torch.optim.Adam(system.parameters(), RATE)
    for _ in range(epochs):
        for x, y in data():
            loss = loss_of(system, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


# %% [markdown]
# ## By Lightning


# %%
def by_lightning(epochs: int) -> list[float] | None:
    """The same; None where Lightning is not installed."""
    if importlib.util.find_spec("lightning") is None:
        return None
    import lightning

    losses: list[float] = []

    class Learner(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.system = model()

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = loss_of(self.system, *batch)
            losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), RATE)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about loaders without workers
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Learner(), data())
    return losses


# %% [markdown]
# ## By `train.BPTT`


# %%
def by_bptt(epochs: int) -> list[float]:
    """The same."""
    system, losses = model(), []
    trainer = bt.train.BPTT(
        system,
        lambda out, y: torch.nn.functional.cross_entropy(out.mean(1), y),
        torch.optim.Adam(system.parameters(), RATE),
        dt=1.0,
    )
    for _ in range(epochs):
        losses += [trainer.step(x, y)[0] for x, y in data()]
    return losses


# %% [markdown]
# ## What to see
#
# The three curves are one (lines of falling width, one upon the other).


# %%
def main(quick: bool = True) -> dict[str, list[float] | None]:
    """Train in all ways; table and picture."""
    epochs = 5 if quick else 20
    losses = {"by hand": by_hand(epochs), "Lightning": by_lightning(epochs), "train.BPTT": by_bptt(epochs)}
    rows = [(f"{name}, last loss", values[-1] if values else "not installed", None) for name, values in losses.items()]
    _show.table("One network, three learners", rows)
    draw(losses)
    return losses


@_show.styled
def draw(losses: dict[str, list[float] | None]) -> None:
    """The curves, one upon the other."""
    figure, ax = plt.subplots(figsize=(6, 3.4))
    for (name, values), width in zip(losses.items(), (6, 3.5, 1.2), strict=True):
        ax.plot(values or [], lw=width, label=name)
    ax.set(xlabel="update", ylabel="cross-entropy")
    ax.legend()
    _show.keep(figure, "external_training")


# %%
if __name__ == "__main__":
    _show.script(main)
