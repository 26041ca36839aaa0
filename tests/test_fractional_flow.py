"""Flows of fractional order: the solutions of `fdeint`, by every method and in every loop, and what resets do to them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import integrate
from bdtorch.integrate import SumOfExponentials, fdeint

DT, STEPS = 0.125, 24


class Oscillator(bt.Flow):
    """FitzHugh and Nagumo's equations under a current that depends on time."""

    class State(NamedTuple):
        v: Tensor
        w: Tensor

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(self.fill(batch_shape, torch.linspace(-1.0, 1.0, 3).double()), self.fill(batch_shape, -0.4))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, w = state
        return self.State(v - v**3 / 3.0 - w + inputs * torch.cos(t), 0.3 * (0.7 + v - 0.8 * w))


class Climber(bt.Flow):
    """A variable that grows steadily and is set back by 1 whenever it reaches 1."""

    class State(NamedTuple):
        x: Tensor

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(self.fill(batch_shape, 0.0))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(torch.full_like(state.x, 1.0))

    def emit(self, before: State, after: State) -> tuple[State, Tensor]:
        spikes = after.x >= 1.0
        return self.State(torch.where(spikes, after.x - 1.0, after.x)), spikes


METHODS: dict[str, Any] = {
    **{entry.name: getattr(integrate, entry.name)() for entry in integrate.methods("FDE")},
    "L1": integrate.L1(iterations=8),
    "short memory": integrate.GrunwaldLetnikov(memory=5),
    "L1, short memory": integrate.L1(memory=5, iterations=8),
    "L1, pointwise": integrate.L1(coupling=integrate.Pointwise(), iterations=8),
    "fast Euler": integrate.CaputoEuler(fast=SumOfExponentials(1e-8)),
    "fast L1": integrate.L1(fast=SumOfExponentials(1e-8), iterations=8),
    "fast Adams": integrate.AdamsBashforthMoulton(fast=SumOfExponentials(1e-8)),
}


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("name", METHODS)
def test_a_fractional_flow_solves_the_equation_of_fdeint(name: str, loop: str) -> None:
    if (loop == "native" and name.endswith("L1")) or (loop == "native" and name == "L1, short memory"):
        pytest.skip("LU factors of two variables of three neurons are no element-wise operations")
    flow, method = Oscillator(3, dtype=torch.float64), METHODS[name]
    system = bt.FractionalFlow(flow, {"v": 0.8, "w": 0.6}, duration=STEPS * DT, integrator=method)
    found = bt.simulate(system, 0.7, dt=DT, duration=STEPS * DT, loop=loop, progress=False).out
    start = flow.init_state()
    expected = fdeint(
        lambda t, y: flow.derivative(Oscillator.State(*y), 0.7, t), start, torch.linspace(0.0, STEPS * DT, STEPS + 1),
        alpha=Oscillator.State(0.8, 0.6), dt=DT, method=method, progress=False,
    ).y  # fmt: skip
    for row, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(row, exact[1:], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", METHODS)
def test_a_reset_shifts_what_comes_after_it(name: str) -> None:
    if "short memory" in name:
        pytest.skip("which forgets")
    alpha = 0.6
    system = bt.FractionalFlow(Climber((), dtype=torch.float64), alpha, duration=STEPS * DT, integrator=METHODS[name])
    sol = bt.simulate(
        system,
        dt=DT,
        duration=STEPS * DT,
        loop="reference",
        record={"x": bt.trace("flow.x")},
        keep_out=True,
        progress=False,
    )
    t = DT * torch.arange(1, STEPS + 1, dtype=torch.float64)
    whole = t**alpha / math.gamma(alpha + 1.0)  # of a slope of 1
    assert sol.out.sum() >= 2
    error = (sol["x"] + sol.out.cumsum(0) - whole).abs()
    assert float(error.max()) < (
        1e-6 if name in ("CaputoEuler", "AdamsBashforthMoulton", "fast Euler", "fast Adams") else 0.1
    )


def test_order_one_is_the_ordinary_flow() -> None:
    flow = Oscillator(3, dtype=torch.float64, integrator=integrate.Euler())
    system = bt.FractionalFlow(flow, 1.0, duration=3.0, integrator=integrate.GrunwaldLetnikov())
    ours, theirs = (bt.simulate(model, 0.7, dt=DT, duration=3.0, progress=False).out.v for model in (system, flow))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["GrunwaldLetnikov", "AdamsBashforthMoulton", "fast Adams", "L1, pointwise"])
def test_a_resumed_run_is_that_of_one_piece(name: str, tmp_path: Path) -> None:
    system = bt.FractionalFlow(Oscillator(3, dtype=torch.float64), 0.7, duration=3.0, integrator=METHODS[name])
    whole = bt.simulate(system, 0.7, dt=DT, duration=3.0, progress=False)
    half = bt.simulate(system, 0.7, dt=DT, duration=1.5, progress=False)
    bt.save(tmp_path / "half.safetensors", half.state, t=half.t_end)
    state, begin = bt.load(tmp_path / "half.safetensors", system.init_state(dt=DT))
    rest = bt.simulate(system, 0.7, dt=DT, duration=1.5, state=state, t0=begin, progress=False)
    assert torch.equal(rest.out.v, whole.out.v[12:])


def test_a_run_longer_than_its_memory_ends_with_an_error() -> None:
    system = bt.FractionalFlow(Oscillator(3, dtype=torch.float64), 0.7, duration=1.0)
    bt.simulate(system, 0.7, dt=DT, duration=1.0, progress=False)
    with pytest.raises(ValueError, match=r"simulate\(duration=...\)`: expected at most 1 ms, .* got 2 ms"):
        bt.simulate(system, 0.7, dt=DT, duration=2.0, progress=False)
    half = bt.simulate(system, 0.7, dt=DT, duration=0.75, progress=False)
    with pytest.raises(FloatingPointError, match=r"flow\.v"):
        bt.simulate(system, 0.7, dt=DT, duration=0.75, state=half.state, progress=False)
    short = bt.FractionalFlow(
        Oscillator(3, dtype=torch.float64), 0.7, duration=1.0, integrator=integrate.GrunwaldLetnikov(memory=4)
    )
    bt.simulate(short, 0.7, dt=DT, duration=1.0, progress=False)


def test_the_order_is_trained() -> None:
    alpha = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    system = bt.FractionalFlow(Oscillator(3, dtype=torch.float64), {"v": alpha}, duration=1.0)

    def loss(order: float) -> Tensor:
        with torch.no_grad():
            alpha.fill_(order)
        return bt.simulate(system, 0.7, dt=DT, duration=1.0, loop="reference", progress=False).out.v.square().sum()

    (gradient,) = torch.autograd.grad(loss(0.7), alpha)
    slope = (loss(0.7 + 1e-5) - loss(0.7 - 1e-5)).detach() / 2e-5
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"flow": 3}, TypeError, r"FractionalFlow\(flow=...\)`: expected a Flow"),
        ({"alpha": 1.2}, ValueError, r"FractionalFlow\(alpha=...\)`: expected orders in \(0, 1\], got 1.2"),
        (
            {"alpha": {"v": 0.0}},
            ValueError,
            r"FractionalFlow\(alpha=...\)`: expected orders in \(0, 1\], got 0 for 'v'",
        ),
        ({"alpha": {"u": 0.5}}, ValueError, r"expected names among \['v', 'w'\], got 'u'"),
        ({"duration": None}, ValueError, r"FractionalFlow\(duration=...\)`: expected the longest duration"),
        (
            {"duration": -1.0},
            ValueError,
            r"FractionalFlow\(duration=...\)`: expected a finite number above 0, got -1.0",
        ),
        ({"integrator": integrate.RK4()}, TypeError, r"FractionalFlow\(integrator=...\)`: expected a method object"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"flow": Oscillator(3), "alpha": 0.5, "duration": 1.0, **wrong}
    with pytest.raises(error, match=message):
        bt.FractionalFlow(**given)


def test_a_memory_needs_the_step() -> None:
    with pytest.raises(ValueError, match=r"init_state\(dt=...\)`: expected the step"):
        bt.FractionalFlow(Oscillator(3), 0.5, duration=1.0).init_state()
