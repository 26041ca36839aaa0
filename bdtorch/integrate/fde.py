"""`fdeint`: solve a fractional differential equation."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate import _dde_fixed as fixed
from bdtorch.integrate._base import Derivative
from bdtorch.integrate._dde_fixed import DelayEquation
from bdtorch.integrate._delays import checked_lags
from bdtorch.integrate._door import (
    Walk,
    check_arguments,
    check_derivative,
    check_finite,
    check_function,
    check_number,
    renamed,
    rising_times,
    whole_steps,
)
from bdtorch.integrate._equation import blind, check_state, shared_time, unwritten
from bdtorch.integrate._history import Ring, piece
from bdtorch.integrate._loop import PythonLoop, TimeLoop, iterate
from bdtorch.integrate._methods import Method
from bdtorch.integrate.dde import check_reach, start_of
from bdtorch.integrate.fractional import AdamsBashforthMoulton, FractionalIntegrator, Solver

METHODS = (
    Method("CaputoEuler", "FDE", "explicit", 1.0, stages=1, source="Li & Zeng (2013), doi:10.1080/01630563.2012.706673"),
    Method(
        "AdamsBashforthMoulton", "FDE", "predictor-corrector, order min(2, 1 + 2 alpha)", 2.0, stages=2,
        source="Diethelm, Ford & Freed (2002), doi:10.1023/A:1016592219341; Deng (2007), doi:10.1016/j.cam.2006.08.008",
    ),
    Method("GrunwaldLetnikov", "FDE", "explicit", 1.0, stages=1, source="Podlubny (1999), Fractional Differential Equations"),
    Method("L1", "FDE", "implicit, order 2 - alpha", 1.0, stages=1, source="Lin & Xu (2007), doi:10.1016/j.jcp.2007.02.001"),
)  # fmt: skip
"""The fractional methods, for `bdtorch.integrate.methods`."""


@dataclass(frozen=True, eq=False)
class FDESolution:
    """What `fdeint` found.

    Attributes:
        t: Output times, ``(T,)``.
        y: The solution there: each leaf has a leading axis of times.
        steps: Steps taken.
    """

    t: Tensor
    y: State
    steps: int


def fdeint(
    f: Callable[..., State],
    y0: State | None,
    t: Tensor | Sequence[float],
    *,
    alpha: Any,
    dt: float,
    method: FractionalIntegrator | None = None,
    args: tuple[Any, ...] = (),
    delays: Any = None,
    history: Any = None,
    max_delay: float | None = None,
    loop: TimeLoop | None = None,
    progress: bool | None = None,
) -> FDESolution:
    r"""Solve $D^\alpha y = f(t, y)$ with the derivative of Caputo, whose past begins at the first output time.

    $$D^\alpha y(t) = \frac{1}{\Gamma(1 - \alpha)} \int_{t_0}^{t} (t - s)^{-\alpha}\,y'(s)\,ds$$

    Args:
        f: ``f(t, y, *args)``; with ``delays``, ``f(t, y, past, *args)`` as in `ddeint`.
        y0: Initial state: a pytree of floating tensors; with ``history`` it may be None for ``history(t[0])``.
        t: Output times, 1-D and rising, whole multiples of ``dt`` after the first.
        alpha: Order, in (0, 1]: a number, a tensor that broadcasts to the leaves, one order for each component, or a tree
            like ``y0`` of these.
        dt: Step.
        method: Method object; default `AdamsBashforthMoulton`.
        args: Further arguments of ``f``.
        delays: As in `ddeint`. The past is interpolated by straight lines, which keeps order 2 where delays are whole
            multiples of ``dt`` and the solution is smooth.
        history: Where there are delays: the solution before the start, as in `ddeint`.
        max_delay: A bound of delays that are functions.
        loop: What runs the steps, such as ``bdtorch.Native()``; default `PythonLoop`.
        progress: Show a bar; default where the run takes long.

    Returns:
        The `FDESolution`.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.
        FloatingPointError: ``f`` or the solution became NaN or infinite.

    Source: Diethelm (2010), The Analysis of Fractional Differential Equations, doi:10.1007/978-3-642-14574-2.
    """
    check_arguments("fdeint", args, loop)
    check_function("fdeint", "f", f, "t, y, *args")
    chosen = checked_method(AdamsBashforthMoulton() if method is None else method)
    dt = check_number("fdeint", "dt", dt)
    if (delays is None) != (history is None):
        raise ValueError("`fdeint(history=...)`: expected the past where there are delays, and only there")
    if delays is None:
        times, numbers = rising_times("fdeint", t, None)
        with renamed("fdeint"):
            check_state(y0, 0)
        y: State = tree.map(Tensor.contiguous, y0)
        past = None
    else:
        past, y, times, numbers = start_of("fdeint", history, y0, t)
    marks = whole_steps(numbers, dt)
    if marks is None:
        raise ValueError(
            f"`fdeint(t=...)`: expected whole multiples of dt={dt:g} after t[0]={numbers[0]:g}, got {numbers[1:]}"
        )
    solver = chosen.start(y, checked_alpha(alpha, y), marks[-1], dt)
    if past is None:
        step: Any = _PlainStep(solver, f, tuple(args), numbers[0])
    else:
        step = _delayed(solver, f, args, delays, history, past, y, numbers[0], max_delay)
    state = step.begin(y)
    every = math.gcd(*marks)
    prepared = (PythonLoop() if loop is None else loop).prepare(step, state, every=every)
    final, kept = iterate(prepared, state, marks[-1], progress=progress, description="fdeint")
    if "reach" in final and not blind() and bool((final["reach"] > 0).any()):
        raise ValueError(
            "`fdeint(delays=...)`: expected delays between dt and max_delay, but one that is a function left them"
        )
    rows = torch.tensor([mark // every - 1 for mark in marks], device=tree.leaves(y)[0].device)
    grid = tree.map(lambda first, rest: torch.cat([first.unsqueeze(0), rest[rows]]), y, kept)
    walk = Walk(step, state, (), lambda n: numbers[0] + n * dt)
    check_finite("fdeint", grid, numbers, walk, marks)
    return FDESolution(times.to(tree.leaves(y)[0].device), grid, marks[-1])


def checked_method(method: Any) -> FractionalIntegrator:
    """Reject what is no method for fractional equations, and suggest what may have been meant."""
    if isinstance(method, FractionalIntegrator):
        return method
    known = {one.name.lower(): one.name for one in METHODS}
    aliases = {
        "euler": "CaputoEuler",
        "abm": "AdamsBashforthMoulton",
        "gl": "GrunwaldLetnikov",
        "short-memory": "GrunwaldLetnikov",
    }
    name = (method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)).lower()
    close = difflib.get_close_matches(name, [*known, *aliases], n=2, cutoff=0.5)
    names = dict.fromkeys({**known, **aliases}[one] for one in close)
    hint = "; did you mean " + " or ".join(f"bdtorch.integrate.{one}()" for one in names) + "?" if names else ""
    raise TypeError(
        f"`fdeint(method=...)`: expected a method object such as AdamsBashforthMoulton(), got {method!r}{hint}"
    )


def checked_alpha(alpha: Any, y: State) -> list[Tensor]:
    """The order of each leaf, float64."""
    flat, spec = tree.flatten(y)
    if isinstance(alpha, (int, float, Tensor)) and not isinstance(alpha, bool):
        given = [alpha] * len(flat)
    elif isinstance(alpha, (dict, tuple, list)) and tree.flatten(alpha)[1] == spec:
        given = tree.leaves(alpha)
    else:
        raise TypeError(f"`fdeint(alpha=...)`: expected a number, a tensor or a tree like y0 of these, got {alpha!r}")
    orders = []
    for value, (name, leaf) in zip(given, tree.named_leaves(y), strict=True):
        of = f" for {name!r}" if name else ""
        order = torch.as_tensor(value, dtype=torch.float64, device=leaf.device)
        if len(order.shape) > leaf.dim() or any(
            have not in (1, want) for have, want in zip(order.shape[::-1], leaf.shape[::-1], strict=False)
        ):
            raise ValueError(
                f"`fdeint(alpha=...)`: expected a shape that broadcasts to {tuple(leaf.shape)}, got {tuple(order.shape)}{of}"
            )
        if not blind() and not bool(((order > 0) & (order <= 1)).all()):
            wrong = order.detach()[~((order > 0) & (order <= 1))].flatten()[0]
            raise ValueError(f"`fdeint(alpha=...)`: expected orders in (0, 1], got {float(wrong):g}{of}")
        orders.append(order)
    return orders


@dataclass(frozen=True, eq=False)
class _PlainStep:
    """The step of a fractional method."""

    solver: Solver
    function: Callable[..., State]
    args: tuple[Any, ...]
    start: float

    def derivative(self, y: State, t: Tensor) -> State:
        return tree.aligned(self.function(shared_time(t, y), y, *self.args), y)

    def begin(self, y: State) -> dict[str, Any]:
        t = torch.tensor(self.start, dtype=torch.float64, device=tree.leaves(y)[0].device)
        with unwritten("fdeint", "f", y):
            slope = self.derivative(y, t)
        check_derivative("fdeint", slope, y, self.start)
        return self.solver.begin(self.derivative, t)

    def __call__(self, state: dict[str, Any], slices: Any, number: Tensor) -> tuple[dict[str, Any], State]:
        t = self.start + number * self.solver.dt
        after = self.solver.step(self.derivative, state, t, number)
        return after, after["y"]


@dataclass(frozen=True, eq=False)
class _DelayedStep:
    """The step of a fractional method on an equation with delays: a ring of straight lines beside the method's memory."""

    solver: Solver
    equation: DelayEquation
    ring: Ring
    history: dict[str, Any]

    def _derivative(self, ring: dict[str, Any], number: Tensor) -> Derivative:
        span = (self.ring.start + number * self.solver.dt, self.solver.dt)
        return self.equation.derivative(fixed.looking_back(self.ring, ring, number, span, self.equation.args))

    def begin(self, y: State) -> dict[str, Any]:
        device = tree.leaves(y)[0].device
        t = torch.tensor(self.ring.start, dtype=torch.float64, device=device)
        derivative = self._derivative(self.history, torch.zeros((), dtype=torch.float64, device=device))
        check_derivative("fdeint", derivative(y, t), y, self.ring.start)
        state = {**self.solver.begin(derivative, t), "ring": self.history}
        return {**state, "reach": torch.zeros_like(t).expand(2).contiguous()} if self.equation.variable else state

    def __call__(self, state: dict[str, Any], slices: Any, number: Tensor) -> tuple[dict[str, Any], State]:
        t, h = self.ring.start + number * self.solver.dt, self.solver.dt
        derivative = self._derivative(state["ring"], number)
        own = {name: value for name, value in state.items() if name not in ("ring", "reach")}
        after: dict[str, Any] = self.solver.step(derivative, own, t, number)
        new = piece(1, derivative, state["y"], state["y"], after["y"], t, h)
        after["ring"] = self.ring.push(state["ring"], new, number, t, h)
        if "reach" in state:
            after["reach"] = fixed.reach(self.ring, self.equation, state, number, state["y"], after["y"], (t, h))
        return after, after["y"]


def _delayed(
    solver: Solver, f: Callable[..., State], args: tuple[Any, ...], delays: Any, history: Any, past: Any, y: State,
    start: float, max_delay: float | None,
) -> _DelayedStep:  # fmt: skip
    lags = checked_lags("fdeint", "delays", delays, y)
    equation = DelayEquation(f, tuple(args), lags)
    numbers, _ = equation.constants()
    if equation.variable and max_delay is None:
        raise ValueError("`fdeint(max_delay=...)`: expected a bound, since a delay is a function, got None")
    if numbers and numbers[0] < solver.dt * (1.0 - 1e-9):
        raise ValueError(f"`fdeint(dt=...)`: expected at most the shortest delay, {numbers[0]:g}, got {solver.dt:g}")
    bound = [] if max_delay is None else [check_number("fdeint", "max_delay", max_delay)]
    longest = max([*numbers, *bound, solver.dt])
    check_reach("fdeint", history, past, y, start, longest)
    rows = max(1, math.ceil(longest / solver.dt - 1e-6))
    ring = Ring(rows, start, solver.dt)
    leaf = tree.leaves(y)[0]
    lefts = start + solver.dt * torch.arange(-rows, 0, dtype=torch.float64, device=leaf.device)
    pieces = fixed.sample(past, lefts, torch.full_like(lefts, solver.dt), 1, leaf.dtype)
    return _DelayedStep(solver, equation, ring, ring.begin(pieces, lefts, lefts))
