"""Dale's law and masks hold through training, in every loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import bdtorch as bt
from bdtorch.train import BPTT, WeightPenalty, dale, masked, positive

SIGNS = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0])
MASK = torch.tensor([[True, False, True, True, False], [False, True, True, False, True]])


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


@pytest.mark.parametrize("sparse", [False, True])
def test_state_dict_round_trip_and_other_dtypes(sparse: bool) -> None:
    one, two = _layer(sparse), _layer(sparse)
    for layer in (one, two):
        dale(layer.recurrent, SIGNS)
        masked(layer.input, MASK)
    with torch.no_grad():
        one.recurrent.parametrizations.weight.original.mul_(2.0)
        one.input.parametrizations.weight.original.mul_(3.0)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.recurrent.weight, two.recurrent.weight)
    assert torch.equal(one.input.weight, two.input.weight)
    two.to(torch.float64)
    assert two.recurrent.weight.dtype == two.input.weight.dtype == torch.float64
    assert torch.equal(two.recurrent.weight.float(), one.recurrent.weight)
    x = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        bt.simulate(two, x.double(), dt=1.0).out.float(), bt.simulate(one, x, dt=1.0).out, rtol=1e-4, atol=1e-5
    )


def test_constraints_hold_through_the_trainer_and_its_checkpoints(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 12, 2, generator=generator), torch.randn(8, 12, 5, generator=generator)

    def begin() -> BPTT:
        layer = _layer(False)
        dale(layer.recurrent, SIGNS)
        masked(layer.input, MASK)
        return BPTT(layer, nn.functional.mse_loss, torch.optim.Adam(layer.parameters(), 0.05), dt=1.0, clip_norm=1.0)

    whole, first, second = begin(), begin(), begin()
    for _ in range(6):
        whole.step(x, y)
    for _ in range(3):
        first.step(x, y)
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    for _ in range(3):
        second.step(x, y)
    for one, other in zip(whole.system.parameters(), second.system.parameters(), strict=True):
        assert torch.equal(one, other)
    weight = second.system.recurrent.weight.detach()
    assert (weight * SIGNS.unsqueeze(-1) >= 0).all()
    assert (second.system.input.weight[~MASK] == 0).all()
    assert (weight - _layer(False).recurrent.weight.detach()).abs().max() > 0.05


def test_bad_arguments_are_named() -> None:
    layer = _layer(False)
    with pytest.raises(ValueError, match=r"`dale\(signs=...\)`: expected -1, 0 or 1 for each source, got"):
        dale(layer.recurrent, 0.5 * SIGNS)
    with pytest.raises(ValueError, match=r"`dale\(signs=...\)`: expected one sign for each of 5 sources, got \(4,\)"):
        dale(layer.recurrent, SIGNS[1:])
    with pytest.raises(TypeError, match=r"`dale\(name=...\)`: expected a parameter among 'weight', got 'w'"):
        dale(layer.recurrent, SIGNS, name="w")
    with pytest.raises(TypeError, match=r"`dale\(signs=...\)`: expected a tensor, got list"):
        dale(layer.recurrent, [1, 1, 1, -1, -1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`dale\(module=...\)`: expected a module, got Parameter"):
        dale(layer.recurrent.weight, SIGNS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`dale\(axis=...\)`: expected an axis of \(3, 5\), got 2"):
        dale(nn.Linear(5, 3), SIGNS, axis=2)
    with pytest.raises(TypeError, match=r"`masked\(mask=...\)`: expected a tensor, got list"):
        masked(layer.input, MASK.tolist())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`masked\(mask=...\)`: expected booleans of shape \(5, 5\)"):
        masked(layer.recurrent, torch.ones(5, 5))


def test_weights_at_zero_learn_all_the_same() -> None:
    layer = nn.Linear(3, 2, bias=False)
    dale(layer, torch.tensor([1.0, -1.0, 1.0]), axis=1)
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    (layer(torch.ones(1, 3)) * torch.tensor([1.0, -1.0])).sum().backward()
    optimizer.step()
    assert layer.weight.abs().min() > 0.05
    assert torch.equal(layer.weight.sign(), torch.tensor([[1.0, -1.0, 1.0]]).expand(2, 3))


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_time_constants_are_learnt_above_their_bound(loop: str) -> None:
    wanted = torch.tensor([3.0, 8.0, 20.0, 1.5], dtype=torch.float64)
    x = torch.rand(6, 40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = bt.simulate(_rate(wanted), x.transpose(0, 1), dt=1.0).out.transpose(0, 1)
    cell = _rate(nn.Parameter(torch.full((4,), 6.0, dtype=torch.float64)))
    positive(cell, "tau", above=1.0)
    torch.testing.assert_close(cell.tau.detach(), torch.full_like(wanted, 6.0))
    trainer = BPTT(cell, nn.functional.mse_loss, torch.optim.Adam(cell.parameters(), 0.1), dt=1.0, loop=loop)
    trainer.fit([(x, y)], 3 if loop == "reference" else 300, progress=False)
    if loop == "native":
        torch.testing.assert_close(cell.tau.detach(), wanted, rtol=1e-2, atol=0.0)
    else:
        assert trainer.history[-1].loss < trainer.history[0].loss


def _rate(tau: torch.Tensor) -> bt.rates.LeakyRate:
    return bt.rates.LeakyRate(4, tau=tau, dtype=torch.float64)


def test_a_time_constant_that_becomes_negative_is_named() -> None:
    cell = _rate(nn.Parameter(torch.full((4,), 1.1, dtype=torch.float64)))
    x = torch.ones(2, 10, 4, dtype=torch.float64)
    for module, name in ((cell, "tau"), (bt.Sequential(nn.Identity(), cell), "layers.1.tau")):
        cell.tau.data.fill_(1.1)
        optimizer = torch.optim.SGD(module.parameters(), 1000.0)
        with pytest.raises(ValueError, match=rf"update 1 made {name} -.*above 0; `bdtorch.train.positive`"):
            BPTT(module, lambda out, y: -out.mean(), optimizer, dt=1.0).step(x, x)
    cell.tau.data.fill_(1.1)
    with pytest.raises(ValueError, match=r"`positive\(name=...\)`: expected finite values above 2, got 1.1"):
        positive(cell, "tau", above=2.0)
    with pytest.raises(TypeError, match=r"`positive\(name=...\)`: expected a parameter among 'tau', got 'tau_a'"):
        positive(cell, "tau_a")
    with pytest.raises(ValueError, match=r"`positive\(above=...\)`: expected a finite number, got 'a'"):
        positive(cell, "tau", above="a")  # type: ignore[arg-type]


def test_dale_and_a_mask_hold_of_the_same_weights() -> None:
    layer = _layer(False)
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    dale(layer.recurrent, SIGNS)
    masked(layer.recurrent, mask)
    x = torch.randn(6, 12, 2, generator=torch.Generator().manual_seed(0))
    trainer = BPTT(layer, nn.functional.mse_loss, torch.optim.Adam(layer.parameters(), 0.1), dt=1.0)
    before = layer.recurrent.weight.detach().clone()
    for _ in range(4):
        trainer.step(x, torch.ones(6, 12, 5))
    weight = layer.recurrent.weight.detach()
    assert (weight[~mask] == 0).all()
    assert (weight * SIGNS[:, None] >= 0).all()
    assert (weight - before)[mask].abs().min() > 1e-3


def test_weight_penalties_see_constrained_weights_by_their_own_name() -> None:
    """The default pattern takes all weights; of masked ones only those that are there count."""
    layer = _layer(False)
    mask = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) < 0.6
    dale(layer.recurrent, SIGNS)
    masked(layer.recurrent, mask)
    with torch.no_grad():
        layer.recurrent.parametrizations.weight.original.fill_(2.0)
    want = layer.input.weight.abs().sum() + 2.0 * mask.sum()
    sol = bt.simulate(layer, torch.zeros(3, 2), dt=1.0)
    term = WeightPenalty(weight=0.5, power=1)(layer, sol)
    torch.testing.assert_close(term, 0.5 * want)
    term.backward()
    gradient = layer.recurrent.parametrizations.weight.original.grad
    torch.testing.assert_close(gradient, 0.5 * mask.float())
    with pytest.raises(ValueError, match=r"expected a match among 'input.weight', 'recurrent.weight', got 'original'"):
        WeightPenalty("original")(layer, sol)
