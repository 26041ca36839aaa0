"""`RowMap`: a system of many variables as a function over rows, for analysers that take many points at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bdtorch import _tree as tree
from bdtorch._flow import Flow
from bdtorch._system import DynamicalSystem, initial_state

Function = Callable[[Tensor], Tensor]
"""``function(x)`` over the last axis: ``(*batch, n)`` to ``(*batch, n)``."""


class RowMap:
    """The derivative of a flow, the step of a system or a function, from ``(points, n)`` to ``(points, n)``.

    Args:
        system: A `bdtorch.Flow`, of which `derivative` counts (without ``dt``) or the step (with it); another
            `bdtorch.DynamicalSystem`, whose step counts; or a `Function`.
        label: Name of the analyser, for errors.
        inputs: The constant input.
        dt: Step of a system in discrete time, ms.
        discrete: Whether a function is a map ``x -> f(x)`` instead of a derivative.

    Raises:
        TypeError: ``system`` is neither, or its state is not made of floating tensors of one dtype.
        ValueError: ``dt`` is missing, or given to a function.
    """

    def __init__(self, system: Any, label: str, *, inputs: Any = None, dt: float | None = None, discrete: bool = False):
        self.label, self.system, self.inputs, self.dt = label, system, inputs, dt
        self.spec: Any = None
        self.dtype: torch.dtype | None = None
        if isinstance(system, DynamicalSystem):
            if discrete and dt is None:
                raise ValueError(f"`{label}(dt=...)`: expected the step of the map, got None")
            if dt is None and not isinstance(system, Flow):
                raise ValueError(f"`{label}(dt=...)`: {type(system).__name__} is no Flow: expected a step, got None")
            self.discrete = dt is not None
            self._read_state(system)
        elif callable(system) and not isinstance(system, nn.Module):
            if dt is not None or inputs is not None:
                raise ValueError(f"`{label}(dt=..., inputs=...)`: a function takes neither")
            self.discrete = discrete
        else:
            raise TypeError(f"`{label}(system=...)`: expected a system or a function, got {type(system).__name__}")
        if dt is not None and not (isinstance(dt, (int, float)) and 0 < dt < math.inf):
            raise ValueError(f"`{label}(dt=...)`: expected a finite number above 0, got {dt!r}")

    def _read_state(self, system: DynamicalSystem) -> None:
        state = initial_state(system, dt=self.dt)
        leaves, self.spec = tree.flatten(state)
        for name, leaf in tree.named_leaves(state):
            if not leaf.is_floating_point() or leaf.dtype != leaves[0].dtype:
                raise TypeError(
                    f"`{self.label}(system=...)`: variable {name} of {type(system).__name__} is {leaf.dtype}; "
                    "expected floating variables of one dtype"
                )
        if not leaves:
            raise TypeError(f"`{self.label}(system=...)`: {type(system).__name__} has no state")
        self.shapes = [tuple(leaf.shape) for leaf in leaves]
        self.dtype = leaves[0].dtype

    # States as rows

    def rows(self, points: Any, name: str) -> Tensor:
        """States with one leading axis as rows, checked: finite, of the system's width and dtype, at least one."""
        where = f"`{self.label}({name}=...)`"
        if isinstance(points, Tensor):
            x = points
            if x.dim() != 2:
                raise ValueError(f"{where}: expected shape (points, variables), got {tuple(x.shape)}")
        else:
            x = self._joined(points, where)
        if not x.is_floating_point() or (self.dtype is not None and x.dtype != self.dtype):
            raise TypeError(f"{where}: expected {self.dtype or 'a floating dtype'}, got {x.dtype}")
        if self.spec is not None and x.shape[1] != sum(map(math.prod, self.shapes)):
            raise ValueError(f"{where}: expected {sum(map(math.prod, self.shapes))} variables, got {x.shape[1]}")
        if not x.numel():
            raise ValueError(f"{where}: expected at least one point, got shape {tuple(x.shape)}")
        bad = (~x.isfinite()).any(1).nonzero()[:, 0]
        if len(bad):
            raise ValueError(f"{where}: expected finite numbers, got others in row {int(bad[0])}")
        return x.detach().clone()

    def _joined(self, points: Any, where: str) -> Tensor:
        leaves, spec = tree.flatten(points)
        if self.spec is None or spec != self.spec or not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise TypeError(f"{where}: expected a tensor (points, variables) or a state with that axis, got {points!r}")
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if tuple(leaf.shape[1:]) != shape or len(leaf) != len(leaves[0]):
                raise ValueError(f"{where}: expected (points, *{shape}), got {tuple(leaf.shape)}")
        return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)

    def state(self, x: Tensor) -> Any:
        """Rows as states with a leading axis; of a function, the rows themselves."""
        if self.spec is None:
            return x
        parts = x.split([math.prod(shape) for shape in self.shapes], -1)
        leaves = [part.reshape(*x.shape[:-1], *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return tree.unflatten(leaves, self.spec)

    # The function

    def __call__(self, x: Tensor, inputs: Any = None, t: float = 0.0) -> Tensor:
        """``f(x)`` of the rows: the derivative, or the next state. ``inputs`` replaces the constant input."""
        if self.spec is None:
            return self._checked(self.system(x), x)
        state, given = self.state(x), self.inputs if inputs is None else inputs
        time = torch.tensor(t, dtype=torch.float64, device=x.device)
        if self.discrete:
            result, _ = self.system.step(state, given, time, self.dt)
        else:
            result = self.system.derivative(state, given, time)
        leaves, spec = tree.flatten(result)
        if spec != self.spec:
            raise ValueError(f"`{self.label}(system=...)`: expected {self.spec} of its step or derivative, got {spec}")
        flat = []
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            value = torch.as_tensor(leaf, dtype=x.dtype, device=x.device)
            flat.append(value.expand(*x.shape[:-1], *shape).reshape(*x.shape[:-1], -1))
        return torch.cat(flat, -1)

    def _checked(self, y: Any, x: Tensor) -> Tensor:
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"`{self.label}(system=...)`: expected a function over the last axis, {tuple(x.shape)} to the same, "
                f"got {got}; torch.func.vmap makes one of a function of a single point"
            )
        return y

    def residual(self, x: Tensor) -> Tensor:
        """What vanishes at a fixed point: the derivative, or how far the map moves a point."""
        return self(x) - x if self.discrete else self(x)

    def check(self, x: Tensor) -> None:
        """Make sure that what is given is a pure, autonomous, differentiable function of each row alone.

        Raises:
            ValueError: it is not.
        """
        few = x[: min(2, len(x))].clone().requires_grad_()
        with torch.enable_grad():
            first = self(few)
        if not first.requires_grad:
            raise ValueError(f"`{self.label}(system=...)`: what it computes has no gradient with respect to its state")
        with torch.no_grad():
            again, later, alone = self(few), self(few, t=123.45), self(few[:1])
        if not torch.equal(first.nan_to_num(), again.nan_to_num()):
            raise ValueError(
                f"`{self.label}(system=...)`: two calls with the same state differ: it depends on hidden randomness or on "
                "a state of its own"
            )
        if not torch.equal(first.nan_to_num(), later.nan_to_num()):
            raise ValueError(f"`{self.label}(system=...)`: it depends on the time t; expected an autonomous system")
        scale = float(alone.nan_to_num().abs().max())
        if not torch.allclose(first[:1], alone, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
            raise ValueError(
                f"`{self.label}(system=...)`: rows influence each other; expected a function of the last axis"
            )

    def jacobian(self, x: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Values and Jacobians of each row, ``(points, n)`` and ``(points, n, n)``, by reverse-mode differentiation."""
        value, pull = torch.func.vjp(self if function is None else function, x)  # type: ignore[misc]
        n = x.shape[1]
        rows = torch.eye(n, dtype=x.dtype, device=x.device)[:, None].expand(n, *x.shape)
        (columns,) = torch.func.vmap(pull)(rows)
        return value.detach(), columns.detach().transpose(0, 1)
