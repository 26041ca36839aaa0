"""`odeint`: the front door to ordinary differential equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate import _fixed, exponential, implicit, rosenbrock, runge_kutta
from bdtorch.integrate._adaptive import Driver, Tolerance, unlimited
from bdtorch.integrate._base import Adaptive, Integrator
from bdtorch.integrate._control import PIController, check_resolution, checked_tolerance
from bdtorch.integrate._coupling import Dense
from bdtorch.integrate._equation import (
    Equation,
    blind,
    check_linear,
    check_method,
    check_slope,
    check_state,
    checked_times,
    component_names,
    coupled,
    equation,
    expect_like,
    moves,
    unwritten,
)
from bdtorch.integrate._loop import Pace, Prepared, PythonLoop, TimeLoop
from bdtorch.integrate.adjoint import Adjoint, solve_with_adjoint
from bdtorch.integrate.events import Event, EventWatch, Occurrences
from bdtorch.integrate.external import External
from bdtorch.integrate.runge_kutta import RK4, Tsit5

KINDS = tuple(m.name for module in (runge_kutta, exponential, implicit, rosenbrock) for m in module.METHODS)


@dataclass(frozen=True, eq=False)
class ODESolution:
    """What `odeint` returns.

    Attributes:
        t: ``(T,)`` output times.
        y: The solution, each leaf ``(T, *shape)``; NaN after a terminal event.
        steps: Accepted steps of each trajectory, ``(*batch,)`` int64.
        rejections: Rejected steps of each trajectory, ``(*batch,)`` int64.
        evaluations: Calls of the derivative, each for all trajectories at once; those that make up Jacobians apart.
        events: What happened, one entry for each of the ``events``.
    """

    t: Tensor
    y: State
    steps: Tensor
    rejections: Tensor
    evaluations: int
    events: tuple[Occurrences, ...] = ()


class Options(TypedDict, total=False):
    """The keywords of `ODESolver`."""

    method: Integrator | External | None
    dt: float | None
    rtol: float
    atol: Any
    batch_dims: int
    linear: Callable[..., State] | None
    events: Event | Sequence[Event]
    gradient: Adjoint | None
    loop: TimeLoop | None
    controller: PIController | None
    first_step: float | None
    max_step: float | None
    max_steps: int
    progress: bool | None


def odeint(
    f: Callable[..., State],
    y0: State,
    t: Tensor | Sequence[float],
    *,
    args: tuple[Any, ...] = (),
    **options: Unpack[Options],
) -> ODESolution:
    r"""Solve ``dy/dt = f(t, y, *args)``.

    Args:
        f: Derivative, of the structure, shapes and dtype of ``y``; pure, in torch operations. ``t`` is 0-d, or where
            ``batch_dims`` is not 0 of shape ``(*batch, 1, ...)``, to broadcast against ``y``.
        y0: Initial state: any pytree of floating tensors of one dtype.
        t: Output times, rising or falling; the first is that of ``y0``.
        args: Further arguments of ``f``, any pytree. Gradients of `Adjoint` reach tensors here and the parameters of an
            ``f`` that is a module, and nothing that ``f`` merely closes over.
        **options: The keywords of `ODESolver`.

    Returns:
        The `ODESolution`.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.
        FloatingPointError: The derivative or the solution became NaN or infinite; the message names time and component.
        IntegrationError: An adaptive method could not go on.
    """
    return ODESolver(f, **options)(y0, t, args=args)


class ODESolver:
    """A derivative with a method; what a compiled loop makes of them is kept from call to call.

    Args:
        f: Derivative, as for `odeint`.
        method: Method object; see `methods`. Default `Tsit5`.
        dt: Fixed step, which must divide the intervals between output times, of the sign of their direction. Without it,
            a method that estimates its error chooses its steps, and any other takes one step to each output time.
        rtol: Relative tolerance of each step.
        atol: Absolute tolerance: a number, or a pytree like ``y`` of numbers or tensors that broadcast to it.
        batch_dims: Leading axes of all variables that count independent trajectories. Each of them has steps of its own,
            and implicit methods need not couple them.
        linear: The slope of each variable's own equation, ``df_i/dy_i``, as ``linear(t, y, *args)``, for exponential
            methods; default by automatic differentiation.
        events: `Event` objects to look for; adaptive methods only.
        gradient: None for gradients through the operations of the solver, or `Adjoint`. To recompute them, which saves
            memory, see `Recompute`.
        loop: What runs the steps: default `PythonLoop`; ``bdtorch.Native()`` and other loop objects of bdtorch compile.
        controller: Step-size controller.
        first_step: Length of the first step; default from the equation.
        max_step: Longest step; default no limit.
        max_steps: Most steps to try.
        progress: Show a bar; default where the run takes long.
    """

    def __init__(
        self,
        f: Callable[..., State],
        *,
        method: Integrator | External | None = None,
        dt: float | None = None,
        rtol: float = 1e-6,
        atol: Any = 1e-9,
        batch_dims: int = 0,
        linear: Callable[..., State] | None = None,
        events: Event | Sequence[Event] = (),
        gradient: Adjoint | None = None,
        loop: TimeLoop | None = None,
        controller: PIController | None = None,
        first_step: float | None = None,
        max_step: float | None = None,
        max_steps: int = 100_000,
        progress: bool | None = None,
    ) -> None:
        self.f, self.linear = f, linear
        self.method: Integrator | External = Tsit5() if method is None else method
        if not isinstance(self.method, External):
            check_method(self.method, KINDS)
        self.dt, self.atol, self.batch_dims = dt, atol, batch_dims
        if not isinstance(events, (Event, Sequence)):
            raise TypeError(f"`odeint(events=...)`: expected Event objects, got {events!r}")
        self.events = (events,) if isinstance(events, Event) else tuple(events)
        self.gradient, self.progress = gradient, progress
        self.loop: TimeLoop = loop or PythonLoop()
        self.adaptive = dt is None and isinstance(self.method, Adaptive) and self.method.error_order > 0
        _check_numbers(rtol, first_step, max_step, max_steps)
        self.tolerance = Tolerance(rtol, controller or PIController(), first_step, unlimited(max_step), max_steps)
        self._check_choices(first_step, max_step)
        self._prepared: dict[Any, tuple[Any, Prepared, Pace]] = {}

    def _check_choices(self, first_step: float | None, max_step: float | None) -> None:
        for event in self.events:
            if not isinstance(event, Event):
                raise TypeError(f"`odeint(events=...)`: expected Event objects, got {event!r}")
        if self.events and not (self.adaptive and isinstance(self.loop, PythonLoop)):
            raise ValueError(
                "`odeint(events=...)`: expected an adaptive method, no dt and no loop, since events cut steps"
            )
        if self.gradient is not None and not isinstance(self.gradient, Adjoint):
            raise TypeError(f"`odeint(gradient=...)`: expected None or an Adjoint object, got {self.gradient!r}")
        if not hasattr(self.loop, "prepare"):
            raise TypeError(f"`odeint(loop=...)`: expected a loop object such as bdtorch.Native(), got {self.loop!r}")
        if self.gradient is not None and self.events:
            raise ValueError("`odeint(gradient=...)`: expected None where there are events")
        if isinstance(self.method, External) and (
            self.events or self.gradient or not isinstance(self.loop, PythonLoop)
        ):
            raise ValueError(f"`odeint(method={self.method!r})`: expected no events, gradient or loop with this method")
        if isinstance(self.method, External):
            for name, value in (("dt", self.dt), ("first_step", first_step), ("max_step", max_step)):
                if value is not None:
                    raise ValueError(
                        f"`odeint({name}=...)`: expected None with {type(self.method).__name__}, whose steps its `options` set, "
                        f"such as {self.method.example}, got {value!r}"
                    )

    def __call__(self, y0: State, t: Tensor | Sequence[float], *, args: tuple[Any, ...] = ()) -> ODESolution:
        """Solve; see `odeint`."""
        check_state(y0, self.batch_dims)
        times, numbers = checked_times(t)
        model, tensors = equation(self.f, self.linear, args, self.batch_dims)
        times = times.to(tree.leaves(y0)[0].device)
        if moves(times):
            return self._with_time_gradients(y0, times, numbers, model, tensors, args)
        if self.gradient is not None:
            plain = ODESolver(self.f, **self._options(gradient=None))
            return solve_with_adjoint(plain, self.gradient, y0, times.detach(), args)
        return self._solve(y0, times, numbers, model, tensors)

    def _options(self, **changes: Any) -> Options:
        tolerance = self.tolerance
        options: Options = {
            "method": self.method, "dt": self.dt, "rtol": tolerance.rtol, "atol": self.atol, "batch_dims": self.batch_dims,
            "linear": self.linear, "events": self.events, "gradient": self.gradient, "loop": self.loop,
            "controller": tolerance.controller, "first_step": tolerance.first_step,
            "max_step": None if math.isinf(tolerance.max_step) else tolerance.max_step,
            "max_steps": tolerance.max_steps, "progress": self.progress,
        }  # fmt: skip
        return {**options, **changes}  # type: ignore[typeddict-item]

    def _with_time_gradients(
        self,
        y0: State,
        times: Tensor,
        numbers: list[float],
        model: Equation,
        tensors: list[Tensor],
        args: tuple[Any, ...],
    ) -> ODESolution:
        """Time enters once at each end: to begin later is to begin from a state moved back along the solution.

        The steps that do so have length 0, and the derivatives of one of Runge and Kutta, up to the fourth.
        """
        fixed = times.detach()
        shift = times - fixed
        derivative, slopes, method = model.derivative(tensors), model.slopes(tensors), RK4()

        def shifted(y: State, t: Tensor, by: Tensor) -> State:
            return tree.map(lambda z, moved: moved.to(z.dtype), y, method.step(derivative, slopes, y, t, by))  # type: ignore[arg-type]

        solution = self(shifted(y0, times[0], -shift[0]), fixed, args=args)
        rows = [tree.map(lambda leaf, k=k: leaf[k], solution.y) for k in range(len(numbers))]
        moved = [y0] + [shifted(rows[k], fixed[k], shift[k]) for k in range(1, len(numbers))]
        y = tree.map(lambda *leaves: torch.stack(leaves), *moved)
        return ODESolution(times, y, solution.steps, solution.rejections, solution.evaluations, solution.events)

    def _solve(
        self, y0: State, times: Tensor, numbers: list[float], model: Equation, tensors: list[Tensor]
    ) -> ODESolution:
        with unwritten("odeint", "f", y0):
            slope = model.derivative(tensors)(y0, times[0])
        check_slope(slope, y0, numbers[0])
        if self.linear is not None:
            check_linear(model.slopes(tensors)(y0, times[0]), y0)
        if isinstance(self.method, External):
            y, evaluations = self.method.solve(model.derivative(tensors), y0, times, self.tolerance.rtol, self.atol)
            none = torch.full((), -1, dtype=torch.int64)
            return ODESolution(times, y, none, none, evaluations)
        if self.adaptive:
            return self._adaptive(y0, slope, times, numbers, model, tensors)
        steps = _fixed.grid(numbers, self.dt)
        step = _fixed.FixedStep(coupled(self.method, self.batch_dims), model, steps.dt)
        state = {"y": y0, "t0": times[0], "args": tensors}
        key = ("fixed", steps.every, steps.dt, _signature(state), model.args_spec, repr(model.constants))
        rows = _fixed.sequences(steps, times.device)
        prepared, pace = self._ready(key, step, state, rows, steps.every)
        y = _fixed.run(prepared, state, steps, self.progress, pace)
        if not blind():
            _fixed.check_finite(step, y, state, steps, numbers)
        batch = tree.leaves(y0)[0].shape[: self.batch_dims]
        taken = torch.full(batch, steps.steps, dtype=torch.int64)
        method = self.method
        stages = method.evaluations if isinstance(method, Adaptive) else 1
        return ODESolution(times, y, taken, torch.zeros_like(taken), 1 + steps.steps * stages)

    def _ready(
        self, key: Any, step: Any, state: Any, rows: Any, every: int, lends: bool = False
    ) -> tuple[Prepared, Pace]:
        if isinstance(self.loop, PythonLoop) or getattr(self.loop, "reuse", True) is False:
            return self.loop.prepare(step, state, rows, every=every, lends=lends), Pace()
        if key not in self._prepared:
            self._prepared[key] = (step, self.loop.prepare(step, state, rows, every=every, lends=lends), Pace())
        return self._prepared[key][1:]

    def _adaptive(
        self, y0: State, slope: State, times: Tensor, numbers: list[float], model: Equation, tensors: list[Tensor]
    ) -> ODESolution:
        assert isinstance(self.method, Adaptive)
        layout, sign = Dense(self.batch_dims), 1.0 if numbers[1] > numbers[0] else -1.0
        packed, unpack = layout.pack(y0)
        if not packed.numel():
            raise ValueError("`odeint(y0=...)`: expected at least one number, by whose error to choose steps, got none")

        def rows(args: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            derivative = model.derivative(args)
            if sign > 0:
                return lambda z, s: layout.pack(derivative(unpack(z), s))[0]
            return lambda z, s: sign * layout.pack(derivative(unpack(z), sign * s))[0]

        outputs = sign * times
        dense = len(numbers) > 2 or bool(self.events)
        driver = Driver(self.method, rows, self.tolerance, dense, component_names(y0, self.batch_dims), sign)
        atol = checked_tolerance(self.atol, y0, layout)
        check_resolution(packed, self.tolerance.rtol, atol)
        walk = driver.begin(packed, sign * numbers[0], sign * numbers[-1], atol, tensors, sign * layout.pack(slope)[0])
        watch = self._watch(model, tensors, sign, unpack)
        if watch:
            watch.begin(walk)
        key = ("adaptive", dense, sign, _signature(walk), model.args_spec, repr(model.constants))
        prepared, pace = self._ready(key, driver.attempt, walk, (), 1, lends=True)
        table, walk, trials = driver.run(
            walk, outputs, loop=self.loop, prepared=prepared, watch=watch, progress=self.progress, pace=pace
        )
        check_resolution(walk["y"], self.tolerance.rtol, atol)
        extra = self.method.dense_evaluations if dense else 0
        evaluations = trials * (self.method.evaluations + extra) + 1 + (self.tolerance.first_step is None)
        happened = (
            tuple(_occurrences(notes, sign, unpack, packed, self.batch_dims) for notes in watch.noted) if watch else ()
        )
        return ODESolution(times, unpack(table), walk["steps"], walk["rejections"], evaluations, happened)

    def _watch(self, model: Equation, tensors: list[Tensor], sign: float, unpack: Any) -> EventWatch | None:
        if not self.events:
            return None
        if blind():
            raise ValueError(
                "`odeint(events=...)`: expected no torch.func transform, since how many events there are is data"
            )
        arguments, layout = model.arguments(tensors), Dense(self.batch_dims)

        def wrapped(function: Any, packs: bool) -> Any:
            def call(s: Tensor, z: Tensor) -> Tensor:
                y = unpack(z)
                value = function(sign * s, y, *arguments)
                if packs:
                    after = tree.aligned(value, y)
                    expect_like(after, y, "Event(reset=...)", "a state", "y")
                    return layout.pack(after)[0]
                if not isinstance(value, Tensor) or value.shape != s.shape or not value.is_floating_point():
                    got = (
                        f"{value.dtype} of {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                    )
                    want = f"a floating tensor of shape {tuple(s.shape)}, whose sign changes"
                    raise ValueError(f"`Event(function=...)`: expected {want}, got {got}")
                return value

            return call

        resets = [None if event.reset is None else wrapped(event.reset, True) for event in self.events]
        return EventWatch(self.events, [wrapped(event.function, False) for event in self.events], resets)


def _occurrences(notes: list[Any], sign: float, unpack: Any, example: Tensor, batch_dims: int) -> Occurrences:
    if not notes:
        empty = example.new_empty((0, example.shape[-1]))
        where = torch.empty((0, batch_dims), dtype=torch.int64)
        return Occurrences(torch.empty(0, dtype=torch.float64), unpack(empty), where)
    t, rows, where = (torch.cat(column) for column in zip(*notes, strict=True))
    return Occurrences(sign * t, unpack(rows), where)


def _signature(tree_of_tensors: Any) -> Any:
    flat, spec = tree.flatten(tree_of_tensors)
    return spec, tuple((tuple(leaf.shape), leaf.dtype, leaf.device) for leaf in flat)


def _check_numbers(rtol: Any, first_step: Any, max_step: Any, max_steps: Any) -> None:
    for name, value in (("rtol", rtol), ("first_step", first_step), ("max_step", max_step)):
        if value is None and name != "rtol":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ValueError(f"`odeint({name}=...)`: expected a finite number above 0, got {value!r}")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"`odeint(max_steps=...)`: expected a positive whole number, got {max_steps!r}")
