"""Adaptive methods: tolerances, dense output, independent steps, and the set of standard problems beside SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import bdtorch.integrate as integrate
from bdtorch.integrate import PIController, Rodas4, max_norm, odeint
from benchmarks import solvers_standard as standard
from tests.integrate.problems import FORCED, SPIRAL, robertson, van_der_pol

ADAPTIVE = [entry.name for entry in integrate.methods("ODE") if entry.embedded_order is not None]
EXACT_DENSE = {
    "DormandPrince5": 4, "Tsit5": 4, "DOP853": 7, "Rodas4": 3, "BogackiShampine": 3, "RKF45": 4, "CashKarp": 5,
    "Kvaerno3": 3, "Kvaerno5": 4,
}  # fmt: skip


def _reference(f: Any, y0: torch.Tensor, times: Any, method: str = "DOP853") -> np.ndarray:
    def right(t: float, y: np.ndarray) -> np.ndarray:
        return f(torch.tensor(t, dtype=torch.float64), torch.tensor(y)).numpy()

    span = (float(times[0]), float(times[-1]))
    return solve_ivp(right, span, y0.numpy(), t_eval=times, rtol=1e-12, atol=1e-13, method=method).y.T


@pytest.mark.parametrize("name", ADAPTIVE)
def test_tolerance_is_kept_and_smaller_tolerances_err_less(name: str) -> None:
    order = getattr(integrate, name)().order
    tight = 1e-9 if order > 4 else 1e-6 if order > 3 else 1e-4
    errors = []
    for tolerance in (100 * tight, tight):
        solution = odeint(
            FORCED.f, FORCED.y0, [0.0, 4.0], method=getattr(integrate, name)(), rtol=tolerance, atol=tolerance
        )
        errors.append(float((solution.y[-1] - FORCED.exact(4.0)).abs().max()))
    assert errors[1] < 200 * tight and errors[1] < errors[0] / 4


_LOCAL: dict[str, tuple[Any, list[float], Any]] = {  # derivative, start and solution
    "decay": (lambda t, y: -y, [1.0], lambda h: [math.exp(-h)]),
    "oscillator": (lambda t, y: torch.stack([y[1], -y[0]]), [1.0, 0.0], lambda h: [math.cos(h), -math.sin(h)]),
    "nonlinear": (lambda t, y: -y * y, [1.0], lambda h: [1.0 / (1.0 + h)]),
    "forced": (lambda t, y: torch.exp(t) - y, [1.0], lambda h: [math.cosh(h)]),
}


@pytest.mark.parametrize("problem", _LOCAL)
@pytest.mark.parametrize(
    "name", [name for name in ADAPTIVE if name != "RKF12"]
)  # which is documented to miss tolerances
def test_the_estimate_sees_the_error_of_every_kind_of_equation(name: str, problem: str) -> None:
    # A pair may be blind to whole classes of equations; then a step of any length is taken without a warning.
    f, start, exact = _LOCAL[problem]
    y0, h = torch.tensor(start, dtype=torch.float64), 0.2
    step = odeint(f, y0, [0.0, h], method=getattr(integrate, name)(), dt=h).y[-1]
    error = float((step - torch.tensor(exact(h), dtype=torch.float64)).abs().max())
    refused = odeint(f, y0, [0.0, h], method=getattr(integrate, name)(), rtol=1e-15, atol=error / 10, first_step=h)
    assert int(refused.rejections) > 0


@pytest.mark.parametrize("name", EXACT_DENSE)
def test_dense_output_converges_with_its_order(name: str) -> None:
    # One step of h from the exact solution; the interpolant errs by h^(order + 1) within it.
    method, order = getattr(integrate, name)(), EXACT_DENSE[name]
    widths = [0.8, 0.4, 0.2] if order == 7 else [0.1, 0.05, 0.025]
    errors = []
    for h in widths:
        times = np.linspace(0.0, h, 12)
        solution = odeint(SPIRAL.f, SPIRAL.y0, times, method=method, rtol=1.0, atol=1e3, first_step=h)
        assert int(solution.steps) == 1
        exact = torch.stack([SPIRAL.exact(t) for t in times])
        errors.append(float((solution.y - exact).abs().max()))
    slope = float(np.polyfit(np.log2(widths), np.log2(errors), 1)[0])
    assert abs(slope - (order + 1)) < 0.3, errors


def test_backwards_in_time_returns_to_the_start() -> None:
    back = odeint(SPIRAL.f, SPIRAL.exact(3.0), [3.0, 1.5, 0.0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back.y, torch.stack([SPIRAL.exact(t) for t in (3.0, 1.5, 0.0)]), rtol=1e-7, atol=1e-7)


def test_trajectories_choose_their_own_steps() -> None:
    rate = torch.tensor([[1.0], [10.0], [100.0]], dtype=torch.float64)
    y0 = torch.ones(3, 1, dtype=torch.float64)
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)

    def f(t: torch.Tensor, y: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        return torch.cos(rate * t) * rate

    together = odeint(f, y0, times, args=(rate,), batch_dims=1, rtol=1e-8)
    assert together.steps[0] < together.steps[1] < together.steps[2]
    for k in range(3):
        alone = odeint(f, y0[k], times, args=(rate[k],), rtol=1e-8)
        torch.testing.assert_close(together.y[:, k], alone.y, rtol=1e-12, atol=1e-12)
        assert int(alone.steps) == int(together.steps[k])
    torch.testing.assert_close(together.y[-1], 1.0 + torch.sin(rate), rtol=0, atol=1e-6)


def test_any_pytree_and_a_tolerance_for_each_variable() -> None:
    y0 = {"v": torch.ones(2, 3, dtype=torch.float64), "w": (torch.zeros(2, dtype=torch.float64),)}

    def f(t: torch.Tensor, y: Any) -> Any:
        return {"v": -y["v"], "w": (y["v"].sum(-1),)}

    solution = odeint(f, y0, [0.0, 1.0, 2.0], atol={"v": 1e-10, "w": (torch.full((2,), 1e-9),)}, rtol=1e-9)
    assert solution.y["v"].shape == (3, 2, 3) and solution.y["w"][0].shape == (3, 2)
    torch.testing.assert_close(
        solution.y["v"][-1], torch.full((2, 3), math.exp(-2.0), dtype=torch.float64), rtol=1e-8, atol=0
    )
    torch.testing.assert_close(solution.y["w"][0][1], torch.full((2,), 3 - 3 * math.exp(-1.0), dtype=torch.float64))


def test_controller_rejects_and_limits_steps() -> None:
    def pulse(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(((t - 5.0) / 0.01) ** 2)) + 0.0 * y

    zero = torch.zeros(1, dtype=torch.float64)
    area = 0.01 * math.sqrt(math.pi)
    limited = odeint(pulse, zero, [0.0, 10.0], max_step=0.02)
    assert int(limited.steps) >= 500 and float(limited.y[-1]) == pytest.approx(area, rel=1e-5)
    rough = odeint(lambda t, y: -50.0 * (y - torch.cos(t)), zero, [0.0, 1.0], first_step=0.5)
    assert int(rough.rejections) > 0
    for controller in (PIController(beta=0.0), PIController(norm=max_norm, safety=0.8, shrink=0.1, grow=5.0)):
        y = odeint(SPIRAL.f, SPIRAL.y0, [0.0, 3.0], controller=controller, rtol=1e-9, atol=1e-9).y[-1]
        torch.testing.assert_close(y, SPIRAL.exact(3.0), rtol=1e-7, atol=1e-7)


_QUICK = "DormandPrince5"
_PEERS = {"BogackiShampine": "RK23", "DormandPrince5": "RK45", "Tsit5": "RK45", "DOP853": "DOP853"}


@pytest.mark.parametrize("name", standard.DETEST)
@pytest.mark.parametrize("method", [pytest.param(m, marks=() if m == _QUICK else pytest.mark.slow) for m in _PEERS])
def test_standard_problems(name: str, method: str) -> None:
    # Errors grow along a trajectory as its equation lets them: hence beside SciPy's of the same pair and tolerance.
    tolerance = 1e-6
    steps, calls, error = standard.ours(name, getattr(integrate, method)(), tolerance)
    peer_steps, peer_calls, peer_error = standard.scipys(name, _PEERS[method], tolerance)
    assert error < max(10.0 * peer_error, 100.0)
    assert calls < 1.25 * peer_calls + 50 and steps < 1.25 * peer_steps + 10


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "Robertson" else pytest.mark.slow) for n in standard.STIFF]
)
@pytest.mark.parametrize("method", ["Rodas4", pytest.param("Kvaerno5", marks=pytest.mark.slow)])
def test_stiff_problems(name: str, method: str) -> None:
    # Robertson's ends at 4e10 and begins with steps of 1e-5.
    steps, calls, error = standard.ours(name, getattr(integrate, method)(), 1e-5, stiff=True)
    assert error < 20.0 and steps < 800 and calls < 20_000


@pytest.mark.parametrize("method", [Rodas4(), integrate.Kvaerno5()], ids=["Rodas4", "Kvaerno5"])
def test_robertson_beside_radau(method: Any) -> None:
    y0 = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    reference = torch.from_numpy(_reference(robertson, y0, [0.0, 40.0, 4e5], "Radau"))
    atol = torch.tensor([1e-8, 1e-12, 1e-8], dtype=torch.float64)
    solution = odeint(robertson, y0, [0.0, 40.0, 4e5], method=method, rtol=1e-5, atol=atol)
    torch.testing.assert_close(solution.y, reference, rtol=5e-4, atol=1e-11)
    assert int(solution.steps) < 400


@pytest.mark.slow
def test_van_der_pol_of_mu_1000_beside_radau() -> None:
    f, y0 = van_der_pol(1000.0), torch.tensor([2.0, 0.0], dtype=torch.float64)
    reference = _reference(f, y0, [0.0, 500.0, 1200.0], "Radau")  # past the first jump, at t = 807
    solution = odeint(f, y0, [0.0, 500.0, 1200.0], method=integrate.Kvaerno5(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(solution.y, torch.from_numpy(reference), rtol=1e-4, atol=1e-6)
    assert int(solution.steps) < 1000


@pytest.mark.parametrize("method", [integrate.ImplicitEuler(), integrate.Trapezoidal(), Rodas4(), integrate.Kvaerno3()])
def test_fixed_implicit_steps_stay_bounded_where_explicit_ones_explode(method: Any) -> None:
    def f(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -1000.0 * (y - torch.cos(t))

    y = odeint(f, torch.ones(1, dtype=torch.float64), [0.0, 1.0], method=method, dt=0.05).y[-1]
    assert float(y) == pytest.approx(math.cos(1.0), abs=2e-3)


@pytest.mark.parametrize("method", ["RK45", "DOP853", "LSODA"])
def test_scipy_through_the_same_door(method: str) -> None:
    times = np.linspace(0.0, 3.0, 5)
    solution = odeint(SPIRAL.f, SPIRAL.y0, times, method=integrate.SciPy(method), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(solution.y, torch.stack([SPIRAL.exact(t) for t in times]), rtol=1e-6, atol=1e-7)
    assert solution.evaluations > 10


def test_torchdiffeq_through_the_same_door() -> None:
    pytest.importorskip("torchdiffeq")
    y0 = SPIRAL.y0.clone().requires_grad_()
    solution = odeint(SPIRAL.f, y0, [0.0, 3.0], method=integrate.TorchDiffEq("dopri5"), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(solution.y[-1], SPIRAL.exact(3.0), rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(solution.y[-1].sum(), y0)
    direct = odeint(SPIRAL.f, y0, [0.0, 3.0], rtol=1e-9, atol=1e-10).y[-1]
    torch.testing.assert_close(gradient, torch.autograd.grad(direct.sum(), y0)[0], rtol=1e-6, atol=1e-7)
