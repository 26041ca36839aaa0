"""Every exported model, wrapper, stimulus and network keeps the contract, and so does a user's own model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import testing
from bdtorch.connect import AllToAll, FixedNumberPost, FixedNumberPre, FixedProbability, OneToOne
from bdtorch.testing import Case
from bdtorch.train._eligibility import Jacobian, LocalStep, Pull


class Reservoir(bt.DynamicalSystem):
    """A user's own model: a layer of leaky tanh units with a trained matrix, written in plain torch."""

    class State(NamedTuple):
        h: Tensor
        calls: Tensor

    def __init__(self, n: int) -> None:
        super().__init__(n)
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Linear(n, n)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(n, n, generator=generator) / n**0.5)
            self.layer.bias.copy_(torch.randn(n, generator=generator))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(
            h=self.fill(batch_shape, 0.1), calls=torch.zeros((*batch_shape, *self.size), dtype=torch.int64)
        )

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        h = state.h + dt * (torch.tanh(self.layer(state.h) + inputs) - state.h)
        return self.State(h=h, calls=state.calls + 1), h


class Pendulum(bt.Flow):
    """A user's own flow, forced in time, that gives nothing but its derivative."""

    class State(NamedTuple):
        angle: Tensor
        speed: Tensor

    def __init__(self, n: int, **options: Any) -> None:
        super().__init__(n, **options)
        self.declare("friction", nn.Parameter(torch.full((n,), 0.3)))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(angle=self.fill(batch_shape, 1.0), speed=self.fill(batch_shape, 0.0))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        force = inputs * torch.cos(t).to(state.angle.dtype)
        return self.State(angle=state.speed, speed=force - torch.sin(state.angle) - self.friction * state.speed)


def _spread(n: int) -> Tensor:
    """Unequal constants, so that a mixed-up axis shows."""
    return torch.linspace(0.9, 1.1, n)


def _trained(value: float, n: int) -> nn.Parameter:
    return nn.Parameter(value * _spread(n))


def _sequence(low: float, high: float, n: int, steps: int = 40) -> Tensor:
    times = torch.arange(float(steps))[:, None]
    return low + (high - low) * torch.sin(0.37 * times + torch.arange(float(n))) ** 2


def _network() -> bt.Network:
    def cell(n: int) -> bt.neurons.Refractory:
        v_init = bt.init.Uniform(-60.0, -49.0)
        return bt.neurons.Refractory(
            bt.neurons.LIF(n, tau=20.0, v_rest=-60.0, v_reset=-60.0, v_th=-50.0, v_init=v_init), period=0.5
        )

    def project(weight: Any, tau: float, e_rev: float, delay: float | None) -> bt.Projection:
        return bt.Projection(
            FixedProbability(0.3, autapses=False),
            weight=weight,
            synapse=bt.synapses.Exponential(tau),
            receptor=bt.synapses.Conductance(e_rev),
            delay=delay,
        )

    return bt.Network(
        {"E": cell(12), "I": cell(5), "P": bt.stimuli.Poisson(6, rate=500.0)},
        {
            ("E", ("E", "I")): project(nn.Parameter(torch.tensor(0.6)), 5.0, 0.0, 0.3),
            ("I", ("E", "I")): project(bt.init.Uniform(5.0, 7.0), 10.0, -80.0, None),
            ("P", "E"): [
                bt.Projection(FixedNumberPost(2), weight=0.5, receptor=bt.synapses.Jump()),
                bt.Projection(FixedNumberPre(2), weight=0.4, synapse=bt.synapses.Alpha(2.0), delay=0.2),
            ],
        },
        seed=5,
    )


def _network_of_membranes() -> bt.Network:
    nmda = bt.Projection(
        AllToAll(), 0.02, bt.synapses.DualExponential(2.0, 20.0), bt.synapses.MagnesiumBlock(0.0), delay=0.1
    )
    return bt.Network(
        {
            "A": bt.neurons.HodgkinHuxley(3, v_init=bt.init.Normal(-60.0, 5.0)),
            "B": bt.neurons.AdEx((3,), v_init=bt.init.Uniform(-60.0, -45.0)),
            "N": bt.stimuli.OrnsteinUhlenbeck(3, mean=5.0, sigma=2.0),
        },
        {("A", "B"): nmda, ("N", "A"): bt.Projection(OneToOne(), 1.0), ("B", "A"): bt.Projection(AllToAll(), 2.0)},
        seed=2,
    )


def _network_of_groups() -> bt.Network:
    """Gates at the presynaptic side, summed over groups."""
    weight = nn.Parameter(torch.tensor([[1.7, 0.4], [0.3, 1.2]]))
    nmda = bt.Projection(
        bt.connect.Groups((2, 3), (2, 3)),
        weight,
        presynaptic=bt.synapses.NMDA(1.0, 8.0),
        receptor=bt.synapses.MagnesiumBlock(0.0),
        delay=0.2,
    )
    cell = bt.neurons.LIF(5, tau=4.0, v_rest=-60.0, v_reset=-60.0, v_th=-50.0, v_init=bt.init.Uniform(-60.0, -49.0))
    return bt.Network({"E": cell}, {("E", "E"): nmda})


def _surrogate_network() -> bt.Network:
    cell = bt.neurons.LIF(4, tau=5.0, surrogate=bt.surrogate.Arctan(), v_init=bt.init.Uniform(0.0, 20.0))
    weight = nn.Parameter(torch.linspace(-3.0, 5.0, 16).reshape(4, 4))
    return bt.Network({"E": cell}, {("E", "E"): bt.Projection(AllToAll(False), weight, bt.synapses.Exponential(3.0))})


def _recurrent() -> bt.Recurrent:
    cell = bt.neurons.LIF(4, tau=5.0, surrogate=bt.surrogate.Arctan(), v_init=bt.init.Uniform(0.0, 20.0))
    return bt.Recurrent(cell, 2, w_in=bt.init.Uniform(0.0, 3.0), w_rec=bt.init.Normal(0.0, 3.0), bias=1.0)


def _jacobian() -> Jacobian:
    """Of four cells with one variable."""
    state, drive, out, direct = (_sequence(low, low + 1.0, 4) for low in (-0.1, 0.3, -0.5, -1.0))
    return Jacobian([[state]], [drive], [out], direct)


def _growing(state: Any, inputs: Any, t: Tensor) -> Any:
    return state._replace(v=0.1 * (state.v - 30.0))


def _noisy_neuron(method: Any) -> bt.NoisyFlow:
    return bt.NoisyFlow(bt.neurons.LIF(3, tau=_trained(5.0, 3)), _growing, integrator=method)


def _network_of_rules() -> bt.Network:
    """Connectivity that is drawn anew in each step instead of being stored."""
    cell = bt.neurons.LIF(20, tau=4.0, v_init=bt.init.Uniform(0.0, 20.0), v_th=15.0)
    drawn = bt.Projection(bt.connect.ProceduralProbability(0.3), 1.5, bt.synapses.Exponential(2.0), delay=0.2)
    return bt.Network({"E": cell}, {("E", "E"): drawn}, seed=4)


def _plastic(rule: bt.plasticity.Plasticity, sparse: bool = False) -> bt.Network:
    connect = FixedProbability(0.5) if sparse else AllToAll(order="post")
    projection = bt.Projection(
        connect, weight=bt.init.Uniform(0.0, 1.0), synapse=bt.synapses.Exponential(2.0), plasticity=rule
    )
    cell = bt.neurons.LIF(5, tau=4.0, v_init=bt.init.Uniform(0.0, 20.0), v_th=15.0)
    return bt.Network({"P": bt.stimuli.Poisson(6, rate=2000.0), "E": cell}, {("P", "E"): projection}, seed=3)


CASES: dict[str, Case] = {
    "LIF": Case(lambda: bt.neurons.LIF(3, tau=_trained(5.0, 3), r=_spread(3)), _sequence(40.0, 200.0, 3)),
    "LIF-surrogate": Case(lambda: bt.neurons.LIF((2, 3), surrogate=bt.surrogate.SuperSpike()), 150.0),
    "LIF-drive": Case(lambda: bt.neurons.LIF(3), bt.Drive(torch.tensor(90.0), torch.tensor(0.5))),
    "ExpIF": Case(lambda: bt.neurons.ExpIF(3, v_t=_trained(-59.9, 3)), 60.0, steps=30),
    "AdEx": Case(lambda: bt.neurons.AdEx(3, b=_spread(3), c=_trained(100.0, 3)), 2500.0),
    "Izhikevich": Case(lambda: bt.neurons.Izhikevich(3, a=_trained(0.05, 3), d=_spread(3)), 60.0),
    "HodgkinHuxley": Case(lambda: bt.neurons.HodgkinHuxley(3, v_init=-55.0), _sequence(10.0, 60.0, 3)),
    "TraubMiles": Case(lambda: bt.neurons.TraubMiles(3, c=_trained(200.0, 3), v_init=-55.0), 3000.0),
    "ConductanceBased": Case(
        lambda: bt.neurons.ConductanceBased(
            2,
            {"Na": bt.channels.SodiumHH(), "K": bt.channels.PotassiumHH(), "L": bt.channels.Leak(0.3, -54.0)},
            surrogate=bt.surrogate.Sigmoid(),
            integrator=bt.integrate.Heun(),
        ),
        30.0,
        dt=0.02,
    ),
    "Refractory-LIF": Case(lambda: bt.neurons.Refractory(bt.neurons.LIF(3, tau=_trained(5.0, 3)), 0.5), 300.0),
    "Refractory-jump": Case(
        lambda: bt.neurons.Refractory(bt.neurons.LIF(3), 0.4), bt.Drive(torch.tensor(90.0), jump=torch.tensor(0.7))
    ),
    "Refractory-TraubMiles": Case(lambda: bt.neurons.Refractory(bt.neurons.TraubMiles(2), 0.3), 3000.0),
    "SodiumHH": Case(bt.channels.SodiumHH, _sequence(-80.0, 20.0, 3), batch_shape=(3,)),
    "SodiumTM": Case(bt.channels.SodiumTM, _sequence(-80.0, 20.0, 3), batch_shape=(3,)),
    "PotassiumHH": Case(bt.channels.PotassiumHH, _sequence(-80.0, 20.0, 3), batch_shape=(3,)),
    "PotassiumTM": Case(bt.channels.PotassiumTM, _sequence(-80.0, 20.0, 3), batch_shape=(3,)),
    "Exponential": Case(lambda: bt.synapses.Exponential(_trained(5.0, 3)), _sequence(0.0, 2.0, 3), batch_shape=(3,)),
    "DualExponential": Case(
        lambda: bt.synapses.DualExponential(_trained(1.0, 3), _trained(5.0, 3)),
        _sequence(0.0, 2.0, 3),
        batch_shape=(3,),
    ),
    "Alpha": Case(lambda: bt.synapses.Alpha(_trained(2.0, 3)), _sequence(0.0, 2.0, 3), batch_shape=(3,)),
    "TsodyksMarkram": Case(
        lambda: bt.synapses.TsodyksMarkram(_trained(0.4, 3), tau_d=3.0, tau_f=5.0),
        _sequence(0.0, 1.0, 3),
        batch_shape=(3,),
    ),
    "NMDA": Case(
        lambda: bt.synapses.NMDA(_trained(2.0, 3), 10.0, alpha=_trained(0.5, 3)),
        _sequence(0.0, 1.0, 3),
        batch_shape=(3,),
    ),
    "Network-groups": Case(_network_of_groups, 60.0),
    "Network-pair": Case(lambda: _plastic(bt.plasticity.PairSTDP(0.05, 0.06, w_max=2.0))),
    "Network-nearest": Case(lambda: _plastic(bt.plasticity.PairSTDP(0.05, 0.06, nearest=True, w_max=2.0))),
    "Network-triplet": Case(lambda: _plastic(bt.plasticity.TripletSTDP(w_max=2.0), sparse=True)),
    "Network-inhibitory": Case(lambda: _plastic(bt.plasticity.VogelsSprekeler(0.05, w_max=2.0))),
    "Network-clopath": Case(lambda: _plastic(bt.plasticity.Clopath(theta_minus=5.0, theta_plus=10.0, w_max=2.0))),
    "Network-reward": Case(
        lambda: _plastic(
            bt.plasticity.RewardModulatedSTDP(bt.plasticity.PairSTDP(0.05, 0.06, w_min=-math.inf), tau_c=5.0, w_max=2.0)
        )
    ),
    "WilsonCowan": Case(
        lambda: bt.rates.WilsonCowan(3, w_ee=_trained(12.0, 3), e_init=0.3), (_sequence(0.0, 2.0, 3), 0.4)
    ),
    "FitzHughNagumo": Case(
        lambda: bt.rates.FitzHughNagumo(3, a=_trained(0.7, 3), i_ext=_spread(3)), _sequence(0.0, 0.5, 3)
    ),
    "WongWang": Case(lambda: bt.rates.WongWang(3, tau=_trained(60.0, 3), coherence=0.3, i_0=_spread(3) * 0.35), 0.01),
    "MontbrioPazoRoxin": Case(
        lambda: bt.rates.MontbrioPazoRoxin(3, j=_trained(15.0, 3)), _sequence(0, 3.0, 3), dt=0.01
    ),
    "MorrisLecar": Case(lambda: bt.neurons.MorrisLecar(3, phi=_trained(0.04, 3), v_init=-10.0), _sequence(90, 200, 3)),
    "HindmarshRose": Case(lambda: bt.neurons.HindmarshRose(3, b=_trained(3.0, 3)), _sequence(1.0, 4.0, 3), dt=0.05),
    "FitzHughRinzel": Case(lambda: bt.neurons.FitzHughRinzel(3, mu=_trained(0.01, 3)), _sequence(0.0, 1.0, 3)),
    "ALIF": Case(
        lambda: bt.neurons.ALIF(3, tau=_trained(5.0, 3), tau_a=20.0, beta=_spread(3), v_th=10.0),
        _sequence(40.0, 90.0, 3),
    ),
    "ContinuousAttractor": Case(
        lambda: bt.rates.ContinuousAttractor(8, k=_trained(0.2, 1), j0=4.0, u_init=bt.init.Uniform(0.1, 1.0)),
        _sequence(0.0, 2.0, 8),
    ),
    "ALIF-surrogate": Case(lambda: bt.neurons.ALIF(3, surrogate=bt.surrogate.Triangle(), reset_gradient=True), 30.0),
    "LeakyRate": Case(lambda: bt.rates.LeakyRate(3, tau=_trained(5.0, 3)), _sequence(-2.0, 2.0, 3)),
    "Recurrent": Case(_recurrent, _sequence(0.0, 40.0, 2)),
    "Readout": Case(lambda: bt.Readout(3, 2, tau=4.0, bias=True), _sequence(-1.0, 1.0, 3)),
    "Sequential": Case(lambda: bt.Sequential(_recurrent(), nn.ReLU(), bt.Readout(4, 2)), _sequence(0.0, 40.0, 2)),
    "EchoState": Case(lambda: bt.reservoirs.EchoState(4, 2, bias=_spread(4)), _sequence(-1.0, 1.0, 2)),
    "EchoState-sparse": Case(
        lambda: bt.reservoirs.EchoState(6, 2, connect=FixedNumberPost(3), connect_in=FixedNumberPre(2)),
        _sequence(-1.0, 1.0, 2),
    ),
    "NextGeneration": Case(
        lambda: bt.reservoirs.NextGeneration(2, delay=3, stride=2, degrees=(1, 0, 3)), _sequence(-1.0, 1.0, 2)
    ),
    "OnlineReadout": Case(
        lambda: bt.train.OnlineReadout(2, 3, bt.train.RLS(), bias=True, dtype=None),
        (_sequence(-1.0, 1.0, 2), _sequence(0.0, 1.0, 3)),
        differentiable=False,
    ),
    "Force": Case(
        lambda: bt.train.Force(bt.rates.LeakyRate(4, tau=3.0, x_init=bt.init.Normal(0.0, 1.0)), 2, n_in=2, every=2),
        {"input": _sequence(-1.0, 1.0, 2), "target": _sequence(0.0, 1.0, 2)},
        differentiable=False,
    ),
    "FullForce": Case(
        lambda: bt.train.FullForce(bt.rates.LeakyRate(4, tau=3.0, x_init=bt.init.Normal(0.0, 1.0)), 2),
        {"target": _sequence(0.0, 1.0, 2)},
        differentiable=False,
    ),
    "EProp-forward": Case(lambda: LocalStep(_recurrent(), bt.Readout(4, 2, tau=5.0)), _sequence(0.0, 40.0, 2)),
    "EProp-backward": Case(lambda: Pull(4, 1, 0.9), (_jacobian(), _sequence(-1.0, 1.0, 4))),
    "Poisson": Case(lambda: bt.stimuli.Poisson((2, 3), rate=800.0), None),
    "Poisson-rates": Case(lambda: bt.stimuli.Poisson(3), _sequence(100.0, 4000.0, 3)),
    "OrnsteinUhlenbeck": Case(lambda: bt.stimuli.OrnsteinUhlenbeck(3, mean=_spread(3), tau=_trained(4.0, 3)), None),
    "Step": Case(lambda: bt.neurons.LIF(3), bt.stimuli.Step(123.4, start=0.4, stop=1.2, baseline=10.0)),
    "Ramp": Case(lambda: bt.neurons.LIF(3), bt.stimuli.Ramp(0.1, 223.4, start=0.35, stop=1.5)),
    "Network": Case(_network, 30.0, batch_shape=()),
    "Network-dict": Case(_network, {"E": 40.0, "P": 900.0}),
    "Network-membranes": Case(_network_of_membranes, {"A": 20.0, "B": 1500.0}),
    "Network-surrogate": Case(_surrogate_network, 60.0),
    "Network-procedural": Case(_network_of_rules, 60.0),
    "LIF-single": Case(lambda: bt.neurons.LIF(3, tau=_trained(5.0, 3)), 200.0, dtype=torch.float32),
    "HodgkinHuxley-single": Case(lambda: bt.neurons.HodgkinHuxley(3, v_init=-55.0), 30.0, dtype=torch.float32),
    "Network-single": Case(_network, 30.0, dtype=torch.float32),
    "NoisyFlow": Case(lambda: bt.NoisyFlow(bt.rates.WilsonCowan(3), {"e": _trained(0.2, 3)}), 0.4),
    "NoisyFlow-neuron": Case(lambda: _noisy_neuron(bt.integrate.Milstein()), 150.0),
    "NoisyFlow-area": Case(lambda: _noisy_neuron(bt.integrate.SRI2()), 150.0),
    "FractionalFlow": Case(lambda: bt.FractionalFlow(bt.rates.WilsonCowan(3), _trained(0.8, 3), duration=20.0), 0.4),
    "FractionalFlow-fast": Case(
        lambda: bt.FractionalFlow(
            bt.neurons.FitzHughRinzel(3, v_init=_spread(3)),
            {"v": 0.9},
            duration=20.0,
            integrator=bt.integrate.AdamsBashforthMoulton(fast=bt.integrate.SumOfExponentials(1e-6)),
        ),
        0.5,
    ),
    "user-module": Case(lambda: Reservoir(4), _sequence(-1.0, 1.0, 4)),
    "user-flow": Case(lambda: Pendulum(3), 0.7, autonomous=False),
    "user-flow-exponential": Case(
        lambda: Pendulum(3, integrator=bt.integrate.ExponentialEuler()), 0.7, autonomous=False
    ),
}

# One of each family compiles in the default suite; the others take minutes.
_INDUCTOR = {
    "LIF",
    "HodgkinHuxley",
    "SodiumTM",
    "DualExponential",
    "WilsonCowan",
    "Poisson-rates",
    "Network",
    "user-module",
    "user-flow-exponential",
}

_GRADIENTS = {"LIF-surrogate", "Izhikevich", "DualExponential", "WilsonCowan", "Network-surrogate", "user-module"}

QUICK: dict[Callable[[Case], None], set[str]] = {
    testing.check_inductor: _INDUCTOR,
    testing.check_native_gradients: _GRADIENTS,
}
"""Of some checks the cases that run by default."""

_NOT_ALONE = {"Leak", "Channel", "Synapse", "IntegrateFire", "Delay"}
"""Abstract classes; parts without a state of their own, which the networks run."""


def _pairs() -> list[Any]:
    pairs = []
    for name in CASES:
        for check in testing.CHECKS:
            slow = name not in QUICK.get(check, CASES)
            marks = [pytest.mark.slow] if slow else []
            pairs.append(pytest.param(name, check, id=f"{name}-{check.__name__}", marks=marks))
    return pairs


@pytest.mark.parametrize(("name", "check"), _pairs())
def test_contract(name: str, check: Callable[[Case], None]) -> None:
    check(CASES[name])


@pytest.mark.parametrize("name", [name for name in CASES if name != "Network-dict"])
def test_native_runs_in_pieces(name: str) -> None:
    testing.check_chunks(CASES[name], bt.Native())


def test_every_exported_system_has_a_case() -> None:
    exported = set()
    for room in (bt, bt.neurons, bt.channels, bt.synapses, bt.rates, bt.reservoirs, bt.stimuli, bt.train):
        for name, value in vars(room).items():
            if inspect.isclass(value) and issubclass(value, bt.DynamicalSystem) and not inspect.isabstract(value):
                exported.add(name)
    covered = {name.split("-")[0] for name in CASES} | {"Refractory"}
    assert exported - covered - _NOT_ALONE == set()


def test_every_exported_module_runs_in_some_case() -> None:
    """So that every loop runs it: plasticity rules, receptors, connectivity and short-term dynamics too."""
    rooms = [value for name, value in vars(bt).items() if inspect.ismodule(value) and not name.startswith("_")]
    exported = {
        value
        for room in (bt, *rooms)
        for value in vars(room).values()
        if inspect.isclass(value) and issubclass(value, nn.Module) and not inspect.isabstract(value)
    }
    run = {type(module) for case in CASES.values() for module in case.system().modules()}
    assert exported - run == {bt.train.EProp}  # a trainer, whose two systems are "EProp-forward" and "EProp-backward"
