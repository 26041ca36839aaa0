"""Checks of the smooth part: gradients, linear parts, and the roles of ``t`` and ``dt``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from bdtorch import _tree as tree
from bdtorch._flow import Flow
from bdtorch._types import State
from bdtorch.testing.case import Case, clone, expect_close


def check_gradients(case: Case) -> None:
    """`torch.autograd.gradcheck` of `Flow.derivative` by state, inputs and parameters, in float64."""
    system, state, inputs = _midway(case)
    if not isinstance(system, Flow) or not case.smooth:
        return
    t = case.time(case.steps)
    flat, spec = tree.flatten((state, inputs))
    variable = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    parameters = list(system.parameters())

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        filled = list(flat)
        for i, value in zip(variable, values, strict=False):
            filled[i] = value
        y, now = tree.unflatten(filled, spec)
        slopes: list[Tensor] = tree.tensors(system.derivative(y, now, t))
        return tuple(slope for slope in slopes if slope.requires_grad)

    leaves = [flat[i].detach().clone().requires_grad_() for i in variable]
    try:
        gradcheck(function, (*leaves, *parameters), eps=1e-6, atol=1e-5, rtol=1e-4)
    except GradcheckError as error:
        raise AssertionError(f"gradients of {type(system).__name__}.derivative: {error}") from error


def check_linear(case: Case) -> None:
    """A `linear` in closed form is the diagonal of the Jacobian of `derivative`."""
    system, state, inputs = _midway(case)
    if not isinstance(system, Flow) or type(system).linear is Flow.linear:
        return
    t = case.time(case.steps)
    flat, _ = tree.flatten(state)
    stated = tree.leaves(system.linear(state, inputs, t))
    names = [name for name, _ in tree.named_leaves(state)]
    for i, (name, value) in enumerate(zip(names, flat, strict=True)):

        def equation(y: Tensor, i: int = i) -> Tensor:
            slope: Tensor = tree.leaves(system.derivative(tree.replace_leaf(state, i, y), inputs, t))[i]
            return slope

        jacobian = torch.autograd.functional.jacobian(equation, value)
        diagonal = jacobian.reshape(value.numel(), value.numel()).diagonal().reshape(value.shape)
        given = torch.as_tensor(stated[i], dtype=value.dtype).detach().expand(value.shape)
        expect_close(given, diagonal, f"linear: the slope of {name!r}", rtol=1e-9, atol=1e-12)


def check_time(case: Case) -> None:
    """An autonomous model steps alike at any ``t``; a `Flow` goes by ``dt`` times its derivative for small ``dt``."""
    system, state, inputs = _midway(case)
    if case.autonomous:
        with torch.no_grad():
            now = system.step(state, inputs, case.time(0), case.dt)
            later = system.step(state, inputs, case.time(123_456), case.dt)
        expect_close(later, now, "an autonomous model at another t")
    if isinstance(system, Flow):
        _check_small_step(case, system, state, inputs)


def _check_small_step(case: Case, system: Flow, state: State, inputs: Any) -> None:
    t = case.time(case.steps)
    with torch.no_grad():
        slope = tree.map(lambda s, y: s.expand(y.shape), system.derivative(state, inputs, t), state)
        largest = max((float(leaf.abs().max()) for leaf in tree.leaves(slope)), default=0.0)
        for dt in (1e-5, 2e-5):
            moved = system.advance(state, inputs, t, dt)
            rate = tree.map(lambda after, before, dt=dt: (after - before) / dt, moved, state)
            what = f"(advance(dt={dt}) - state) / dt against derivative"
            expect_close(rate, slope, what, rtol=1e-2, atol=1e-3 * largest)


def _midway(case: Case) -> tuple[Any, State, Any]:
    """A model in float64, a state some way into its run, and the input there."""
    system = copy.deepcopy(case.make()).to(torch.float64)
    state = case.state(system)
    for k in range(case.steps // 2):
        with torch.no_grad():
            state, _ = system.step(state, case.input_at(system, k), case.time(k), case.dt)
    return system, clone(state), clone(case.input_at(system, case.steps // 2))
