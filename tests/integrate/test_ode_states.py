"""What a state and its times may be: containers, dtypes, single numbers, nothing; and derivatives by the times."""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward
from torch import Tensor
from torch.utils import _pytree

from bdtorch import integrate
from bdtorch.integrate import (
    Adjoint,
    Event,
    Milstein,
    Rodas4,
    ddeint,
    fdeint,
    odeint,
    sdeint,
)

ADAPTIVE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}
FIXED: dict[str, Any] = {"method": integrate.RK4(), "dt": 0.05}


@dataclasses.dataclass
class Cell:
    v: Tensor
    w: Tensor


_pytree.register_dataclass(Cell)


def _ones(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize("options", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
def test_a_registered_dataclass_is_a_state(options: dict[str, Any]) -> None:
    found = odeint(lambda t, y: Cell(-y.v, -2.0 * y.w), Cell(_ones(2), _ones(1, 3)), [0.0, 1.0], **options).y
    assert torch.allclose(found.v[-1], _ones(2) * math.exp(-1.0), rtol=1e-5)
    assert torch.allclose(found.w[-1], _ones(1, 3) * math.exp(-2.0), rtol=1e-5)
    with pytest.raises(FloatingPointError, match="component 0 of 'w'"):
        odeint(lambda t, y: Cell(-y.v, y.w / 0.0), Cell(_ones(2), _ones(1)), [0.0, 1.0], **options)


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_the_order_of_keys_does_not_matter(kind: Any) -> None:
    y0 = {"a": _ones(1), "b": (_ones(2), {"c": 2.0 * _ones(1), "d": _ones(1)})}

    def rate(y: Any) -> Any:
        c, d = y["b"][1]["c"], y["b"][1]["d"]
        return kind(b=(-2.0 * y["b"][0], {"d": -4.0 * d, "c": -3.0 * c}), a=-y["a"])

    exact = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    end = [0.0, 1.0]
    solutions = [
        odeint(lambda t, y: rate(y), y0, end, **ADAPTIVE).y,
        odeint(lambda t, y: rate(y), y0, end, **FIXED).y,
        odeint(lambda t, y: rate(y), y0, end, method=Rodas4(), rtol=1e-4).y,
        sdeint(lambda t, y: rate(y), lambda t, y: _zero(rate(y)), y0, end,
               dt=0.02, method=Milstein()).y,
        ddeint(lambda t, y, past: rate(y), y0, end, delays=0.5, dt=0.05).y,
        fdeint(lambda t, y: rate(y), y0, end, alpha=1.0, dt=0.02).y,
    ]  # fmt: skip
    for found in solutions:
        c, d = found["b"][1]["c"], found["b"][1]["d"]
        for value, name in ((found["a"], "a"), (found["b"][0], "b"), (0.5 * c, "c"), (d, "d")):
            assert float((value[-1] - math.exp(-exact[name])).abs().max()) < 0.02, name


def _zero(y: Any) -> Any:
    return _pytree.tree_map(lambda leaf: 0.0 * leaf, y)


def test_adjoints_and_resets_with_keys_in_another_order() -> None:
    start = {"a": _ones(1).requires_grad_(), "b": 2.0 * _ones(1)}
    end = odeint(lambda t, y: {"b": -y["b"], "a": -2.0 * y["a"]}, start, [0.0, 1.0], gradient=Adjoint(), **ADAPTIVE).y
    (slope,) = torch.autograd.grad(end["a"][-1].sum(), start["a"])
    assert float(slope) == pytest.approx(math.exp(-2.0), rel=1e-7)
    spike = Event(lambda t, y: y["a"][0] - 1.5, reset=lambda t, y: {"b": y["b"] + 1.0, "a": 0.0 * y["a"]})
    y0 = {"a": 0.0 * _ones(1), "b": _ones(1)}
    final = odeint(lambda t, y: {"b": 0.0 * y["b"], "a": 1.0 + 0.0 * y["a"]}, y0, [0.0, 4.0], events=spike).y
    assert float(final["a"][-1]) == pytest.approx(1.0) and float(final["b"][-1]) == 3.0


@pytest.mark.parametrize("name", [entry.name for entry in integrate.methods("ODE")])
def test_half_precision_and_empty_states(name: str) -> None:
    method = getattr(integrate, name)()
    y0 = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    found = odeint(lambda t, y: -y, y0, [0.0, 0.25, 1.0], method=method, dt=0.125).y
    bound = 0.05 if method.order == 1 else 0.02  # a digit of bfloat16 is 0.004
    assert found.dtype == torch.bfloat16 and float((found[-1] / y0 - math.exp(-1.0)).abs().max()) < bound
    assert odeint(lambda t, y: -y, torch.empty(3, 0), [0.0, 1.0], method=method, dt=0.5).y.shape == (2, 3, 0)


@pytest.mark.parametrize("name", [entry.name for entry in integrate.methods("ODE")])
def test_single_numbers_keep_their_dtype_in_unequal_steps(name: str) -> None:
    y0 = {"a": torch.ones(()), "b": torch.ones(2)}  # float32
    options: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    y = odeint(
        lambda t, y: {"a": -t * y["a"], "b": -y["b"]}, y0, [0.5, 0.7, 1.0], method=getattr(integrate, name)(), **options
    ).y
    assert y["a"].dtype == y["b"].dtype == torch.float32
    assert float(y["a"][-1]) == pytest.approx(math.exp(-0.375), abs=0.05)


def test_single_numbers_beside_vectors_in_the_other_families() -> None:
    y0 = {"b": torch.ones(2), "a": torch.ones(())}
    f = {"b": lambda t, y: -y["b"], "a": lambda t, y: -t * y["a"]}
    drift = sdeint(
        lambda t, y: {k: f[k](t, y) for k in y}, lambda t, y: {k: 0.0 * t * y[k] for k in y}, y0, [0.0, 1.0], dt=0.01
    ).y
    delayed = ddeint(lambda t, y, past: {k: f[k](t, y) for k in y}, y0, [0.0, 1.0], delays=0.5, dt=0.1).y
    slow = fdeint(lambda t, y: {k: f[k](t, y) for k in y}, y0, [0.0, 1.0], alpha=1.0, dt=0.01).y
    for found in (drift, delayed, slow):
        assert found["a"].dtype == torch.float32
        assert float(found["a"][-1]) == pytest.approx(math.exp(-0.5), abs=0.01)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.bfloat16, {}),
        (torch.float16, {"atol": 1e-4}),
        (torch.float32, {"rtol": 1e-9}),
        (torch.float64, {"rtol": 1e-17, "atol": 1e-18}),
    ],
    ids=str,
)
def test_tolerances_below_the_rounding_of_the_dtype_are_refused(dtype: torch.dtype, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"odeint\(rtol=...\)`: expected tolerances that torch.\w+ resolves"):
        odeint(lambda t, y: -y, _ones(2, dtype=dtype), [0.0, 1.0], **options)


def test_a_small_rtol_beside_a_large_atol_is_fine_until_the_solution_outgrows_it() -> None:
    fine = odeint(lambda t, y: -y, _ones(2), [0.0, 1.0], rtol=1e-17, atol=1e-7).y[-1]
    assert float((fine - math.exp(-1.0)).abs().max()) < 1e-6
    with pytest.raises(ValueError, match="too small an atol where"):
        odeint(lambda t, y: y, 1e-5 * _ones(2, dtype=torch.float32), [0.0, 20.0], rtol=1e-9, atol=1e-7)


# y' = -t y has y(t1) = exp((t0^2 - t1^2) / 2)


def _bell(t: Tensor, **options: Any) -> Tensor:
    return odeint(lambda s, y: -s * y, torch.ones(1, dtype=torch.float64), t, **options).y[-1, 0]


@pytest.mark.parametrize("options", [ADAPTIVE, {"method": integrate.RK4(), "dt": 0.025}], ids=["adaptive", "fixed"])
def test_derivatives_by_the_times_of_first_and_second_order(options: dict[str, Any]) -> None:
    a, b = 0.5, 1.2
    t = torch.tensor([a, b], dtype=torch.float64)
    y = math.exp((a * a - b * b) / 2.0)
    slopes = torch.tensor([a * y, -b * y], dtype=torch.float64)
    bends = torch.tensor([[(1 + a * a) * y, -a * b * y], [-a * b * y, (b * b - 1) * y]], dtype=torch.float64)

    def solve(times: Tensor) -> Tensor:
        return _bell(times, **options)

    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(transform(solve)(t), slopes, atol=1e-6)
    assert torch.allclose(torch.func.jacrev(torch.func.jacrev(solve))(t), bends, atol=1e-5)
    assert torch.allclose(torch.func.jacfwd(torch.func.jacrev(solve))(t), bends, atol=1e-5)
    with forward.dual_level():
        dual = solve(forward.make_dual(t, torch.tensor([0.0, 1.0], dtype=torch.float64)))
        assert float(forward.unpack_dual(dual).tangent) == pytest.approx(-b * y, abs=1e-6)


@pytest.mark.parametrize(
    "solve",
    [
        lambda t: odeint(lambda s, y: -y, _ones(1), t).y,
        lambda t: sdeint(lambda s, y: -y, lambda s, y: y, _ones(1), t, dt=0.5).y,
        lambda t: ddeint(lambda s, y, past: -y, _ones(1), t, delays=0.5, dt=0.5).y,
        lambda t: fdeint(lambda s, y: -y, _ones(1), t, alpha=0.5, dt=0.5).y,
    ],
    ids=["odeint", "sdeint", "ddeint", "fdeint"],
)
def test_times_of_other_kinds_are_refused(solve: Any) -> None:
    with pytest.raises(ValueError, match=r"t=...\)`: expected the same times for all samples"):
        torch.func.vmap(solve)(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
    with pytest.raises(TypeError, match=r"t=...\)`: expected real times, got torch.complex64"):
        solve(torch.tensor([0.0, 1.0 + 0.0j]))
    with pytest.raises(TypeError, match=r"t=...\)`: expected real times, got torch.bool"):
        solve(torch.tensor([False, True]))
    assert solve(torch.tensor([0, 1, 2])).shape[0] == 3


def test_noise_has_no_derivative_by_time() -> None:
    with pytest.raises(ValueError, match=r"sdeint\(t=...\)`: expected times without requires_grad"):
        sdeint(lambda s, y: -y, lambda s, y: y, _ones(1), torch.tensor([0.0, 1.0], requires_grad=True), dt=0.5)


# Dense output


@pytest.mark.parametrize("name", ["RKF45", "CashKarp", "Kvaerno5"])
def test_outputs_between_long_steps_are_as_exact_as_those_at_their_ends(name: str) -> None:
    """A cubic through the ends of steps that an exact method takes is not."""
    times = torch.linspace(0.0, 4.0, 41, dtype=torch.float64)
    method: Any = getattr(integrate, name)()
    found = odeint(lambda t, y: 4.0 * t**3 + 0.0 * y, 0.0 * _ones(1), times, method=method, rtol=1e-6)
    assert int(found.steps) < 20
    assert torch.allclose(found.y[:, 0], times**4, rtol=1e-6, atol=1e-6)
    delayed = ddeint(lambda t, y, past: -past[0], _ones(1), times, delays=1.0, method=method, rtol=1e-6, atol=1e-8).y
    exact = [
        sum((-1.0) ** k * (t - (k - 1)) ** k / math.factorial(k) for k in range(int(t) + 2)) for t in times.tolist()
    ]
    assert torch.allclose(delayed[:, 0], torch.tensor(exact, dtype=torch.float64), atol=3e-6)
