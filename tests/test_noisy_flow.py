"""Noise in a flow: the paths of `sdeint`, by every method and in every loop, with spikes and outputs as without it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import integrate
from bdtorch.integrate import Additive, BrownianPath, Calculus, Diagonal, General, Scalar, sdeint

DT, STEPS = 0.125, 24


class Pendulum(bt.Flow):
    """A damped pendulum; its noise is a method of the model."""

    class State(NamedTuple):
        angle: Tensor
        speed: Tensor

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(self.fill(batch_shape, 1.0), self.fill(batch_shape, torch.linspace(-1.0, 1.0, 3).double()))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(state.speed, inputs * torch.cos(t) - torch.sin(state.angle) - 0.3 * state.speed)

    def diffusion(self, state: State, inputs: Any, t: Tensor) -> State:
        return self.State(0.1 * torch.cos(state.angle), 0.2 * inputs + 0.1 * torch.sin(state.speed))


def _constant(state: Any, inputs: Any, t: Tensor) -> Any:
    return Pendulum.State(torch.full_like(state.angle, 0.1), torch.full_like(state.speed, 0.3))


def _columns(state: Any, inputs: Any, t: Tensor) -> Any:
    ones = torch.ones((*state.angle.shape, 2), dtype=state.angle.dtype)
    return Pendulum.State(0.1 * ones, 0.2 * state.angle.unsqueeze(-1) * ones)


_CORRELATED = torch.tensor([[1.0, 0.6], [0.6, 1.0]])
CASES: dict[str, tuple[Any, Any, Calculus, Any]] = {
    "EulerMaruyama": (integrate.EulerMaruyama(), Diagonal(), Calculus.ITO, None),
    "correlated": (integrate.EulerMaruyama(), General(processes=2, correlation=_CORRELATED), Calculus.ITO, _columns),
    "EulerHeun": (integrate.EulerHeun(), Diagonal(), Calculus.STRATONOVICH, None),
    "StochasticHeun": (integrate.StochasticHeun(), Scalar(), Calculus.STRATONOVICH, None),
    "ExponentialEulerMaruyama": (integrate.ExponentialEulerMaruyama(), Diagonal(), Calculus.ITO, None),
    "Milstein": (integrate.Milstein(), Diagonal(), Calculus.ITO, None),
    "DerivativeFreeMilstein": (integrate.DerivativeFreeMilstein(), Diagonal(), Calculus.STRATONOVICH, None),
    "SRA1": (integrate.SRA1(), Additive(), Calculus.ITO, _constant),
    "SRA2": (integrate.SRA2(), Additive(), Calculus.ITO, _constant),
    "SRA3": (integrate.SRA3(), Additive(), Calculus.ITO, _constant),
    "SRI1": (integrate.SRI1(), Diagonal(), Calculus.ITO, None),
    "SRI2": (integrate.SRI2(), Scalar(), Calculus.ITO, None),
}


def test_every_stochastic_method_has_a_case() -> None:
    assert {entry.name for entry in integrate.methods("SDE")} == {name for name in CASES if name != "correlated"}


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("name", CASES)
def test_a_noisy_flow_walks_the_path_of_sdeint(name: str, loop: str) -> None:
    method, noise, calculus, diffusion = CASES[name]
    flow = Pendulum(3, dtype=torch.float64)
    system = bt.NoisyFlow(flow, diffusion, integrator=method, noise=noise, calculus=calculus)
    state = system.init_state((2,), seed=5)
    sol = bt.simulate(system, 0.7, dt=DT, duration=STEPS * DT, state=state, loop=loop, progress=False)
    g = diffusion or flow.diffusion
    reference = sdeint(
        lambda t, y: flow.derivative(y, 0.7, t), lambda t, y: g(y, 0.7, t), state.flow,
        torch.tensor([0.0, STEPS * DT]), dt=DT, method=method, noise=noise, calculus=calculus,
        linear=lambda t, y: flow.linear(y, 0.7, t), path=BrownianPath(DT, state.key),
    ).y  # fmt: skip
    for got, want in zip(sol.state.flow, reference, strict=True):
        torch.testing.assert_close(got, want[-1], rtol=1e-12, atol=1e-13)
        assert not torch.equal(got[0], got[1])  # each batch element has noise of its own
    assert sol.state.counter.tolist() == [STEPS, STEPS]


def test_strengths_by_name_give_a_leaky_membrane_its_stationary_spread() -> None:
    # dv = -v / tau dt + sigma dW has the variance sigma^2 tau / 2.
    sigma = nn.Parameter(torch.tensor(2.0))
    system = bt.NoisyFlow(
        bt.neurons.LIF(20_000, tau=4.0, v_th=1e9), {"v": sigma}, integrator=integrate.ExponentialEulerMaruyama()
    )
    with torch.no_grad():
        v = bt.simulate(system, dt=1.0, duration=40.0, progress=False).state.flow.v
    assert float(v.var()) == pytest.approx(2.0**2 * 4.0 / 2.0, rel=5 * math.sqrt(2.0 / 20_000))
    final = bt.simulate(system, dt=1.0, duration=40.0, loop="reference").state.flow.v
    (gradient,) = torch.autograd.grad(final.var(), sigma)
    assert float(gradient) == pytest.approx(
        2.0 * float(v.var()) / 2.0, rel=1e-4
    )  # the variance goes with sigma squared


def test_spikes_and_resets_are_the_neurons_own() -> None:
    quiet = bt.neurons.LIF(4)
    loud = bt.NoisyFlow(bt.neurons.LIF(4, integrator=integrate.RK4()), {"v": 0.0}, integrator=integrate.EulerMaruyama())
    plain = bt.neurons.LIF(4, integrator=integrate.Euler())
    options: dict[str, Any] = {"dt": 0.1, "duration": 30.0, "progress": False}
    assert quiet.init_out().dtype == loud.init_out().dtype
    spikes = bt.simulate(loud, 30.0, **options).out
    assert spikes.any() and torch.equal(spikes, bt.simulate(plain, 30.0, **options).out)
    noisy = bt.NoisyFlow(bt.neurons.LIF(4), {"v": 3.0})
    assert bt.simulate(noisy, 15.0, **options).out.any()  # below threshold without noise


def test_a_resumed_run_sees_the_same_noise() -> None:
    system = bt.NoisyFlow(bt.rates.WilsonCowan(3), {"e": 0.1})
    state = bt.initial_state(system, seed=3)
    whole = bt.simulate(system, 0.5, dt=0.1, duration=4.0, state=state)
    half = bt.simulate(system, 0.5, dt=0.1, duration=2.0, state=state)
    rest = bt.simulate(system, 0.5, dt=0.1, duration=2.0, state=half.state)
    assert torch.equal(rest.state.flow.e, whole.state.flow.e)


def test_noise_in_a_network() -> None:
    cell = bt.NoisyFlow(bt.neurons.LIF(5, v_th=10.0), {"v": 2.0})
    net = bt.Network({"E": cell}, {("E", "E"): bt.Projection(bt.connect.AllToAll(), 0.2)}, seed=1)
    spikes = bt.simulate(net, 12.0, dt=0.1, duration=50.0, record={"s": bt.spikes("E")}, progress=False)["s"]
    assert len(spikes) > 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"flow": 3}, TypeError, r"NoisyFlow\(flow=...\)`: expected a Flow"),
        ({"diffusion": 0.5}, TypeError, r"NoisyFlow\(diffusion=...\)`: expected a function"),
        ({"flow": bt.neurons.LIF(2)}, TypeError, r"a flow with a method `diffusion`"),
        ({"diffusion": {}}, ValueError, "expected at least one of"),
        ({"diffusion": {"w": 1.0}}, ValueError, r"expected names among \['angle', 'speed'\], got 'w'"),
        ({"diffusion": {"angle": float("nan")}}, ValueError, "got NaN"),
        ({"diffusion": {"angle": 1.0}, "noise": Diagonal()}, ValueError, r"expected Additive\(\)"),
        ({"integrator": "heun"}, TypeError, r"NoisyFlow\(integrator=...\)`.*did you mean StochasticHeun\(\)"),
        ({"integrator": integrate.RK4()}, TypeError, r"NoisyFlow\(integrator=...\)`"),
        ({"integrator": integrate.SRA1()}, ValueError, "expected Additive noise for AdditiveRungeKutta, got Diagonal"),
        ({"integrator": integrate.EulerHeun()}, ValueError, "expected one for Ito equations"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bt.NoisyFlow(**{"flow": Pendulum(3), **arguments})


@pytest.mark.parametrize(
    ("diffusion", "message"),
    [
        (lambda y, inputs, t: y.angle, r"expected the structure of the state, \['angle', 'speed'\]"),
        (lambda y, inputs, t: y._replace(angle=torch.ones(2)), r"of shape \(3,\), got torch.float32 of shape \(2,\)"),
        (lambda y, inputs, t: y._replace(angle=y.angle.double()), "expected torch.float32.*got torch.float64"),
    ],
)
def test_a_diffusion_of_another_form_is_refused(diffusion: Any, message: str) -> None:
    flow = Pendulum(3)
    flow.init_state = lambda batch_shape=(): Pendulum.State(torch.ones(3), torch.ones(3))  # type: ignore[method-assign]
    system = bt.NoisyFlow(flow, diffusion)
    with pytest.raises(ValueError, match=message):
        system.step(system.init_state(), 0.0, torch.tensor(0.0), 0.1)
