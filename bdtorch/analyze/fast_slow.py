"""Fast-slow analysis: the fast subsystem's bifurcation diagram with the whole trajectory over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import bdtorch.simulate as run
from bdtorch import _tree as tree
from bdtorch._flow import Flow
from bdtorch._system import initial_state
from bdtorch.analyze._diagram import Diagram
from bdtorch.analyze._evaluate import Array, Evaluator
from bdtorch.analyze._field import VectorField
from bdtorch.analyze._results import Trajectory, tensor
from bdtorch.analyze._starts import checked_bounds, given_starts
from bdtorch.analyze._trajectory import flow_one
from bdtorch.analyze.continuation import continuation, named_field

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class FastSlow:
    """A fast subsystem and the trajectory that its slow variable carries through it."""

    names: tuple[str, ...]
    """All variables, in the order of the trajectory's columns."""
    slow: str
    """The slow one."""
    diagram: Diagram
    """Equilibria and limit cycles of the fast subsystem, the slow variable its parameter."""
    trajectory: Trajectory
    """The whole system, ``x`` of shape ``(points, n)``."""
    drift: tuple[Tensor, ...]
    """The slow variable's derivative on each branch of the diagram's equilibria, ``(points,)``."""
    ratio: float
    """How much slower it is: the median of the relative speeds of the fastest and the slow variable on the trajectory."""

    def plot(self, ax: Axes | None = None, variable: str | None = None) -> Axes:
        """Draw a fast ``variable`` (default the first) against the slow one into ``ax`` (default: a new figure)."""
        from bdtorch.analyze._draw import draw_fast_slow

        return draw_fast_slow(self, ax, variable)


def fast_slow(
    system: Any,
    *,
    slow: str,
    duration: float,
    bounds: tuple[float, float] | None = None,
    start: Mapping[str, float] | None = None,
    skip: float = 0.0,
    samples: int = 20_000,
    dt: float | None = None,
    parameters: Mapping[str, float] | None = None,
    inputs: Any = 0.0,
    **options: Any,
) -> FastSlow:
    """Take a system apart by time scale.

    Args:
        system: A `bdtorch.Flow`, a function ``f(state, parameters)`` or a `VectorField`.
        slow: The slow variable.
        duration: How long to follow the whole system.
        bounds: Range of the slow variable in the diagram; default what the trajectory visits, and half as much on each side.
        start: All variables at the start of the trajectory; default the flow's initial state.
        skip: Time to leave out of the trajectory at its beginning.
        samples: Points of the trajectory, where ``dt`` is not given.
        dt: For a flow, the step with which `bdtorch.simulate` runs the module as it is; all steps are kept. Without it the
            trajectory is solved for with adaptive steps, which for long ones takes longer.
        parameters: As in `continuation`.
        inputs: As in `continuation`.
        **options: Of `continuation`, for the diagram of the fast subsystem.

    Raises:
        TypeError: ``system`` is of another kind.
        ValueError: ``slow`` is no variable or the only one, or another argument is not as described.
        RuntimeError: the trajectory could not be followed.
    """
    field = named_field(system, {}, start, None, parameters, inputs, None, "fast_slow")
    if slow not in field.names:
        raise ValueError(f"`fast_slow(slow=...)`: expected one of the variables {list(field.names)}, got {slow!r}")
    if len(field.names) == 1:
        raise ValueError("`fast_slow(slow=...)`: there is no fast variable beside it")
    for name, value in (("duration", duration), ("samples", samples)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"`fast_slow({name}=...)`: expected a number above 0, got {value!r}")
    if not 0 <= skip < duration:
        raise ValueError(f"`fast_slow(skip=...)`: expected a time within the duration {duration:g}, got {skip!r}")
    starts = given_starts(field, start, "fast_slow(start=...)")
    first = starts[0] if len(starts) else field.initial()
    if first is None:
        raise ValueError("`fast_slow(start=...)`: a function has no initial state: give the values of all variables")
    field.check(first)
    evaluator = Evaluator(field, (), first)
    if dt is None:
        times, states = _trajectory(evaluator, first, duration, skip, int(samples))
    else:
        times, states = _simulated(system, start, inputs, parameters, duration, skip, dt)
    column = field.names.index(slow)
    limits = _around(states[:, column]) if bounds is None else checked_bounds("fast_slow(bounds=...)", bounds)
    held = field.replaced(fixed={slow: 0.5 * (limits[0] + limits[1])})
    window = {name: _around(states[:, field.names.index(name)]) for name in held.names}
    diagram = continuation(held, parameter=slow, bounds=limits, **{"window": window, **options})
    return FastSlow(
        names=field.names,
        slow=slow,
        diagram=diagram,
        trajectory=Trajectory(tensor(times), tensor(states)),
        drift=tuple(_drift(evaluator, field, b.x.numpy(), b.parameter.numpy(), column) for b in diagram.branches),
        ratio=_ratio(evaluator, states, column),
    )


def _trajectory(evaluator: Evaluator, first: Array, duration: float, skip: float, samples: int) -> tuple[Array, Array]:
    times = np.linspace(skip, duration, samples)
    if skip == 0:
        return times, flow_one(evaluator, first, times)
    return times, flow_one(evaluator, first, np.concatenate([[0.0], times]))[1:]


def _simulated(
    system: Any,
    start: Mapping[str, float] | None,
    inputs: Any,
    parameters: Mapping[str, float] | None,
    duration: float,
    skip: float,
    dt: float,
) -> tuple[Array, Array]:
    """The trajectory as the module's own integrator makes it."""
    if not isinstance(system, Flow) or parameters:
        raise ValueError("`fast_slow(dt=...)`: only a Flow with its own parameters is simulated; leave dt out")
    state = initial_state(system)
    leaves, spec = tree.flatten(state)
    if start is not None:
        names = [name for name, _ in tree.named_leaves(state)]
        leaves = [torch.full_like(leaf, start[name]) for name, leaf in zip(names, leaves, strict=True)]
    kept = {name: run.trace(name) for name, _ in tree.named_leaves(state)}
    with torch.no_grad():
        sol = run.simulate(
            system, inputs, dt=dt, duration=duration, state=tree.unflatten(leaves, spec), record=kept, progress=False
        ).whole()
    states = torch.cat([sol[name].reshape(len(sol[name]), -1) for name in kept], dim=1).double().numpy()
    times = dt * np.arange(1, len(states) + 1)
    return times[times > skip], states[times > skip]


def _around(x: Array) -> tuple[float, float]:
    """The range of ``x`` and half as much on each side."""
    low, high = float(x.min()), float(x.max())
    margin = 0.5 * (high - low) or max(abs(low), 1.0)
    return low - margin, high + margin


def _drift(evaluator: Evaluator, field: VectorField, x: Array, parameter: Array, column: int) -> Tensor:
    return tensor(evaluator.f(np.insert(x, column, parameter, axis=1))[:, column])


def _ratio(evaluator: Evaluator, states: Array, column: int) -> float:
    speeds = np.abs(evaluator.f(states)) / np.maximum(np.ptp(states, axis=0), 1e-300)
    middle = np.median(speeds, axis=0)
    return float(np.delete(middle, column).max() / max(middle[column], 1e-300))
