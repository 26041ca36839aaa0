"""Diagonally implicit Runge-Kutta methods: one stepping rule with Newton's method, the methods are data."""
# ruff: noqa: N802  (a function that makes a method reads as the method's name)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch._types import State
from bdtorch.integrate._base import Adaptive, Derivative, Trial, combine, hermite
from bdtorch.integrate._coupling import Coupling, Dense
from bdtorch.integrate._methods import Method
from bdtorch.integrate._tableaus import Row, Rows


@dataclass(frozen=True)
class DiagonallyImplicit(Adaptive):
    r"""A diagonally implicit method given by its Butcher tableau.

    $$k_i = f\Big(Y_i,\; t + c_i \Delta t\Big), \qquad Y_i = y + \Delta t \sum_{j \le i} a_{ij} k_j, \qquad
    y' = y + \Delta t \sum_i b_i k_i$$

    Each stage is solved by a fixed number of Newton iterations, so that loops can trace it. Where the last of them still
    moves a trajectory by more than the cube root of the machine's precision, a fixed step yields NaN, which the solver
    reports with time and component, and an adaptive one is rejected.

    Attributes:
        a: Rows of the lower triangle, with the diagonal.
        b: Weights of the stages; they sum to 1.
        order: Order of convergence.
        error: Weights of the error estimate over the stages; empty for methods that estimate none.
        error_order: Power of ``dt`` with which the estimate shrinks.
        iterations: Newton iterations per stage.
        coupling: Which variables are coupled; default all, within each trajectory of `odeint`.
        dense: For each stage the coefficients of ``theta, theta^2, ...`` of its weight in the dense output; empty for the
            cubic Hermite interpolant.

    Source: Hairer & Wanner, Solving Ordinary Differential Equations II (1996), section IV.6,
        doi:10.1007/978-3-642-05221-7.
    """

    a: Rows
    b: Row
    order: int
    error: Rows = ()
    error_order: int = 0
    iterations: int = 5
    coupling: Coupling | None = None
    dense: Rows = ()

    def __post_init__(self) -> None:
        check_iterations(self.iterations)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return sum(self.iterations + 1 if row[-1] else 1 for row in self.a)

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        coupling = self.coupling or Dense()
        packed, unpack = coupling.pack(y)

        def rows(z: Tensor, s: Tensor) -> Tensor:
            return coupling.pack(derivative(unpack(z), s))[0]

        slopes, sound = self._stages(coupling, rows, packed, None, t, dt, dt)
        after = combine(packed, dt, self.b, slopes)
        return unpack(torch.where(sound.unsqueeze(-1), after, torch.nan))

    def trial(self, derivative: Derivative, y: Tensor, slope: Tensor, t: Tensor, h: Tensor, dense: bool) -> Trial:
        step = h.unsqueeze(-1).to(y.dtype)
        coupling = self.coupling or Dense(y.dim() - 1)
        slopes, sound = self._stages(coupling, derivative, y, slope, t, h, step)
        after = combine(y, step, self.b, slopes)
        errors = tuple(combine(torch.zeros_like(y), step, row, slopes) for row in self.error)
        end = derivative(after, t + h)
        if not dense:
            return Trial(after, end, errors, (), sound)
        if not self.dense:
            return Trial(after, end, errors, hermite(y, after, step, slope, end), sound)
        columns = zip(*self.dense, strict=True)
        powers = tuple(combine(torch.zeros_like(y), step, column, slopes) for column in columns)
        return Trial(after, end, errors, powers, sound)

    def _stages(
        self, coupling: Coupling, derivative: Derivative, y: Tensor, slope: Tensor | None, t: Tensor, h: Any, step: Any
    ) -> tuple[list[Tensor], Tensor]:
        """Slopes of the stages, and whether Newton's method settled, row by row."""
        solves: dict[float, Any] = {}
        jacobian = coupling.differentiate(derivative, y, t)
        slopes: list[Tensor] = []
        sound = torch.ones(y.shape[:-1], dtype=torch.bool, device=y.device)
        for row in self.a:
            base = combine(y, step, row[:-1], slopes)
            s = t + sum(row) * h
            if not row[-1]:
                slopes.append(derivative(base, s) if slopes or slope is None else slope)
                continue
            scale = row[-1] * step
            if row[-1] not in solves:
                solves[row[-1]] = coupling.factor(jacobian, scale.squeeze(-1) if isinstance(scale, Tensor) else scale)
            renew = coupling if slope is None else None  # a fixed step has no second try with a smaller one
            guess = slopes[-1] if slopes else None
            stage, settled = self._newton(solves[row[-1]], derivative, base, guess, s, scale, renew)
            slopes.append((stage - base) / _safe(scale))
            sound = sound & settled
        return slopes, sound

    def _newton(
        self,
        solve: Any,
        derivative: Derivative,
        base: Tensor,
        guess: Tensor | None,
        s: Tensor,
        scale: Any,
        renew: Coupling | None,
    ) -> tuple[Tensor, Tensor]:
        """Solve ``Y = base + scale f(Y)`` with the Jacobian of the step's beginning, renewed once where asked for."""
        stage = base if guess is None else base + scale * guess
        change = torch.zeros_like(stage)
        for number in range(self.iterations):
            if renew is not None and number == 2:
                solve = renew.factor(renew.differentiate(derivative, stage, s), scale)
            change = solve(base + scale * derivative(stage, s) - stage)
            stage = stage + change
        bound = torch.finfo(stage.dtype).eps ** (1 / 3)
        size = torch.maximum(largest(stage), largest(base))
        return stage, largest(change) <= bound * (size + bound)


def largest(rows: Tensor) -> Tensor:
    """The largest magnitude in each row, 0 where a row is empty; carries no gradient."""
    return rows.detach().abs().amax(-1) if rows.shape[-1] else torch.zeros_like(rows.detach().sum(-1))


def _safe(scale: Any) -> Any:
    """The scale to divide by: a trajectory that has arrived stands still, with a step of 0."""
    return torch.where(scale == 0, 1.0, scale) if isinstance(scale, Tensor) else scale


def check_iterations(iterations: Any) -> None:
    """Reject anything but a positive whole number."""
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise ValueError(f"`iterations`: expected a positive whole number of Newton iterations, got {iterations!r}")


def ImplicitEuler(iterations: int = 8, coupling: Coupling | None = None) -> DiagonallyImplicit:
    """Backward Euler, order 1, L-stable."""
    return DiagonallyImplicit(a=((1.0,),), b=(1.0,), order=1, iterations=iterations, coupling=coupling)


def Trapezoidal(iterations: int = 8, coupling: Coupling | None = None) -> DiagonallyImplicit:
    """The trapezoidal rule, order 2, A-stable."""
    a = ((0.0,), (1 / 2, 1 / 2))
    return DiagonallyImplicit(a=a, b=(1 / 2, 1 / 2), order=2, iterations=iterations, coupling=coupling)


def ImplicitMidpoint(iterations: int = 8, coupling: Coupling | None = None) -> DiagonallyImplicit:
    """The implicit midpoint rule, order 2, symplectic: it keeps quadratic invariants."""
    return DiagonallyImplicit(a=((1 / 2,),), b=(1.0,), order=2, iterations=iterations, coupling=coupling)


_G = 0.435866521508459  # root of g^3 - 3 g^2 + 3 g / 2 - 1 / 6, which makes the method of order 3 L-stable
_KVAERNO3_2: Row = ((-4 * _G**2 + 6 * _G - 1) / (4 * _G), (1 - 2 * _G) / (4 * _G), _G)
_KVAERNO3: Row = ((6 * _G - 1) / (12 * _G), -1 / ((24 * _G - 12) * _G), (-6 * _G**2 + 6 * _G - 1) / (6 * _G - 3), _G)

_KVAERNO5_4: Row = (0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676, 0.26)
_KVAERNO5: Row = (
    0.13659751177640291, 0.0, -0.05496908796538376, -0.04118626728321046, 0.62993304899016403, 0.06962479448202728, 0.26,
)  # fmt: skip
_KVAERNO5_A: Rows = (
    (0.0,),
    (0.26, 0.26),
    (0.13, 0.84033320996790809, 0.26),
    (0.22371961478320505, 0.47675532319799699, -0.06470895363112615, 0.26),
    (0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998, 0.26),
    _KVAERNO5_4,
    _KVAERNO5,
)

_KVAERNO5_DENSE: Rows = (
    (1.0, -2.072037588795689, 1.6904652246969905, -0.48183012412489756),
    (0.0, 0.0, 0.0, 0.0),
    (0.0, 0.8427243190616588, -1.9053249899848497, 1.0076315829578075),
    (0.0, -0.6665857136422443, 1.1684263581516436, -0.5430269117926095),
    (0.0, 3.256928814399382, -3.9941254328381075, 1.3671296674288884),
    (0.0, -0.6050255205696883, 1.4885502190674877, -0.8138999040157717),
    (0.0, -0.7560043104534008, 1.5520086209067976, -0.5360043104533976),
)
# The conditions of order 4 at every theta, with values and slopes of both ends; of all such weights those of least norm.


def _minus(b: Row, embedded: Row) -> Rows:
    return (tuple(x - y for x, y in zip(b, (*embedded, 0.0), strict=True)),)


def Kvaerno3(iterations: int = 5, coupling: Coupling | None = None) -> DiagonallyImplicit:
    """Kvaerno's pair of orders 3 and 2, L-stable and stiffly accurate."""
    a = ((0.0,), (_G, _G), _KVAERNO3_2, _KVAERNO3)
    error = _minus(_KVAERNO3, _KVAERNO3_2)
    return DiagonallyImplicit(a, _KVAERNO3, 3, error, 3, iterations, coupling)


def Kvaerno5(iterations: int = 5, coupling: Coupling | None = None) -> DiagonallyImplicit:
    """Kvaerno's pair of orders 5 and 4, L-stable and stiffly accurate."""
    error = _minus(_KVAERNO5, _KVAERNO5_4)
    return DiagonallyImplicit(_KVAERNO5_A, _KVAERNO5, 5, error, 5, iterations, coupling, _KVAERNO5_DENSE)


_HAIRER = "Hairer & Wanner (1996), doi:10.1007/978-3-642-05221-7"
_KVAERNO = "Kvaerno (2004), doi:10.1023/B:BITN.0000046811.70614.38"

METHODS = (
    Method("ImplicitEuler", "ODE", "implicit", 1, stages=1, source=_HAIRER),
    Method("Trapezoidal", "ODE", "implicit", 2, stages=2, source=_HAIRER),
    Method("ImplicitMidpoint", "ODE", "implicit", 2, stages=1, source=_HAIRER),
    Method("Kvaerno3", "ODE", "implicit", 3, stages=4, embedded_order=2, source=_KVAERNO),
    Method("Kvaerno5", "ODE", "implicit", 5, stages=7, embedded_order=4, source=_KVAERNO),
)
