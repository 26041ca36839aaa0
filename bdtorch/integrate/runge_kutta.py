"""Explicit Runge-Kutta methods: one stepping rule, the methods are data."""
# ruff: noqa: N802  (a function that makes a method reads as the method's name)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdtorch._types import State
from bdtorch.integrate import _dop853
from bdtorch.integrate import _tableaus as tableaus
from bdtorch.integrate._base import Adaptive, Derivative, Trial, combine, hermite
from bdtorch.integrate._history import BOOTSTRAP_EVALUATIONS, smooth
from bdtorch.integrate._methods import Method
from bdtorch.integrate._scalars import scalars
from bdtorch.integrate._tableaus import Row, Rows


@dataclass(frozen=True)
class RungeKutta(Adaptive):
    r"""An explicit method given by its Butcher tableau.

    $$k_i = f\Big(y + \Delta t \sum_{j<i} a_{ij} k_j,\; t + c_i \Delta t\Big), \qquad y' = y + \Delta t \sum_i b_i k_i$$

    Attributes:
        a: Rows of the strictly lower triangle, the first of them empty.
        b: Weights of the stages; they sum to 1.
        order: Order of convergence.
        error: Weights of the error estimates, ``b - b_hat``, over the stages and the slope at the end of the step;
            empty for methods that estimate none.
        error_order: Power of ``dt`` with which the (first) estimate shrinks.
        dense: For each stage, the slope at the end and each row of ``extra``, the coefficients of
            ``theta, theta^2, ...`` of its weight in the dense output; empty for the cubic Hermite interpolant, which for
            methods of higher order is raised to their degree.
        extra: Rows of stages that only the dense output uses.

    Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I (1993), chapter II,
        doi:10.1007/978-3-540-78862-1.
    """

    a: Rows
    b: Row
    order: int
    error: Rows = ()
    error_order: int = 0
    dense: Rows = ()
    extra: Rows = ()

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the slope at the end of the step, and so the first of the next."""
        return len(self.a) > 1 and self.a[-1] == self.b[:-1] and self.b[-1] == 0.0

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        return len(self.a) - 1 if self.first_same_as_last else len(self.a)

    @property
    def dense_evaluations(self) -> int:  # type: ignore[override]
        return len(self.extra) if self.dense else BOOTSTRAP_EVALUATIONS.get(self.order, 0)

    def step(self, derivative: Derivative, linear: Derivative, y: State, t: Tensor, dt: float) -> State:
        slopes: list[State] = []
        for row in self.a[:-1] if self.first_same_as_last else self.a:
            stage = combine(y, dt, row, slopes)
            slopes.append(derivative(stage, t + sum(row) * dt if row else t))
        return combine(y, dt, self.b[: len(slopes)], slopes)

    def trial(self, derivative: Derivative, y: Tensor, slope: Tensor, t: Tensor, h: Tensor, dense: bool) -> Trial:
        step = h.unsqueeze(-1).to(y.dtype).expand_as(y).contiguous()  # of one shape with the rest, loops fuse it better
        number, part = scalars(y), scalars(h)
        slopes = [slope]

        def ahead(row: Row) -> Tensor:
            """The slope of a stage."""
            share = sum(row)
            later = t + (h if share == 1.0 else h * part(share))
            return derivative(y + _weighted(row, slopes, step, number), later)

        for row in self.a[1:-1] if self.first_same_as_last else self.a[1:]:
            slopes.append(ahead(row))
        after = y + _weighted(self.b, slopes, step, number)
        end = derivative(after, t + h)
        slopes.append(end)
        errors = tuple(_weighted(row, slopes, step, number) for row in self.error)
        if not dense:
            return Trial(after, end, errors, ())
        if not self.dense:
            cubic = hermite(y, after, step, slope, end)
            return Trial(after, end, errors, smooth(self.order, derivative, y, cubic, t, h))
        for row in self.extra:
            slopes.append(ahead(row))
        powers = tuple(_weighted(column, slopes, step, number) for column in zip(*self.dense, strict=True))
        return Trial(after, end, errors, powers)


def _weighted(weights: Row, slopes: list[Tensor], step: Tensor, number: Callable[[float], Any]) -> Tensor:
    """``step * sum_i weights[i] slopes[i]``, with the weights as `scalars` has them."""
    terms = [
        slope if weight == 1.0 else slope * number(weight)
        for weight, slope in zip(weights, slopes, strict=False)
        if weight
    ]
    return step * sum(terms[1:], terms[0])


def _difference(b: Row, embedded: Row) -> Rows:
    width = max(len(b), len(embedded))
    padded = [(*row, *(0.0,) * (width - len(row))) for row in (b, embedded)]
    return (tuple(x - y for x, y in zip(*padded, strict=True)),)


def Euler() -> RungeKutta:
    """Forward Euler, order 1."""
    return RungeKutta(a=((),), b=(1.0,), order=1)


def Midpoint() -> RungeKutta:
    """The explicit midpoint rule, order 2."""
    return RungeKutta(a=((), (1 / 2,)), b=(0.0, 1.0), order=2)


def Heun() -> RungeKutta:
    """Heun's trapezoidal method, order 2."""
    return RungeKutta(a=((), (1.0,)), b=(1 / 2, 1 / 2), order=2)


def Ralston2() -> RungeKutta:
    """Ralston's method of order 2, of least error bound."""
    return RK2(2 / 3)


def RK2(beta: float = 2 / 3) -> RungeKutta:
    """The two-stage methods of order 2.

    Args:
        beta: Where in the step the second stage stands, in (0, 1]; 1/2 is the midpoint rule, 1 Heun's method.

    Raises:
        ValueError: ``beta`` is outside (0, 1].
    """
    if not 0.0 < beta <= 1.0:
        raise ValueError(f"`RK2(beta=...)`: expected a number in (0, 1], got {beta!r}")
    return RungeKutta(a=((), (beta,)), b=(1.0 - 0.5 / beta, 0.5 / beta), order=2)


def Kutta3() -> RungeKutta:
    """Kutta's method of order 3."""
    return RungeKutta(a=tableaus.KUTTA3_A, b=(1 / 6, 2 / 3, 1 / 6), order=3)


def Heun3() -> RungeKutta:
    """Heun's method of order 3."""
    return RungeKutta(a=((), (1 / 3,), (0.0, 2 / 3)), b=(1 / 4, 0.0, 3 / 4), order=3)


def Ralston3() -> RungeKutta:
    """Ralston's method of order 3, of least error bound."""
    return RungeKutta(a=tableaus.RALSTON3_A, b=(2 / 9, 1 / 3, 4 / 9), order=3)


def SSPRK3() -> RungeKutta:
    """The strong-stability-preserving method of order 3."""
    return RungeKutta(a=tableaus.SSPRK3_A, b=(1 / 6, 1 / 6, 2 / 3), order=3)


def RK4() -> RungeKutta:
    """The classical method of order 4."""
    return RungeKutta(a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4)


def RK4ThreeEighths() -> RungeKutta:
    """Kutta's 3/8 rule, order 4."""
    return RungeKutta(a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), b=(1 / 8, 3 / 8, 3 / 8, 1 / 8), order=4)


def Ralston4() -> RungeKutta:
    """Ralston's method of order 4, of least error bound."""
    return RungeKutta(a=tableaus.RALSTON4_A, b=tableaus.RALSTON4_B, order=4)


def HeunEuler() -> RungeKutta:
    """Heun's method of order 2 with Euler's of order 1 inside."""
    return RungeKutta(a=((), (1.0,)), b=(1 / 2, 1 / 2), order=2, error=((-1 / 2, 1 / 2),), error_order=2)


def RKF12() -> RungeKutta:
    """Fehlberg's pair of orders 1 and 2, advanced with order 2.

    The two differ by 1/512 of a term only, so where the third derivative is large the estimate is smaller than the error, and
    tolerances are missed: for adaptive steps `HeunEuler` is the better pair of these orders.
    """
    b = (1 / 512, 255 / 256, 1 / 512)
    a = ((), (1 / 2,), (1 / 256, 255 / 256))
    return RungeKutta(a=a, b=b, order=2, error=_difference(b, (1 / 256, 255 / 256, 0.0)), error_order=2)


def BogackiShampine() -> RungeKutta:
    """Bogacki and Shampine's pair of orders 3 and 2, whose last stage begins the next step."""
    b = (2 / 9, 1 / 3, 4 / 9)
    error = _difference(b, (7 / 24, 1 / 4, 1 / 3, 1 / 8))
    return RungeKutta(a=((), (1 / 2,), (0.0, 3 / 4), b), b=(*b, 0.0), order=3, error=error, error_order=3)


def RKF45() -> RungeKutta:
    """Fehlberg's pair of orders 4 and 5, advanced with order 4."""
    b, error = tableaus.FEHLBERG_4, _difference(tableaus.FEHLBERG_4, tableaus.FEHLBERG_5)
    return RungeKutta(a=tableaus.FEHLBERG_A, b=b, order=4, error=error, error_order=5)


def CashKarp() -> RungeKutta:
    """Cash and Karp's pair of orders 5 and 4."""
    b, error = tableaus.CASH_KARP_5, _difference(tableaus.CASH_KARP_5, tableaus.CASH_KARP_4)
    return RungeKutta(a=tableaus.CASH_KARP_A, b=b, order=5, error=error, error_order=5)


def DormandPrince5() -> RungeKutta:
    """Dormand and Prince's pair of orders 5 and 4 (MATLAB's ode45), with a dense output of order 4."""
    b = tableaus.DORMAND_PRINCE_5
    return RungeKutta(
        a=tableaus.DORMAND_PRINCE_A,
        b=(*b, 0.0),
        order=5,
        error=_difference(b, tableaus.DORMAND_PRINCE_4),
        error_order=5,
        dense=tableaus.DORMAND_PRINCE_DENSE,
    )


def Tsit5() -> RungeKutta:
    """Tsitouras' pair of orders 5 and 4, with a dense output of order 4."""
    b = tableaus.TSITOURAS_5
    return RungeKutta(
        a=tableaus.TSITOURAS_A,
        b=(*b, 0.0),
        order=5,
        error=_difference(b, tableaus.TSITOURAS_4),
        error_order=5,
        dense=tableaus.TSITOURAS_DENSE,
    )


def DOP853() -> RungeKutta:
    """Dormand and Prince's method of order 8 with error estimates of orders 5 and 3 and a dense output of order 7."""
    return RungeKutta(
        a=_dop853.A,
        b=_dop853.B[0],
        order=8,
        error=_dop853.ERROR,
        error_order=8,
        dense=tableaus.DOP853_DENSE,
        extra=_dop853.EXTRA,
    )


_HAIRER = "Hairer, Norsett & Wanner (1993), doi:10.1007/978-3-540-78862-1"
_RALSTON = "Ralston (1962), doi:10.1090/S0025-5718-1962-0150954-0"
_KUTTA = f"Kutta, Z. Math. Phys. 46 (1901), p. 435; {_HAIRER}"
_FEHLBERG = "Fehlberg (1970), doi:10.1007/BF02241732"

METHODS = tuple(
    Method(name, "ODE", "explicit", order, stages=stages, embedded_order=embedded, source=source)
    for name, order, stages, embedded, source in (
        ("Euler", 1, 1, None, _HAIRER),
        ("Midpoint", 2, 2, None, _HAIRER),
        ("Heun", 2, 2, None, _HAIRER),
        ("Ralston2", 2, 2, None, _RALSTON),
        ("RK2", 2, 2, None, _HAIRER),
        ("Kutta3", 3, 3, None, _KUTTA),
        ("Heun3", 3, 3, None, _HAIRER),
        ("Ralston3", 3, 3, None, _RALSTON),
        ("SSPRK3", 3, 3, None, "Shu & Osher (1988), doi:10.1016/0021-9991(88)90177-5"),
        ("RK4", 4, 4, None, _KUTTA),
        ("RK4ThreeEighths", 4, 4, None, _KUTTA),
        ("Ralston4", 4, 4, None, _RALSTON),
        ("HeunEuler", 2, 2, 1, _HAIRER),
        ("RKF12", 2, 3, 1, _FEHLBERG),
        ("BogackiShampine", 3, 4, 2, "Bogacki & Shampine (1989), doi:10.1016/0893-9659(89)90079-7"),
        ("RKF45", 4, 6, 5, _FEHLBERG),
        ("CashKarp", 5, 6, 4, "Cash & Karp (1990), doi:10.1145/79505.79507"),
        ("DormandPrince5", 5, 7, 4, "Dormand & Prince (1980), doi:10.1016/0771-050X(80)90013-3"),
        ("Tsit5", 5, 7, 4, "Tsitouras (2011), doi:10.1016/j.camwa.2011.06.002"),
        ("DOP853", 8, 12, 5, f"Prince & Dormand (1981), doi:10.1016/0771-050X(81)90010-3; {_HAIRER}"),
    )
)
