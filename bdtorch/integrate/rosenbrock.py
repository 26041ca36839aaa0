"""Rosenbrock methods: stiff steps that solve linear equations only."""
# ruff: noqa: N802  (a function that makes a method reads as the method's name)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdtorch._types import State
from bdtorch.integrate._base import Adaptive, Derivative, Trial, combine, hermite
from bdtorch.integrate._coupling import Coupling, Dense, Solve
from bdtorch.integrate._derivatives import time_slope
from bdtorch.integrate._methods import Method
from bdtorch.integrate._tableaus import Row, Rows


@dataclass(frozen=True)
class Rosenbrock(Adaptive):
    r"""A Rosenbrock method, in the variables that spare products with the Jacobian ``J``.

    $$(I - \gamma \Delta t\,J)\,u_i = \gamma \Delta t\, f\Big(y + \sum_{j<i} a_{ij} u_j,\; t + \alpha_i \Delta t\Big)
    + \gamma \sum_{j<i} c_{ij} u_j + \gamma \gamma_i \Delta t^2\, \partial_t f, \qquad y' = y + \sum_i m_i u_i$$

    Attributes:
        gamma: Diagonal coefficient.
        a: Rows of the arguments of ``f``, the first of them empty.
        c: Rows of the right-hand sides, the first of them empty.
        alpha: Where in the step the stages stand.
        gammas: Sums of the rows of gamma, which weigh the derivative in time.
        m: Weights of the solution.
        error: Weights of the error estimate; where empty, the difference to the trapezoidal rule, whose growth for stiff
            components is taken away by the step's own matrix: ``(I - gamma dt J)^-1 (y + dt (f(y) + f(y')) / 2 - y')``.
        order: Order of convergence.
        error_order: Power of ``dt`` with which the estimate shrinks.
        dense: Weights of the two inner terms of the dense output of order 3; empty for the cubic Hermite interpolant.
        coupling: Which variables are coupled; default all, within each trajectory of `odeint`.

    Source: Hairer & Wanner, Solving Ordinary Differential Equations II (1996), section IV.7,
        doi:10.1007/978-3-642-05221-7.
    """

    gamma: float
    a: Rows
    c: Rows
    alpha: Row
    gammas: Row
    m: Row
    error: Row
    order: int
    error_order: int
    dense: Rows = ()
    coupling: Coupling | None = None

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return len(self.m)

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        coupling = self.coupling or Dense()
        packed, unpack = coupling.pack(y)

        def rows(z: Tensor, s: Tensor) -> Tensor:
            return coupling.pack(derivative(unpack(z), s))[0]

        return unpack(combine(packed, 1.0, self.m, self._stages(coupling, rows, packed, None, t, dt, dt)[0]))

    def trial(self, derivative: Derivative, y: Tensor, slope: Tensor, t: Tensor, h: Tensor, dense: bool) -> Trial:
        step = h.unsqueeze(-1).to(y.dtype)
        coupling = self.coupling or Dense(y.dim() - 1)
        stages, solve = self._stages(coupling, derivative, y, slope, t, h, step)
        after = combine(y, 1.0, self.m, stages)
        end = derivative(after, t + h)
        error = combine(y - y, 1.0, self.error, stages) if self.error else solve(y - after + 0.5 * step * (slope + end))
        powers: tuple[Tensor, ...] = ()
        if dense and self.dense:
            inner, outer = (combine(y - y, 1.0, row, stages) for row in self.dense)
            powers = (after - y + inner, outer - inner, -outer)
        elif dense:
            powers = hermite(y, after, step, slope, end)
        return Trial(after, end, (error,), powers)

    def _stages(
        self, coupling: Coupling, derivative: Derivative, y: Tensor, slope: Tensor | None, t: Tensor, h: Any, step: Any
    ) -> tuple[list[Tensor], Solve]:
        scale = self.gamma * step
        jacobian = coupling.differentiate(derivative, y, t)
        solve = coupling.factor(jacobian, scale.squeeze(-1) if isinstance(scale, Tensor) else scale)
        drift = time_slope(derivative, y, t)
        stages: list[Tensor] = []
        for row, history, alpha, gamma in zip(self.a, self.c, self.alpha, self.gammas, strict=True):
            if stages or slope is None:
                slope = derivative(combine(y, 1.0, row, stages), t + alpha * h)
            right = scale * slope + (scale * gamma * step) * drift
            stages.append(solve(combine(right, self.gamma, history, stages)))
        return stages, solve


def ROS3P(coupling: Coupling | None = None) -> Rosenbrock:
    """Lang and Verwer's method of order 3, A-stable, without loss of order on parabolic problems.

    No combination of its stages can estimate the error for linear autonomous equations: all that are of order 2 are there of
    order 3, also the published one. So the estimate is that of the trapezoidal rule.
    """
    a = 1.2679491924311228  # 1 / gamma, with gamma = 1/2 + sqrt(3)/6
    return Rosenbrock(
        gamma=0.7886751345948129,
        a=((), (a,), (a, 0.0)),
        c=((), (-1.6076951545867364,), (-3.4641016151377544, -1.7320508075688772)),
        alpha=(0.0, 1.0, 1.0),
        gammas=(0.7886751345948129, -0.2113248654051871, -1.0773502691896257),
        m=(2.0, 0.5773502691896258, 0.42264973081037427),
        error=(),
        order=3,
        error_order=3,
        coupling=coupling,
    )


_RODAS4: Row = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950)


def Rodas4(coupling: Coupling | None = None) -> Rosenbrock:
    """Hairer and Wanner's RODAS, of orders 4 and 3, L-stable and stiffly accurate, with a dense output of order 3."""
    return Rosenbrock(
        gamma=0.25,
        a=(
            (),
            (1.544,),
            (0.9466785280815826, 0.2557011698983284),
            (3.314825187068521, 2.896124015972201, 0.9986419139977817),
            _RODAS4,
            (*_RODAS4, 1.0),
        ),
        c=(
            (),
            (-5.6688,),
            (-2.430093356833875, -0.2063599157091915),
            (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
            (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
            (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
        ),
        alpha=(0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
        gammas=(0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0),
        m=(*_RODAS4, 1.0, 1.0),
        error=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        order=4,
        error_order=4,
        dense=(
            (10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662, 0.0),
            (-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872, 0.0),
        ),
        coupling=coupling,
    )


METHODS = (
    Method(
        "ROS3P", "ODE", "Rosenbrock", 3, stages=3, embedded_order=2,
        source="Lang & Verwer (2001), doi:10.1023/A:1021900219772",
    ),
    Method(
        "Rodas4", "ODE", "Rosenbrock", 4, stages=6, embedded_order=3,
        source="Hairer & Wanner (1996), doi:10.1007/978-3-642-05221-7",
    ),
)  # fmt: skip
