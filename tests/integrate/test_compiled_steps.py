"""Whole solves of all but ordinary equations in fixed steps, under vmap and as one compiled graph, method by method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch import integrate
from bdtorch.integrate import Additive, Diagonal, SumOfExponentials, ddeint, fdeint, odeint, sddeint, sdeint

_FRACTIONAL: dict[str, Any] = {entry.name: getattr(integrate, entry.name)() for entry in integrate.methods("FDE")} | {
    "L1": integrate.L1(iterations=8),
    "fast": integrate.AdamsBashforthMoulton(fast=SumOfExponentials(1e-6)),
    "short memory": integrate.GrunwaldLetnikov(memory=3),
}
_DELAYED = [entry.name for entry in integrate.methods("DDE")]
_QUICK = {"Heun", "EulerMaruyama", "SRI1", "GrunwaldLetnikov", "fast"}
_RULES = {
    "Heun",
    "Tsit5",
    "ExponentialRK2",
    "Trapezoidal",
    "Rodas4",
}  # one of each stepping rule; within it methods are data


_CONSTANT = {"Tsit5", "RK4", "Rodas4", "ImplicitEuler"}


def _delayed(y: Tensor, name: str) -> Tensor:
    def f(t: Tensor, y: Tensor, past: tuple[Tensor, ...]) -> Tensor:
        return torch.cos(t) - past[0] * y.roll(1, -1)

    method = getattr(integrate, name)()
    delays: Any = 0.2 if name in _CONSTANT else lambda t, y: 0.2
    return ddeint(f, y, [0.0, 0.2, 0.4], delays=delays, max_delay=0.2, dt=0.1, method=method, levels=0).y


def _fractional(y: Tensor, name: str) -> Tensor:
    return fdeint(
        lambda t, y: torch.cos(t) - y * y.roll(1, -1), y, [0.0, 0.2, 0.4], alpha=0.7, dt=0.1, method=_FRACTIONAL[name]
    ).y


def _stochastic(y: Tensor, name: str) -> Tensor:
    method = getattr(integrate, name)()
    noise = Additive() if Additive in method.noises else Diagonal()
    strength = torch.full_like if noise.additive else lambda y, s: s * torch.cos(y)
    return sdeint(
        lambda t, y: torch.cos(t) - y, lambda t, y: strength(y, 0.3), y, [0.0, 0.2, 0.4], dt=0.1, method=method, noise=noise,
        calculus=method.calculi[0], seed=3,
    ).y  # fmt: skip


_CASES: list[tuple[Callable[[Tensor, str], Tensor], str]] = [
    *((_delayed, name) for name in _DELAYED),
    *((_fractional, name) for name in _FRACTIONAL),
    *((_stochastic, entry.name) for entry in integrate.methods("SDE")),
]
_IDS = [f"{solve.__name__[1:]}-{name}" for solve, name in _CASES]


@pytest.mark.parametrize(("solve", "name"), _CASES, ids=_IDS)
def test_vmap_equals_singles(solve: Callable[[Tensor, str], Tensor], name: str) -> None:
    y = torch.linspace(0.2, 1.4, 12, dtype=torch.float64).reshape(3, 4)
    many = torch.func.vmap(lambda row: solve(row, name))(y)
    torch.testing.assert_close(many, torch.stack([solve(row, name) for row in y]), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("solve", "name"),
    [
        pytest.param(*case, marks=() if case[1] in _QUICK else pytest.mark.slow, id=name)
        for case, name in zip(_CASES, _IDS, strict=True)
        if case[0] is not _delayed or case[1] in _RULES
    ],
)
def test_the_whole_solve_compiles_as_one_graph(solve: Callable[[Tensor, str], Tensor], name: str) -> None:
    torch._dynamo.reset()
    y = torch.linspace(0.2, 1.4, 4, dtype=torch.float64)
    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(y, name), solve(y, name), rtol=1e-11, atol=1e-13)


def _delayed_fractional(y: Tensor) -> Tensor:
    return fdeint(lambda t, y, past: -past[0], y, [0.0, 0.4], alpha=0.7, dt=0.1, delays=0.2, history=y).y


def _delayed_stochastic(y: Tensor) -> Tensor:
    drift, diffusion = lambda t, y, past: -past[0], lambda t, y, past: 0.1 * y
    return sddeint(drift, diffusion, y, [0.0, 0.4], delays=0.2, dt=0.1, seed=1).y


@pytest.mark.parametrize("solve", [_delayed_fractional, _delayed_stochastic])
def test_delays_beside_memory_or_noise_under_vmap_and_in_a_graph(solve: Callable[[Tensor], Tensor]) -> None:
    y = torch.linspace(0.2, 1.4, 6, dtype=torch.float64).reshape(3, 2)
    singles = torch.stack([solve(row) for row in y])
    torch.testing.assert_close(torch.func.vmap(solve)(y), singles, rtol=1e-12, atol=1e-14)
    torch._dynamo.reset()
    compiled = torch.compile(solve, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(y[0]), singles[0], rtol=1e-12, atol=1e-14)


_TIMED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "odeint": lambda y, t: odeint(lambda s, y: -y * torch.cos(s), y, t, method=integrate.RK4(), dt=0.25).y,
    "sdeint": lambda y, t: sdeint(lambda s, y: -y, lambda s, y: 0.1 * y, y, t, dt=0.25).y,
    "ddeint": lambda y, t: ddeint(lambda s, y, past: -past[0], y, t, delays=0.5, dt=0.25).y,
    "fdeint": lambda y, t: fdeint(lambda s, y: -y, y, t, alpha=0.5, dt=0.25).y,
}


@pytest.mark.parametrize("door", _TIMED)
def test_a_graph_takes_times_in_a_tensor_and_only_those(door: str) -> None:
    torch._dynamo.reset()
    solve = _TIMED[door]
    compiled = torch.compile(solve, backend="aot_eager", fullgraph=True)
    y, t = torch.ones(2, dtype=torch.float64), torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(compiled(y, t), solve(y, t), rtol=1e-13, atol=0)
    with pytest.raises(
        RuntimeError, match=r"t=...\)`: expected the times that the graph was compiled for, got other ones"
    ):
        compiled(y, torch.tensor([0.0, 0.25, 1.0]))
