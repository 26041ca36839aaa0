"""What every simulator of a benchmark network is given: synapses, initial values and input spikes, in one file.

No torch here: the environments of the other simulators import this.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np


class Arrays:
    """A dataclass of arrays and integers that keeps itself in a ``.npz`` file."""

    def save(self, path: Path) -> None:
        """Write to a ``.npz`` file."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Any:
        """Read what `save` has written."""
        with np.load(path) as file:
            return cls(**{name: value if value.ndim else int(value) for name, value in file.items()})


@dataclass(frozen=True)
class Wiring(Arrays):
    """A recurrent network; neurons are numbered through, excitatory ones first.

    Attributes:
        excitatory: Number of excitatory neurons.
        indptr: Where each neuron's targets start, int64, ``(neurons + 1,)``.
        indices: Targets, int32, ``(synapses,)``.
        state: Initial state, float32, ``(variables, neurons)``.
    """

    excitatory: int
    indptr: np.ndarray
    indices: np.ndarray
    state: np.ndarray

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return len(self.indptr) - 1

    @property
    def synapses(self) -> int:
        """Number of synapses."""
        return len(self.indices)

    def pathway(self, excites: bool) -> tuple[np.ndarray, np.ndarray]:
        """``(indptr, indices)`` of the excitatory neurons' rows, or of the inhibitory ones'."""
        border = self.indptr[self.excitatory]
        if excites:
            return self.indptr[: self.excitatory + 1], self.indices[:border]
        return self.indptr[self.excitatory :] - border, self.indices[border:]


@dataclass(frozen=True)
class PlasticWiring(Arrays):
    """Inputs, all of which reach all neurons, and the spikes that they send.

    Attributes:
        weights: Initial weights, float32, ``(inputs, neurons)``.
        state: Initial state, float32, ``(variables, neurons)``.
        input_step: Steps in which inputs spike, ascending, int32, ``(spikes,)``.
        input_index: The inputs that do, int32, ``(spikes,)``.
    """

    weights: np.ndarray
    state: np.ndarray
    input_step: np.ndarray
    input_index: np.ndarray

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.weights.shape[0]

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.weights.shape[1]

    @property
    def synapses(self) -> int:
        """Number of synapses."""
        return self.weights.size


def load(path: Path) -> Wiring | PlasticWiring:
    """Read a file of either kind."""
    with np.load(path) as file:
        kind = PlasticWiring if "weights" in file else Wiring
    return kind.load(path)
