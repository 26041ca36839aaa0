"""Fractional equations: orders of convergence, memory, delays, loops and transforms."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import bdtorch
from bdtorch.integrate import (
    L1,
    AdamsBashforthMoulton,
    CaputoEuler,
    Euler,
    FractionalIntegrator,
    GrunwaldLetnikov,
    ImplicitEuler,
    Pointwise,
    SumOfExponentials,
    fdeint,
    odeint,
)
from bdtorch.integrate import _memory as memory

F64 = torch.float64
ONE = torch.ones(1, dtype=F64)
FAST = SumOfExponentials(1e-12)
METHODS = [CaputoEuler(), GrunwaldLetnikov(), L1(), AdamsBashforthMoulton(), AdamsBashforthMoulton(corrections=2)]
FASTS = [CaputoEuler(fast=FAST), L1(fast=FAST), AdamsBashforthMoulton(fast=FAST)]
ALL = [*METHODS, *FASTS]


def _name(method: FractionalIntegrator) -> str:
    text = type(method).__name__ + str(getattr(method, "corrections", ""))
    return text + "-fast" * (getattr(method, "fast", None) is not None)


def slope(steps: list[int], errors: list[float]) -> float:
    return -float(np.polyfit(np.log2(steps), np.log2(errors), 1)[0])


def mittag_leffler(alpha: float, z: float) -> float:
    """``sum_k z^k / gamma(alpha k + 1)``, with enough digits for its cancellation."""
    with mpmath.workdps(60):
        return float(mpmath.nsum(lambda k: mpmath.mpf(z) ** k / mpmath.gamma(alpha * k + 1), [0, mpmath.inf]))


@pytest.mark.parametrize("alpha", [0.4, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("method", ALL, ids=_name)
def test_order_on_mittag_leffler(method: Any, alpha: float) -> None:
    # D^alpha y = -y is solved by E_alpha(-t^alpha), which begins like t^alpha: order 1, and 1 + alpha for the corrector.
    exact = mittag_leffler(alpha, -1.0)
    steps = [64, 128, 256]
    f = lambda t, y: -y  # noqa: E731
    errors = [abs(float(fdeint(f, ONE, [0.0, 1.0], alpha=alpha, dt=1 / n, method=method).y[-1]) - exact) for n in steps]
    assert abs(slope(steps, errors) - (1.0 + alpha if isinstance(method, AdamsBashforthMoulton) else 1.0)) < 0.15


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("method", ALL, ids=_name)
def test_order_on_a_smooth_solution(method: Any, alpha: float) -> None:
    # y = 1 + t^3 with a nonlinear, forced equation: its derivative is 6 t^(3 - alpha) / gamma(4 - alpha).
    # Errors of predictor and corrector have different orders, and cancel for a while where their signs differ.
    sign = 1.0 if getattr(method, "corrections", 1) > 1 else -1.0

    def f(t: Tensor, y: Tensor) -> Tensor:
        return 6.0 / math.gamma(4.0 - alpha) * t ** (3.0 - alpha) + 0.25 * sign * (y**2 - (1.0 + t**3) ** 2)

    steps = [160, 320, 640] if isinstance(method, AdamsBashforthMoulton) else [80, 160, 320]
    errors = [abs(float(fdeint(f, ONE, [0.0, 1.0], alpha=alpha, dt=1 / n, method=method).y[-1]) - 2.0) for n in steps]
    assert abs(slope(steps, errors) - method.order(alpha)) < 0.15


@pytest.mark.parametrize("method", FASTS, ids=_name)
def test_the_sum_of_exponentials_is_the_sum(method: Any) -> None:
    # Components of different order, among them a whole one, over 1,000 steps.
    alpha = torch.tensor([0.1, 0.5, 0.9, 0.999, 1.0], dtype=F64)
    f = lambda t, y: {"v": torch.cos(t) - 0.5 * y["v"]}  # noqa: E731
    y0 = {"v": torch.ones(5, dtype=F64)}
    t = torch.arange(0.0, 10.5, 2.0, dtype=F64)
    coupling = {"coupling": Pointwise()} if isinstance(method, L1) else {}
    fast, direct = (
        fdeint(f, y0, t, alpha=alpha, dt=0.01, method=type(method)(**options, **coupling), loop=bdtorch.Native()).y["v"]
        for options in ({"fast": FAST}, {})
    )
    torch.testing.assert_close(fast, direct, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.3, 0.7, 1.0])
def test_the_kernel_of_exponentials(tolerance: float, beta: float) -> None:
    rates, weights = SumOfExponentials(tolerance).terms(torch.tensor(beta, dtype=F64), 0.01, 1e4)
    t = torch.logspace(-2, 4, 500, dtype=F64)
    kernel = (weights * torch.exp(-rates * t.unsqueeze(-1))).sum(-1)
    assert float((kernel * t**beta - 1.0).abs().max()) < 10 * tolerance
    assert len(rates) < 15 * math.log(1.0 / tolerance)


def test_weights_do_not_cancel() -> None:
    # Against 50 digits, for ages up to a million.
    alpha = torch.tensor(0.37, dtype=F64)
    ages = [0, 1, 59, 60, 61, 1000, 999_999]
    tables = {
        "rectangle": memory.rectangle_weights(alpha, 10**6),
        "trapezoid": memory.trapezoid_weights(alpha + 1.0, 10**6),
        "start": memory.start_weights(alpha, 10**6),
    }
    with mpmath.workdps(50):
        a = mpmath.mpf(float(alpha))
        p = mpmath.mpf(float(alpha + 1.0))
        for k in ages:
            k1, k2 = mpmath.mpf(k + 1), mpmath.mpf(k + 2)
            exact = {
                "rectangle": k1**a - mpmath.mpf(k) ** a,
                "trapezoid": k2**p - 2 * k1**p + mpmath.mpf(k) ** p,
                "start": k1**a * (k2 + a) - k2 ** (a + 1),
            }
            for name, table in tables.items():
                close = 1e-11 if name == "rectangle" else 1e-9
                assert float(table[k]) == pytest.approx(float(exact[name]), rel=close), (name, k)


@pytest.mark.parametrize("method", [CaputoEuler(), GrunwaldLetnikov(), L1(), *FASTS[:2]], ids=_name)
def test_order_one_is_the_ordinary_equation(method: Any) -> None:
    f = lambda t, y: torch.cos(t) - y**2  # noqa: E731
    t = torch.linspace(0.0, 2.0, 5, dtype=F64)
    found = fdeint(f, ONE, t, alpha=1.0, dt=0.05, method=method).y
    twin = odeint(f, ONE, t, dt=0.05, method=ImplicitEuler(iterations=12) if isinstance(method, L1) else Euler()).y
    torch.testing.assert_close(found, twin, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS[:4], ids=_name)
def test_an_order_for_each_component_and_leaf(method: Any) -> None:
    orders = {"v": torch.tensor([0.5, 0.8], dtype=F64), "w": 0.9}
    f = lambda t, y: {"v": -y["v"], "w": -2.0 * y["w"]}  # noqa: E731
    y0 = {"v": torch.ones(2, dtype=F64), "w": torch.ones((), dtype=F64)}
    together = fdeint(f, y0, [0.0, 1.0], alpha=orders, dt=0.01, method=method).y
    for k, alpha in enumerate((0.5, 0.8)):
        single = fdeint(lambda t, y: -y, ONE, [0.0, 1.0], alpha=alpha, dt=0.01, method=method).y
        torch.testing.assert_close(together["v"][:, k], single[:, 0], rtol=1e-12, atol=0)
    assert float(together["w"][-1]) == pytest.approx(mittag_leffler(0.9, -2.0), abs=2e-2)


@pytest.mark.parametrize("make", [GrunwaldLetnikov, L1], ids=["GrunwaldLetnikov", "L1"])
def test_short_memory(make: Any) -> None:
    # A memory as long as the run changes nothing; a shorter one leaves an error that shrinks as it grows.
    def solve(rows: int | None) -> Tensor:
        end: Tensor = fdeint(lambda t, y: -y, ONE, [0.0, 4.0], alpha=0.6, dt=0.02, method=make(memory=rows)).y[-1]
        return end

    whole = solve(None)
    assert torch.equal(solve(200), whole)
    errors = [float((solve(rows) - whole).abs()) for rows in (25, 50, 100)]
    assert errors[0] > errors[1] > errors[2] > 1e-6
    assert errors[2] < 0.15


def test_l1_is_stable_where_explicit_methods_are_not() -> None:
    # D^alpha (y - cos) = -1000 (y - cos) with both zero at the start: the explicit methods diverge with this step.
    def f(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"v": -1000.0 * (y["v"] - y["w"]), "w": -0.1 * y["w"]}

    y0 = {"v": torch.ones(3, dtype=F64), "w": torch.ones(3, dtype=F64)}
    for method in (L1(), L1(coupling=Pointwise()), L1(fast=FAST)):
        y = fdeint(f, y0, [0.0, 2.0], alpha=0.8, dt=0.05, method=method).y
        assert float(y["w"][-1, 0]) == pytest.approx(mittag_leffler(0.8, -0.1 * 2.0**0.8), abs=2e-3)
        torch.testing.assert_close(y["v"], y["w"], rtol=1e-3, atol=0)
    with pytest.raises(FloatingPointError):
        fdeint(f, y0, [0.0, 20.0], alpha=0.8, dt=0.05, method=GrunwaldLetnikov())


@pytest.mark.parametrize("method", [AdamsBashforthMoulton(), L1(), GrunwaldLetnikov()], ids=_name)
def test_a_delay(method: Any) -> None:
    # y = t^2 before and after the start: D^alpha y = 2 t^(2 - alpha) / gamma(3 - alpha).
    alpha = 0.7

    def f(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
        return 2.0 / math.gamma(3.0 - alpha) * t ** (2.0 - alpha) + past[0] - (t - 0.5) ** 2 - y + t**2

    steps = [20, 40, 80]
    history = lambda t: (t**2).reshape(1)  # noqa: E731
    options: dict[str, Any] = {"alpha": alpha, "method": method, "history": history}
    errors = [abs(float(fdeint(f, None, [0.0, 2.0], dt=1 / n, delays=0.5, **options).y[-1]) - 4.0) for n in steps]
    assert slope(steps, errors) > method.order(alpha) - 0.15
    variable = fdeint(f, None, [0.0, 2.0], dt=1 / 80, delays=lambda t, y: 0.5, max_delay=0.5, **options)
    assert abs(float(variable.y[-1]) - 4.0) == pytest.approx(errors[-1], rel=1e-6)


@pytest.mark.parametrize(
    "method", [CaputoEuler(), GrunwaldLetnikov(memory=20), AdamsBashforthMoulton(), *FASTS[::2]], ids=_name
)
def test_the_native_loop_gives_the_same(method: Any) -> None:
    f = lambda t, y: torch.stack([-y[0] + y[1] * torch.cos(t), -y[0] * y[1]])  # noqa: E731
    y0 = torch.tensor([1.0, 0.5], dtype=F64)
    alpha = torch.tensor([0.6, 0.9], dtype=F64)
    plain, native = (
        fdeint(f, y0, [0.0, 0.5, 2.0], alpha=alpha, dt=0.0625, method=method, loop=loop).y
        for loop in (None, bdtorch.Native())
    )
    torch.testing.assert_close(native, plain, rtol=1e-12, atol=1e-13)


def test_vmap_and_gradients() -> None:
    def end(rate: Tensor, alpha: Tensor, start: Tensor, method: FractionalIntegrator) -> Tensor:
        f = lambda t, y, rate: -rate * y  # noqa: E731
        return fdeint(f, start * ONE, [0.0, 1.0], alpha=alpha, dt=0.05, method=method, args=(rate,)).y[-1, 0]

    values = [torch.tensor(pair, dtype=F64) for pair in ([0.5, 1.2], [0.5, 0.9], [1.0, 2.0])]
    for method in (*METHODS[:4], CaputoEuler(fast=FAST), AdamsBashforthMoulton(fast=FAST)):
        batched = torch.func.vmap(lambda *xs, method=method: end(*xs, method))(*values)
        singles = torch.stack([end(*row, method) for row in zip(*values, strict=True)])
        torch.testing.assert_close(batched, singles, rtol=1e-12, atol=0)
        point = [column[0].clone().requires_grad_() for column in values]
        assert torch.autograd.gradcheck(lambda *xs, method=method: end(*xs, method), point, atol=1e-6)


@pytest.mark.parametrize("method", METHODS[:4], ids=_name)
def test_second_derivatives_by_state_and_order(method: Any) -> None:
    def end(start: Tensor, alpha: Tensor) -> Tensor:
        return fdeint(
            lambda t, y: torch.sin(t) - y - 0.2 * y * y, start, [0.0, 1.0], alpha=alpha, dt=0.25, method=method
        ).y

    point = (ONE.clone().requires_grad_(), torch.tensor(0.6, dtype=F64, requires_grad=True))
    assert torch.autograd.gradgradcheck(end, point)


def test_compiles_in_one_graph() -> None:
    from bdtorch.integrate import PythonLoop

    class Compiled:
        def prepare(self, step: Any, state: Any, sequences: Any = (), *, every: int = 1) -> Any:
            whole = torch.compile(step, fullgraph=True, backend="eager", dynamic=False)
            return PythonLoop().prepare(whole, state, sequences, every=every)

    for method in ALL:
        torch._dynamo.reset()
        plain, compiled = (
            fdeint(lambda t, y: -y, ONE, [0.0, 0.5], alpha=0.6, dt=0.1, method=method, loop=loop).y
            for loop in (None, Compiled())
        )
        torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=0)


def _fitzhugh_rinzel(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
    v, w, u = y["v"], y["w"], y["u"]
    return {"v": v - v**3 / 3.0 - w + u + 0.3125, "w": 0.08 * (0.7 + v - 0.8 * w), "u": 1e-4 * (-0.775 - v - u)}


def test_fractional_fitzhugh_rinzel() -> None:
    # Parameters of Mondal, Sharma, Upadhyay & Mondal (2019), doi:10.1038/s41598-019-52061-4. Methods of different kinds
    # agree at order 0.9, and order 1 is the ordinary equation.
    y0 = {name: torch.tensor([value], dtype=F64) for name, value in (("v", 0.1), ("w", 0.1), ("u", 0.1))}
    t = torch.arange(0.0, 60.5, 0.5, dtype=F64)
    loop = bdtorch.Native()

    def solve(method: FractionalIntegrator, dt: float) -> Tensor:
        v: Tensor = fdeint(_fitzhugh_rinzel, y0, t, alpha=0.9, dt=dt, method=method, loop=loop).y["v"][:, 0]
        return v

    reference = solve(AdamsBashforthMoulton(), 0.01)
    assert float((solve(AdamsBashforthMoulton(fast=FAST), 0.01) - reference).abs().max()) < 1e-9
    coarse, fine = (float((solve(GrunwaldLetnikov(), dt) - reference).abs().max()) for dt in (0.02, 0.01))
    assert coarse < 0.2 and fine < 0.6 * coarse
    ordinary = fdeint(_fitzhugh_rinzel, y0, t, alpha=1.0, dt=0.01, loop=loop).y["v"]
    exact = odeint(_fitzhugh_rinzel, y0, t, rtol=1e-9, atol=1e-11).y["v"]
    torch.testing.assert_close(ordinary, exact, rtol=0, atol=1e-3)
