"""Gradients through the native loop of every part that models are put together from: each in the company of its kind.

`tests/test_contract.py` has every system by itself; here it is what has no state or step of its own.
"""

from __future__ import annotations

import inspect
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import _tree as tree

pytestmark = pytest.mark.usefixtures("compiled_quickly")
D = torch.float64
GENTLE = bt.surrogate.SuperSpike(2.0)


def cell(n: int, surrogate: bt.surrogate.Surrogate = GENTLE) -> bt.neurons.LIF:
    v_init = bt.init.Uniform(0.0, 1.0)
    return bt.neurons.LIF(n, tau=6.0, v_th=1.0, v_reset=0.0, surrogate=surrogate, v_init=v_init)


def weight(*shape: int, scale: float = 0.6) -> nn.Parameter:
    return nn.Parameter(scale * (1.2 + torch.linspace(0.0, 9.0, math.prod(shape)).sin()).view(shape))


def exponential() -> bt.synapses.Exponential:
    return bt.synapses.Exponential(nn.Parameter(torch.tensor(4.0)))


SURROGATES: dict[str, Any] = {
    name: value for name, value in vars(bt.surrogate).items()
    if inspect.isclass(value) and issubclass(value, bt.surrogate.Surrogate) and not inspect.isabstract(value)
}  # fmt: skip
RULES: dict[str, bt.plasticity.Plasticity] = {
    "PairSTDP": bt.plasticity.PairSTDP(0.3, 0.2, w_max=2.0),
    "TripletSTDP": bt.plasticity.TripletSTDP(a2_plus=0.1, a3_plus=0.1, a2_minus=0.1, a3_minus=0.1, w_max=2.0),
    "Clopath": bt.plasticity.Clopath(a_ltd=0.01, a_ltp=0.01, theta_minus=0.2, theta_plus=0.4, w_max=2.0),
    "VogelsSprekeler": bt.plasticity.VogelsSprekeler(0.2, rate=5.0, w_max=2.0),
    "RewardModulatedSTDP": bt.plasticity.RewardModulatedSTDP(
        bt.plasticity.PairSTDP(0.3, 0.2, w_min=-math.inf), w_max=2.0
    ),
}
RECEPTORS: dict[str, Any] = {
    "Current": bt.synapses.Current,
    "Conductance": lambda: bt.synapses.Conductance(3.0),
    "Jump": bt.synapses.Jump,
    "MagnesiumBlock": lambda: bt.synapses.MagnesiumBlock(3.0),
}
CONNECTIONS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "OneToOne": (bt.connect.OneToOne(), (6,)),
    "AllToAll": (bt.connect.AllToAll(), (6, 6)),
    "FixedProbability": (bt.connect.FixedProbability(0.5), ()),
    "FixedNumberPre": (bt.connect.FixedNumberPre(3).build(6, 6, seed=2), (18,)),
    "FixedNumberPost": (bt.connect.FixedNumberPost(3).build(6, 6, seed=2), (18,)),
    "Groups": (bt.connect.Groups((2, 4), (3, 3)), (2, 2)),
    "ProceduralProbability": (bt.connect.ProceduralProbability(0.5), ()),
    "ProceduralNumberPre": (bt.connect.ProceduralNumberPre(3), ()),
}
DELAYS = {"none": None, "one": 1.0, "of_sources": torch.linspace(0.5, 3.0, 6), "of_synapses": bt.init.Uniform(0.5, 2.5)}


def with_surrogates() -> bt.Network:
    return bt.Network({name: cell(3, surrogate()) for name, surrogate in SURROGATES.items()}, {})


def with_rules() -> bt.Network:
    populations: dict[str, Any] = {"pre": cell(6)}
    routes = {}
    for name, rule in RULES.items():
        populations[name] = cell(5)
        connect = bt.connect.AllToAll(order="post") if name == "Clopath" else bt.connect.FixedProbability(0.6)
        routes["pre", name] = bt.Projection(
            connect, bt.init.Uniform(0.1, 1.0), bt.synapses.Exponential(2.0), plasticity=rule
        )
    return bt.Network(populations, routes, seed=3)


def with_receptors() -> bt.Network:
    populations = {name: cell(4) for name in RECEPTORS}
    routes = {
        ("A", name): bt.Projection(bt.connect.AllToAll(), weight(6, 4, scale=0.3), exponential(), make())
        for name, make in RECEPTORS.items()
    }
    return bt.Network({"A": cell(6), **populations}, routes)


def with_connections() -> bt.Network:
    populations: dict[str, Any] = {"A": cell(6)}
    routes = {}
    for name, (connect, shape) in CONNECTIONS.items():
        for kind, delay in DELAYS.items():
            if kind != "none" and name not in ("AllToAll", "FixedNumberPre"):
                continue  # one of each way to store synapses
            populations[f"{name}_{kind}"] = cell(6)
            shared = kind == "of_synapses"  # which are stored one by one, whatever they would be else
            w = weight(*(() if shared else shape))
            routes["A", f"{name}_{kind}"] = bt.Projection(connect, w, exponential(), delay=delay)
    return bt.Network(populations, routes, seed=4)


def gradients(system: bt.Network, loop: Any) -> dict[str, Tensor]:
    start = tree.map(
        lambda x: x.clone().requires_grad_() if x.is_floating_point() else x, bt.initial_state(system, dt=0.5)
    )
    steps = torch.arange(60.0, dtype=D)[:, None]
    populations = {k: x for k, x in start.items() if isinstance(x, bt.neurons.LIF.State)}
    inputs = {
        k: (1.5 + torch.sin(0.3 * steps + torch.arange(x.v.shape[-1]))).requires_grad_() for k, x in populations.items()
    }
    record = {"v": lambda after, out: {k: after[k].v for k in populations}}
    sol = bt.simulate(system, inputs, dt=0.5, state=start, record=record, loop=loop)
    terms = [
        (x * torch.linspace(0.1, 1.0, x.numel(), dtype=D).view(x.shape)).sum()
        for x in tree.tensors((sol.state, sol.records)) if x.is_floating_point() and x.requires_grad
    ]  # fmt: skip
    named = {f"input {k}": x for k, x in inputs.items()} | dict(system.named_parameters())
    named |= {f"state {k}": x for k, x in enumerate(tree.tensors(start)) if x.is_floating_point() and x.numel()}
    found = torch.autograd.grad(sum(terms), list(named.values()), allow_unused=True)  # type: ignore[arg-type]
    return {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(named.items(), found, strict=True)}


@pytest.mark.parametrize("make", [with_surrogates, with_rules, with_receptors, with_connections])
def test_gradients_equal_those_of_the_reference(make: Any) -> None:
    expected = gradients(make().double(), "reference")
    for loop in (bt.Native(), bt.Native(threads=2, recompute=7)):
        for name, found in gradients(make().double(), loop).items():
            assert (found - expected[name]).abs().max() <= 1e-9 * expected[name].abs().max(), f"{loop}: {name}"
    assert all(g.abs().max() > 0 for name, g in expected.items() if not name.startswith("state"))


def exported(room: ModuleType, base: type) -> set[str]:
    found = {
        name
        for name, x in vars(room).items()
        if inspect.isclass(x) and issubclass(x, base) and not inspect.isabstract(x)
    }
    return {name for name in found if not name.startswith("_")}


def test_every_part_is_among_them() -> None:
    assert len(SURROGATES) >= 18
    assert exported(bt.plasticity, bt.plasticity.Plasticity) == set(RULES)
    assert exported(bt.synapses, bt.synapses.Receptor) == set(RECEPTORS)
    procedural = {"ProceduralProbability", "ProceduralNumberPre"}
    assert exported(bt.connect, bt.connect.Rule) | procedural | {"Groups"} == set(CONNECTIONS)
