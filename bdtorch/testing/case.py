"""What the checks run: a model, its input, and how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.simulate.inputs import Constant, Inputs, resolve


@dataclass(frozen=True, eq=False)
class Case:
    """A model under test. Checks make it anew as often as they need it.

    Args:
        make: Makes the model; two calls make equal ones.
        inputs: As `bdtorch.simulate` takes them; sequences have at least ``steps`` slices. Floating tensors are cast to
            ``dtype``. Strong enough that the model does something (spikes, say) within ``steps``.
        dt: Step, ms.
        steps: How many steps the checks take.
        batch_shape: Batch of the state in the checks that do not concern batches; the shape of a model without a size.
        seed: Seed of initial states and noise.
        dtype: Floating dtype to run in. Loops are compared to 1e-11 in float64, and to 1e-4 in float32.
        autonomous: Whether the model itself is free of ``t`` (its inputs may depend on it).
        smooth: Whether `Flow.derivative` is differentiable everywhere along the run, for the check of gradients.
        differentiable: Whether a step has derivatives. Where it has none, gradients must be refused, not lost.
    """

    make: Callable[[], DynamicalSystem]
    inputs: Any = None
    dt: float = 0.1
    steps: int = 20
    batch_shape: tuple[int, ...] = ()
    seed: int = 1
    dtype: torch.dtype = torch.float64
    autonomous: bool = True
    smooth: bool = True
    differentiable: bool = True

    def system(self) -> DynamicalSystem:
        """A fresh model in the case's dtype."""
        return self.make().to(self.dtype)

    def state(self, system: DynamicalSystem, batch_shape: tuple[int, ...] = ()) -> State:
        """A fresh state, of shape ``(*batch_shape, *case.batch_shape, *size)``."""
        return initial_state(system, (*batch_shape, *self.batch_shape), dt=self.dt, seed=self.seed)

    def cast_inputs(self, dtype: torch.dtype | None = None) -> Any:
        """The inputs with floating tensors in ``dtype`` (default the case's)."""
        return tree.map(lambda leaf: _cast(leaf, dtype or self.dtype), self.inputs)

    def resolved(self, system: DynamicalSystem) -> Inputs:
        """The inputs, sorted as the front door sorts them."""
        return resolve(self.cast_inputs(system.dtype), system)

    def time(self, step: int) -> Tensor:
        """The time at the start of a step."""
        return torch.full((), step * self.dt, dtype=torch.float64)

    def input_at(self, system: DynamicalSystem, step: int) -> Any:
        """The input of one step."""
        resolved = self.resolved(system)
        return resolved.at([sequence[step] for sequence in resolved.sequences], self.time(step))

    def run(self, system: DynamicalSystem, state: State, inputs: Callable[[int], Any] | None = None) -> list[Any]:
        """``[(state, out), ...]`` after each step of a plain loop over ``system.step``."""
        history = []
        with torch.no_grad():
            for k in range(self.steps):
                now = self.input_at(system, k) if inputs is None else inputs(k)
                state, out = system.step(state, now, self.time(k), self.dt)
                history.append((state, out))
        return history


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    if isinstance(leaf, Constant):
        return Constant(_cast(leaf.value, dtype))
    return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def expect(condition: bool, message: str) -> None:
    """Raise where ``condition`` is False. (A bare ``assert`` would vanish under ``python -O``.)"""
    if not condition:
        raise AssertionError(message)


def expect_close(got: Any, want: Any, what: str, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Compare pytrees leaf by leaf: structure, shapes and dtypes; values to tolerance, and to the bit by default."""
    spec, wanted = tree.flatten(got)[1], tree.flatten(want)[1]
    expect(spec == wanted, f"{what}: expected the structure {wanted}, got {spec}")
    for (name, a), (_, b) in zip(tree.named_leaves(got), tree.named_leaves(want), strict=True):
        if not isinstance(b, Tensor):
            expect(a == b, f"{what}: expected {name} to be {b!r}, got {a!r}")
            continue
        expect(
            a.shape == b.shape and a.dtype == b.dtype,
            f"{what}: expected {name} to be {tuple(b.shape)} {b.dtype}, got {tuple(a.shape)} {a.dtype}",
        )
        close = a.is_floating_point() and (rtol or atol)
        wrong = ~torch.isclose(a, b, rtol=rtol, atol=atol) if close else a != b
        if bool(wrong.any()):
            where = tuple(wrong.nonzero()[0].tolist())
            raise AssertionError(
                f"{what}: {int(wrong.sum())} of {wrong.numel()} elements of {name} differ; "
                f"at {where} expected {b[where].item()!r}, got {a[where].item()!r}"
            )


def clone(value: Any) -> Any:
    """A pytree with its tensors copied."""
    return tree.map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, value)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """What rounding may do to a short run when operations are reordered or fused."""
    return {"rtol": 1e-11, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
