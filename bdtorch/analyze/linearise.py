"""Linearisation of a system of many variables at points: Jacobians by state, input and parameters, and modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bdtorch._replaced import call_with, places_of
from bdtorch._system import DynamicalSystem
from bdtorch.analyze._rows import RowMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Linearisation:
    r"""A system near points $x^*$: $\dot\delta = J \delta$, or $\delta_{t+1} = J \delta_t$ in discrete time."""

    x: Tensor
    """The points, ``(points, n)``."""
    jacobian: Tensor
    """$J$, ``(points, n, n)``."""
    eigenvalues: Tensor
    """Complex, ``(points, n)``; slowest to decay first: by falling real part, in discrete time by falling modulus."""
    right: Tensor
    """Modes: right eigenvectors of unit length in the columns of ``(points, n, n)``, in that order."""
    left: Tensor
    """Left eigenvectors in rows, scaled so that ``left @ right`` is the identity: how much of each mode a perturbation
    holds. NaN where modes do not span the space."""
    discrete: bool
    """Whether the system is a map."""
    inputs: Tensor | None = None
    """By the input: ``(points, n, *shape of the input)``; None where it is not asked for."""
    parameters: dict[str, Tensor] | None = None
    """By parameters: ``(points, n, *shape)``; None where none is asked for."""

    @property
    def stable(self) -> Tensor:
        """Whether all modes decay, ``(points,)``."""
        if self.discrete:
            return (self.eigenvalues.abs() < 1.0).all(1)
        return (self.eigenvalues.real < 0.0).all(1)

    @property
    def unstable_modes(self) -> Tensor:
        """How many modes grow, ``(points,)``."""
        growing = self.eigenvalues.abs() > 1.0 if self.discrete else self.eigenvalues.real > 0.0
        return growing.sum(1)

    @property
    def time_constants(self) -> Tensor:
        """How long each mode takes to fall (negative: to grow) by the factor e: ms, or steps; ``(points, n)``."""
        rate = self.eigenvalues.abs().log() if self.discrete else self.eigenvalues.real
        return -1.0 / rate

    def plot(self, point: int = 0, ax: Axes | None = None) -> Axes:
        """Draw the eigenvalues at one of the points, and the border of stability, into ``ax`` (default: a new figure)."""
        from bdtorch.analyze._draw_points import draw_spectrum

        return draw_spectrum(self, point, ax)


def linearise(
    system: Any,
    points: Any,
    *,
    inputs: Any = None,
    dt: float | None = None,
    discrete: bool = False,
    by_inputs: bool = False,
    by_parameters: Sequence[str] = (),
) -> Linearisation:
    """Jacobians and modes of a system at points, which need not be fixed points.

    Args:
        system: A `bdtorch.Flow` (its derivative, or with ``dt`` its step), another `bdtorch.DynamicalSystem` (its step), or
            a function ``(*batch, n)`` to ``(*batch, n)``.
        points: States with one leading axis: ``(points, n)``, or the system's state with leaves ``(points, *size)``.
        inputs: The constant input.
        dt: Step of the map, ms.
        discrete: Whether a function is a map.
        by_inputs: Differentiate by ``inputs`` too, which is then a floating tensor.
        by_parameters: Names of the system's parameters or buffers (as in ``state_dict``) to differentiate by.

    Raises:
        TypeError, ValueError: An argument is not as described, or the system is not a differentiable function of its state
            alone.
    """
    rows = RowMap(system, "linearise", inputs=inputs, dt=dt, discrete=discrete)
    x = rows.rows(points, "points")
    rows.check(x)
    made = linearised(rows, x)
    if by_inputs:
        made = replace(made, inputs=_by_inputs(rows, x))
    if by_parameters:
        made = replace(made, parameters={name: _by_parameter(rows, x, name) for name in by_parameters})
    return made


def linearised(rows: RowMap, x: Tensor) -> Linearisation:
    """Jacobians and modes at the rows of ``x``, in blocks that bound the memory beside the result."""
    n = x.shape[1]
    block = max(1, (1 << 27) // (n * n * x.element_size()))
    jacobian = torch.cat([rows.jacobian(part)[1] for part in x.split(block)])
    if not bool(jacobian.isfinite().all()):
        bad = int((~jacobian.isfinite()).any(2).any(1).nonzero()[0, 0])
        raise ValueError(f"`{rows.label}`: the Jacobian at point {bad} is not finite")
    values, right, left = modes(jacobian, rows.discrete)
    return Linearisation(x, jacobian, values, right, left, rows.discrete)


def modes(jacobian: Tensor, discrete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues, slowest first, with right eigenvectors in columns and left ones in rows."""
    values, right = torch.linalg.eig(jacobian)
    order = (values.abs() if discrete else values.real).sort(dim=1, descending=True, stable=True)[1]
    values = values.gather(1, order)
    right = right.gather(2, order[:, None].expand_as(right))
    left, info = torch.linalg.inv_ex(right)
    size = right.abs().sum(1).amax(1) * left.abs().sum(1).amax(1)  # the condition number in the 1-norm
    lost = (info != 0) | ~(size < 0.1 / torch.finfo(jacobian.dtype).eps)
    left = torch.where(lost[:, None, None], math.nan, left)
    return values, right, left


def _each(rows: RowMap, x: Tensor, value: Tensor, run: Any) -> Tensor:
    """Derivatives of every row of ``run(value)`` by a ``value`` that all rows share, ``(points, n, *shape)``."""
    found = []
    for number in range(len(x)):
        point = x[number : number + 1]
        found.append(torch.func.jacrev(lambda v, at=point: run(at, v)[0])(value))
    return torch.stack(found).detach()


def _by_inputs(rows: RowMap, x: Tensor) -> Tensor:
    if not isinstance(rows.inputs, Tensor) or not rows.inputs.is_floating_point():
        raise TypeError(f"`linearise(inputs=...)`: expected a floating tensor to differentiate by, got {rows.inputs!r}")
    return _each(rows, x, rows.inputs, lambda point, value: rows(point, inputs=value))


class _Called(torch.nn.Module):
    """A row map as a module, whose parameters `call_with` can replace."""

    def __init__(self, rows: RowMap) -> None:
        super().__init__()
        self.system = rows.system
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x)


def _by_parameter(rows: RowMap, x: Tensor, name: str) -> Tensor:
    if not isinstance(rows.system, DynamicalSystem):
        raise TypeError("`linearise(by_parameters=...)`: a function has no parameters by name")
    tensors = {**dict(rows.system.named_parameters()), **dict(rows.system.named_buffers())}
    if name in tensors:
        called = _Called(rows)
        value = tensors[name].detach()
        places = places_of(called)
        return _each(rows, x, value, lambda point, new: call_with(called, {f"system.{name}": new}, (point,), places))
    if isinstance(vars(rows.system).get(name), float):
        return _by_float(rows, x, name)
    known = sorted(tensors.keys() | {key for key, value in vars(rows.system).items() if isinstance(value, float)})
    raise ValueError(f"`linearise(by_parameters=...)`: expected some of {known}, got {name!r}")


def _by_float(rows: RowMap, x: Tensor, name: str) -> Tensor:
    """By a parameter that the system holds as a Python number, in whose place a tensor stands meanwhile."""
    old = vars(rows.system)[name]
    value = torch.tensor(old, dtype=x.dtype, device=x.device)

    def run(point: Tensor, new: Tensor) -> Tensor:
        object.__setattr__(rows.system, name, new)
        return rows(point)

    try:
        return _each(rows, x, value, run)
    finally:
        object.__setattr__(rows.system, name, old)
