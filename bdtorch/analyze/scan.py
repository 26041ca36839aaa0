"""Scans of a parameter by simulation, for systems without a derivative or with attractors that are not cycles."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import bdtorch.simulate as run
from bdtorch import _tree as tree
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch.analyze._field import owner_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Scan:
    """Extrema of attractors against a parameter."""

    names: tuple[str, ...]
    """The variables."""
    parameter: str
    """What was varied."""
    values: Tensor
    """Its values, ``(points,)``."""
    minimum: Tensor
    """Smallest value of every variable once the transient is over, ``(points, n)``."""
    maximum: Tensor
    """Largest value, ``(points, n)``."""
    peaks: dict[str, tuple[Tensor, ...]]
    """Of every variable at every point the local maxima, in order of time."""
    settled: Tensor
    """Whether the extrema of both halves of the time agree within a hundredth of the scan's range, boolean ``(points,)``."""
    finite: Tensor
    """Whether the simulation stayed finite, boolean ``(points,)``; where it did not, the extrema are NaN."""

    def plot(self, ax: Axes | None = None, variable: str | None = None) -> Axes:
        """Draw the local extrema of ``variable`` (default the first) into ``ax`` (default: a new figure)."""
        from bdtorch.analyze._draw import draw_scan

        return draw_scan(self, ax, variable)


def scan(
    system: DynamicalSystem,
    *,
    parameter: str,
    values: Sequence[float] | Tensor,
    dt: float,
    duration: float,
    transient: float,
    inputs: Any = None,
    seed: int = 0,
    loop: Any = "auto",
) -> Scan:
    """Simulate a system at many values of a parameter in one batch, and keep the extrema of where it ends up.

    Args:
        system: Any system whose state is made of floating tensors; it may have no derivative. It is copied.
        parameter: Attribute (a dotted path reaches into parts), or ``"inputs"``.
        values: Finite, rising, ``(points,)``.
        dt: Step, ms.
        duration: Time that counts, ms.
        transient: Time before it, ms.
        inputs: Constant input, where it is not what varies.
        seed: Of random initial states; all points of the scan have the same.
        loop: As in `bdtorch.simulate`.

    Raises:
        TypeError: ``system`` is no `DynamicalSystem`, or its state is not made of floating tensors.
        ValueError: ``parameter`` is no number of the system, ``values`` are not as described, or a time is not positive.
    """
    if not isinstance(system, DynamicalSystem):
        raise TypeError(f"`scan(system=...)`: expected a DynamicalSystem, got {type(system).__name__}")
    numbers = torch.as_tensor(values, dtype=torch.float64)
    if (
        numbers.dim() != 1
        or not len(numbers)
        or not bool(numbers.isfinite().all())
        or bool((numbers.diff() <= 0).any())
    ):
        raise ValueError(f"`scan(values=...)`: expected finite numbers that rise, got {values!r}")
    for name, value in (("dt", dt), ("duration", duration), ("transient", transient)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"`scan({name}=...)`: expected a number above 0, got {value!r}")
    one = initial_state(system, dt=dt, seed=seed)
    names = []
    for name, leaf in tree.named_leaves(one):
        if not leaf.is_floating_point():
            raise TypeError(f"`scan(system=...)`: variable {name} is {leaf.dtype}, expected floats")
        names += [name] if leaf.numel() == 1 else [f"{name}[{i}]" for i in range(leaf.numel())]
    _check_repeatable(system, one, inputs, parameter, float(numbers[0]), dt)
    column = numbers.to(system.dtype).reshape(-1, *[1] * len(system.size))
    varied = copy.deepcopy(system)
    if parameter == "inputs":
        inputs = run.Constant(column.to(system.device))
    else:
        _put(varied, parameter, column)
    state = tree.map(lambda leaf: leaf.expand(len(numbers), *leaf.shape).clone(), one)
    states = _states(varied, state, inputs, dt, duration, transient, loop)
    return _extrema(tuple(names), parameter, numbers, states)


def _check_repeatable(
    system: DynamicalSystem, state: Any, inputs: Any, parameter: str, value: float, dt: float
) -> None:
    """Make sure that a step has the same result twice.

    Raises:
        ValueError: it has not.
    """
    given = torch.tensor(value, dtype=system.dtype, device=system.device) if parameter == "inputs" else inputs
    if given is None:
        given = torch.zeros((), dtype=system.dtype, device=system.device) if system.takes_input else None
    time = torch.zeros((), dtype=torch.float64, device=system.device)
    with torch.no_grad():
        one, two = (tree.leaves(system.step(state, given, time, dt)[0]) for _ in range(2))
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, two, strict=True)):
        raise ValueError(
            "`scan(system=...)`: two steps from the same state differ: it depends on hidden randomness or on a state of "
            "its own"
        )


def _put(system: DynamicalSystem, parameter: str, column: Tensor) -> None:
    """Make the parameter a buffer of one value for each member of the batch."""
    owner, last = owner_of(system, parameter)
    value = getattr(owner, last, None) if owner is not None else None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number and not (isinstance(value, Tensor) and value.is_floating_point() and value.numel() == 1):
        raise ValueError(
            f"`scan(parameter=...)`: {parameter!r} is no number among the attributes of {type(system).__name__}"
        )
    for store in (owner._parameters, owner._buffers, owner.__dict__):
        store.pop(last, None)
    owner.register_buffer(last, column.to(system.device))


def _states(
    system: DynamicalSystem, state: Any, inputs: Any, dt: float, duration: float, transient: float, loop: Any
) -> Tensor:
    """All variables over the time that counts, ``(points, time, n)``."""
    with torch.no_grad():
        settled = run.simulate(
            system,
            inputs,
            dt=dt,
            duration=transient,
            state=state,
            record={},
            loop=loop,
            check_finite=False,
            progress=False,
        ).whole()
        kept = {name: run.trace(name) for name, _ in tree.named_leaves(state)}
        sol = run.simulate(
            system,
            inputs,
            dt=dt,
            duration=duration,
            state=settled.state,
            t0=transient,
            record=kept,
            loop=loop,
            check_finite=False,
            progress=False,
        ).whole()
    return torch.cat([sol[name].flatten(2) for name in kept], dim=-1).transpose(0, 1).double()


def _extrema(names: tuple[str, ...], parameter: str, values: Tensor, states: Tensor) -> Scan:
    finite = states.isfinite().all(-1).all(-1)
    half = states.shape[1] // 2
    low, high = states.amin(1), states.amax(1)
    low[~finite], high[~finite] = torch.nan, torch.nan
    size = (
        (high[finite].amax(0) - low[finite].amin(0)).clamp(min=1e-300)
        if bool(finite.any())
        else low.new_ones(len(names))
    )
    early, late = states[:, :half], states[:, half:]
    change = torch.maximum((early.amin(1) - late.amin(1)).abs(), (early.amax(1) - late.amax(1)).abs())
    # What rounding makes of a value at rest has no peaks.
    moving = ((high - low) > 1e-6 * size)[:, None]
    tops = moving & (states[:, 1:-1] > states[:, :-2]) & (states[:, 1:-1] >= states[:, 2:])
    peaks = {name: tuple(states[p, 1:-1, i][tops[p, :, i]] for p in range(len(values))) for i, name in enumerate(names)}
    return Scan(names, parameter, values, low, high, peaks, finite & (change <= 0.01 * size).all(-1), finite)
