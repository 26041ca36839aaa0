"""Bad input at the front door of `odeint`: the message names the argument, what it expects and what came."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch.integrate as integrate
from bdtorch.integrate import RK4, IntegrationError, Tsit5, methods, odeint

Y0 = torch.ones(3, dtype=torch.float64)
T = [0.0, 0.5, 1.0]


def _decay(t: Tensor, y: Tensor) -> Tensor:
    return -y


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"f": 3}, TypeError, r"odeint\(f=...\)`: expected a function of \(t, y, \*args\), got 3"),
    ({"method": "dormand-prince"}, TypeError, r"got the string 'dormand-prince'; did you mean .*DormandPrince5\(\)"),
    ({"method": "RK45"}, TypeError, r"did you mean bdtorch.integrate.DormandPrince5\(\)\?"),
    ({"method": "tsit"}, TypeError, r"did you mean .*Tsit5\(\)"),
    ({"method": Tsit5}, TypeError, r"call it: add \(\)"),
    ({"t": [0.0]}, ValueError, "expected at least 2 times"),
    ({"t": 3.0}, TypeError, "expected a 1-D tensor or a sequence of times"),
    ({"t": torch.zeros(2, 2)}, ValueError, r"got shape \(2, 2\)"),
    (
        {"t": [0.0, 1.0, 1.0]},
        ValueError,
        "strictly rising or strictly falling times, got 1 followed by 1 at position 2",
    ),
    ({"t": [0.0, float("nan")]}, ValueError, "expected finite times"),
    ({"method": RK4(), "dt": -0.1}, ValueError, r"odeint\(dt=...\)`: expected a number above 0, since the times rise"),
    ({"method": RK4(), "dt": 0.0}, ValueError, "expected a number above 0"),
    ({"method": RK4(), "dt": torch.ones(2)}, ValueError, r"odeint\(dt=...\)`: expected a finite number"),
    ({"method": RK4(), "dt": 0.3}, ValueError, "expected output times a whole number of steps dt=0.3"),
    ({"rtol": 0.0}, ValueError, r"odeint\(rtol=...\)`: expected a finite number above 0, got 0.0"),
    ({"rtol": -1e-3}, ValueError, "got -0.001"),
    ({"atol": 0.0}, ValueError, r"odeint\(atol=...\)`: expected finite numbers above 0 in torch.float64, got 0"),
    ({"atol": (1e-3, 1e-3)}, ValueError, "expected a number or the structure of y0"),
    ({"atol": torch.ones(2)}, ValueError, r"expected a shape that broadcasts to \(3,\), got \(2,\)"),
    ({"f": lambda t, y: y.mul_(-1.0), "y0": Y0.clone()}, ValueError, "expected a function that leaves its arguments"),
    ({"max_step": 0}, ValueError, r"odeint\(max_step=...\)"),
    ({"first_step": -1.0}, ValueError, r"odeint\(first_step=...\)"),
    ({"max_steps": 0}, ValueError, r"odeint\(max_steps=...\)"),
    ({"y0": torch.ones(3, dtype=torch.int64)}, TypeError, "expected a floating dtype, got torch.int64"),
    ({"y0": {"v": 1.0}}, TypeError, "expected tensors, got float for 'v'"),
    ({"y0": {}}, ValueError, "expected at least one tensor"),
    ({"y0": {"v": Y0, "w": Y0.float()}}, TypeError, "got torch.float32 for 'w'"),
    ({"batch_dims": -1}, ValueError, "expected a whole number of at least 0, got -1"),
    ({"batch_dims": 2}, ValueError, r"expected leading axes"),
    ({"args": 3}, TypeError, "expected a tuple of further arguments, got int"),
    ({"f": lambda t, y: {"v": y}}, ValueError, "expected a derivative of the structure of y0"),
    ({"f": lambda t, y: y[:2]}, ValueError, r"expected a derivative of shape \(3,\) and torch.float64, got \(2,\)"),
    ({"f": lambda t, y: y.float()}, ValueError, "and torch.float32"),
    ({"f": lambda t, y: 1.0}, (TypeError, ValueError), "expected a derivative of"),  # type: ignore[list-item]
    ({"events": 3}, TypeError, r"odeint\(events=...\)`: expected Event objects, got 3"),
    ({"y0": torch.ones(0)}, ValueError, r"odeint\(y0=...\)`: expected at least one number"),
    ({"method": integrate.EulerMaruyama()}, TypeError, "stochastic equations have bdtorch.integrate.sdeint"),
    ({"method": integrate.L1()}, TypeError, "fractional equations have bdtorch.integrate.fdeint"),
    ({"method": integrate.SciPy(), "dt": 0.1}, ValueError, r"odeint\(dt=...\)`: expected None with SciPy"),
    ({"method": integrate.SciPy(), "max_step": 0.1}, ValueError, r"odeint\(max_step=...\)`: expected None with SciPy"),
    (
        {"method": integrate.TorchDiffEq("rk4"), "dt": 0.1},
        ValueError,
        r'TorchDiffEq\("rk4", options={"step_size": 0.1}\)',
    ),
    (
        {
            "method": integrate.SciPy(),
            "f": lambda t, y, w: w * y,
            "args": (torch.ones(3, requires_grad=True).double(),),
        },
        ValueError,
        r"odeint\(method=SciPy\(...\)\)`: expected no gradients",
    ),
    ({"linear": lambda t, y: {"v": y}}, ValueError, r"odeint\(linear=...\)`: expected slopes of the structure of y0"),
    (
        {"linear": lambda t, y: y[:2]},
        ValueError,
        r"expected a shape that broadcasts to \(3,\) and torch.float64, got \(2,\)",
    ),
    ({"linear": lambda t, y: None}, TypeError, "expected tensors or numbers, got NoneType"),
    ({"y0": torch.ones(3, dtype=torch.float16)}, ValueError, "above 0 in torch.float16, got 0 from 1e-09"),
    ({"loop": "native"}, TypeError, r"expected a loop object such as bdtorch.Native\(\), got 'native'"),
    ({"gradient": "adjoint"}, TypeError, "expected None or an Adjoint object"),
    (
        {"method": integrate.SciPy("RK45"), "loop": integrate.Recompute()},
        ValueError,
        "expected no events, gradient or loop",
    ),
]


@pytest.mark.parametrize(
    ("changes", "error", "message"), WRONG, ids=[f"{k}-{next(iter(w[0]))}" for k, w in enumerate(WRONG)]
)
def test_wrong_arguments(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"f": _decay, "y0": Y0, "t": T, **changes}
    with pytest.raises(error, match=message):
        odeint(arguments.pop("f"), arguments.pop("y0"), arguments.pop("t"), **arguments)


def test_wrong_constructions() -> None:
    with pytest.raises(ValueError, match=r"RK2\(beta=...\)`: expected a number in \(0, 1\], got 0"):
        integrate.RK2(0.0)
    with pytest.raises(ValueError, match="expected a positive whole number of Newton iterations, got 0"):
        integrate.ImplicitEuler(iterations=0)
    with pytest.raises(ValueError, match=r"SciPy\(method=...\)`: expected one of"):
        integrate.SciPy("rk4")
    with pytest.raises(ValueError, match=r"PIController\(safety=...\)"):
        integrate.PIController(safety=1.5)
    with pytest.raises(ValueError, match="expected variables of one shape"):
        integrate.Pointwise().pack({"v": Y0, "w": Y0[:2]})
    with pytest.raises(ValueError, match=r"methods\(family=...\)"):
        methods("PDE")


def test_a_derivative_that_is_nan_from_the_start_is_named() -> None:
    with pytest.raises(FloatingPointError, match=r"the derivative is nan at t = 0 in component 1 of 'v'"):
        odeint(lambda t, y: {"v": torch.log(y["v"])}, {"v": torch.tensor([1.0, -1.0])}, T)


def test_a_fixed_step_that_diverges_names_time_and_component() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(torch.arange(3) == 2, torch.sqrt(0.5 - t), 0.0).to(y.dtype)

    with pytest.raises(FloatingPointError, match=r"became nan.* at t = 0.6 in component 2"):
        odeint(f, Y0, [0.0, 0.4, 1.0], method=RK4(), dt=0.1)


def test_newtons_method_that_does_not_settle_is_loud() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return -torch.sign(y) * y.abs().sqrt() * 50.0

    with pytest.raises(FloatingPointError, match="an implicit one may not have converged"):
        odeint(f, torch.full((1,), 0.3, dtype=torch.float64), [0.0, 1.0], method=integrate.ImplicitEuler(2), dt=0.5)


def test_an_adaptive_solve_that_cannot_go_on_says_where() -> None:
    one = torch.ones(2, dtype=torch.float64)
    with pytest.raises(IntegrationError, match=r"fell below what t = 1 can resolve.*singularity"):
        odeint(lambda t, y: y * y, one, [0.0, 2.0])
    with pytest.raises(FloatingPointError, match=r"NaN or infinite just after t = 0.5, in component 1"):
        odeint(lambda t, y: torch.stack([-y[0], torch.sqrt(0.5 - t) + 0.0 * y[1]]), one, [0.0, 1.0])
    with pytest.raises(IntegrationError, match=r"max_steps=...\)`: 20 steps were not enough.*Rodas4"):
        odeint(lambda t, y: torch.cos(100.0 * t) + 0.0 * y, one, [0.0, 100.0], max_steps=20)
    start = torch.tensor([[9.0], [0.1]], dtype=torch.float64)
    with pytest.raises(FloatingPointError, match=r"of trajectory 1"):
        odeint(lambda t, y: -torch.ones_like(y) + 0.0 * torch.log(y), start, [0.0, 1.0], batch_dims=1)


def test_methods_lists_names_families_and_orders() -> None:
    listed = {entry.name: entry for entry in methods("ODE")}
    assert {"Euler", "RK4", "RKF45", "DOP853", "ExponentialRK2", "ImplicitEuler", "Rodas4"} <= set(listed)
    assert listed["DOP853"].order == 8 and listed["DOP853"].stages == 12 and listed["Rodas4"].kind == "Rosenbrock"
