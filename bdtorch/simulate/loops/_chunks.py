"""Chunks of steps that `torch.compile` has made, kept with the system that they belong to."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate._body import Body
from bdtorch.simulate._kept import kept_with
from bdtorch.simulate.loops._direct import Tap
from bdtorch.simulate.loops._pace import Pace

_KEPT = 8  # bodies of one system whose chunks are kept

Steps = Callable[[list[Tensor], list[Tensor], Tensor], tuple[list[Tensor], list[Tensor]]]
"""``(state, windows, first step) -> (state, observed)``; windows and observed have a leading axis of the chunk's steps,
but what a chunk of one step observes has none."""


class Chunks:
    """The compiled chunks of one body, by their length, and what is known of their speed.

    Attributes:
        body: The body that was compiled. Its inputs and parameters are those of the run at hand: compilers take tensors
            by where they find them, so runs that differ in values alone share what is compiled.
        compiled: The functions, and the tap of the graph of each.
        paces: What is known of their speed, and of that of recorded chunks.
    """

    def __init__(self, body: Body) -> None:
        self.body = copy.copy(body)  # the run whose own it is may still go on when the values of another are taken
        self.compiled: dict[int, tuple[Steps, Tap]] = {}
        self.paces = {False: Pace(), True: Pace()}

    def take_values_of(self, body: Body) -> None:
        """Let what is compiled run on the inputs and parameters of this body, which differs in values alone."""
        self.body.inputs, self.body.parameters, self.body.places = body.inputs, body.parameters, body.places

    def of(self, count: int) -> tuple[Steps, Tap]:
        """The function that takes ``count`` steps at once, and the tap of its graph."""
        if count not in self.compiled:
            body = self.body

            def steps(state: list[Tensor], windows: list[Tensor], first: Tensor) -> Any:
                columns: list[list[Tensor]] = [[] for _ in body.observed]
                for k in range(count):
                    t = (first + k).to(torch.float64) * body.dt
                    state, values = body(state, [window[k] for window in windows], t)
                    for column, value in zip(columns, values, strict=True):
                        column.append(value)
                if count == 1:  # a stack would be a copy
                    return state, [value for (value,) in columns]
                return state, [torch.stack(column) for column in columns]

            # Dynamo keeps its cache, and counts recompilations, by code object: each gets one of its own.
            steps.__code__ = steps.__code__.replace(co_name=f"steps_{count}")
            tap = Tap()
            self.compiled[count] = torch.compile(steps, backend=tap, fullgraph=True, dynamic=False), tap
        return self.compiled[count]


def chunks_of(body: Body, state: list[Tensor]) -> Chunks:
    """The chunks of this body: those of an earlier run of the same system, where it differed in values alone."""
    if type(body) is not Body:
        return Chunks(body)  # an ensemble is made of wrapped tensors that are gone afterwards
    kept = kept_with(body.system, "inductor", _KEPT)
    key = _key(body, state)
    chunks: Chunks | None = kept.get(key)
    if chunks is None or chunks.body.system is not body.system:  # which a shallow copy leaves
        chunks = Chunks(body)
        kept.put(key, chunks)
    return chunks


def forget(chunks: Chunks) -> None:
    """Drop what is compiled: of code that a change of the system has made stale too often, compilers will have no more."""
    chunks.compiled.clear()


def _key(body: Body, state: list[Tensor]) -> Hashable:
    """What of a body decides on the compiled code; two that agree differ in values of tensors alone."""
    leaves = tuple(_layout(x) if isinstance(x, Tensor) else _identity(x) for x in body.inputs.leaves)
    parameters = tuple((name, _layout(x)) for name, x in (body.parameters or {}).items())
    return (
        body.dt,
        repr(body.spec),
        tuple(map(_layout, state)),
        (repr(body.inputs.spec), leaves, tuple(_layout(x)[1:] for x in body.inputs.example())),
        tuple((name, _identity(record.observe)) for name, record in body.records.items()),
        (body.parameters is None, parameters),
        torch.is_grad_enabled(),
    )


def _layout(x: Tensor) -> tuple[Hashable, ...]:
    return x.stride(), x.shape, x.dtype, x.device, x.requires_grad


def _identity(value: Any) -> Hashable:
    """Equal for what computes the same: the same object, or the same code over the same objects."""
    if isinstance(value, types.FunctionType):
        cells = tuple(_identity(cell.cell_contents) for cell in value.__closure__ or ())
        defaults = tuple(_identity(x) for x in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()))
        return value.__code__, cells, defaults
    if value is None or isinstance(value, (bool, int, float, str)):
        return type(value), value
    by_value = isinstance(value, Hashable) and not isinstance(value, (Tensor, torch.nn.Module))
    return (type(value), value) if by_value else _Same(value)


class _Same:
    """Equal to another of the same object, which it keeps alive so that its address is not another's."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
