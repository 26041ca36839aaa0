"""What becomes NaN or infinite is reported with time and component, whatever the kind of equation and the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch
from bdtorch import integrate
from bdtorch.integrate import RK4, Diagonal, IntegrationError, ddeint, fdeint, odeint, sddeint, sdeint

State = dict[str, Tensor]
T = [0.0, 1.0, 2.0]


def _state() -> State:
    return {"v": torch.ones(2, dtype=torch.float64), "w": torch.ones(3, dtype=torch.float64)}


def _breaks(t: Tensor, y: State, past: Any = None) -> State:
    late = (torch.arange(3) == 2) & (t > 1.25)
    return {"v": -y["v"], "w": torch.where(late, torch.nan, -y["w"])}


def _zero(t: Tensor, y: State, past: Any = None) -> State:
    return {"v": 0.0 * y["v"], "w": 0.0 * y["w"]}


SOLVES: dict[
    str, tuple[Any, str]
] = {  # and the end of the first step that begins, or whose stages stand, after the break
    "ordinary, fixed": (lambda loop: odeint(_breaks, _state(), T, method=RK4(), dt=0.1, loop=loop), "1.3"),
    "ordinary, one step": (lambda loop: odeint(_breaks, _state(), T, method=integrate.Euler(), dt=0.5, loop=loop), "2"),
    "stochastic": (lambda loop: sdeint(_breaks, _zero, _state(), T, dt=0.125, noise=Diagonal(), loop=loop), "1.5"),
    "delayed": (lambda loop: ddeint(_breaks, _state(), T, delays=0.5, dt=0.1, loop=loop), "1.3"),
    "delayed, unequal": (lambda loop: ddeint(_breaks, _state(), T, delays=0.37, dt=0.1, loop=loop), "1.29"),
    "stochastic, delayed": (lambda loop: sddeint(_breaks, _zero, _state(), T, delays=0.5, dt=0.125, loop=loop), "1.5"),
    "fractional": (lambda loop: fdeint(_breaks, _state(), T, alpha=0.7, dt=0.1, loop=loop), "1.3"),
}


@pytest.mark.parametrize("loop", [None, bdtorch.Native()], ids=["python", "native"])
@pytest.mark.parametrize("name", SOLVES)
def test_fixed_steps_name_the_step_and_the_component(name: str, loop: Any) -> None:
    solve, time = SOLVES[name]
    with pytest.raises(FloatingPointError, match=rf"nan.* at t = {time}\d* in component 2 of 'w'"):
        solve(loop)


@pytest.mark.parametrize("kind", ["ordinary", "delayed"])
def test_adaptive_steps_name_the_time_and_the_component(kind: str) -> None:
    with pytest.raises(FloatingPointError, match=r"t = 1.25,? in component 2 of 'w'"):
        odeint(_breaks, _state(), T) if kind == "ordinary" else ddeint(_breaks, _state(), T, delays=0.5)


def test_components_of_matrices_batches_and_single_numbers_have_their_names() -> None:
    def f(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        late = (torch.arange(4).reshape(2, 2) == 2) & (t.reshape(-1, 1, 1) > 0.5)
        return {"a": -y["a"], "m": torch.where(late, torch.nan, -y["m"])}

    y0 = {"a": torch.ones(3, dtype=torch.float64), "m": torch.ones(3, 2, 2, dtype=torch.float64)}
    with pytest.raises(FloatingPointError, match=r"component \(1, 0\) of 'm' of trajectory 0"):
        odeint(f, y0, [0.0, 1.0], batch_dims=1)
    with pytest.raises(IntegrationError, match=r"singularity there \('x' is \d"):
        odeint(lambda t, y: {"x": y["x"] ** 2}, {"x": torch.ones((), dtype=torch.float64)}, [0.0, 2.0])


def test_a_tolerance_beyond_the_dtype_is_told_from_stiffness() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t) * (y + 1.0)

    with pytest.raises(ValueError, match=r"odeint\(rtol=...\)`: expected tolerances that torch.float32 resolves"):
        odeint(f, torch.ones(2), [0.0, 10.0], rtol=1e-12, atol=1e-12)
    with pytest.raises(IntegrationError, match=r"rtol=1e-12 and atol ask for more digits than torch.float32 has"):
        odeint(f, torch.zeros(2), [0.0, 10.0], rtol=1e-12, atol=1e-12, max_steps=200)
    with pytest.raises(IntegrationError, match="for a stiff equation take"):
        odeint(f, torch.ones(2, dtype=torch.float64), [0.0, 10.0], rtol=1e-12, atol=1e-12, max_steps=20)
