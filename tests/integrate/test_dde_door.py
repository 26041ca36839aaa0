"""Delay and fractional equations: what the doors refuse, and what they say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch
from bdtorch import integrate
from bdtorch.integrate import (
    DOP853,
    L1,
    RK4,
    SRA1,
    AdamsBashforthMoulton,
    Additive,
    GrunwaldLetnikov,
    Heun,
    SumOfExponentials,
    ddeint,
    fdeint,
    sampled,
    sddeint,
)

F64 = torch.float64
ONE = torch.ones(2, dtype=F64)
T = [0.0, 1.0]


def _f(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
    return -past[0]


_SHORT = sampled(torch.tensor([-0.5, 0.0], dtype=F64), torch.ones(2, 2, dtype=F64))

DDE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no function": ({"f": 3}, TypeError, r"ddeint\(f=...\)`: expected a function"),
    "no history": ({"history": None}, ValueError, r"ddeint\(history=...\)`: expected the past"),
    "integer history": ({"history": torch.ones(2, dtype=torch.int64)}, TypeError, r"ddeint\(history=...\)`: expected a floating"),
    "history too short": ({"history": _SHORT}, ValueError, r"ddeint\(history=...\)`: expected it to reach back to t = -1.*-0.5"),
    "history of another shape": (
        {"history": lambda t: torch.ones(3, dtype=F64) if float(t) < -0.5 else ONE}, ValueError, r"expected shape \(2,\)",
    ),
    "history not finite": ({"history": lambda t: ONE / (t + 1.0)}, ValueError, r"finite values, got NaN or infinity at t = -1"),
    "y0 of another shape": ({"y0": torch.ones(3, dtype=F64)}, ValueError, r"ddeint\(history=...\)`: expected shape \(3,\)"),
    "falling times": ({"t": [1.0, 0.0]}, ValueError, r"ddeint\(t=...\)`: expected rising times"),
    "one time": ({"t": [1.0]}, ValueError, r"ddeint\(t=...\)`: expected at least 2 times"),
    "no delay": ({"delays": ()}, ValueError, r"ddeint\(delays=...\)`: expected at least one delay"),
    "negative delay": ({"delays": -1.0}, ValueError, r"ddeint\(delays=...\)`: expected finite delays of at least 0, got -1"),
    "delay nan": ({"delays": math.nan}, ValueError, r"ddeint\(delays=...\)`: expected finite delays"),
    "delay as string": ({"delays": "1"}, TypeError, r"ddeint\(delays=...\)`: expected a delay"),
    "delays of no shape": ({"delays": torch.ones(3)}, ValueError, r"broadcasts against \(2,\), got \(3,\)"),
    "neutral zero": ({"neutral": 0.0}, ValueError, r"ddeint\(neutral=...\)`: expected delays above 0"),
    "step 0": ({"dt": 0.0}, ValueError, r"ddeint\(dt=...\)`: expected a finite number above 0, got 0"),
    "step of a tensor": ({"dt": torch.ones(2)}, ValueError, r"ddeint\(dt=...\)`: expected a finite number"),
    "step too long": ({"dt": 1.5}, ValueError, r"ddeint\(dt=...\)`: expected at most the shortest delay, 1, got 1.5"),
    "step and tolerance": ({"rtol": 1e-3}, ValueError, r"ddeint\(dt=...\)`: expected None with rtol"),
    "tolerance 0": ({"dt": None, "rtol": 0.0}, ValueError, r"ddeint\(rtol=...\)`: expected a finite number above 0"),
    "loop without step": ({"dt": None, "loop": bdtorch.Native()}, ValueError, r"ddeint\(loop=...\)`: expected None without dt"),
    "no error estimate": ({"dt": None, "method": RK4()}, ValueError, r"ddeint\(dt=...\)`: expected a step"),
    "method as string": ({"method": "tsit"}, TypeError, r"ddeint\(method=...\)`.*did you mean .*bdtorch.integrate.Tsit5\(\)"),
    "method as function": ({"method": RK4}, TypeError, r"ddeint\(method=...\)`.*add \(\)"),
    "order too high": ({"method": DOP853()}, ValueError, r"ddeint\(method=...\)`: expected a method of order up to 5"),
    "no bound": ({"delays": lambda t, y: 1.0}, ValueError, r"ddeint\(max_delay=...\)`: expected a bound"),
    "bound too low": ({"max_delay": 0.5}, ValueError, r"ddeint\(max_delay=...\)`: expected at least the longest delay, 1"),
    "delay beyond bound": ({"delays": lambda t, y: 0.5 + t, "max_delay": 1.0}, ValueError, r"became longer"),
    "delay below step": ({"delays": lambda t, y: 1.0 - t, "max_delay": 1.0}, ValueError, r"became shorter"),
    "derivative of another shape": ({"f": lambda t, y, past: past[0][:1]}, ValueError, r"ddeint\(f=...\)`: .*shape \(2,\)"),
    "derivative of another structure": ({"f": lambda t, y, past: (y,)}, ValueError, r"ddeint\(f=...\)`: expected a deriv"),
    "derivative nan": ({"f": lambda t, y, past: y * math.nan}, FloatingPointError, r"ddeint\(f=...\)`: .* t = 0 in component 0"),
    "derivative nan later": (
        {"f": lambda t, y, past: torch.where(t > 0.5, math.nan, 1.0) * past[0], "dt": None}, FloatingPointError,
        r"ddeint\(f=...\)`: the derivative is nan at t = 0.5 in component 0",
    ),
    "solution diverges": (
        {"f": lambda t, y, past: torch.where(t > 0.5, math.inf, 1.0) * past[0]}, FloatingPointError,
        r"became inf; .* at t = 0.6 in component 0",
    ),
    "arguments": ({"args": 1.0}, TypeError, r"ddeint\(args=...\)`: expected a tuple of further arguments, got float"),
    "loop as string": ({"loop": "native"}, TypeError, r"ddeint\(loop=...\)`: expected a loop object"),
    "levels below 0": ({"levels": -1}, ValueError, r"ddeint\(levels=...\)`: expected a whole number of at least 0, got -1"),
    "no steps": ({"dt": None, "max_steps": 0}, ValueError, r"ddeint\(max_steps=...\)`: expected a whole number of at least 1"),
    "kink after the start": ({"kinks": [0.5]}, ValueError, r"ddeint\(kinks=...\)`: expected times before the start, .* got 0.5"),
    "kinks as a number": ({"kinks": 0.5}, TypeError, r"ddeint\(kinks=...\)`: expected a sequence of times"),
    "linear of another shape": (
        {"method": integrate.ExponentialEuler(), "linear": lambda t, y, past: torch.ones(3).double()}, ValueError,
        r"ddeint\(linear=...\)`: expected a shape that broadcasts to \(2,\)",
    ),
    "derivative of numbers": ({"f": lambda t, y, past: 1.0, "dt": None}, TypeError, r"ddeint\(f=...\)`: expected a deriv"),
    "delay of another kind": ({"delays": lambda t, y: "a", "dt": None}, TypeError, "expected a delay, or delays in"),
    "nothing to choose steps by": ({"history": torch.empty(0), "dt": None}, ValueError, "expected at least one number"),
    "too many breaks": (
        {"delays": tuple(0.02 * math.sqrt(k) for k in range(1, 41)), "dt": None}, ValueError, r"ddeint\(levels=...\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DDE)
def test_ddeint_refuses(name: str) -> None:
    changes, kind, message = DDE[name]
    arguments: dict[str, Any] = {"f": _f, "history": ONE, "t": T, "delays": 1.0, "dt": 0.1, **changes}
    with pytest.raises(kind, match=message):
        ddeint(arguments.pop("f"), arguments.pop("history"), arguments.pop("t"), **arguments)


def _g(t: Tensor, y: Tensor) -> Tensor:
    return -y


FDE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no function": ({"f": None}, TypeError, r"fdeint\(f=...\)`: expected a function"),
    "order 0": ({"alpha": 0.0}, ValueError, r"fdeint\(alpha=...\)`: expected orders in \(0, 1\], got 0"),
    "order above 1": ({"alpha": torch.tensor([0.5, 1.1])}, ValueError, r"fdeint\(alpha=...\)`: .*got 1.1"),
    "order nan": ({"alpha": math.nan}, ValueError, r"fdeint\(alpha=...\)`: expected orders"),
    "order as string": ({"alpha": "half"}, TypeError, r"fdeint\(alpha=...\)`: expected a number"),
    "orders of another shape": ({"alpha": torch.full((3,), 0.5)}, ValueError, r"broadcasts to \(2,\), got \(3,\)"),
    "step below 0": ({"dt": -0.1}, ValueError, r"fdeint\(dt=...\)`: expected a finite number above 0"),
    "times off the grid": ({"t": [0.0, 0.15]}, ValueError, r"fdeint\(t=...\)`: expected whole multiples"),
    "times equal": ({"t": [0.0, 0.1, 0.1]}, ValueError, r"fdeint\(t=...\)`: expected strictly rising"),
    "method as string": ({"method": "abm"}, TypeError, r"fdeint\(method=...\)`.*AdamsBashforthMoulton\(\)\?"),
    "method of another family": ({"method": Heun()}, TypeError, r"fdeint\(method=...\)`: expected a method object"),
    "no history": ({"delays": 1.0}, ValueError, r"fdeint\(history=...\)`: expected the past"),
    "no delays": ({"history": ONE}, ValueError, r"fdeint\(history=...\)`: expected the past"),
    "delay too short": (
        {"f": _f, "delays": 0.01, "history": ONE, "y0": None}, ValueError, r"fdeint\(dt=...\)`: expected at most",
    ),
    "derivative of another dtype": ({"f": lambda t, y: -y.float()}, ValueError, r"fdeint\(f=...\)`: expected a derivative"),
    "state of integers": ({"y0": torch.ones(2, dtype=torch.int64)}, TypeError, r"fdeint\(y0=...\)`: expected a floating"),
    "solution diverges": ({"f": lambda t, y: 1e200 * y**3}, FloatingPointError, r"fdeint\(f=...\)`: the solution became"),
    "newton fails": (
        {"f": lambda t, y: torch.where(y > 0.5, -1.0, 1.0) * 1e3 * (y - 0.5).abs().sqrt(), "method": L1(iterations=1)},
        FloatingPointError, r"fdeint\(f=...\)`: the solution became nan",
    ),
}  # fmt: skip


def test_a_delay_that_is_a_function_may_not_become_negative_nor_leave_the_history() -> None:
    y0, t = torch.ones(2, dtype=torch.float64), [0.0, 2.0]
    f = lambda t, y, past: -past[0]  # noqa: E731
    with pytest.raises(ValueError, match=r"delays of at least 0, but one that is a function became -"):
        ddeint(f, y0, t, delays=lambda t, y: 1.0 - t)
    past = integrate.sampled(torch.linspace(-0.5, 0.0, 5), torch.ones(5, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"history=...\)`: expected it to reach back to t = -2, .* begins at t = -0.5"):
        ddeint(f, past, t, delays=lambda t, y: 2.0 + 0.0 * t)


@pytest.mark.parametrize("name", FDE)
def test_fdeint_refuses(name: str) -> None:
    changes, kind, message = FDE[name]
    arguments: dict[str, Any] = {"f": _g, "y0": ONE, "t": T, "alpha": 0.5, "dt": 0.1, **changes}
    with pytest.raises(kind, match=message):
        fdeint(arguments.pop("f"), arguments.pop("y0"), arguments.pop("t"), **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GrunwaldLetnikov(memory=0), r"GrunwaldLetnikov\(memory=...\)"),
        (lambda: L1(memory=1.5), r"L1\(memory=...\)"),  # type: ignore[arg-type]
        (lambda: L1(memory=3, fast=SumOfExponentials()), r"L1\(memory=...\)`: expected None with fast"),
        (lambda: L1(iterations=0), r"L1\(iterations=...\)"),
        (lambda: AdamsBashforthMoulton(corrections=0), r"AdamsBashforthMoulton\(corrections=...\)"),
        (lambda: SumOfExponentials(1.0), r"SumOfExponentials\(tolerance=...\)"),
        (lambda: sampled(torch.zeros(3), torch.zeros(3)), r"sampled\(t=...\)"),
        (lambda: sampled(torch.arange(3.0), torch.zeros(2)), r"sampled\(y=...\)"),
    ],
)
def test_constructors_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [integrate.CaputoEuler, AdamsBashforthMoulton, L1], ids=lambda kind: kind.__name__)
def test_a_fast_memory_is_an_object(kind: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"`{kind.__name__}\(fast=...\)`: expected a SumOfExponentials object or None, got True"
    ):
        kind(fast=True)


SDDE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "function as delay": ({"delays": lambda t, y: 1.0}, ValueError, r"sddeint\(delays=...\)`: expected constant"),
    "no delay": ({"delays": ()}, ValueError, r"sddeint\(delays=...\)`: expected at least one"),
    "step too long": ({"dt": 2.0, "t": [0.0, 2.0]}, ValueError, r"sddeint\(dt=...\)`: expected at most"),
    "off the grid": ({"t": [0.0, 0.55]}, ValueError, r"sddeint\(t=...\)`: expected multiples"),
    "order too high": ({"method": SRA1(), "noise": Additive()}, ValueError, r"sddeint\(method=...\)`: expected one of"),
    "method as string": ({"method": "milstein"}, TypeError, r"sddeint\(method=...\)`.*Milstein"),
    "diffusion of another shape": ({"g": lambda t, y, past: y[:1]}, ValueError, r"sddeint\(g=...\)`"),
    "history too short": ({"history": _SHORT}, ValueError, r"sddeint\(history=...\)`: expected it to reach back"),
}


@pytest.mark.parametrize("name", SDDE)
def test_sddeint_refuses(name: str) -> None:
    changes, kind, message = SDDE[name]
    arguments: dict[str, Any] = {
        "f": _f, "g": lambda t, y, past: 0.1 * y, "history": ONE, "t": T, "delays": 1.0, "dt": 0.1, **changes,
    }  # fmt: skip
    first = [arguments.pop(name) for name in ("f", "g", "history", "t")]
    with pytest.raises(kind, match=message):
        sddeint(*first, **arguments)


@pytest.mark.parametrize("family", ["DDE", "FDE"])
def test_methods_are_listed(family: str) -> None:
    listed = integrate.methods(family)
    assert len({method.name for method in listed}) == len(listed) >= 4
    for method in listed:
        assert hasattr(integrate, method.name) and method.family == family and method.kind and method.stages
        assert "doi:" in method.source or "Podlubny" in method.source
