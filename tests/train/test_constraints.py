"""Dale's law and masks hold through training, in every loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bdtorch as bt
from bdtorch.train import dale, masked

SIGNS = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])


def _layer(sparse: bool) -> bt.Recurrent:
    connect = bt.connect.FixedProbability(0.7) if sparse else None
    return bt.Recurrent(bt.rates.LeakyRate(5, tau=5.0), 2, connect_rec=connect, seed=1)


@pytest.mark.parametrize("sparse", [False, True])
def test_signs_belong_to_senders_and_survive_training(sparse: bool) -> None:
    layer = _layer(sparse)
    before = layer.recurrent.weight.detach().clone()
    dale(layer.recurrent, SIGNS)
    assert torch.equal(layer.recurrent.weight.abs(), before.abs())
    x = torch.randn(20, 3, 2, generator=torch.Generator().manual_seed(0))
    gradients = []
    for loop in ("reference", "native"):
        layer.zero_grad()
        bt.simulate(layer, x, dt=1.0, loop=loop).out.square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert one.abs().max() > 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        (bt.simulate(layer, x, dt=1.0, loop="reference").out - 1.0).square().mean().backward()
        optimizer.step()
    matrix = layer.recurrent.connect.to_dense(layer.recurrent.weight.detach())
    assert (matrix[:3] >= 0).all()
    assert (matrix[3:] <= 0).all()
    assert (layer.recurrent.weight.detach() - before).abs().max() > 0.01


def test_a_linear_layers_sources_are_on_axis_1() -> None:
    linear = dale(nn.Linear(5, 3), SIGNS, axis=1)
    assert (linear.weight[:, :3] >= 0).all()
    assert (linear.weight[:, 3:] <= 0).all()


def test_masked_weights_stay_zero() -> None:
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    layer = _layer(False)
    masked(layer.recurrent, mask)
    x = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        bt.simulate(layer, x, dt=1.0).out.square().sum().backward()
        optimizer.step()
    assert (layer.recurrent.weight[~mask] == 0).all()
    assert (layer.recurrent.weight[mask] != 0).all()


def test_state_dict_round_trip() -> None:
    one, two = _layer(True), _layer(True)
    dale(one.recurrent, SIGNS)
    dale(two.recurrent, SIGNS)
    with torch.no_grad():
        one.recurrent.parametrizations.weight.original.mul_(2.0)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.recurrent.weight, two.recurrent.weight)


def test_bad_arguments_are_named() -> None:
    layer = _layer(False)
    with pytest.raises(ValueError, match=r"`dale\(signs=...\)`: expected -1, 0 or 1 for each source, got"):
        dale(layer.recurrent, 0.5 * SIGNS)
    with pytest.raises(ValueError, match=r"`dale\(signs=...\)`: expected one sign for each of 5 sources, got \(4,\)"):
        dale(layer.recurrent, SIGNS[1:])
    with pytest.raises(TypeError, match=r"`dale\(name=...\)`: expected a parameter among 'weight', got 'w'"):
        dale(layer.recurrent, SIGNS, name="w")
    with pytest.raises(ValueError, match=r"`masked\(mask=...\)`: expected booleans of shape \(5, 5\)"):
        masked(layer.recurrent, torch.ones(5, 5))
