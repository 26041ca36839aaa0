"""The check that the native loop's backpropagation through time gives the reference loop's gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.simulate import Constant, Loop, LoopError, Native, Reference, simulate
from bdtorch.testing.case import Case, expect


def check_native_gradients(case: Case, *, rtol: float = 1e-9) -> None:
    """Gradients by initial state, inputs and parameters through the native loop, in float64, kept or recomputed.

    Args:
        case: The model.
        rtol: Bound of the difference, relative to the largest entry of the gradient.
    """
    case = dataclasses.replace(case, dtype=torch.float64)
    if not case.differentiable:
        for refusing in (Reference(), Native()):
            _expect_refusal(case, refusing)
        return
    want = _gradients(case, Reference())
    for loop in (Native(), Native(recompute=7)):
        got = _gradients(case, loop)
        expect(got.keys() == want.keys(), f"gradients reach {sorted(want)}, but in the native loop {sorted(got)}")
        for name, gradient in want.items():
            error, scale = float((got[name] - gradient).abs().max()), float(gradient.abs().max())
            expect(
                error <= rtol * scale,
                f"the gradient by {name} through {loop} is off by {error:.3g} where its largest entry is {scale:.3g}",
            )


def _expect_refusal(case: Case, loop: Loop) -> None:
    try:
        _gradients(case, loop)
    except (NotImplementedError, LoopError):
        return
    raise AssertionError(f"gradients through {loop}: expected an error, since a step has no derivative")


def _gradients(case: Case, loop: Loop) -> dict[str, Tensor]:
    """The gradient of a weighted sum of states and outputs, by the name of what it is taken by."""
    system = case.system()
    sources: dict[str, Tensor] = dict(system.named_parameters())
    state = _required(case.state(system), "state", sources)
    inputs = _required(case.cast_inputs(), "inputs", sources)
    record = {"state": lambda after, out: after, "out": lambda after, out: out}
    sol = simulate(
        system, inputs, dt=case.dt, duration=_duration(case), state=state, record=record, loop=loop, check_finite=False
    )
    generator = torch.Generator().manual_seed(1)
    terms = [
        (leaf * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)).sum()
        for leaf in tree.tensors((sol.state, sol.records))
        if leaf.is_floating_point() and leaf.requires_grad
    ]
    if not terms:
        return {}
    names = [name for name, source in sources.items() if source.numel()]
    found = torch.autograd.grad(sum(terms), [sources[name] for name in names], allow_unused=True)  # type: ignore[arg-type]
    zeros = (torch.zeros_like(sources[name]) for name in names)
    return {
        name: zero if gradient is None else gradient for name, gradient, zero in zip(names, found, zeros, strict=True)
    }


def _duration(case: Case) -> float | None:
    lengths = [
        leaf.shape[0]
        for leaf in tree.leaves(case.inputs)
        if isinstance(leaf, Tensor) and leaf.dim() and not isinstance(leaf, Constant)
    ]
    return None if lengths else case.steps * case.dt


def _required(value: State | Any, room: str, sources: dict[str, Tensor]) -> Any:
    """A copy whose floating tensors require a gradient; they are noted in ``sources``."""

    def leaf(x: Any) -> Any:
        if isinstance(x, Constant):
            return Constant(leaf(x.value))
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        x = x.detach().clone().requires_grad_()
        sources[f"{room} {len(sources)}"] = x
        return x

    return tree.map(leaf, value)
