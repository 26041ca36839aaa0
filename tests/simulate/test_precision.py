"""What does not lose precision in long runs, and what autocast does to a simulation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt


class Clock(bt.DynamicalSystem):
    """Puts out the time that it is handed."""

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
        return {"x": torch.zeros(batch_shape)}

    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> tuple[Any, Tensor]:
        return state, t


@pytest.mark.parametrize("loop", ["reference", "native", bt.Native(threads=2)])
def test_time_is_the_number_of_steps_times_dt(loop: Any) -> None:
    """To the last bit of a double, after hours: no sum of steps, and nothing in single precision."""
    dt, first = 0.1, 360_000_007
    sol = bt.simulate(Clock(()), dt=dt, duration=300 * dt, t0=first * dt, loop=loop)
    assert sol.out.dtype == torch.float64
    assert sol.out.tolist() == [(first + k) * dt for k in range(300)]


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_stimuli_are_sharp_after_a_day(loop: Any) -> None:
    first = 864_000_000
    stimulus = bt.stimuli.Step(2.0, start=first * 0.1 + 0.5, stop=first * 0.1 + 1.0)
    neuron = bt.rates.LeakyRate(1)
    sol = bt.simulate(neuron, stimulus, dt=0.1, duration=2.0, t0=first * 0.1, loop=loop)
    risen = sol.out[:, 0].diff(prepend=torch.zeros(1)) > 0
    assert risen.nonzero()[:, 0].tolist() == [5, 6, 7, 8, 9]


class Layer(bt.DynamicalSystem):
    """Leaky units with a trained matrix, whose state stays in single precision."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Linear(n, n, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(n, n, generator=generator) / n**0.5)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
        return {"h": self.fill(batch_shape, 0.5)}

    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> tuple[Any, Tensor]:
        h = state["h"] + dt * (self.layer(torch.tanh(state["h"])) + inputs - state["h"])
        return {"h": h}, h


class Careless(Layer):
    """The same, but for a state that becomes what the layer makes of it."""

    def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> tuple[Any, Tensor]:
        h = self.layer(state["h"])
        return {"h": h}, h


def _autocast(system: bt.DynamicalSystem, loop: Any, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    x = torch.sin(torch.arange(240.0)).reshape(30, 8)
    with torch.autocast("cpu", dtype):
        return bt.simulate(system, x, dt=0.1, loop=loop).out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_holds_in_both_loops(dtype: torch.dtype) -> None:
    """Matrix products in two bytes, as autocast has them, and the rest in float32."""
    plain = bt.simulate(Layer(8), torch.sin(torch.arange(240.0)).reshape(30, 8), dt=0.1, loop="native").out.detach()
    want, got = (_autocast(Layer(8), loop, dtype).detach() for loop in ("reference", "native"))
    assert got.dtype == torch.float32
    assert 1e-4 < float((want - plain).abs().max()) < 0.1
    # A product may end on either side of a tie, which moves a sum by one unit in the last of the few places.
    torch.testing.assert_close(got, want, rtol=0.0, atol=float(want.abs().max()) * torch.finfo(dtype).eps / 4)


def test_gradients_under_autocast() -> None:
    systems = [Layer(8), Layer(8)]
    for system, loop in zip(systems, ("reference", "native"), strict=True):
        _autocast(system, loop).square().mean().backward()
    want, got = (system.layer.weight.grad for system in systems)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0.0, atol=0.01 * float(want.abs().max()))


def test_autocast_leaves_networks_alone() -> None:
    """Products of spikes and connectivity are no matrix products of torch's, and take what autocast gives them."""
    cell = bt.neurons.LIF(6, tau=5.0, surrogate=bt.surrogate.Arctan(), v_init=bt.init.Uniform(0.0, 20.0))
    net = bt.Network({"E": cell}, {("E", "E"): bt.Projection(bt.connect.FixedNumberPost(3), bt.init.Uniform(0.0, 5.0))})
    x = 30.0 + torch.arange(180.0).reshape(30, 6)
    want = bt.simulate(net, x, dt=0.1, loop="reference").out["E"]
    for loop in ("reference", "native"):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(bt.simulate(net, x, dt=0.1, loop=loop).out["E"], want)
    assert float(want.sum()) > 0


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_a_state_that_autocast_would_change_is_named(loop: Any) -> None:
    with pytest.raises(
        ValueError, match=r"step must keep shape, dtype and device: the state variable 'h' was.*bfloat16"
    ):
        _autocast(Careless(8), loop)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_whole_model_in_two_bytes(dtype: torch.dtype) -> None:
    """Every operation rounded, to the bit as in the reference loop."""

    class Decay(Layer):
        def step(self, state: Any, inputs: Any, t: Tensor, dt: float) -> tuple[Any, Tensor]:
            v = state["h"] + dt * (inputs - state["h"]) / 3.0
            spike = v > 0.9
            return {"h": torch.where(spike, 0.0, v)}, spike

    x = (1.0 + torch.arange(2400.0).reshape(300, 8) % 7).to(dtype)
    want, got = (bt.simulate(Decay(8).to(dtype), x, dt=0.1, loop=loop) for loop in ("reference", "native"))
    assert want.out.any() and torch.equal(want.out, got.out) and torch.equal(want.state["h"], got.state["h"])
    assert got.state["h"].dtype == dtype
