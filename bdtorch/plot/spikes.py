"""Rasters and population rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from bdtorch._axes import colour, prepared
from bdtorch.simulate import Spikes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Populations: TypeAlias = Spikes | Mapping[str, Spikes]


def raster(spikes: Populations, ax: Axes | None = None, *, max_neurons: int = 1000) -> Axes:
    """Draw every spike as a dot: time across, neuron up; several populations are stacked in their order.

    Args:
        spikes: Spikes without batch (``spikes.of(i)`` picks one element), or a dict of them by population.
        ax: Where to draw; default a new figure.
        max_neurons: Of a larger network every k-th neuron is drawn, with the smallest k that suffices, and the label of
            the axis says so. Neurons keep their numbers.

    Returns:
        The axes, with one collection of dots for each population.

    Raises:
        TypeError: ``spikes`` is something else.
        ValueError: Spikes have a batch, there is no population, or ``max_neurons`` is not positive.
    """
    populations = _checked(spikes, "raster")
    if isinstance(max_neurons, bool) or not isinstance(max_neurons, int) or max_neurons < 1:
        raise ValueError(f"`raster(max_neurons=...)`: expected a positive integer, got {max_neurons!r}")
    ax = prepared(ax)
    total = sum(part.size for part in populations.values())
    every = -(-total // max_neurons)
    drawn = -(-total // every)
    first = 0
    for number, (name, part) in enumerate(populations.items()):
        neuron = part.index + first
        shown = neuron % every == 0
        ax.scatter(
            part.times[shown].cpu().numpy(),
            neuron[shown].cpu().numpy(),
            s=max(1.2, min(4.0, 200.0 / drawn)),
            color=colour(number),
            linewidths=0,
            label=name or None,
            rasterized=True,  # vector files of a hundred thousand dots choke their readers
        )
        if name:
            _name_at_right(ax, name, first + (part.size - 1) / 2, colour(number))
        first += part.size
    ax.set_ylim(-0.5, total - 0.5)
    ax.set_ylabel("neuron" if every == 1 else f"neuron ({drawn:,} of {total:,} drawn)")
    _span(ax, populations)
    return ax


def rate(spikes: Populations, bin: float, ax: Axes | None = None) -> Axes:
    """Draw the mean rate over the neurons of a population, in bins of ``bin`` ms.

    Args:
        spikes: Spikes without batch (``spikes.of(i)`` picks one element), or a dict of them by population.
        bin: Width of the bins, ms, a multiple of the step. Where they do not fill the record, the last one is narrower.
        ax: Where to draw; default a new figure.

    Returns:
        The axes, with one staircase (Hz) for each population.

    Raises:
        TypeError: ``spikes`` is something else.
        ValueError: Spikes have a batch, there is no population, or ``bin`` is not a positive multiple of the step.
    """
    populations = _checked(spikes, "rate")
    binned = {name: part.binned(bin) for name, part in populations.items()}
    ax = prepared(ax)
    for number, (name, part) in enumerate(populations.items()):
        counts, edges = binned[name]
        hertz = counts / (part.size * edges.diff() * 1e-3)
        ax.stairs(
            hertz.cpu().numpy(),
            edges.cpu().numpy(),
            baseline=None,
            color=colour(number),
            linewidth=0.9,
            label=name or None,
        )
    if "" not in populations:
        ax.legend(frameon=False, fontsize="small", ncols=len(populations), loc="lower right", bbox_to_anchor=(1.0, 1.0))
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"rate (Hz, bins of {bin:g} ms)")
    _span(ax, populations)
    return ax


def _checked(spikes: Populations, caller: str) -> dict[str, Spikes]:
    populations = dict(spikes) if isinstance(spikes, Mapping) else {"": spikes}
    if not populations:
        raise ValueError(f"`{caller}(spikes=...)`: expected at least one population, got none")
    for name, part in populations.items():
        label = f"`{caller}(spikes={{{name!r}: ...}})`" if name else f"`{caller}(spikes=...)`"
        if not isinstance(part, Spikes):
            raise TypeError(f"{label}: expected the Spikes of a record, got {type(part).__name__}")
        if part.batch_shape:
            raise ValueError(
                f"{label}: expected spikes without batch, got batch {part.batch_shape}; pick with spikes.of(...)"
            )
    return populations


def _name_at_right(ax: Axes, name: str, y: float, ink: str) -> None:
    """A name beside the data, which a reader finds faster than in a legend."""
    ax.text(1.01, y, name, color=ink, transform=ax.get_yaxis_transform(), va="center", fontsize="small")


def _span(ax: Axes, populations: Mapping[str, Spikes]) -> None:
    start = min(part.start * part.dt for part in populations.values())
    stop = max(part.stop * part.dt for part in populations.values())
    if stop > start:
        ax.set_xlim(start, stop)
    ax.set_xlabel("time (ms)")
