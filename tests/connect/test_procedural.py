"""Procedural connectivity as rules of projections, against the same connectivity stored."""

import pickle
from typing import Any

import pytest
import torch
from torch import nn

import bdtorch as bt
from bdtorch import ops
from bdtorch.connect import CSR, Procedural, ProceduralNumberPre, ProceduralProbability, Rule

NORMAL, UNIFORM = bt.init.Normal(0.6, 0.1), bt.init.Uniform(0.2, 0.5)
RULES: list[Rule] = [
    ProceduralProbability(0.1),
    ProceduralProbability(0.1, weight=NORMAL, autapses=False),
    ProceduralNumberPre(12, weight=UNIFORM),
    ProceduralNumberPre(12, autapses=False),
]


def build(rule: Rule, n_pre: int = 80, n_post: int = 120, **options: Any) -> Procedural:
    connect = rule.build(n_pre, n_post, **({"seed": 3} | options))
    assert isinstance(connect, Procedural)
    return connect


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_product_equals_that_of_the_materialised_matrix_to_the_bit(rule: Rule, dtype: torch.dtype) -> None:
    connect, weight = build(rule, self_offset=7), torch.tensor(0.7, dtype=dtype)
    csr, weights = connect.materialise(weight)
    assert isinstance(csr, CSR) and csr.synapses == connect.synapses
    generator = torch.Generator().manual_seed(0)
    spikes = torch.rand(3, 80, generator=generator) < 0.3
    for x in (spikes, (spikes * torch.randn(3, 80, generator=generator)).to(dtype)):
        assert torch.equal(connect(x, weight), csr(x, weights))
    assert torch.equal(connect.to_dense(weight), csr.to_dense(weights))


def test_distributions_set_the_weights() -> None:
    csr, weights = build(ProceduralProbability(0.3, weight=UNIFORM)).materialise(2.0)
    assert weights.shape == csr.weight_shape
    assert 0.4 <= weights.min() < 0.42 and 0.98 < weights.max() < 1.0
    _, weights = build(ProceduralNumberPre(100, weight=NORMAL)).materialise()
    assert abs(weights.mean() - 0.6) < 0.005 and abs(weights.std() - 0.1) < 0.005
    _, weights = build(ProceduralNumberPre(100)).materialise(0.3)
    assert weights.shape == () and weights == torch.tensor(0.3)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_autapses(rule: Rule) -> None:
    connected = build(rule, 90, 90, self_offset=0).to_dense() != 0
    assert connected.diagonal().any() == getattr(rule, "autapses")  # noqa: B009
    if isinstance(rule, ProceduralNumberPre):
        assert (connected.sum(1) == 12).all()


def test_seeds_name_draws() -> None:
    first, again, other = (build(RULES[0], seed=seed).to_dense() for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradients_reach_the_factor_and_the_parameters_of_the_distribution() -> None:
    connect, spikes = build(RULES[1]), torch.arange(80) % 3 == 0
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    connect.offset, connect.scale = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (0.6, 0.1))
    assert len(list(connect.parameters())) == 2
    inputs = (weight, connect.offset, connect.scale)
    actual = torch.autograd.grad(connect(spikes, weight).square().sum(), inputs)
    csr, weights = connect.materialise(weight)
    expected = torch.autograd.grad(csr(spikes, weights).square().sum(), inputs)
    torch.testing.assert_close(actual, expected)


def network(connect: Any, weight: Any) -> bt.Network:
    cells = bt.neurons.LIF(100, tau=20.0, v_rest=-60.0, v_reset=-60.0, v_th=-50.0)
    projection = bt.Projection(connect, weight=weight, synapse=bt.synapses.Exponential(5.0))
    return bt.Network({"E": cells}, {("E", "E"): projection}, seed=1)


@pytest.mark.parametrize("rule", [RULES[0], RULES[2]], ids=str)
def test_a_network_runs_as_with_stored_synapses(rule: Rule) -> None:
    procedural = network(rule, 0.2)
    (pathway,) = (module for module in procedural.modules() if isinstance(module, Procedural))
    csr, weights = pathway.materialise(0.2)
    stored = network(csr, weights)
    runs = [
        bt.simulate(net, torch.linspace(10.0, 30.0, 100).expand(300, 100), dt=0.1, loop="reference",
                    record={"spikes": bt.spikes("E"), "v": bt.trace("E.v")})
        for net in (procedural, stored)
    ]  # fmt: skip
    assert torch.equal(runs[0]["v"], runs[1]["v"])
    assert len(runs[0]["spikes"]) == len(runs[1]["spikes"]) > 0


def test_modules_copy_and_save() -> None:
    connect = build(RULES[1])
    again = pickle.loads(pickle.dumps(connect))
    assert torch.equal(again.to_dense(), connect.to_dense())
    assert not connect.state_dict()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ProceduralProbability(1.2), ValueError, r"`ProceduralProbability\(p=.*got 1.2"),
        (lambda: ProceduralProbability(0.1, weight=0.5), TypeError, r"`ProceduralProbability\(weight=.*got 0.5"),
        (lambda: ProceduralNumberPre(-1), ValueError, r"`ProceduralNumberPre\(n=.*got -1"),
        (lambda: ProceduralNumberPre(2.0), ValueError, r"`ProceduralNumberPre\(n=.*got 2.0"),
        (lambda: ProceduralNumberPre(5).build(3, 4), ValueError, r"`ProceduralMatrix\(number=.*in \[0, 5\), got 5"),
        (lambda: Procedural(ops.ProceduralMatrix(3, 4, 0, p=0.5), weight=NORMAL), ValueError, "draws='normal'.*'none'"),
        (lambda: build(RULES[0])(torch.ones(80), torch.ones(3)), ValueError, r"weight=.*0-d tensor, got \(3,\)"),
    ],
)
def test_bad_arguments_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
