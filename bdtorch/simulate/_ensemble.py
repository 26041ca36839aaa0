"""Ensembles: `simulate` under `torch.func.vmap`, run as one simulation of all members.

At the door the tensors of all members are taken out of what vmap made of them, and one step of the ensemble is the vmap
of the member's step. So the time loop runs outside of vmap, on plain tensors, and any loop can run it. What comes out is
put back into the member's view.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.simulate import _functorch as functorch
from bdtorch.simulate._body import Body
from bdtorch.simulate.loops import LoopError
from bdtorch.simulate.records import Bins, Spikes
from bdtorch.simulate.solution import Solution

Levels = tuple[int, ...]
"""Numbers of the vmaps between whose members a tensor differs, outermost first."""


@dataclasses.dataclass
class _Axes:
    """The levels of every tensor that goes into a step."""

    state: list[Levels]
    sequences: list[Levels]
    constants: list[Levels]
    parameters: dict[str, Levels]

    def groups(self, names: list[str]) -> list[list[Levels]]:
        parameters = [self.parameters.get(name, ()) for name in names]
        return [self.state, self.sequences, self.constants, parameters]


class Ensemble(Body):
    """The body of all members at once.

    Tensors carry the axes of the vmaps between whose members they differ, and only these, before all others.

    Args:
        one: The body of a member, tried out.
        state: The flat state of a member.
        vmaps: The active vmaps, outermost first.

    Raises:
        LoopError: the step takes tensors of the ensemble from elsewhere than its state, inputs and parameters.
    """

    def __init__(self, one: Body, state: list[Tensor], vmaps: list[functorch.Level]) -> None:
        vars(self).update(vars(one))
        self.one = one
        constants = one.inputs.constants()
        self.axes = _Axes(
            [functorch.levels_of(x) for x in state],
            [functorch.levels_of(x) for x in one.inputs.sequences],
            [functorch.levels_of(x) for x in constants],
            {name: functorch.levels_of(x) for name, x in (one.parameters or {}).items()},
        )
        used = {level for group in self.axes.groups(list(self.axes.parameters)) for levels in group for level in levels}
        self.vmaps = [vmap for vmap in vmaps if vmap.number in used]
        inputs = one.inputs.with_constants(functorch.physical(x) for x in constants)
        self.inputs = dataclasses.replace(inputs, sequences=[functorch.physical(x, 1) for x in inputs.sequences])
        parameters = {name: functorch.physical(x) for name, x in (one.parameters or {}).items()}
        self.parameters = parameters or None
        self.shown: list[Levels] = []
        with one.alone:
            self.state = self._settled([functorch.physical(x) for x in state])
            after, observed = self(self.state, *self._example())
        self.differentiable = any(x.requires_grad for x in (*self.state, *after, *observed))
        self.observed = [x.detach() for x in observed]
        self.start, self.tried = 0, [x.detach() for x in (*after, *observed)]

    def _example(self) -> tuple[list[Tensor], Tensor]:
        t = torch.zeros((), dtype=torch.float64, device=self.system.device)
        return [sequence[0] for sequence in self.inputs.sequences], t

    def _settled(self, state: list[Tensor]) -> list[Tensor]:
        """Give each state variable the axes that it comes to have, in one step or later, by what feeds it."""
        while True:
            after, self.shown = self._levels_after(state)
            wider = [self._ordered(old, new) for old, new in zip(self.axes.state, after, strict=True)]
            if wider == self.axes.state:
                return state
            old, self.axes.state = self.axes.state, wider
            state = [self._widened(*item) for item in zip(state, old, wider, strict=True)]

    def _ordered(self, *several: Levels) -> Levels:
        return tuple(vmap.number for vmap in self.vmaps if any(vmap.number in levels for levels in several))

    def _widened(self, x: Tensor, old: Levels, new: Levels) -> Tensor:
        for axis, number in enumerate(new):
            if number not in old:
                (size,) = (vmap.size for vmap in self.vmaps if vmap.number == number)
                x = x.unsqueeze(axis)
                x = x.expand(*x.shape[:axis], size, *x.shape[axis + 1 :])
        return x.contiguous()

    def _levels_after(self, state: list[Tensor]) -> tuple[list[Levels], list[Levels]]:
        """Take a step, and see between which members its results differ."""
        found: list[list[Levels]] = []

        def watched(*groups: Any) -> list[Tensor]:
            active = functorch.active_vmaps() or []
            own = active[len(active) - len(self.vmaps) :]
            numbers = {level.number: vmap.number for level, vmap in zip(own, self.vmaps, strict=True)}
            after, observed = self._one_step(*groups)
            for results in (after, observed):
                found.append([self._translated(x, numbers) for x in results])
            return []

        slices, t = self._example()
        self._mapped(watched)(*self._groups(state, slices), t)
        after, shown = found
        return after, shown

    def _translated(self, x: Tensor, numbers: dict[int, int]) -> Levels:
        levels = functorch.levels_of(x)
        if not set(levels) <= set(numbers):
            raise LoopError(
                "under torch.func.vmap compiled loops take tensors that differ between members only as "
                "`simulate(inputs=..., state=..., parameters=..., seed=...)`, but the step, a record or a function of "
                "time holds one"
            )
        return tuple(numbers[level] for level in levels)

    def _groups(self, state: list[Tensor], slices: list[Tensor]) -> list[list[Tensor]]:
        return [state, slices, self.inputs.constants(), list((self.parameters or {}).values())]

    def _one_step(self, *groups: Any) -> tuple[list[Tensor], list[Tensor]]:
        """The step of one member, inside of all vmaps."""
        state, slices, constants, parameters, t = groups
        one = copy.copy(self.one)
        one.inputs = self.one.inputs.with_constants(constants)
        one.parameters = dict(zip(self.parameters or {}, parameters, strict=True)) or None
        return one(state, slices, t)

    def _mapped(
        self, function: Callable[..., Any], out_dims: Callable[[int], list[bool]] = lambda number: []
    ) -> Callable[..., Any]:
        """The function of all members: of lists of tensors to a list, of which each differs between some members."""
        for vmap in reversed(self.vmaps):
            number = vmap.number
            groups = self.axes.groups(list(self.parameters or {}))
            in_dims = [[0 if number in levels else None for levels in group] for group in groups]
            function = _over(function, (*in_dims, None), out_dims(number), vmap.randomness)
        return function

    def __call__(self, state: list[Tensor], slices: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        def out_dims(number: int) -> list[bool]:
            return [number in levels for levels in (*self.axes.state, *self.shown)]

        def one_step(*groups: Any) -> list[Tensor]:
            after, observed = self._one_step(*groups)
            return [*after, *observed]

        results = self._mapped(one_step, out_dims)(*self._groups(state, slices), t)
        return results[: len(self.names)], results[len(self.names) :]

    def of_member(self, solution: Solution) -> Solution:
        """What a member sees of the solution of all."""
        flat = [functorch.member(*item) for item in zip(tree.leaves(solution.state), self.axes.state, strict=True)]
        shown = iter(self.shown)

        def back(value: Any) -> Any:
            levels = next(shown)
            if not isinstance(value, Spikes):
                return functorch.member(value, levels, 1)
            sizes = value.batch_shape[: len(levels)]
            return EnsembleSpikes(**{**vars(value), "levels": levels, "sizes": sizes}) if levels else value

        outputs, records = solution.outputs, {}
        for name in self.records:
            if name in solution.records:
                records[name] = tree.map(back, solution.records[name])
            else:
                outputs = tree.map(back, solution.outputs)
        return dataclasses.replace(solution, state=tree.unflatten(flat, self.spec), records=records, outputs=outputs)


def _over(function: Callable[..., Any], in_dims: Any, differs: list[bool], randomness: str) -> Callable[..., Any]:
    """`torch.func.vmap` of a function to a list of tensors, some of which are the same for all of its members.

    They may differ between those of an outer vmap, and torch takes them for its own then. So they go past it.
    """

    def mapped(*groups: Any) -> list[Tensor]:
        past: list[Tensor] = []

        def inner(*groups: Any) -> tuple[Tensor, ...]:
            results = function(*groups)
            past[:] = [x for x, own in zip(results, differs, strict=True) if not own]
            owned = [x for x, own in zip(results, differs, strict=True) if own]
            return *owned, torch.zeros(())  # it wants one at least

        through = iter(torch.func.vmap(inner, in_dims, 0, randomness)(*groups))
        same = iter(past)
        return [next(through if own else same) for own in differs]

    return mapped


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleSpikes(Spikes):
    """Spikes of all members of an ensemble, whose axes come first in ``batch_shape``.

    Spikes differ in number between members, so they cannot leave a vmapped function as its result; keep the object, for
    instance in a list. Inside of that function `counts` and `binned` are those of the member.

    Attributes:
        levels: The vmaps of the leading batch axes.
        sizes: How many members each has.
    """

    levels: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()

    def counts(self) -> Tensor:
        """Number of spikes of every neuron, int64, ``(*batch, size)``."""
        return self._of_member(super().counts(), 0)

    def binned(self, bin: float, *, per_neuron: bool = False) -> Bins:
        """Count spikes in successive bins; see `Spikes.binned`."""
        counts, edges = super().binned(bin, per_neuron=per_neuron)
        return Bins(self._of_member(counts, 1), edges)

    def _of_member(self, x: Tensor, axis: int) -> Tensor:
        active = [(vmap.number, vmap.size) for vmap in functorch.active_vmaps() or []]
        inside = all(pair in active for pair in zip(self.levels, self.sizes, strict=True))
        return functorch.member(x, self.levels, axis) if inside else x


def ensemble_state(system: DynamicalSystem, batch_shape: tuple[int, ...] = (), *, dt: float, seed: Tensor) -> State:
    """The fresh state of a member whose seed differs from those of the others."""
    if seed.dtype != torch.int64 or seed.dim():
        raise TypeError(
            f"`simulate(seed=...)`: expected an integer, or under torch.func.vmap an int64 tensor of one seed for each "
            f"member, got {tuple(seed.shape)} {seed.dtype}"
        )
    levels, numbers = functorch.levels_of(seed), functorch.physical(seed)
    with functorch.outside():
        states = [initial_state(system, batch_shape, dt=dt, seed=number) for number in numbers.flatten().tolist()]
        together = tree.map(lambda *leaves: torch.stack(leaves).reshape((*numbers.shape, *leaves[0].shape)), *states)
    return tree.map(lambda x: functorch.member(x, levels), together)
