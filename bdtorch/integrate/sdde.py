"""`sddeint`: solve a stochastic delay differential equation."""

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
from bdtorch.integrate import _sde_checks as checks
from bdtorch.integrate._dde_fixed import DelayEquation
from bdtorch.integrate._delays import checked_lags
from bdtorch.integrate._door import (
    Walk,
    check_arguments,
    check_finite,
    check_function,
    check_number,
    renamed,
    whole_steps,
)
from bdtorch.integrate._history import History, Ring, piece
from bdtorch.integrate._loop import PythonLoop, TimeLoop, iterate
from bdtorch.integrate._stochastic import Calculus, Kick, StochasticEquation, StochasticIntegrator
from bdtorch.integrate.brownian import BrownianPath
from bdtorch.integrate.dde import check_reach, start_of
from bdtorch.integrate.euler_maruyama import EulerHeun, EulerMaruyama, ExponentialEulerMaruyama, StochasticHeun
from bdtorch.integrate.milstein import DerivativeFreeMilstein, Milstein
from bdtorch.integrate.noise import Diagonal, Noise

_METHODS = (EulerMaruyama, EulerHeun, StochasticHeun, ExponentialEulerMaruyama, Milstein, DerivativeFreeMilstein)


@dataclass(frozen=True, eq=False)
class SDDESolution:
    """What `sddeint` found.

    Attributes:
        t: Output times, ``(T,)``.
        y: The solution there: each leaf has a leading axis of times.
        path: The Brownian paths that drove it; another solver can be given them.
        history: The solution as a function of time, as far back from the end as the longest delay reaches.
        steps: Steps taken.
    """

    t: Tensor
    y: State
    path: BrownianPath
    history: History
    steps: int


def sddeint(
    f: Callable[..., State],
    g: Callable[..., State],
    history: Any,
    t: Tensor | Sequence[float],
    *,
    delays: Any,
    dt: float,
    y0: State | None = None,
    method: StochasticIntegrator | None = None,
    noise: Noise | None = None,
    calculus: Calculus = Calculus.ITO,
    args: tuple[Any, ...] = (),
    linear: Callable[..., State] | None = None,
    seed: int | Tensor = 0,
    batch_shape: tuple[int, ...] = (),
    path: BrownianPath | None = None,
    loop: TimeLoop | None = None,
    progress: bool | None = None,
) -> SDDESolution:
    r"""Solve $dy = f(t, y, y(t - \tau), \dots)\,dt + g(t, y, y(t - \tau), \dots)\,dW$ in equal steps.

    The past is interpolated by straight lines; delays that are whole multiples of ``dt`` see the steps themselves.
    `Milstein` and `DerivativeFreeMilstein` have strong order 1 where ``g`` does not use the past; where it does they, as
    all others, have order 1/2, since iterated integrals of delayed noise are left out.

    Args:
        f: Drift, ``f(t, y, past, *args)``, with ``past`` as in `ddeint`.
        g: Diffusion, ``g(t, y, past, *args)``; its shapes depend on ``noise``, as in `sdeint`.
        history: The solution up to the start, as in `ddeint`.
        t: Output times, 1-D and rising, whole multiples of ``dt`` after the first.
        delays: As in `ddeint`, but constant: at least ``dt``, or 0.
        dt: Step.
        y0: State at the start where it differs from ``history(t[0])``.
        method: `EulerMaruyama`, `EulerHeun`, `StochasticHeun`, `ExponentialEulerMaruyama`, `Milstein` or
            `DerivativeFreeMilstein`; default as in `sdeint`.
        noise: Structure of the diffusion; default `Diagonal`.
        calculus: Meaning of ``g dW``.
        args: Further arguments of ``f``, ``g``, ``linear`` and delays.
        linear: Slope of each variable's own drift, with the arguments of ``f``, for exponential methods.
        seed: As in `sdeint`.
        batch_shape: As in `sdeint`.
        path: As in `sdeint`.
        loop: What runs the steps; default `PythonLoop`.
        progress: Show a bar; default where the run takes long.

    Returns:
        The `SDDESolution`.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.
        FloatingPointError: The solution became NaN or infinite.

    Source: Baker & Buckwar (2000), doi:10.1112/S1461157000000322; Hu, Mohammed & Yan (2004),
        doi:10.1214/aop/1079021473, for what order 1 would need.
    """
    check_function("sddeint", "f", f, "t, y, past, *args")
    check_function("sddeint", "g", g, "t, y, past, *args")
    check_arguments("sddeint", args, loop)
    dt = check_number("sddeint", "dt", dt)
    noise = Diagonal() if noise is None else noise
    if method is None:
        method = StochasticHeun() if calculus is Calculus.STRATONOVICH else EulerMaruyama()
    with renamed("sddeint"):
        checks.check_choice(method, noise, calculus)
    if not isinstance(method, _METHODS):
        names = ", ".join(kind.__name__ for kind in _METHODS)
        raise ValueError(f"`sddeint(method=...)`: expected one of {names}, got {type(method).__name__}")
    past, y, times, numbers = start_of("sddeint", history, y0, t)
    marks = whole_steps(numbers, dt)
    if marks is None:
        raise ValueError(
            f"`sddeint(t=...)`: expected multiples of dt={dt:g} after t[0]={numbers[0]:g}, got {numbers[1:]}"
        )
    lags = checked_lags("sddeint", "delays", delays, y)
    with renamed("sddeint"):
        checks.check_path(path, seed, batch_shape)
    if path is None:
        path = BrownianPath(dt, seed, tuple(batch_shape), numbers[0], tree.leaves(y)[0].device)
    with renamed("sddeint", y0="history"):
        checks.check_state(y, path.batch_shape)
    drift = DelayEquation(f, tuple(args), lags, (), linear)
    step = _step(drift, g, method, noise, calculus, path, dt, numbers[0])
    check_reach("sddeint", history, past, y, numbers[0], step.ring.rows * dt)
    state = step.begin(past, y)
    every = math.gcd(*marks)
    prepared = (PythonLoop() if loop is None else loop).prepare(step, state, every=every)
    final, kept = iterate(prepared, state, marks[-1], progress=progress, description="sddeint")
    rows = torch.tensor([mark // every - 1 for mark in marks], device=tree.leaves(y)[0].device)
    grid = tree.map(lambda first, rest: torch.cat([first.unsqueeze(0), rest[rows]]), y, kept)
    walk = Walk(step, state, (), lambda n: numbers[0] + n * dt)
    check_finite("sddeint", grid, numbers, walk, marks)
    known = step.ring.history(final["ring"], marks[-1], numbers[-1], tree.flatten(y)[1])
    return SDDESolution(times, grid, path, known, marks[-1])


def _step(
    drift: DelayEquation, g: Callable[..., State], method: StochasticIntegrator, noise: Noise, calculus: Calculus,
    path: BrownianPath, dt: float, start: float,
) -> _Step:  # fmt: skip
    if not drift.lags:
        raise ValueError("`sddeint(delays=...)`: expected at least one delay, got none; for none there is sdeint")
    if drift.variable:
        raise ValueError("`sddeint(delays=...)`: expected constant delays, got a function")
    numbers, _ = drift.constants()
    if numbers and numbers[0] < dt * (1.0 - 1e-9):
        raise ValueError(f"`sddeint(dt=...)`: expected at most the shortest delay, {numbers[0]:g}, got {dt:g}")
    ring = Ring(max(1, math.ceil(max([*numbers, dt]) / dt - 1e-6)), start, dt)
    with renamed("sddeint"):
        first = checks.first_number(path, start, dt)
    return _Step(drift, replace(drift, function=g), method, noise, calculus, path, ring, first)


@dataclass(frozen=True, eq=False)
class _Step:
    """The step of a stochastic method on an equation with delays."""

    drift: DelayEquation
    diffusion: DelayEquation
    method: StochasticIntegrator
    noise: Noise
    calculus: Calculus
    path: BrownianPath
    ring: Ring
    first: int

    @property
    def dt(self) -> float:
        """The step."""
        assert self.ring.dt is not None
        return self.ring.dt

    def begin(self, past: Callable[[Tensor], State], y: State) -> dict[str, Any]:
        leaf = tree.leaves(y)[0]
        lefts = self.ring.start + self.dt * torch.arange(-self.ring.rows, 0, dtype=torch.float64, device=leaf.device)
        pieces = fixed.sample(past, lefts, torch.full_like(lefts, self.dt), 1, leaf.dtype)
        state = {"y": y, "ring": self.ring.begin(pieces, lefts, lefts)}
        equation = self._equation(state["ring"], torch.zeros((), dtype=torch.float64, device=leaf.device))
        with renamed("sddeint"):
            checks.check_equation(equation, self.method, y, self.ring.start, len(self.path.batch_shape))
        return state

    def _equation(self, ring: dict[str, Any], number: Tensor) -> StochasticEquation:
        span = (self.ring.start + number * self.dt, self.dt)
        look = fixed.looking_back(self.ring, ring, number, span, self.drift.args)
        drift, diffusion = self.drift.derivative(look), self.diffusion.derivative(look)
        return StochasticEquation(drift, diffusion, self.drift.slopes(look), self.noise, self.calculus)

    def __call__(self, state: dict[str, Any], slices: Any, number: Tensor) -> tuple[dict[str, Any], State]:
        y, batch = state["y"], len(self.path.batch_shape)
        t = self.ring.start + number * self.dt
        increment = self.path.increment(
            number.to(torch.int64) + self.first, self.noise.width(y, batch), dtype=tree.leaves(y)[0].dtype,
            depth=round(self.path.step / self.dt).bit_length() - 1, area=self.method.needs_area,
        )  # fmt: skip
        area = None if increment.area is None else self.noise.spread(increment.area, y, batch)
        kick = Kick(self.noise.spread(increment.w, y, batch), area)
        equation = self._equation(state["ring"], number)
        after = self.method.step(equation, y, t, self.dt, kick)
        new = piece(1, equation.drift, y, y, after, t, self.dt)
        return {"y": after, "ring": self.ring.push(state["ring"], new, number, t, self.dt)}, after
