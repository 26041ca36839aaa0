"""Eligibility traces over the synapses of a layer, and the local Jacobian that carries them along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.connect import CSR, Connectivity, Dense


class Jacobian(NamedTuple):
    """Derivatives of a cell's step, element by element; each tensor is ``(*batch, cells)``."""

    state: list[list[Tensor]]
    """``state[a][b]``: of the new state variable a, by the old variable b."""
    state_drive: list[Tensor]
    """Of the new state variables, by the drive."""
    out: list[Tensor]
    """Of the output, by the old state variables."""
    out_drive: Tensor
    """Of the output, by the drive."""


def local_jacobian(
    step: Callable[[State, Tensor], tuple[State, Tensor]], state: State, drive: Tensor
) -> tuple[State, Tensor, Jacobian]:
    """Take a step, and differentiate it where every element depends on itself alone.

    The gradient of the sum over elements of one result is then the diagonal of its Jacobian.

    Args:
        step: ``(state, drive) -> (state, output)``, of equal shapes.
        state: State of the cells; variables that are no floats are taken as constants.
        drive: Current into each cell, ``(*batch, cells)``.
    """
    flat, spec = tree.flatten(state)
    floats = [number for number, leaf in enumerate(flat) if leaf.is_floating_point()]

    def results(values: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[State, Tensor]]:
        leaves = list(flat)
        for number, value in zip(floats, values[:-1], strict=True):
            leaves[number] = value
        after, out = step(tree.unflatten(leaves, spec), values[-1])
        after_flat = tree.leaves(after)
        return (*(after_flat[number] for number in floats), out), (after, out)

    point = (*(flat[number] for number in floats), drive)
    values, pull, (after, out) = torch.func.vjp(results, point, has_aux=True)  # type: ignore[misc]
    rows = []
    for row in range(len(values)):
        ones = tuple(torch.ones_like(r) if k == row else torch.zeros_like(r) for k, r in enumerate(values))
        rows.append(list(pull(ones)[0]))
    return after, out, Jacobian([r[:-1] for r in rows[:-1]], [r[-1] for r in rows[:-1]], rows[-1][:-1], rows[-1][-1])


class Trace(NamedTuple):
    """What e-prop keeps for one weight tensor; each tensor is ``(*batch, *pattern)``."""

    vectors: tuple[Tensor, ...]
    """The derivative of each state variable of the cell by the weight."""
    filtered: Tensor
    """The eligibility trace, filtered by the readout's leak."""
    gradient: Tensor
    """The sum of learning signal times filtered trace."""
    total: Tensor
    """The sum of the unfiltered trace: what one more unit of every output's sum means for the weight."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which cell and which source an entry of a weight tensor joins.

    Attributes:
        shape: Shape of the weight tensor.
        pre: Source of every synapse, for sparse patterns.
        post: Cell of every synapse.
        mask: Pairs that exist, for dense patterns with gaps.
    """

    shape: tuple[int, ...]
    pre: Tensor | None = None
    post: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, connect: Connectivity) -> Pattern:
        """The pattern of a layer's connectivity.

        Raises:
            TypeError: It is neither dense nor CSR.
        """
        if isinstance(connect, Dense):
            return cls(connect.weight_shape, mask=connect.mask)
        if isinstance(connect, CSR):
            return cls(connect.weight_shape, connect.rows, connect.indices)
        raise TypeError(f"`EProp(model=...)`: expected dense or CSR connectivity, got {type(connect).__name__}")

    @classmethod
    def of_bias(cls, cells: int) -> Pattern:
        """The pattern of one weight per cell, from a source that is always 1."""
        return cls((cells,))

    def zeros(self, make: Callable[..., Tensor], variables: int) -> Trace:
        """The trace before the first step; ``make(*shape)`` adds the batch."""
        return Trace(
            tuple(make(*self.shape) for _ in range(variables)), make(*self.shape), make(*self.shape), make(*self.shape)
        )

    def _source(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1) if self.pre is None else x.index_select(-1, self.pre)

    def _cell(self, value: Tensor) -> Tensor:
        if self.post is not None:
            return value.index_select(-1, self.post)
        return value.unsqueeze(-2) if len(self.shape) == 2 else value

    def advance(self, trace: Trace, x: Tensor | None, jacobian: Jacobian, signal: Tensor, keep: float) -> Trace:
        """One step of the eligibility vectors and of what is summed from them.

        Args:
            trace: The last one.
            x: Outputs of the sources, ``(*batch, sources)``; None for a constant 1.
            jacobian: Of the cells' step.
            signal: Learning signal, ``(*batch, cells)``.
            keep: What the readout's leak leaves of a step.
        """
        source = None if x is None else self._source(x.to(signal.dtype))

        def through(slopes: list[Tensor], drive: Tensor) -> Tensor:
            value = self._cell(drive) if source is None else self._cell(drive) * source
            for slope, vector in zip(slopes, trace.vectors, strict=True):
                value = value + self._cell(slope) * vector
            return value

        vectors = tuple(through(row, drive) for row, drive in zip(jacobian.state, jacobian.state_drive, strict=True))
        eligibility = through(jacobian.out, jacobian.out_drive)
        filtered = keep * trace.filtered + eligibility
        return Trace(vectors, filtered, trace.gradient + self._cell(signal) * filtered, trace.total + eligibility)

    def gradient(self, trace: Trace, extra: Tensor | None) -> Tensor:
        """The gradient of the weight tensor, with ``extra``, ``(cells,)``, as a learning signal of every step."""
        total = trace.gradient if extra is None else trace.gradient + self._cell(extra) * trace.total
        summed: Tensor = total.reshape(-1, *self.shape).sum(0)
        return summed if self.mask is None else summed * self.mask
