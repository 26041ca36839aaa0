"""What a simulation keeps: traces, spikes, and any function of state and output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import check_number, whole_steps
from bdtorch._types import State


@dataclass(frozen=True, eq=False)
class Record:
    """One thing to record.

    Attributes:
        observe: ``(state, out) -> pytree of tensors``, evaluated after each step; pure, in torch operations.
        every: Keep every so many steps: those whose number, counted from t = 0, is a multiple.
        sparse: Keep (step, index) pairs of the nonzero entries instead of the values.
    """

    observe: Callable[[State, Any], Any]
    every: int = 1
    sparse: bool = False

    def __post_init__(self) -> None:
        if not callable(self.observe):
            raise TypeError(f"`Record(observe=...)`: expected a function of state and output, got {self.observe!r}")
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise ValueError(f"`every`: expected a positive whole number of steps, got {self.every!r}")


def trace(path: str, *, index: Iterable[int] | int | Tensor | None = None, every: int = 1) -> Record:
    """Record a state variable by name, such as ``"v"``, ``"E.v"`` or ``"E->I.g"``.

    A name may skip levels where only one descendant bears it, so ``"E.v"`` also finds the ``v`` of a neuron inside a
    `bdtorch.neurons.Refractory`.

    Args:
        path: Names joined by dots.
        index: Which elements of the last axis to keep; default all.
        every: Keep every so many steps.

    Returns:
        A record; its result is a tensor ``(time, *batch, *size)``, or ``(time, *batch, len(index))``.

    Raises:
        ValueError: ``index`` is negative; in `simulate`, where it is out of range.
        KeyError: in `simulate`, where the path names nothing or is ambiguous.
    """
    chosen = _as_index(index)
    if chosen is None:
        return Record(_Variable(path, None, None, -1), every)
    numbers = tuple(chosen.tolist())
    return Record(_Variable(path, numbers, chosen, max(numbers)), every)


def spikes(population: str | None = None) -> Record:
    """Record spikes as (step, index) pairs.

    Args:
        population: Name in a `bdtorch.Network`; None for a single neuron model, whose output is its spikes.

    Returns:
        A record; its result is a `Spikes`.
    """
    return Record(_Output(population), sparse=True)


@dataclass(frozen=True)
class _Variable:
    path: str
    chosen: tuple[int, ...] | None  # tells one from another
    index: Tensor | None = field(compare=False)
    largest: int = field(compare=False)  # a number, since compilers do not see into tensors

    def __call__(self, state: State, out: Any) -> Any:
        value = tree.find(state, self.path)
        if self.index is None:
            return value
        if not isinstance(value, Tensor):
            raise TypeError(f"`trace({self.path!r}, index=...)`: expected one variable, but the path names several")
        if self.largest >= value.shape[-1]:
            raise ValueError(
                f"`trace({self.path!r}, index=...)`: expected indices below {value.shape[-1]}, got {self.largest}"
            )
        return value.index_select(-1, self.index.to(value.device))


@dataclass(frozen=True)
class _Output:
    population: str | None

    def __call__(self, state: State, out: Any) -> Any:
        if self.population is None:
            if not isinstance(out, Tensor):
                raise ValueError("`spikes()`: expected an output of one tensor; name the population of a network")
            return out
        if not isinstance(out, Mapping) or self.population not in out:
            known = ", ".join(map(repr, out)) if isinstance(out, Mapping) else "none"
            raise ValueError(f"`spikes({self.population!r})`: expected one of the populations ({known})")
        return out[self.population]


def _as_index(index: Iterable[int] | int | Tensor | None) -> Tensor | None:
    if index is None:
        return None
    if isinstance(index, int):
        index = (index,)
    values = torch.as_tensor(index if isinstance(index, Tensor) else list(index))
    if values.dim() != 1 or not values.numel() or values.is_floating_point() or values.dtype == torch.bool:
        raise ValueError(f"`trace(index=...)`: expected a non-empty list of whole numbers, got {index!r}")
    if int(values.min()) < 0:
        raise ValueError(f"`trace(index=...)`: expected indices of at least 0, got {int(values.min())}")
    return values.to(torch.int64)


class Bins(NamedTuple):
    """Spike counts in bins of time."""

    counts: Tensor
    """int64, ``(bins, *batch)``, or ``(bins, *batch, size)`` where neurons are counted by themselves."""
    edges: Tensor
    """ms, float64, ``(bins + 1,)``. A spike on an edge belongs to the bin that ends there."""


@dataclass(frozen=True, eq=False)
class Spikes:
    """Spikes of one population.

    Attributes:
        step: Number of the step, counted from t = 0, at whose end the spike occurred, int64, ``(spikes,)``, ascending.
        index: Index of the neuron in the (flattened) population, int64, ``(spikes,)``.
        batch: Batch element of each spike, int64, ``(spikes, batch axes)``.
        size: Number of neurons.
        batch_shape: Shape of the batch.
        dt: Step, ms.
        start: Number of the first recorded step, exclusive.
        stop: Number of the last recorded step, inclusive.
    """

    step: Tensor
    index: Tensor
    batch: Tensor
    size: int
    batch_shape: tuple[int, ...]
    dt: float
    start: int
    stop: int

    @classmethod
    def of_trains(cls, step: Tensor, train: Tensor, shape: tuple[int, ...], dt: float, start: int, stop: int) -> Spikes:
        """Spikes from their places in the flattened ``shape``, which is ``(*batch, size)``."""
        *batch_shape, size = shape
        if not batch_shape:
            return cls(step, train, train.new_empty((train.numel(), 0)), size, (), dt, start, stop)
        batch: list[Tensor] = []
        index, rest = train % size, train // size
        for extent in reversed(batch_shape):
            batch.insert(0, rest % extent)
            rest = rest // extent
        return cls(step, index, torch.stack(batch, 1), size, tuple(batch_shape), dt, start, stop)

    @property
    def times(self) -> Tensor:
        """Spike times, ms, float64."""
        return self.step.double() * self.dt

    @property
    def pairs(self) -> Tensor:
        """``(spikes, 2)``: step and index."""
        return torch.stack([self.step, self.index], 1)

    @property
    def rate(self) -> float:
        """Mean rate over neurons, batch and time, Hz."""
        trains = self.size * max(1, torch.Size(self.batch_shape).numel())
        duration = (self.stop - self.start) * self.dt * 1e-3
        return self.step.numel() / (trains * duration) if duration > 0 else 0.0

    def counts(self) -> Tensor:
        """Number of spikes of every neuron, int64, ``(*batch, size)``."""
        shape = (*self.batch_shape, self.size)
        return torch.bincount(self.train, minlength=torch.Size(shape).numel()).reshape(shape)

    @property
    def train(self) -> Tensor:
        """The train of each spike: its place in the flattened ``(*batch, size)``, int64, ``(spikes,)``."""
        flat = self.index
        stride = self.size
        for axis in range(len(self.batch_shape) - 1, -1, -1):
            flat = flat + self.batch[:, axis] * stride
            stride *= self.batch_shape[axis]
        return flat

    def binned(self, bin: float, *, per_neuron: bool = False) -> Bins:
        """Count spikes in successive bins, the first of which begins with the record.

        Args:
            bin: Width, ms, a multiple of ``dt``. Where the widths do not fill the record, the last bin is narrower.
            per_neuron: Count every neuron by itself instead of the whole population.

        Raises:
            ValueError: ``bin`` is not a positive multiple of ``dt``.
        """
        check_number("`binned(bin=...)`", bin, positive=True)
        width = whole_steps(bin, self.dt, "binned(bin=...)")
        if width < 1:
            raise ValueError(f"`binned(bin=...)`: expected at least one step of {self.dt:g} ms, got {bin:g} ms")
        shape = (*self.batch_shape, self.size) if per_neuron else self.batch_shape
        rows = torch.Size(shape).numel()
        row = self.train if per_neuron else self.train // self.size
        starts = torch.arange(self.start, self.stop, width, device=self.step.device)
        place = (self.step - self.start - 1) // width * rows + row
        counts = torch.bincount(place, minlength=len(starts) * rows).reshape(len(starts), *shape)
        return Bins(counts, torch.cat([starts, starts.new_tensor([self.stop])]).double() * self.dt)

    def of(self, *batch: int) -> Spikes:
        """The spikes of one batch element."""
        if len(batch) != len(self.batch_shape):
            raise ValueError(f"`of(...)`: expected {len(self.batch_shape)} batch indices, got {len(batch)}")
        mine = (self.batch == torch.tensor(batch, device=self.batch.device)).all(1)
        return Spikes(
            self.step[mine], self.index[mine], self.batch[mine, :0], self.size, (), self.dt, self.start, self.stop
        )

    def __len__(self) -> int:
        return self.step.numel()
