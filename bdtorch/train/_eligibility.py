"""What a step does to one cell: the local Jacobian of a layer's cells, forward in time and pulled back through a chunk."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._drive import Drive
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.network import Readout, Recurrent


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


class Local(NamedTuple):
    """What a step of a layer and its readout leaves for the gradient; each tensor is ``(*batch, cells)`` but for the first
    and the last but one.
    """

    y: Tensor
    """The readouts, ``(*batch, n_out)``."""
    out: Tensor
    """The cells' output."""
    heard: Tensor
    """It, filtered by the readout's leak."""
    ones: Tensor
    """A constant 1 filtered so, ``(*batch,)``."""
    jacobian: Jacobian


class LocalStep(DynamicalSystem):
    """A layer and its readout, that put out the derivatives of the cells' step beside their results; see `Local`."""

    class State(NamedTuple):
        layer: Any
        readout: Any
        heard: Tensor
        ones: Tensor

    def __init__(self, layer: Recurrent, readout: Readout) -> None:
        super().__init__(readout.size, dtype=readout.dtype, device=readout.device)
        self.layer, self.readout = layer, readout

    def init_state(self, batch_shape: tuple[int, ...] = (), *, dt: float | None = None, seed: int = 0) -> State:
        layer, readout = (initial_state(part, batch_shape, dt=dt, seed=seed) for part in (self.layer, self.readout))
        zeros = torch.zeros((*batch_shape, self.layer.count), dtype=self.dtype, device=self.device)
        return self.State(layer, readout, heard=zeros, ones=zeros.new_zeros(batch_shape))

    def step(self, state: State, inputs: Tensor, t: Tensor, dt: float) -> tuple[State, Local]:
        before, keep = state.layer, self.readout.keep(dt)
        current = self.layer.current(inputs, before.out)
        cell, out, jacobian = local_jacobian(
            lambda cell, drive: self.layer.cell.step(cell, Drive(current=drive), t, dt), before.cell, current
        )
        readout, y = self.readout.step(state.readout, out, t, dt)
        heard, ones = keep * state.heard + out, keep * state.ones + 1.0
        after = self.State(before._replace(cell=cell, out=out), readout, heard, ones)
        return after, Local(y, out, heard, ones, jacobian)


class Pulled(NamedTuple):
    """How what `Pull` follows depends on the source of a step; each tensor is ``(*batch, cells)``."""

    vectors: list[Tensor]
    filtered: Tensor
    signal: Tensor
    total: Tensor


class Pull(DynamicalSystem):
    r"""Carries derivatives backwards through the steps of a chunk, cell by cell.

    Followed are the eligibility vectors $\epsilon_a = dh_a/dW$ at the chunk's end, the filtered trace
    $\bar e^t = \kappa\,\bar e^{t-1} + e^t$ there, and the sums over the chunk $\sum_t L^t \bar e^t$ and $\sum_t e^t$, where

    $$\epsilon^t = J^t \epsilon^{t-1} + d^t x^t, \qquad e^t = o^t \cdot \epsilon^{t-1} + o_d^t x^t.$$

    The state says how each of them depends on $\epsilon$ and $\bar e$ of a time; a step takes that time back by one step, and
    puts out how each depends on the source $x^t$ of that step. Inputs are ``(Jacobian, learning signal)``, last step first.

    Args:
        cells: Number of cells.
        variables: Number of floating state variables of a cell.
        keep: What the readout's leak leaves of a step, $\kappa$.
        dtype: Floating dtype.
        device: Device.
    """

    class State(NamedTuple):
        vectors: list[list[Tensor]]
        """``vectors[a][b]``: of the vector a at the end, by the vector b."""
        filtered: list[Tensor]
        """Of the filtered trace at the end, by the vectors, and by the filtered trace."""
        signal: list[Tensor]
        """Of the sum with the learning signal, likewise."""
        total: list[Tensor]
        """Of the plain sum, by the vectors."""

    def __init__(self, cells: int, variables: int, keep: float, **options: Any) -> None:
        super().__init__(cells, **options)
        self.variables, self.keep = variables, keep

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        count = self.variables

        def fill(value: float) -> Tensor:
            return self.fill(batch_shape, value)

        return self.State(
            vectors=[[fill(float(a == b)) for b in range(count)] for a in range(count)],
            filtered=[*(fill(0.0) for _ in range(count)), fill(1.0)],
            signal=[fill(0.0) for _ in range(count + 1)],
            total=[fill(0.0) for _ in range(count)],
        )

    def step(self, state: State, inputs: tuple[Jacobian, Tensor], t: Tensor, dt: float) -> tuple[State, Pulled]:
        jacobian, signal = inputs

        def response(by_vectors: list[Tensor], by_trace: Tensor | None) -> Tensor:
            terms = [r * d for r, d in zip(by_vectors, jacobian.state_drive, strict=True)]
            return _total(terms if by_trace is None else [*terms, by_trace * jacobian.out_drive])

        def before(by_vectors: list[Tensor], by_trace: Tensor | None) -> list[Tensor]:
            found = []
            for b in range(self.variables):
                terms = [r * row[b] for r, row in zip(by_vectors, jacobian.state, strict=True)]
                found.append(_total(terms if by_trace is None else [*terms, by_trace * jacobian.out[b]]))
            return found

        *filtered, through = state.filtered
        *summed, kept = state.signal
        heard = kept + signal
        one = torch.ones_like(signal)
        pulled = Pulled(
            [response(row, None) for row in state.vectors],
            response(filtered, through),
            response(summed, heard),
            response(state.total, one),
        )
        return self.State(
            vectors=[before(row, None) for row in state.vectors],
            filtered=[*before(filtered, through), self.keep * through],
            signal=[*before(summed, heard), self.keep * heard],
            total=before(state.total, one),
        ), pulled


def _total(terms: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, terms)
