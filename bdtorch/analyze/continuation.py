"""Bifurcation diagrams in one parameter by numerical continuation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from bdtorch._flow import Flow
from bdtorch.analyze._cycle_branches import CycleBranches
from bdtorch.analyze._diagram import Branch, CycleBranch, Diagram
from bdtorch.analyze._equilibria import Equilibria
from bdtorch.analyze._evaluate import Evaluator
from bdtorch.analyze._field import VectorField, as_field
from bdtorch.analyze._starts import checked_bounds, given_starts, search
from bdtorch.analyze._trace import Steps


def continuation(
    system: Any,
    *,
    parameter: str,
    bounds: tuple[float, float],
    start: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
    window: Mapping[str, tuple[float, float]] | None = None,
    parameters: Mapping[str, float] | None = None,
    inputs: Any = 0.0,
    fixed: Mapping[str, float] | None = None,
    cycles: bool = True,
    max_step: float = 0.03,
    max_branches: int = 20,
    max_points: int = 2000,
    max_cycles: int = 300,
    max_period: float = 30.0,
    intervals: int = 40,
) -> Diagram:
    """Follow equilibria and limit cycles as one parameter varies.

    Equilibria are continued by pseudo-arclength steps; folds, Hopf points (with the first Lyapunov coefficient) and branch
    points are solved for, and the branches through branch points followed too. From each Hopf point the cycles are
    continued by orthogonal collocation on an adaptive mesh, with Floquet multipliers, folds of cycles, period doublings
    and torus bifurcations; and so are cycles on which simulations settle at three values of the parameter. Branches begin
    from equilibria found at both ends and in the middle of the range; a branch that touches none of these values and no
    other branch is not found, and neither are cycles that no Hopf point gives rise to and no simulation meets.

    Args:
        system: A `bdtorch.Flow`, a function ``f(state, parameters)`` or a `VectorField`.
        parameter: Attribute of the flow, input, parameter of the function, or variable in ``fixed``.
        bounds: Its range.
        start: Values of the variables, by name, near equilibria; for a function this or ``window`` is needed.
        window: Ranges of the variables in which to look for equilibria, which are also their scales. Default: what
            trajectories from the starts and the flow's initial state visit.
        parameters: Values for parameters: of a function all of them, of a flow those to replace.
        inputs: The constant input of a flow.
        fixed: Variables to hold at a value.
        cycles: Whether to follow limit cycles.
        max_step: The largest step, as a fraction of the range of the parameter and of the scales of the variables.
        max_branches: Most branches of equilibria to follow.
        max_points: Most steps in each direction along a branch.
        max_cycles: Most steps along a branch of cycles.
        max_period: A branch of cycles ends where the period is this many times its least: it nears a homoclinic orbit.
        intervals: Mesh intervals of a cycle, of four collocation points each.

    Raises:
        TypeError: ``system`` is of another kind.
        ValueError: a range is empty, reversed or not finite; a name is unknown; the derivative is not finite, is random, or
            depends on time; or no equilibrium was found.
    """
    low, high = checked_bounds("continuation(bounds=...)", bounds)
    counts = {"max_branches": max_branches, "max_points": max_points, "max_cycles": max_cycles, "intervals": intervals}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"`continuation({name}=...)`: expected a positive integer, got {count!r}")
    if not max_period > 1:
        raise ValueError(f"`continuation(max_period=...)`: expected a number above 1, got {max_period!r}")
    field = named_field(system, {parameter: low}, start, window, parameters, inputs, fixed, "continuation")
    if not 0 < max_step <= 1:
        raise ValueError(f"`continuation(max_step=...)`: expected a number in (0, 1], got {max_step!r}")
    engine, more = begin(
        field, parameter, (low, high), start, window, "continuation", max_step, max_points, max_branches
    )
    remarks = field.remarks + more
    points = tuple(engine.special(p) for p in engine.located)
    steps = Steps(0.02, 2.0 * max_step + 0.04, 1e-6, max_cycles, 0.99)
    followed = CycleBranches(engine, (low, high), steps, intervals, max_period, window)
    if cycles:
        followed.from_hopf_points([p for p in points if p.kind == "Hopf"])
        if len(field.names) > 1:
            followed.from_simulations()
    branches = tuple(engine.branch(i) for i in range(len(engine.paths)))
    return Diagram(
        names=field.names,
        parameter=parameter,
        bounds=(low, high),
        branches=branches,
        points=points,
        cycles=tuple(followed.branches),
        cycle_points=tuple(followed.special),
        remarks=remarks
        + _unfinished(branches, "equilibria")
        + _unfinished(followed.branches, "cycles")
        + followed.remarks,
    )


def _unfinished(branches: Sequence[Branch | CycleBranch], what: str) -> tuple[str, ...]:
    """Of each branch that could not be followed to an end: why, and where."""
    found = []
    for number, branch in enumerate(branches):
        if not branch.converged:
            ends = zip(branch.reasons, branch.parameter[[0, -1]].tolist(), strict=True)
            lost = [
                f"{reason} ({at:.6g})" for reason, at in ends if "converge" in reason or "steps were made" in reason
            ]
            found.append(f"branch {number} of {what} goes on: {'; '.join(lost)}")
    return tuple(found)


def begin(
    field: VectorField,
    parameter: str,
    bounds: tuple[float, float],
    start: Any,
    window: Mapping[str, tuple[float, float]] | None,
    label: str,
    max_step: float = 0.03,
    max_points: int = 2000,
    max_branches: int = 20,
) -> tuple[Equilibria, tuple[str, ...]]:
    """All branches of equilibria that are found, and what is to be remarked about them.

    Raises:
        ValueError: no equilibrium was found.
    """
    starts = given_starts(field, start, f"{label}(start=...)")
    first = starts[0] if len(starts) else field.initial()
    if first is None and window is not None and set(window) == set(field.names):
        first = np.array([0.5 * (window[name][0] + window[name][1]) for name in field.names])
    first = np.zeros(len(field.names)) if first is None else first
    low, high = bounds
    probe = field.replaced(settings={parameter: low})
    probe.check(first)
    evaluator = Evaluator(field, (parameter,), np.append(first, 0.5 * (low + high)))
    evaluator.check()
    # Not the very middle: symmetric problems have their singular points there.
    values = (low, low + 0.4873 * (high - low), high)
    found, spread = search(evaluator, starts, window, values, label)
    if not any(len(roots) for roots in found):
        raise ValueError(
            f"`{label}(start=...)`: no equilibrium was found at {parameter}={low:g}, {values[1]:g} or {high:g}; give a start "
            "near one, or a window"
        )
    steps = Steps(first=max_step / 3.0, largest=max_step, count=max_points)
    engine = Equilibria(evaluator, np.append(spread, high - low), bounds, steps)
    left = 0
    for value, roots in zip(values, found, strict=True):
        for x in roots:
            z = np.append(x, value)
            if len(engine.paths) < max_branches:
                engine.follow(z)
            elif not engine.known(z):
                left += 1
    for point in [p for p in engine.located if p.kind == "branch point"]:
        engine.switch(point, max_branches)
    remarks: tuple[str, ...] = ()
    if left:
        remarks += (f"{left} equilibria on further branches were not followed: max_branches={max_branches}",)
    points = np.vstack([[p.y for p in path] for path in engine.paths])
    # Beside the branches too: on an equilibrium at the origin many a parameter drops out.
    beside = points + 0.1 * np.random.default_rng(0).standard_normal(points.shape) * np.append(
        np.ones(evaluator.n), 0.0
    )
    if not evaluator.jacobian(np.vstack([points, beside]) * engine.scale)[:, :, -1].any():
        remarks += (f"the derivative does not depend on {parameter} anywhere near the branches",)
    return engine, remarks


def named_field(
    system: Any,
    varied: Mapping[str, float],
    start: Any,
    window: Mapping[str, Any] | None,
    parameters: Mapping[str, float] | None,
    inputs: Any,
    fixed: Mapping[str, float] | None,
    label: str,
) -> VectorField:
    """The field of an analyser's arguments, in which the parameters to vary exist.

    Raises:
        ValueError: they do not, or nothing names the variables of a function.
    """
    one = start if isinstance(start, Mapping) or not start else start[0]
    names = [*dict.fromkeys([*(window or {}), *(one or {}), *(fixed or {})])]
    given = dict(parameters or {})
    if not isinstance(system, (Flow, VectorField)):
        if callable(system) and not isinstance(system, nn.Module) and not (set(names) - set(fixed or {})):
            raise ValueError(f"`{label}(start=...)`: a function has no initial state: give a start or a window")
        given = {**{k: v for k, v in varied.items() if k not in names}, **given}
    field = as_field(system, names, parameters=given, inputs=inputs, fixed=fixed)
    for name in varied:
        field.value(name)
    return field
