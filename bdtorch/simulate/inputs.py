"""Inputs of a simulation: constant, one slice per step, or functions of time, in any pytree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, float_dtypes, is_finite_number, whole_steps


class Constant:
    """A tensor that is the input of every step; plain tensors with axes are taken as one slice per step.

    Args:
        value: Tensor of one step's shape.
    """

    def __init__(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"`Constant(value=...)`: expected a tensor, got {value!r}")
        self.value = value


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs resolved at the front door.

    Attributes:
        leaves: For each leaf a tensor (constant), a function of time, None, or the number of its sequence.
        spec: Structure of the pytree.
        sequences: Tensors with a leading time axis.
    """

    leaves: list[Any]
    spec: Any
    sequences: list[Tensor]

    @property
    def steps(self) -> int | None:
        """Length of the time axis, or None where nothing has one."""
        return self.sequences[0].shape[0] if self.sequences else None

    def example(self) -> list[Tensor]:
        """The slices of the first step, or zeros of their shape where there is none."""
        return [x[0] if x.shape[0] else x.new_zeros(x.shape[1:]) for x in self.sequences]

    def at(self, slices: list[Tensor], t: Tensor) -> Any:
        """The input of one step, from the slices of its sequences and its time."""
        return tree.unflatten([self._leaf(leaf, slices, t) for leaf in self.leaves], self.spec)

    def _leaf(self, leaf: Any, slices: list[Tensor], t: Tensor) -> Any:
        if isinstance(leaf, int):
            return slices[leaf]
        if leaf is None or isinstance(leaf, Tensor):
            return leaf
        return leaf(t)

    def constants(self) -> list[Tensor]:
        """The tensors that are the input of every step."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]

    def with_constants(self, constants: Iterable[Tensor]) -> Inputs:
        """The same inputs with other tensors in the place of `constants`."""
        places = iter(constants)
        leaves = [next(places) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return Inputs(leaves, self.spec, self.sequences)

    def tensors(self) -> list[Tensor]:
        """Every tensor among the inputs."""
        return self.constants() + self.sequences

    def batch_shape(self, axes: int) -> tuple[int, ...]:
        """The batch that the inputs imply, where the last ``axes`` axes of a step's input are the population's."""
        shapes = [leaf.shape for leaf in self.constants()]
        shapes += [sequence.shape[1:] for sequence in self.sequences]
        batches = [shape[: len(shape) - axes] for shape in shapes if len(shape) > axes]
        return tuple(torch.broadcast_shapes(*batches)) if batches else ()


def resolve(inputs: Any, system: DynamicalSystem) -> Inputs:
    """Sort the leaves of ``inputs`` and check their dtypes, devices and lengths."""
    flat, spec = tree.flatten(inputs)
    dtypes = float_dtypes(system)
    widest = max(dtypes, key=lambda dtype: dtype.itemsize)  # a single number makes nothing wider
    leaves: list[Any] = []
    sequences: list[Tensor] = []
    for leaf in flat:
        if isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
            leaf = torch.full((), float(leaf), dtype=widest, device=system.device)
        if isinstance(leaf, Constant):
            leaves.append(_checked(leaf.value, system, dtypes))
        elif isinstance(leaf, Tensor) and leaf.dim():
            leaves.append(len(sequences))
            sequences.append(_checked(leaf, system, dtypes))
        elif isinstance(leaf, Tensor):
            leaves.append(_checked(leaf, system, dtypes))
        elif leaf is None or callable(leaf):
            leaves.append(leaf)
        else:
            raise TypeError(
                f"`simulate(inputs=...)`: expected numbers, tensors, functions of time or None, got {type(leaf).__name__}"
            )
    for sequence in sequences[1:]:
        if sequence.shape[0] != sequences[0].shape[0]:
            raise ValueError(
                f"`simulate(inputs=...)`: expected equal leading axes time, "
                f"got {sequences[0].shape[0]} and {sequence.shape[0]}"
            )
    return Inputs(leaves, spec, sequences)


def _checked(value: Tensor, system: DynamicalSystem, dtypes: list[torch.dtype]) -> Tensor:
    if value.device != system.device:
        raise ValueError(f"`simulate(inputs=...)`: expected device {system.device}, got {value.device}")
    if value.is_complex() or (value.is_floating_point() and value.dtype not in dtypes):
        raise TypeError(f"`simulate(inputs=...)`: expected dtype {' or '.join(map(str, dtypes))}, got {value.dtype}")
    return value


def count_steps(inputs: Inputs, dt: float, duration: float | None) -> int:
    """The number of steps, from ``duration`` or from the leading axis of the inputs, which must agree."""
    if duration is None:
        if inputs.steps is None:
            raise ValueError("`simulate(duration=...)`: expected ms, since no input has a leading axis time, got None")
        return inputs.steps
    if not is_finite_number(duration) or duration < 0:
        raise ValueError(f"`simulate(duration=...)`: expected a finite number of ms of at least 0, got {duration!r}")
    steps = whole_steps(duration, dt, "simulate(duration=...)")
    if inputs.steps not in (None, steps):
        raise ValueError(f"`simulate(inputs=...)`: expected leading axis time={steps}, got {inputs.steps}")
    return steps
