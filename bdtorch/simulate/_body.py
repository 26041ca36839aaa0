"""The body of the time loop: one step as a function from flat lists of tensors to flat lists of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._replaced import call_with, places_of
from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.simulate._functorch import has_tangent
from bdtorch.simulate._kept import Alone
from bdtorch.simulate._purity import Watch
from bdtorch.simulate.inputs import Inputs
from bdtorch.simulate.records import Record

OUT = "out (kept)"
"""Name of the record of outputs."""


class Body:
    """``(state, input slices, t) -> (new state, observed)``, everything flat, for one system, inputs and records.

    Attributes:
        names: Name of every state leaf.
        every: For every observed tensor, how often it is kept.
        sparse: For every observed tensor, whether only its nonzeros are kept.
        observed: An example of every observed tensor (from a trial step).
        differentiable: Whether anything that leaves a step carries a gradient (from a trial step).
        tangents: Whether it carries a forward derivative (from a trial step).
        effects: What a step does besides returning its results (from a trial step).
        start: Number of the step that was tried.
        alone: Lets this thread alone run the Python of the system.
        tried: What it gave, the new state and what was observed; empty where nobody asks any more.
    """

    def __init__(
        self,
        system: DynamicalSystem,
        inputs: Inputs,
        records: dict[str, Record],
        state: State,
        dt: float,
        parameters: dict[str, Tensor] | None = None,
    ) -> None:
        self.system = system
        self.parameters = parameters
        self.places = places_of(system)
        self.alone = Alone(system)
        self.inputs = inputs
        self.records = records
        self.dt = dt
        self.spec = tree.flatten(state)[1]
        self.names = [name for name, _ in tree.named_leaves(state)]
        self.structures: list[Any] = []
        self.every: list[int] = []
        self.sparse: list[bool] = []
        self.observed: list[Tensor] = []
        self.differentiable = False
        self.tangents = False
        self.effects: list[str] = []
        self.start = 0
        self.tried: list[Tensor] = []

    def __call__(self, state: list[Tensor], slices: list[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        after, out = self._step(tree.unflatten(state, self.spec), slices, t)
        observed: list[Tensor] = []
        for record in self.records.values():
            observed.extend(tree.leaves(record.observe(after, out)))
        return tree.leaves(after), observed

    def _step(self, state: State, slices: list[Tensor], t: Tensor) -> tuple[State, Any]:
        arguments = (state, self.inputs.at(slices, t), t, self.dt)
        if self.parameters is None:
            return self.system(*arguments)
        return call_with(self.system, self.parameters, arguments, self.places)

    def try_out(self, state: list[Tensor], start: int) -> None:
        """Take one step, keep nothing of it, and report at the front door what would fail in the loop."""
        with self.alone:
            self._try_out(state, start)

    def _try_out(self, state: list[Tensor], start: int) -> None:
        t = torch.full((), start * self.dt, dtype=torch.float64, device=self.system.device)
        slices = self.inputs.example()
        marks = tree.marks(state)
        before = tree.unflatten(state, self.spec)
        watch = Watch(self.system, self._functions())
        try:
            with watch:
                returned = self._step(before, slices, t)
        except (RuntimeError, IndexError) as error:
            raise self._with_shapes(error, slices) from error
        except TypeError as error:
            raise self._with_kinds(error) from error
        after, out = _new_state_and_output(returned)
        for name, changed in zip(self.names, tree.written(state, marks), strict=True):
            if changed:
                raise RuntimeError(f"step must not write to its arguments, but it changed the state variable {name!r}")
        self.check_state(state, after)
        for name, record in self.records.items():
            with watch:
                observed = record.observe(after, out)
            flat, structure = tree.flatten(observed)
            for leaf in flat:
                if not isinstance(leaf, Tensor) and name == OUT:
                    raise TypeError(
                        f"step must put out tensors, since nothing else is recorded; its output holds a {type(leaf).__name__}: "
                        "use `record`"
                    )
                if not isinstance(leaf, Tensor):
                    raise TypeError(
                        f"`simulate(record={{{name!r}: ...}})`: expected tensors, got {type(leaf).__name__}"
                    )
            if record.sparse and len(flat) != 1:
                raise ValueError(
                    f"`simulate(record={{{name!r}: ...}})`: expected one tensor of spikes, got {len(flat)}"
                )
            self.structures.append(structure)
            self.every += [record.every] * len(flat)
            self.sparse += [record.sparse] * len(flat)
            self.observed += flat
        leaving = (*state, *tree.leaves(after), *self.observed)
        self.differentiable = any(leaf.requires_grad for leaf in leaving)
        self.tangents = any(has_tangent(leaf) for leaf in leaving)
        self.observed = [leaf.detach() for leaf in self.observed]
        self.start, self.tried = start, [leaf.detach() for leaf in (*tree.leaves(after), *self.observed)]
        self.effects = watch.effects(lambda: self([x.clone() for x in state], slices, t.clone()))

    def _functions(self) -> list[Any]:
        """What a step calls besides the system."""
        return [*(record.observe for record in self.records.values()), *filter(callable, self.inputs.leaves)]

    def _with_shapes(self, error: Exception, slices: list[Tensor]) -> Exception:
        """An error of the first step, with the shapes that met in it where inputs have any."""
        shapes = [tuple(x.shape) for x in (*self.inputs.constants(), *slices) if x.dim()]
        if not shapes:
            return error
        given = ", ".join(map(str, shapes))
        return ValueError(
            f"`simulate(inputs=...)`: expected inputs that fit {type(self.system).__name__} of size {self.system.size}, "
            f"got {given} in one step, and the step failed: {error}"
        )

    def _with_kinds(self, error: Exception) -> Exception:
        """An error of the first step, with the containers that inputs came in, which may be meant as a tensor."""
        container = tree.unflatten([0] * len(self.inputs.leaves), self.inputs.spec)
        if not isinstance(container, (list, tuple)):
            return error
        return TypeError(
            f"`simulate(inputs=...)`: expected inputs that fit {type(self.system).__name__}, got a {type(container).__name__} "
            f"of {len(container)} in every step, and the step failed: {error}"
        )

    def bytes_kept_per_step(self) -> float:
        """Memory that a step adds to the records on average, but for sparse ones, of which nobody knows."""
        observed = zip(self.observed, self.every, self.sparse, strict=True)
        return sum(x.numel() * x.element_size() / every for x, every, sparse in observed if not sparse)

    def check_state(self, before: list[Tensor], after: State) -> None:
        flat, spec = tree.flatten(after)
        if spec != self.spec:
            names = [name for name, _ in tree.named_leaves(after)]
            raise ValueError(f"step must keep the structure of the state: expected {self.names}, got {names}")
        for name, old, new in zip(self.names, before, flat, strict=True):
            if not isinstance(new, Tensor):
                raise TypeError(f"step must return tensors: the state variable {name!r} became {type(new).__name__}")
            if old.shape != new.shape or old.dtype != new.dtype or old.device != new.device:
                raise ValueError(
                    f"step must keep shape, dtype and device: the state variable {name!r} was {_describe(old)} "
                    f"and became {_describe(new)}; do inputs or parameters have a batch that the state lacks?"
                )


def _new_state_and_output(returned: Any) -> tuple[State, Any]:
    if not isinstance(returned, (tuple, list)) or hasattr(returned, "_fields") or len(returned) != 2:
        what = type(returned).__name__
        if isinstance(returned, (tuple, list)) and not hasattr(returned, "_fields"):
            what += f" of {len(returned)}"
        raise TypeError(f"step must return the new state and the output, as `return state, out`; it returned a {what}")
    after, out = returned
    return after, out


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} on {x.device}"
