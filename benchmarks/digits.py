"""Digits through a spiking reservoir: a network that is not trained, and a linear readout that is.

The 1,797 scans of scikit-learn's digits (8 x 8 pixels) are shown as Poisson spikes, for half a second each, to a sparse
recurrent network of 1,000 excitatory and 250 inhibitory neurons. Ridge regression on the spike counts of the excitatory
neurons names the digit; ridge regression on the pixels themselves is what it must beat. (The scans stand still, so what
helps is the many nonlinear features; recurrence lowers the rates but not the error. ``experiment(recurrent=False)``
measures that.)

The split into 70 % training and 30 % test is stratified and fixed. The penalty of either readout is chosen by
cross-validation over 5 folds of the training part, and so were the constants below (with seed 0): over broad ranges
they matter little, except that few inputs to each neuron, and many input spikes, help. Nothing was chosen on the test
part.

    python benchmarks/digits.py --seeds 0 1 2 3 4 --picture digits.png

Source of the idea: Maass, Natschlaeger & Markram (2002), doi:10.1162/089976602760407955.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor

import bdtorch as bt

EXCITATORY, INHIBITORY = 1000, 250
DURATION, DT = 500.0, 1.0  # ms
HIGHEST_RATE = 400.0  # Hz, of a bundle of fibres; at most one spike of it per step
PENALTIES = [10.0**k for k in range(-1, 6)]
CLASSES = 10
Route = tuple[str, str | tuple[str, ...]]


@dataclass
class Split:
    """Scans with pixels in [0, 1], ``(scans, 64)``, their labels, and which are for training, test and each fold."""

    pixels: Tensor
    labels: Tensor
    train: Tensor
    test: Tensor
    folds: Tensor


@dataclass
class Result:
    """What `experiment` measured, and what `draw` shows of it."""

    metrics: dict[str, float]
    network: bt.Network
    readout: torch.nn.Linear
    split: Split
    predicted: Tensor


def load() -> Split:
    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(range(len(labels)), test_size=0.3, stratify=labels, random_state=0)
    folds = torch.empty(len(train), dtype=torch.int64)
    for k, (_, held_out) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(train, labels[train])):
        folds[held_out] = k
    scans = torch.tensor(pixels / 16.0, dtype=torch.float32)
    return Split(scans, torch.tensor(labels), torch.tensor(train), torch.tensor(test), folds)


def reservoir(seed: int, *, recurrent: bool = True) -> bt.Network:
    """64 ON and 64 OFF inputs into excitatory and inhibitory neurons that reach all others with 10 % probability."""

    def cell(n: int) -> bt.neurons.Refractory:
        scattered = bt.init.Uniform(0.0, 15.0)
        return bt.neurons.Refractory(bt.neurons.LIF(n, tau=20.0, v_reset=0.0, v_th=15.0, v_init=scattered), period=2.0)

    def project(connect: bt.connect.Rule, weight: float, tau: float) -> bt.Projection:
        return bt.Projection(connect, weight=weight, synapse=bt.synapses.Exponential(tau))

    sparse = bt.connect.FixedProbability(0.1, autapses=False)
    both = ("E", "I")
    projections: dict[Route, bt.Projection] = {("pixels", both): project(bt.connect.FixedNumberPost(8), 1.5, 5.0)}
    if recurrent:
        projections[("E", both)] = project(sparse, 0.3, 5.0)
        projections[("I", both)] = project(sparse, -1.5, 10.0)
    populations = {"pixels": bt.stimuli.Poisson(128), "E": cell(EXCITATORY), "I": cell(INHIBITORY)}
    return bt.Network(populations, projections, seed=seed)


def rates(pixels: Tensor) -> Tensor:
    """Hz, ``(scans, 128)``: ON inputs follow the ink and OFF inputs its absence, so every scan has the same total."""
    return HIGHEST_RATE * torch.cat([pixels, 1.0 - pixels], -1)


def show(
    network: bt.Network, pixels: Tensor, seed: int, *, loop: str = "auto", record: tuple[str, ...] = ("E", "I")
) -> Any:
    """Run all scans as one batch and record spikes."""
    return bt.simulate(
        network,
        inputs={"pixels": bt.Constant(rates(pixels))},
        dt=DT,
        duration=DURATION,
        seed=seed,
        record={name: bt.spikes(name) for name in record},
        loop=loop,
    )


def classify(features: Tensor, split: Split) -> tuple[torch.nn.Linear, float]:
    """A readout of the training part, and its accuracy in the cross-validation that chose the penalty."""
    x, y = features[split.train], bt.train.one_hot(split.labels[split.train], CLASSES)
    validation = bt.train.cross_validate(x, y, PENALTIES, folds=split.folds, score=bt.train.accuracy)
    fit = bt.train.Ridge(validation.penalty)
    fit.add(x, y)
    return fit.solve(), float(validation.scores.mean(1).max())


def experiment(seed: int = 0, *, recurrent: bool = True, loop: str = "auto") -> Result:
    """Show all scans to the reservoir of a seed, fit the readout on the training part and test it on the rest."""
    began = time.perf_counter()
    split = load()
    network = reservoir(seed, recurrent=recurrent)
    solution = show(network, split.pixels, seed, loop=loop)
    counts = solution["E"].counts().float()
    readout, validated = classify(counts, split)
    on_pixels, pixels_validated = classify(split.pixels, split)
    with torch.no_grad():
        predicted = readout(counts[split.test])
        from_pixels = on_pixels(split.pixels[split.test])
    labels = split.labels[split.test]
    metrics = {
        "digits_accuracy": bt.train.accuracy(predicted, labels),
        "pixels_accuracy": bt.train.accuracy(from_pixels, labels),
        "digits_validation": validated,
        "pixels_validation": pixels_validated,
        "rate_e_hz": solution["E"].rate,
        "rate_i_hz": solution["I"].rate,
        "neurons": EXCITATORY + INHIBITORY,
        "wall_s": time.perf_counter() - began,
    }
    return Result(metrics, network, readout, split, predicted.argmax(-1))


def run(seed: int = 0, picture: str | None = None) -> dict[str, float]:
    """The numbers of one `experiment`; with a path, also its picture."""
    result = experiment(seed)
    if picture is not None:
        draw(result, picture)
    return result.metrics


def draw(result: Result, path: str, *, seed: int = 0) -> None:
    """A test scan, its spikes at the input and in the reservoir, and the confusion matrix of the whole test part."""
    from matplotlib import pyplot

    split = result.split
    shown = split.test[0]
    scan = split.pixels[shown]
    solution = show(result.network, scan[None], seed, loop="reference", record=("pixels", "E", "I"))
    with torch.no_grad():
        answer = int(result.readout(solution["E"].counts().float()).argmax())
    spikes = {name: solution[name].of(0) for name in ("pixels", "E", "I")}

    figure = pyplot.figure(figsize=(10.0, 5.6), layout="constrained")
    axes = figure.subplot_mosaic(
        [["scan", "input", "confusion"], ["rate", "reservoir", "confusion"]], width_ratios=[1.0, 1.7, 1.7]
    )
    axes["scan"].imshow(scan.reshape(8, 8), cmap="Greys")
    axes["scan"].set_title(f"a {int(split.labels[shown])}, read as {answer}", fontsize="medium")
    axes["scan"].set_axis_off()
    bt.plot.raster(spikes["pixels"], axes["input"]).set_ylabel("input (64 ON, 64 OFF)")
    bt.plot.raster({"E": spikes["E"], "I": spikes["I"]}, axes["reservoir"], max_neurons=EXCITATORY + INHIBITORY)
    bt.plot.rate({"E": spikes["E"], "I": spikes["I"]}, 20.0, axes["rate"])
    _confusion(axes["confusion"], split.labels[split.test], result.predicted, result.metrics["digits_accuracy"])
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _confusion(ax: Any, labels: Tensor, predicted: Tensor, accuracy: float) -> None:
    table = torch.bincount(labels * CLASSES + predicted, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    ax.imshow(
        table.double().sqrt(), cmap="Blues"
    )  # the root, so that single errors are seen beside fifty right answers
    for (row, column), count in ((tuple(place), int(table[tuple(place)])) for place in table.nonzero().tolist()):
        ax.text(
            column, row, count, ha="center", va="center", color="white" if row == column else "black", fontsize="small"
        )
    ax.set(xlabel="read as", ylabel="digit", xticks=range(CLASSES), yticks=range(CLASSES))
    ax.set_title(f"{len(labels)} test scans: {accuracy:.1%} right", fontsize="medium")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="networks to test")
    parser.add_argument("--picture", help="where to save the picture of the first seed")
    arguments = parser.parse_args()
    for number, seed in enumerate(arguments.seeds):
        metrics = run(seed, arguments.picture if number == 0 else None)
        print(f"seed {seed}  " + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)


if __name__ == "__main__":
    main()
