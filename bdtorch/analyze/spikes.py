"""Statistics of recorded spikes. Every function takes a `bdtorch.Spikes`, with any batch.

A train is the spikes of one neuron in one batch element. Memory grows with the spikes, never with neurons times steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch._system import check_number, whole_steps
from bdtorch.simulate import Spikes


class PopulationRate(NamedTuple):
    """Rate of a population through time."""

    times: Tensor
    """Centres of the bins, ms, float64, ``(bins,)``."""
    rate: Tensor
    """Spikes per neuron and second, Hz, float64, ``(bins, *batch)``."""


class Intervals(NamedTuple):
    """Inter-spike intervals, train by train and in order of time."""

    interval: Tensor
    """ms, float64, ``(intervals,)``."""
    train: Tensor
    """The train of each: its place in the flattened ``(*batch, size)``, int64, ``(intervals,)``."""


def population_rate(spikes: Spikes, bin: float) -> PopulationRate:
    """Mean rate over the neurons of a population, in bins of ``bin`` ms (a multiple of the step).

    Args:
        spikes: Spikes of one population, with any batch.
        bin: Width of the bins, ms.

    Raises:
        ValueError: ``bin`` is not a positive multiple of the step.
    """
    counts, edges = _checked(spikes, "population_rate").binned(bin)
    seconds = edges.diff().reshape(-1, *[1] * len(spikes.batch_shape)) * 1e-3
    return PopulationRate((edges[1:] + edges[:-1]) / 2, counts / (spikes.size * seconds))


def firing_rates(spikes: Spikes) -> Tensor:
    """Rate of every neuron over the whole record, Hz, float64, ``(*batch, size)``.

    Args:
        spikes: Spikes of one population, with any batch.

    Raises:
        ValueError: The record has no duration.
    """
    duration = (_checked(spikes, "firing_rates").stop - spikes.start) * spikes.dt
    if not duration > 0:
        raise ValueError("`firing_rates(spikes=...)`: expected a record of at least one step, got none")
    return spikes.counts().double() / (duration * 1e-3)


def intervals(spikes: Spikes) -> Intervals:
    """The times between successive spikes of each train.

    Args:
        spikes: Spikes of one population, with any batch.
    """
    trains = _checked(spikes, "intervals").train
    order = trains.argsort(stable=True)  # spikes ascend in time, and so they do within each train
    train, step = trains[order], spikes.step[order]
    within = train[1:] == train[:-1]
    return Intervals(step.diff()[within].double() * spikes.dt, train[1:][within])


def interval_cv(spikes: Spikes) -> Tensor:
    r"""Coefficient of variation of the inter-spike intervals, $\sigma / \mu$: 0 for a clock, 1 for a Poisson process.

    Args:
        spikes: Spikes of one population, with any batch.

    Returns:
        float64, ``(*batch, size)``, with the sample deviation (divided by n - 1); NaN where a train has fewer than 3
        spikes.

    Source: Softky & Koch (1993), doi:10.1523/JNEUROSCI.13-01-00334.1993.
    """
    interval, train = intervals(spikes)
    shape = (*spikes.batch_shape, spikes.size)
    mean, variance = _moments(interval, train, torch.bincount(train, minlength=torch.Size(shape).numel()))
    return (variance.sqrt() / mean).reshape(shape)


def fano_factor(spikes: Spikes, window: float) -> Tensor:
    r"""Variance over mean of the spike count in successive windows: 0 for a clock, 1 for a Poisson process.

    Args:
        spikes: Spikes.
        window: Width, ms, a multiple of the step. Spikes after the last whole window do not count.

    Returns:
        float64, ``(*batch, size)``, with the sample variance (divided by n - 1); NaN for neurons that were silent.

    Raises:
        ValueError: ``window`` is not a positive multiple of the step, or the record holds fewer than 2 of it.

    Source: Fano (1947), doi:10.1103/PhysRev.72.26.
    """
    check_number("`fano_factor(window=...)`", window, positive=True)
    width = whole_steps(window, _checked(spikes, "fano_factor").dt, "fano_factor(window=...)")
    windows = (spikes.stop - spikes.start) // max(width, 1)
    if width < 1 or windows < 2:
        raise ValueError(
            f"`fano_factor(window=...)`: expected at least one step of {spikes.dt:g} ms and at most half of the record "
            f"of {(spikes.stop - spikes.start) * spikes.dt:g} ms, got {window:g} ms"
        )
    shape = (*spikes.batch_shape, spikes.size)
    place = (spikes.step - spikes.start - 1) // width
    inside = place < windows
    # Only windows with spikes are listed; the empty ones enter through the number of windows.
    occupied, count = (spikes.train[inside] * windows + place[inside]).unique(return_counts=True)
    number = count.new_full((torch.Size(shape).numel(),), windows)
    mean, variance = _moments(count.double(), occupied // windows, number)
    return (variance / mean).reshape(shape)


def _moments(value: Tensor, train: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample variance of ``number`` values in each train, those not listed being 0."""
    trains = len(number)
    mean = torch.zeros(trains, dtype=torch.float64, device=value.device).index_add_(0, train, value) / number
    listed = torch.bincount(train, minlength=trains)
    squares = torch.zeros_like(mean).index_add_(0, train, (value - mean[train]) ** 2) + (number - listed) * mean**2
    return mean, squares / (number - 1)


def _checked(spikes: Spikes, caller: str) -> Spikes:
    if not isinstance(spikes, Spikes):
        raise TypeError(f"`{caller}(spikes=...)`: expected the Spikes of a record, got {type(spikes).__name__}")
    return spikes
