"""ALIF: what its reset does to values and to gradients."""

from __future__ import annotations

import math

import pytest
import torch

import bdtorch as bt


def _cell(reset_gradient: bool) -> bt.neurons.ALIF:
    return bt.neurons.ALIF(
        1, tau=10.0, beta=0.0, v_th=1.0, surrogate=bt.surrogate.Triangle(0.4, 2.0), reset_gradient=reset_gradient,
        dtype=torch.float64,
    )  # fmt: skip


@pytest.mark.parametrize("reset_gradient", [False, True])
def test_slope_through_a_spike(reset_gradient: bool) -> None:
    """The step is ``u = e v``, then ``v' = u - v_th H(u - v_th)``; H has the slope of the surrogate."""
    cell = _cell(reset_gradient)
    v = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    state = cell.init_state()._replace(v=v)
    after, spike = cell.step(state, None, torch.zeros(()), 1.0)
    fade = math.exp(-0.1)
    u = 1.3 * fade
    assert spike.item() == 1.0
    assert after.v.item() == pytest.approx(u - 1.0)
    (slope,) = torch.autograd.grad(after.v, v)
    psi = 0.4 * (1.0 - abs(u - 1.0) / 2.0)
    assert float(slope) == pytest.approx(fade * (1.0 - psi) if reset_gradient else fade)


def test_the_gradient_of_the_reset_changes_no_value() -> None:
    x = 3.0 * torch.rand(200, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    trains = [bt.simulate(bt.neurons.Refractory(_cell(on), 2.0), x, dt=1.0, progress=False).out for on in (False, True)]
    assert torch.equal(*trains)
    assert trains[0].sum() > 5


def test_it_needs_a_surrogate() -> None:
    with pytest.raises(ValueError, match=r"`ALIF\(reset_gradient=True\)`: expected a surrogate, got None"):
        bt.neurons.ALIF(1, reset_gradient=True)
