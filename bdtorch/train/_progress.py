"""How far a training has come: its epochs, and the place within one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FORMAT = "bdtorch-training-1"


@dataclass
class Epoch:
    """What one pass over the data gave.

    Attributes:
        number: Counted from 1.
        loss: Mean training loss, penalties included.
        metrics: Mean of each metric on the training data.
        validation: Loss (without penalties) and metrics on the validation data.
        seconds: Wall time.
    """

    number: int
    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


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
            raise ValueError(
                f"`BPTT.{label}`: expected at least one batch, got none (an iterator gives its batches once)"
            )
        return {name: total / self.samples for name, total in self.sums.items()}


@dataclass
class Place:
    """How far an epoch has come: enough to draw the rest of its batches as if it had never stopped."""

    random: Tensor
    """torch's random state at its beginning."""
    generator: Tensor | None
    """That of the loader's own generator, where it has one."""
    batches: int = 0
    means: Means = field(default_factory=Means)

    @classmethod
    def first(cls, data: Any) -> Place:
        """Before the first batch."""
        own = getattr(data, "generator", None)
        return cls(torch.get_rng_state(), None if own is None else own.get_state())

    @classmethod
    def of(cls, content: dict[str, Any]) -> Place:
        """From what `content` gave."""
        place = cls(content["random"], content["generator"], content["batches"])
        place.means.sums, place.means.samples = dict(content["sums"]), content["samples"]
        return place

    def content(self) -> dict[str, Any]:
        """As numbers and tensors."""
        means = {"sums": dict(self.means.sums), "samples": self.means.samples}
        return {"random": self.random, "generator": self.generator, "batches": self.batches, **means}

    def rest(self, batches: Iterator[Any], data: Any) -> Iterator[Any]:
        """The batches that are still to come. Those before are drawn again, from the random states they were drawn from."""
        past = self.batches
        if not past:
            yield from batches
            return
        now = torch.get_rng_state()
        torch.set_rng_state(self.random)
        if self.generator is not None and getattr(data, "generator", None) is not None:
            data.generator.set_state(self.generator)
        for _ in range(past):
            next(batches, None)
        torch.set_rng_state(now)
        yield from batches


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a training's checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such checkpoint.
    """
    try:
        content = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"`BPTT.load(path=...)`: expected a checkpoint of format {FORMAT!r}, got {os.fspath(path)!r}")
    return content
