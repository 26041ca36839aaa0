"""`ddeint`: solve a delay differential equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate import _dde_fixed as fixed
from bdtorch.integrate import exponential, implicit, rosenbrock, runge_kutta
from bdtorch.integrate._base import Adaptive, Integrator
from bdtorch.integrate._control import PIController
from bdtorch.integrate._dde_adaptive import DelayTolerance, solve_adaptively
from bdtorch.integrate._dde_fixed import DelayEquation, DelayStep
from bdtorch.integrate._delays import checked_lags
from bdtorch.integrate._door import (
    Walk,
    check_arguments,
    check_derivative,
    check_finite,
    check_function,
    check_number,
    check_whole,
    renamed,
    rising_times,
)
from bdtorch.integrate._equation import blind, check_linear, check_method, check_state, unwritten
from bdtorch.integrate._history import History, Ring
from bdtorch.integrate._loop import PythonLoop, TimeLoop, iterate, stacked
from bdtorch.integrate.runge_kutta import RK4, Tsit5

_HIGHEST = 5

METHODS = tuple(
    replace(method, family="DDE", kind=f"{method.kind}, history of degree {fixed.degree_of(int(method.order), False)}")
    for module in (runge_kutta, exponential, implicit, rosenbrock)
    for method in module.METHODS
    if method.order is not None and method.order <= _HIGHEST
)
"""The methods for delay equations, for `bdtorch.integrate.methods`."""


@dataclass(frozen=True, eq=False)
class DDESolution:
    """What `ddeint` found.

    Attributes:
        t: Output times, ``(T,)``.
        y: The solution there: each leaf has a leading axis of times.
        history: The solution as a function of time: all of it where the steps are adaptive, else as far back from the end
            as the longest delay reaches. It can be the ``history`` of a run that goes on from there.
        steps: Steps taken.
        rejections: Steps tried and not taken.
        evaluations: Calls of the derivative in adaptive steps; None for fixed steps.
    """

    t: Tensor
    y: State
    history: History
    steps: int
    rejections: int = 0
    evaluations: int | None = None


def ddeint(
    f: Callable[..., State],
    history: Any,
    t: Tensor | Sequence[float],
    *,
    delays: Any,
    neutral: Any = (),
    y0: State | None = None,
    args: tuple[Any, ...] = (),
    method: Integrator | None = None,
    dt: float | None = None,
    rtol: float | None = None,
    atol: float = 1e-9,
    linear: Callable[..., State] | None = None,
    max_delay: float | None = None,
    kinks: Sequence[float] = (),
    levels: int | None = None,
    controller: PIController | None = None,
    max_step: float | None = None,
    max_steps: int = 100_000,
    loop: TimeLoop | None = None,
    progress: bool | None = None,
) -> DDESolution:
    r"""Solve $y'(t) = f\big(t, y(t), y(t - \tau_1), y(t - \tau_2), \dots\big)$, and neutral equations, which see past slopes.

    With ``dt`` the steps are fixed: a pure step over a ring of polynomials, which every loop can run, and which
    `torch.func` transforms and gradients (also those of delays) pass through. Where all delays and output times are
    multiples of ``dt``, the steps are equal; else some are shorter, so that they end at output times and at breaks.

    Without ``dt`` the steps follow the error, and breaks are met, also those that delays make which depend on the state;
    steps may be longer than delays. All components share the steps.

    Breaks are where the solution is not smooth: at the start, where history and equation disagree, and wherever the delays
    carry that to. A method keeps its order only if its steps end there. Fixed steps meet the breaks of constant delays only.

    Args:
        f: Derivative ``f(t, y, past, *args)``; with ``neutral`` it is ``f(t, y, past, slopes, *args)``. ``past`` is a tuple
            with one state for each of the ``delays``, and ``slopes`` one for each of ``neutral``.
        history: The solution up to the start: a constant state, or a function of a 0-d time, in torch operations, such as
            `sampled` data, or the `History` of another solution.
        t: Output times, 1-D and rising; the first is the start.
        delays: A delay or a tuple of delays. Each is a number; a tensor that broadcasts against every leaf of the state,
            one delay for each component or for each pair (the past then has the common shape: delays ``(n, n)`` of a
            state ``(n,)`` give ``past[k][i, j] = y[j](t - delay[i, j])``); a tree like the state of these; or a function
            ``delay(t, y, *args)`` that returns one. A component with delay 0 sees the present.
        neutral: Delays of slopes, likewise, above 0.
        y0: State at the start where it differs from ``history(t[0])``.
        args: Further arguments of ``f`` and of delays.
        method: Method object of order up to 5; default `RK4` for fixed steps, and `Tsit5`.
        dt: Longest fixed step, at most the shortest delay.
        rtol: Relative tolerance of adaptive steps; default 1e-6.
        atol: Absolute tolerance of adaptive steps.
        linear: Slope of each variable's own equation, with the arguments of ``f``, for exponential methods; default by
            automatic differentiation.
        max_delay: A bound of delays that are functions; fixed steps need it.
        kinks: Times before the start at which the history jumps or bends.
        levels: Up to which level breaks are met: at level k the derivative of order k + 1 jumps. Default the order of the
            method; 0 meets none, for networks with so many delays that breaks are everywhere.
        controller: Controller of adaptive steps.
        max_step: Longest adaptive step.
        max_steps: Most adaptive steps to try.
        loop: What runs fixed steps, such as ``bdtorch.Native()``; default `PythonLoop`, which copies the history at every
            step.
        progress: Show a bar; default where the run takes long.

    Returns:
        The `DDESolution`.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.
        FloatingPointError: The derivative or the solution became NaN or infinite.
        IntegrationError: Adaptive steps could not go on.

    Source: Bellen & Zennaro, Numerical Methods for Delay Differential Equations (2003),
        doi:10.1093/acprof:oso/9780198506546.001.0001.
    """
    check_arguments("ddeint", args, loop)
    check_function("ddeint", "f", f, "t, y, past, *args")
    past, y, times, numbers = start_of("ddeint", history, y0, t)
    lags, slopes = checked_lags("ddeint", "delays", delays, y), checked_lags("ddeint", "neutral", neutral, y)
    equation = DelayEquation(f, tuple(args), lags, slopes, linear)
    longest = _check_delays(equation, max_delay, dt)
    check_reach("ddeint", history, past, y, numbers[0], longest)
    if levels is not None:
        check_whole("ddeint", "levels", levels, 0)
    check_whole("ddeint", "max_steps", max_steps, 1)
    roots = [(kink, -1) for kink in _checked_kinks(kinks, numbers[0])] + [(numbers[0], 0 if y0 is None else -1)]
    if dt is not None:
        if rtol is not None:
            raise ValueError("`ddeint(dt=...)`: expected None with rtol: steps are either fixed or adaptive")
        chosen = _method(RK4() if method is None else method)
        generations = chosen.order if levels is None else levels
        dt = check_number("ddeint", "dt", dt)
        steps = fixed.mesh(numbers, dt, equation, longest, generations, roots)
        solution = _run_fixed(equation, chosen, past, y, steps, numbers, loop or PythonLoop(), progress)
        return replace(solution, t=times)
    if loop is not None:
        raise ValueError("`ddeint(loop=...)`: expected None without dt, since adaptive steps depend on the solution")
    chosen = _method(Tsit5() if method is None else method)
    if not isinstance(chosen, Adaptive) or chosen.error_order < 1:
        raise ValueError(
            f"`ddeint(dt=...)`: expected a step, since {_name(chosen)} does not estimate its error, got None"
        )
    tolerance = DelayTolerance(
        check_number("ddeint", "rtol", 1e-6 if rtol is None else rtol), check_number("ddeint", "atol", atol),
        controller or PIController(), math.inf if max_step is None else check_number("ddeint", "max_step", max_step),
        max_steps, chosen.order if levels is None else levels,
    )  # fmt: skip
    rows, found = solve_adaptively(equation, chosen, past, y, numbers, tolerance, roots, progress)
    stack = stacked(rows, y)
    check_finite("ddeint", stack, numbers)
    return DDESolution(times, stack, found.history(), found.steps, found.rejections, found.evaluations)


def _checked_kinks(kinks: Any, start: float) -> list[float]:
    try:
        times = [float(kink) for kink in kinks]
    except (TypeError, ValueError):
        raise TypeError(f"`ddeint(kinks=...)`: expected a sequence of times, got {kinks!r}") from None
    wrong = next((time for time in times if not -math.inf < time < start), None)
    if wrong is not None:
        raise ValueError(f"`ddeint(kinks=...)`: expected times before the start, t = {start:g}, got {wrong:g}")
    return times


def start_of(
    door: str, history: Any, y0: State | None, t: Any
) -> tuple[Callable[[Tensor], State], State, Tensor, list[float]]:
    """The history as a function, the initial state, and the output times, checked."""
    if history is None:
        raise ValueError(f"`{door}(history=...)`: expected the past, as a state or a function of time, got None")
    times, numbers = rising_times(door, t, None)
    if callable(history):
        first = _first(door, history, numbers[0])
        like = first if y0 is None else y0

        def aligned(s: Tensor) -> State:
            return tree.aligned(history(s), like)

        past: Callable[[Tensor], State] = history if isinstance(history, History) else aligned
    else:
        past, first = (lambda s: history), history
    with renamed(door, y0="history"):
        check_state(first, 0)
    if y0 is None:
        y = tree.map(lambda leaf: leaf.contiguous(), first)
    else:
        with renamed(door):
            check_state(y0, 0)
        check_like(door, "history", tree.aligned(first, y0), y0, "y0")
        y = tree.map(lambda leaf: leaf.contiguous(), y0)
    return past, y, times.to(tree.leaves(y)[0].device), numbers


def _first(door: str, history: Any, start: float) -> State:
    if isinstance(history, History) and not history.start <= start <= history.end * (1 + 1e-12) + 1e-12:
        raise ValueError(
            f"`{door}(history=...)`: expected one that reaches t[0] = {start:g}, got {history.start:g} to {history.end:g}"
        )
    return history(torch.tensor(start, dtype=torch.float64))


def check_like(door: str, name: str, value: State, like: State, other: str) -> None:
    """Two states of one structure, of the same shapes and dtype."""
    if tree.flatten(value)[1] != tree.flatten(like)[1]:
        want, got = [n for n, _ in tree.named_leaves(like)], [n for n, _ in tree.named_leaves(value)]
        raise ValueError(f"`{door}({name}=...)`: expected the structure of {other}, {want}, got {got}")
    for (leaf, a), b in zip(tree.named_leaves(value), tree.leaves(like), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            of = f" for {leaf!r}" if leaf else ""
            raise ValueError(
                f"`{door}({name}=...)`: expected shape {tuple(b.shape)} and {b.dtype}, got {tuple(a.shape)} and {a.dtype}{of}"
            )


def check_reach(
    door: str, history: Any, past: Callable[[Tensor], State], y: State, start: float, longest: float
) -> None:
    """The history is known as far back as the longest delay, of the right form there, and finite."""
    if longest == math.inf or isinstance(history, Tensor) or not callable(history):
        return
    if isinstance(history, History) and history.start > start - longest + 1e-9 * max(1.0, longest):
        raise ValueError(
            f"`{door}(history=...)`: expected it to reach back to t = {start - longest:g}, by the longest delay {longest:g}, "
            f"got one that begins at t = {history.start:g}"
        )
    early = past(torch.tensor(start - longest, dtype=torch.float64))
    with renamed(door, y0="history"):
        check_state(early, 0)
    check_like(door, "history", early, y, "the initial state")
    if blind():
        return
    for name, leaf in tree.named_leaves(early):
        if not bool(leaf.detach().isfinite().all()):
            of = f" of {name!r}" if name else ""
            raise ValueError(
                f"`{door}(history=...)`: expected finite values, got NaN or infinity at t = {start - longest:g}{of}"
            )


def _check_delays(equation: DelayEquation, max_delay: float | None, dt: float | None) -> float:
    """The longest delay."""
    if not equation.lags and not equation.neutral:
        raise ValueError("`ddeint(delays=...)`: expected at least one delay, got none; for none there is odeint")
    if any(lag.zeros for lag in equation.neutral):
        raise ValueError(
            "`ddeint(neutral=...)`: expected delays above 0, since the present slope is what is asked for, got 0"
        )
    lags, neutral = equation.constants()
    numbers = [*lags, *neutral]
    bound = 0.0 if max_delay is None else check_number("ddeint", "max_delay", max_delay)
    if max_delay is not None and numbers and max(numbers) > bound:
        raise ValueError(
            f"`ddeint(max_delay=...)`: expected at least the longest delay, {max(numbers):g}, got {bound:g}"
        )
    if dt is not None and numbers and min(numbers) < check_number("ddeint", "dt", dt) * (1.0 - 1e-9):
        raise ValueError(f"`ddeint(dt=...)`: expected at most the shortest delay, {min(numbers):g}, got {dt:g}")
    if equation.variable and max_delay is None:
        if dt is not None:
            raise ValueError(
                "`ddeint(max_delay=...)`: expected a bound, as a delay is a function and steps are fixed, got None"
            )
        return math.inf
    return max([bound, *numbers])


def _method(method: Any) -> Integrator:
    with renamed("ddeint"):
        check_method(method, tuple(known.name for known in METHODS))
    if method.order > _HIGHEST:
        raise ValueError(
            f"`ddeint(method=...)`: expected a method of order up to {_HIGHEST}, which the history keeps, got {_name(method)} of "
            f"order {method.order}"
        )
    return method


def _name(method: Integrator) -> str:
    return type(method).__name__


def _run_fixed(
    equation: DelayEquation,
    method: Integrator,
    past: Callable[[Tensor], State],
    y: State,
    steps: fixed.Mesh,
    times: list[float],
    loop: TimeLoop,
    progress: bool | None,
) -> DDESolution:
    degree = fixed.degree_of(method.order, bool(equation.neutral))
    ring = Ring(steps.rows, times[0], steps.dt)
    step = DelayStep(method, equation, ring, degree)
    state: dict[str, Any] = {"y": y, "ring": fixed.begin(ring, steps, past, degree, y)}
    leaf = tree.leaves(y)[0]
    if equation.variable:
        state["reach"] = torch.full((2,), -1.0, dtype=torch.float64, device=leaf.device)
    _check_first(equation, ring, state, steps, y, times[0])
    every = math.gcd(*steps.outputs)
    rows, count = fixed.rows_of(steps, leaf.device), len(steps.after) - 1
    example = tree.map(lambda row: row[:1], rows)
    prepared = loop.prepare(step, state, example, every=every)
    final, kept = iterate(prepared, state, count, sequences=rows, progress=progress, description="ddeint")
    if equation.variable and not blind():
        _check_variable(final["reach"], ring)
    chosen = torch.tensor([number // every - 1 for number in steps.outputs[1:]], device=leaf.device)
    grid = tree.map(lambda first, rest: torch.cat([first.unsqueeze(0), rest[chosen]]), y, kept)
    walk = Walk(step, state, rows, lambda n: float(steps.after[n]))
    check_finite("ddeint", grid, times, walk, steps.outputs[1:])
    known = ring.history(final["ring"], count, times[-1], tree.flatten(y)[1])
    return DDESolution(torch.empty(0), grid, known, count)


def _check_first(
    equation: DelayEquation, ring: Ring, state: dict[str, Any], steps: fixed.Mesh, y: State, start: float
) -> None:
    """The derivative at the start is of the right form; the trial also shows what a lookup would fail at."""
    device = tree.leaves(y)[0].device
    t = torch.tensor(start, dtype=torch.float64, device=device)
    number = torch.zeros((), dtype=torch.float64, device=device)
    h = float(steps.after[1] - steps.after[0]) if ring.dt is None else ring.dt
    look = fixed.looking_back(ring, state["ring"], number, (t, h), equation.args)
    with unwritten("ddeint", "f", y):
        slope = equation.derivative(look)(y, t)
    check_derivative("ddeint", slope, y, start)
    if equation.linear is not None:
        with renamed("ddeint"):
            check_linear(equation.slopes(look)(y, t), y)


def _check_variable(reach: Tensor, ring: Ring) -> None:
    latest, earliest = reach.tolist()
    if latest > 0.0:
        raise ValueError(
            "`ddeint(dt=...)`: expected a step no longer than the delays, but one that is a function became shorter; "
            "take a smaller dt, or leave dt out"
        )
    if earliest > 0.0 and ring.rows:
        raise ValueError(
            "`ddeint(max_delay=...)`: expected a bound of all delays, but one that is a function became longer"
        )
