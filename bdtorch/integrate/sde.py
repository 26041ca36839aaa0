"""`sdeint`: solve a stochastic differential equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate import _sde_checks as checks
from bdtorch.integrate._derivatives import own_slopes
from bdtorch.integrate._door import Walk, check_arguments, check_function, renamed
from bdtorch.integrate._equation import check_linear, shared_time
from bdtorch.integrate._loop import PythonLoop, TimeLoop, iterate
from bdtorch.integrate._methods import Method
from bdtorch.integrate._sde_adaptive import solve_adaptively
from bdtorch.integrate._stochastic import Calculus, Kick, StochasticEquation, StochasticIntegrator
from bdtorch.integrate.brownian import BrownianPath
from bdtorch.integrate.euler_maruyama import EulerMaruyama, StochasticHeun
from bdtorch.integrate.noise import Diagonal, Noise

Function = Callable[..., State]
"""``f(t, y, *args)``, with ``t`` a 0-d float64 tensor."""


@dataclass(frozen=True, eq=False)
class SDESolution:
    """What `sdeint` found.

    Attributes:
        t: Output times, ``(times,)``.
        y: The solution there: each leaf has a leading axis of times.
        path: The Brownian paths that drove it; another solver can be given them.
        dt: The step, or the longest step.
        accepted: Steps taken.
        rejected: Steps tried and not taken.
    """

    t: Tensor
    y: State
    path: BrownianPath
    dt: float
    accepted: int
    rejected: int = 0


def sdeint(
    f: Function,
    g: Function,
    y0: State,
    t: Tensor | Sequence[float],
    *,
    dt: float,
    method: StochasticIntegrator | None = None,
    noise: Noise | None = None,
    calculus: Calculus = Calculus.ITO,
    args: tuple[Any, ...] = (),
    linear: Function | None = None,
    seed: int | Tensor = 0,
    batch_shape: tuple[int, ...] = (),
    path: BrownianPath | None = None,
    rtol: float | None = None,
    atol: float = 1e-6,
    loop: TimeLoop | None = None,
    progress: bool | None = None,
) -> SDESolution:
    r"""Solve $dy = f(t, y)\,dt + g(t, y)\,dW$.

    The noise is a function of key and time: the same seed gives the same paths on any device and in any loop, in one dtype,
    and a run with a finer step sees the same paths where both are given one ``path`` (see `BrownianPath`).

    Args:
        f: Drift, ``f(t, y, *args)``, of the structure and shapes of ``y0``.
        g: Diffusion, ``g(t, y, *args)``, of the structure of ``y0``; its shapes depend on ``noise``.
        y0: Initial state: a pytree of float32 or of float64 tensors.
        t: Output times, 1-D and increasing, whole multiples of ``dt`` apart; ``y0`` belongs to the first.
        dt: Step; with ``rtol``, the longest step.
        method: Default `EulerMaruyama` for Ito, and `StochasticHeun` for Stratonovich equations.
        noise: Structure of the diffusion; default `Diagonal`, a process for every element.
        calculus: Meaning of ``g dW``.
        args: Further arguments of ``f``, ``g`` and ``linear``.
        linear: ``linear(t, y, *args)``, the slope of each variable's own drift, for exponential methods; leaves may be
            floats. The default differentiates ``f``, taking it to act element by element within each leaf.
        seed: Names the paths: an integer, or int64 keys of shape ``batch_shape``.
        batch_shape: Leading axes of every leaf of ``y0`` over which the paths are independent. With `Scalar` and
            `General` noise, all elements of a batch element share its processes. Element b has the paths of a run
            without batch whose seed is the key ``make_key(seed, batch_shape)[b]``.
        path: The paths themselves, in place of ``seed`` and ``batch_shape``; its step is ``dt`` times a power of 2.
        rtol: Where given, steps are halved and doubled so that the difference between one step and two halves of it,
            divided by ``atol + rtol |y|``, has a root mean square of at most 1 in each batch element. All batch
            elements share their steps, which hang on values and so exclude `torch.func.vmap`; and the method must have
            strong order 1, since others may converge to a wrong solution.
        atol: See ``rtol``.
        loop: What runs the steps, such as ``bdtorch.Native()``; default a plain Python loop, through which gradients
            and `torch.func` transforms pass.
        progress: Show a bar; default where the run takes longer than a few seconds.

    Returns:
        The `SDESolution`.

    Raises:
        TypeError, ValueError: An argument is not as described; the message names it.
        FloatingPointError: The solution became NaN or infinite, or ``rtol`` cannot be met.

    Source: Gaines & Lyons (1997), doi:10.1137/S0036139995286515, for rejected steps; Kloeden & Platen (1992),
        doi:10.1007/978-3-662-12616-5.
    """
    for name, function in (("f", f), ("g", g)):
        check_function("sdeint", name, function, "t, y, *args")
    check_arguments("sdeint", args, loop)
    noise = Diagonal() if noise is None else noise
    if method is None:
        method = StochasticHeun() if calculus is Calculus.STRATONOVICH else EulerMaruyama()
    checks.check_choice(method, noise, calculus)
    checks.check_step(dt)
    times, numbers = checks.checked_times(t)
    start, counts = checks.count_steps(numbers, dt)
    checks.check_path(path, seed, batch_shape)
    if path is None:
        device = next((leaf.device for leaf in tree.tensors(y0)), None)
        path = BrownianPath(dt, seed, tuple(batch_shape), start, device)
    checks.check_state(y0, path.batch_shape)
    equation = _equation(f, g, linear, args, noise, calculus)
    checks.check_equation(equation, method, y0, start, len(path.batch_shape))
    if linear is not None:
        with renamed("sdeint"):
            check_linear(equation.linear(y0, torch.full((), start, dtype=torch.float64, device=path.key.device)), y0)
    driver = _Driver(equation, method, path, dt, start, checks.first_number(path, start, dt))
    if rtol is not None:
        if loop is not None:
            raise ValueError("`sdeint(loop=...)`: expected None with rtol, since the steps depend on the solution")
        y, accepted, rejected = solve_adaptively(
            driver.advance, y0, counts, checks.check_tolerance(method, noise, rtol, atol), start, dt,
            len(path.batch_shape), progress,
        )  # fmt: skip
    else:
        y, accepted, rejected = _solve(driver, y0, counts, loop, progress), counts[-1], 0
    walk = None if rtol is not None else Walk(driver.step, y0, (), lambda n: start + n * dt)
    checks.check_solution(y, times, walk, counts)
    return SDESolution(times.to(path.key.device), y, path, dt, accepted, rejected)


def _equation(
    f: Function, g: Function, linear: Function | None, args: tuple[Any, ...], noise: Noise, calculus: Calculus
) -> StochasticEquation:
    def drift(y: State, t: Tensor) -> State:
        return tree.aligned(f(shared_time(t, y), y, *args), y)

    def diffusion(y: State, t: Tensor) -> State:
        return tree.aligned(g(shared_time(t, y), y, *args), y)

    def slopes(y: State, t: Tensor) -> State:
        return own_slopes(drift, y, t) if linear is None else tree.aligned(linear(shared_time(t, y), y, *args), y)

    return StochasticEquation(drift, diffusion, slopes, noise, calculus)


@dataclass(frozen=True, eq=False)
class _Driver:
    """A method, its equation and its paths, bound to a grid."""

    equation: StochasticEquation
    method: StochasticIntegrator
    path: BrownianPath
    dt: float
    start: float
    first: int

    def step(self, y: State, slices: Any, number: Tensor) -> tuple[State, State]:
        """One step, as a `TimeLoop` takes it."""
        after = self.advance(y, number)
        return after, after

    def advance(self, y: State, number: Tensor, depth: int = 0, level: int = 0) -> State:
        """Take the step of length ``dt / 2**level`` from ``start`` plus ``number`` times ``dt / 2**depth``."""
        leaves, batch = tree.leaves(y), len(self.path.batch_shape)
        coarse = _halvings(self.path.step, self.dt)
        increment = self.path.increment(
            number.to(torch.int64) + (self.first << depth),
            self.equation.noise.width(y, batch),
            dtype=leaves[0].dtype,
            depth=coarse + depth,
            level=coarse + level,
            area=self.method.needs_area,
        )
        spread = self.equation.noise.spread
        area = None if increment.area is None else spread(increment.area, y, batch)
        kick = Kick(spread(increment.w, y, batch), area)
        t = self.start + number.to(torch.float64) * (self.dt / 2**depth)
        return self.method.step(self.equation, y, t, self.dt / 2**level, kick)


def _halvings(coarse: float, fine: float) -> int:
    return round(coarse / fine).bit_length() - 1


def _solve(driver: _Driver, y0: State, counts: list[int], loop: TimeLoop | None, progress: bool | None) -> State:
    initial = tree.map(lambda leaf: leaf.unsqueeze(0), y0)
    if counts[-1] == 0:
        return initial

    every = checks.common_divisor(counts)
    prepared = (PythonLoop() if loop is None else loop).prepare(driver.step, y0, every=every)

    def with_start(state: State, slices: Any, first: int, count: int) -> tuple[State, State]:
        # The initial row joins the first chunk, which is short; joining it to the whole would copy the whole.
        after, kept = prepared(state, slices, first, count)
        return after, kept if first else tree.map(lambda row, rest: torch.cat([row, rest]), initial, kept)

    _, grid = iterate(with_start, y0, counts[-1], progress=progress, description="sdeint")
    rows = [count // every for count in counts]
    if rows == list(range(len(rows))):
        return grid
    wanted = torch.tensor(rows, device=tree.leaves(y0)[0].device)
    return tree.map(lambda leaf: leaf[wanted], grid)


def _listed(name: str, kind: str, order: float, stages: int, source: str, weak_order: float = 1.0) -> Method:
    return Method(name, "SDE", kind, order, weak_order=weak_order, stages=stages, source=source)


_ANY_ITO = "Ito, any noise (strong order 1 where additive)"
_ANY_STRATONOVICH = "Stratonovich, any noise (strong order 1 where commutative)"
_COMMUTATIVE = "Ito and Stratonovich, commutative noise"
_RUEMELIN = "Ruemelin (1982), doi:10.1137/0719041"
_KLOEDEN = "Kloeden & Platen (1992), doi:10.1007/978-3-662-12616-5"
_ROESSLER = "Roessler (2010), doi:10.1137/09076636X"

METHODS = (
    _listed("EulerMaruyama", _ANY_ITO, 0.5, 1, "Maruyama (1955), doi:10.1007/BF02846028"),
    _listed("EulerHeun", _ANY_STRATONOVICH, 0.5, 2, _RUEMELIN),
    _listed("StochasticHeun", _ANY_STRATONOVICH, 0.5, 2, _RUEMELIN),
    _listed("ExponentialEulerMaruyama", _ANY_ITO, 0.5, 1, "Komori & Burrage (2014), doi:10.1007/s10543-014-0485-1"),
    _listed("Milstein", _COMMUTATIVE, 1.0, 1, "Milstein (1975), doi:10.1137/1119062"),
    _listed("DerivativeFreeMilstein", _COMMUTATIVE, 1.0, 2, _KLOEDEN),
    _listed("SRA1", "Ito and Stratonovich, additive noise", 1.5, 2, _ROESSLER, 2.0),
    _listed("SRA2", "Ito and Stratonovich, additive noise", 1.5, 2, _ROESSLER, 2.0),
    _listed("SRA3", "Ito and Stratonovich, additive noise", 1.5, 3, _ROESSLER, 2.0),
    _listed("SRI1", "Ito, scalar and diagonal noise", 1.5, 4, _ROESSLER, 1.5),
    _listed("SRI2", "Ito, scalar and diagonal noise", 1.5, 4, _ROESSLER, 1.5),
)
"""The stochastic methods, for `bdtorch.integrate.methods`."""
