"""Checks that a batch is nothing but several runs side by side."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem
from bdtorch.testing.case import Case, expect_close, tolerance

_FACTORS = (1.0, 0.75, 1.25)
"""The elements of the batch differ in their inputs by these factors."""


def check_batch(case: Case) -> None:
    """A batch of states and inputs gives what its elements give one by one."""
    system = case.system()
    state = case.state(system, (len(_FACTORS),))
    together = case.run(system, state, lambda k: _batched(case, system, k))
    for b, factor in enumerate(_FACTORS):

        def scaled(k: int, factor: float = factor) -> Any:
            return _scaled(case.input_at(system, k), factor)

        alone = case.run(system, _element(state, b), scaled)
        expect_close(_element(together, b), alone, f"batch element {b} against a single run", **tolerance(case.dtype))


def check_vmap(case: Case) -> None:
    """`torch.func.vmap` over states and inputs gives what a batch gives."""
    system = case.system()
    state = case.state(system, (len(_FACTORS),))
    batched = case.run(system, state, lambda k: _batched(case, system, k))
    factors = torch.tensor(_FACTORS, dtype=case.dtype)
    with torch.no_grad():
        for k, want in enumerate(batched):

            def one(single: Any, factor: Tensor, k: int = k) -> Any:
                return system.step(single, _scaled(case.input_at(system, k), factor), case.time(k), case.dt)

            got = torch.func.vmap(one)(state, factors)
            expect_close(got, want, f"vmap against a batch at step {k}", **tolerance(case.dtype))
            state = want[0]


def check_vmap_parameters(case: Case) -> None:
    """`torch.func.vmap` over the parameters of `torch.func.functional_call` gives what separate models give."""
    system = case.system()
    names = [name for name, _ in system.named_parameters()]
    if not names:
        return
    models = [_with_scaled_parameters(system, factor) for factor in _FACTORS]
    stacked = {name: torch.stack([model.get_parameter(name).detach() for model in models]) for name in names}
    singles = [case.run(model, case.state(system)) for model in models]

    def one(parameters: dict[str, Tensor]) -> list[Any]:
        state, history = case.state(system), []
        for k in range(case.steps):
            arguments = (state, case.input_at(system, k), case.time(k), case.dt)
            state, out = torch.func.functional_call(system, parameters, arguments)
            history.append((state, out))
        return history

    with torch.no_grad():
        together = torch.func.vmap(one)(stacked)
    for b, single in enumerate(singles):
        expect_close(_element(together, b), single, f"vmap over parameters, element {b}", **tolerance(case.dtype))


def _with_scaled_parameters(system: DynamicalSystem, factor: float) -> DynamicalSystem:
    model = copy.deepcopy(system)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0 + 0.1 * (factor - 1.0))  # gently: the model must stay within its domain
    return model


def _element(value: Any, b: int) -> Any:
    return tree.map(lambda leaf: leaf[b] if isinstance(leaf, Tensor) else leaf, value)


def _scaled(inputs: Any, factor: Any) -> Any:
    def scale(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and not leaf.is_floating_point():
            return leaf
        return leaf if leaf is None else leaf * factor

    return tree.map(scale, inputs)


def _batched(case: Case, system: nn.Module, k: int) -> Any:
    """The scaled inputs of all elements, stacked. Numbers get axes that broadcast over one element's shape."""
    axes = max(1, len(case.batch_shape) + len(system.size))  # type: ignore[arg-type]

    def stack(leaf: Any) -> Any:
        if leaf is None:
            return None
        if not isinstance(leaf, Tensor) or not leaf.dim():
            leaf = torch.as_tensor(leaf, dtype=case.dtype).reshape((1,) * axes)
        return torch.stack([_scaled(leaf, factor) for factor in _FACTORS])

    return tree.map(stack, case.input_at(system, k))  # type: ignore[arg-type]
