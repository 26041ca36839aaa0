"""Gradients through solvers: direct, recomputed and adjoint, against finite differences and one another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch.integrate as integrate
from bdtorch.integrate import RK4, Adjoint, Recompute, Tsit5, odeint

TIMES = torch.tensor([0.0, 0.4, 1.1, 2.0], dtype=torch.float64)


def _pendulum(t: Tensor, y: dict[str, Tensor], k: Tensor) -> dict[str, Tensor]:
    return {"angle": y["speed"], "speed": -k * torch.sin(y["angle"]) + 0.1 * torch.cos(t)}


def _loss(angle: Tensor, k: Tensor, **options: Any) -> Tensor:
    y0 = {"angle": angle, "speed": 0.3 * torch.ones_like(angle)}
    y = odeint(_pendulum, y0, TIMES, args=(k,), **options).y
    return (y["angle"] ** 2).sum() + y["speed"].sin().sum()


def _inputs() -> tuple[Tensor, Tensor]:
    angle = torch.tensor([1.0, -0.4], dtype=torch.float64, requires_grad=True)
    return angle, torch.tensor(1.3, dtype=torch.float64, requires_grad=True)


FIXED = {"method": RK4(), "dt": 0.02}
TIGHT = {"method": Tsit5(), "rtol": 1e-9, "atol": 1e-10}


@pytest.mark.parametrize(
    "options",
    [{"method": RK4(), "dt": 0.1}, {"method": integrate.Trapezoidal(), "dt": 0.1}],
    ids=["RK4", "trapezoidal"],
)
def test_direct_gradients_match_finite_differences(options: Any) -> None:
    assert torch.autograd.gradcheck(lambda a, k: _loss(a, k, **options), _inputs(), atol=1e-6)


@pytest.mark.parametrize(
    "method", ["ExponentialEuler", "ExponentialRK2", "ExponentialRosenbrock", "Rodas4", "ROS3P", "Kvaerno3"]
)
def test_gradients_of_the_other_families_match_finite_differences(method: str) -> None:
    made = getattr(integrate, method)()
    angle, k = _inputs()
    grads = torch.autograd.grad(_loss(angle, k, method=made, dt=0.1), (angle, k))
    with torch.no_grad():
        h = 1e-5
        numeric = (_loss(angle, k + h, method=made, dt=0.1) - _loss(angle, k - h, method=made, dt=0.1)) / (2 * h)
    assert float(grads[1]) == pytest.approx(float(numeric), rel=1e-5)


def test_recomputed_gradients_are_those_of_the_plain_loop() -> None:
    for options in (FIXED, TIGHT):
        for chunk in (1, 7, 1000):
            angle, k = _inputs()
            plain = torch.autograd.grad(_loss(angle, k, **options), (angle, k))
            again = torch.autograd.grad(_loss(angle, k, loop=Recompute(chunk), **options), (angle, k))
            for a, b in zip(plain, again, strict=True):  # sums over steps are taken in another order
                torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_recomputing_keeps_fewer_tensors() -> None:
    def kept(loop: Any) -> int:
        count = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return x

        angle, k = _inputs()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            _loss(angle, k, loop=loop, **FIXED)
        return count

    assert kept(Recompute(10)) < kept(None) / 10


@pytest.mark.parametrize("options", [FIXED, TIGHT], ids=["RK4", "Tsit5"])
def test_adjoint_gradients_match_direct_ones(options: Any) -> None:
    angle, k = _inputs()
    direct = torch.autograd.grad(_loss(angle, k, **options), (angle, k))
    adjoint = torch.autograd.grad(_loss(angle, k, gradient=Adjoint(), **options), (angle, k))
    for a, b in zip(adjoint, direct, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options", [{"method": integrate.Rodas4(), "dt": 0.02}, {"method": integrate.Kvaerno3(), "rtol": 1e-6}]
)
def test_the_adjoint_equation_may_be_stiff(options: Any) -> None:
    # The methods differentiate what is a derivative already.
    angle, k = _inputs()
    exact = torch.autograd.grad(_loss(angle, k, **TIGHT), (angle, k))
    adjoint = torch.autograd.grad(_loss(angle, k, gradient=Adjoint(), **options), (angle, k))
    for a, b in zip(adjoint, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_adjoint_reaches_the_parameters_of_a_module() -> None:
    torch.manual_seed(0)

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3, dtype=torch.float64)

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.inner(y))

    field, y0 = Field(), torch.randn(4, 3, dtype=torch.float64)
    grads = []
    for gradient in (None, Adjoint(rtol=1e-9, atol=1e-10)):
        y = odeint(field, y0, [0.0, 1.0], gradient=gradient, batch_dims=1, rtol=1e-9, atol=1e-10).y
        grads.append(torch.autograd.grad(y[-1].square().sum(), list(field.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        assert b.abs().max() > 1e-3


def test_gradients_of_output_times() -> None:
    def loss(times: Tensor) -> Tensor:
        y = odeint(
            lambda t, y: -y + torch.sin(3.0 * t), torch.ones(2, dtype=torch.float64), times, rtol=1e-10, atol=1e-10
        ).y
        return (y[1:] ** 2).sum()

    times = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (times,), eps=1e-4, atol=1e-6)


def test_transforms_of_gradients() -> None:
    angle, k = (x.detach() for x in _inputs())
    gradient = torch.func.grad(lambda k: _loss(angle, k, **TIGHT))
    many = torch.func.vmap(gradient)(torch.stack([k, 2 * k]))
    torch.testing.assert_close(many, torch.stack([gradient(k), gradient(2 * k)]), rtol=1e-9, atol=1e-9)
    forward = torch.func.jvp(lambda k: _loss(angle, k, **FIXED), (k,), (torch.ones_like(k),))[1]
    torch.testing.assert_close(forward, torch.func.grad(lambda k: _loss(angle, k, **FIXED))(k), rtol=1e-9, atol=1e-9)


def test_adjoint_refuses_what_a_derivative_closes_over() -> None:
    # Its gradient would be missing without a word.
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(2, 1, dtype=torch.float64)
    for batch_dims in (0, 1):
        with pytest.raises(ValueError, match="got one that closes over such a tensor"):
            odeint(lambda t, y: -rate * y, y0, [0.0, 1.0], gradient=Adjoint(), batch_dims=batch_dims)
        y = odeint(lambda t, y, k: -k * y, y0, [0.0, 1.0], args=(rate,), gradient=Adjoint(), batch_dims=batch_dims).y
        (gradient,) = torch.autograd.grad(y[-1].sum(), rate)
        assert float(gradient) == pytest.approx(-2.0 * math.exp(-2.0), rel=1e-5)


def test_adjoint_and_recompute_say_where_they_cannot_go() -> None:
    angle, k = (x.detach() for x in _inputs())
    with pytest.raises(ValueError, match=r"gradient=Adjoint\(\)\)`: expected no torch.func transform"):
        torch.func.grad(lambda k: _loss(angle, k, gradient=Adjoint()))(k)
    with pytest.raises(RuntimeError, match=r"Recompute loop runs outside torch\.func transforms"):
        torch.func.grad(lambda k: _loss(angle, k, loop=Recompute()))(k)
    with pytest.raises(ValueError, match=r"Recompute\(chunk=...\)"):
        Recompute(0)
