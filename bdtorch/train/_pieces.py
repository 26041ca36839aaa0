"""Batches of sequences, cut and joined along time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch.simulate import Solution


def swapped(x: Any) -> Any:
    """The first two axes of every leaf exchanged: batch and time."""
    return tree.map(lambda leaf: leaf.transpose(0, 1), x)


def checked_inputs(x: Any, label: str) -> Any:
    """Inputs with time first, or an error that names ``label``."""
    for leaf in tree.leaves(x):
        if not isinstance(leaf, Tensor) or leaf.dim() < 2:
            got = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(f"`BPTT.{label}(x=...)`: expected tensors (batch, time, ...), got {got}")
        if not leaf.shape[1]:
            raise ValueError(f"`BPTT.{label}(x=...)`: expected at least one step, got {tuple(leaf.shape)}")
    return swapped(x)


def check_batch(x: Any, y: Any, label: str) -> None:
    """Reject a batch whose inputs and targets have different numbers of samples."""
    samples = extent(x)
    for leaf in tree.leaves(y):
        if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) != samples:
            raise ValueError(
                f"`BPTT.{label}(y=...)`: expected batch={samples} on the first axis, as of x, got {tuple(leaf.shape)}"
            )


def pairs(data: Iterable[Any], label: str) -> Iterator[tuple[Any, Any]]:
    """The batches, or an error that names ``label`` where one is no pair."""
    for batch in data:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"`BPTT.{label}(data=...)`: expected batches (x, y), got {got}")
        yield batch[0], batch[1]


def check_targets(y: Any, steps: int) -> None:
    """Reject targets without the inputs' axis time."""
    for leaf in tree.leaves(y):
        if not isinstance(leaf, Tensor) or leaf.dim() < 2 or leaf.shape[1] != steps:
            got = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ValueError(f"`BPTT.step(y=...)`: expected targets (batch, time={steps}, ...) to truncate, got {got}")


def extent(x: Any) -> int:
    """Length of the first axis."""
    return int(tree.leaves(x)[0].shape[0])


def cut(x: Any, start: int, stop: int, axis: int = 0) -> Any:
    """The same window of every leaf along ``axis``."""
    return tree.map(lambda leaf: leaf.narrow(axis, start, stop - start), x)


def joined(solutions: list[Solution]) -> Solution:
    """Solutions that follow one another, as one."""
    first, last = solutions[0], solutions[-1]
    if len(solutions) == 1:
        return first
    outputs = tree.map(lambda *parts: torch.cat(parts), *(sol.outputs for sol in solutions))
    records = tree.map(lambda *parts: torch.cat(parts), *(sol.records for sol in solutions))
    steps = sum(sol.steps for sol in solutions)
    return Solution(last.state, records, first.dt, first.start, steps, first.loop, outputs=outputs, every=first.every)


class Means:
    """Means of named numbers, weighted by the number of samples."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.samples = 0

    def add(self, values: dict[str, float], samples: int) -> None:
        """Take in the means over ``samples`` samples."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * samples
        self.samples += samples

    def result(self, label: str) -> dict[str, float]:
        """The means, or an error that names ``label`` where there was no sample."""
        if not self.samples:
            raise ValueError(f"`BPTT.{label}`: expected at least one batch, got none")
        return {name: total / self.samples for name, total in self.sums.items()}
