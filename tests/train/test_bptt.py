"""The trainer: its updates are those of a loop written by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch.train import RatePenalty, WeightPenalty
from tests.train.small import (
    N_IN,
    SAMPLES,
    STEPS,
    last_error,
    mean_error,
    small_data,
    small_model,
    small_trainer,
    weights_of,
)


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_a_step_is_a_plain_update(loop: str) -> None:
    model, twin = small_model(), small_model()
    x, y = small_data(False).tensors
    loss, metrics = small_trainer(model, loop=loop, clip_norm=0.5, metrics={"error": last_error}).step(x, y)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.02)
    want = last_error(bt.simulate(twin, x.transpose(0, 1), dt=1.0, loop="reference").out.transpose(0, 1), y)
    want.backward()
    assert nn.utils.clip_grad_norm_(twin.parameters(), 0.5) > 0.5
    optimizer.step()
    assert loss == pytest.approx(float(want.detach()), rel=1e-9)
    assert metrics == {"error": pytest.approx(loss)}
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_recomputing_changes_nothing_but_memory(loop: str) -> None:
    x, y = small_data(False).tensors
    results = []
    for recompute in (None, 5, 12, 1):
        model = small_model()
        penalty = RatePenalty("rate", 30.0, 1e-6)
        small_trainer(
            model, loop=loop, recompute=recompute, penalties=[penalty], record={"rate": bt.trace("0.out")}
        ).step(x, y)
        results.append(weights_of(model))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


class _Exponential(bt.Flow):
    """Its linear part comes from automatic differentiation, within the step that is differentiated."""

    class State(NamedTuple):
        a: Tensor

    def __init__(self) -> None:
        super().__init__(N_IN, integrator=bt.integrate.ExponentialEuler(), dtype=torch.float64)
        self.k = nn.Parameter(torch.ones(N_IN, dtype=torch.float64))

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
        return self.State(a=self.fill(batch_shape, 0.5))

    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Any:
        return self.State(a=inputs - self.k * torch.tanh(state.a))

    def emit(self, before: Any, after: Any) -> tuple[Any, Tensor]:
        return after, after.a


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_steps_that_differentiate_within_can_be_recomputed(loop: str) -> None:
    x, _ = small_data(False).tensors
    results = []
    for recompute in (None, 5):
        model = _Exponential()
        small_trainer(model, lambda out, y: (out - y).square().mean(), loop=loop, recompute=recompute).step(x, x)
        results.append(model.k.detach().clone())
    assert (results[0] - 1.0).abs().min() > 1e-3
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_recomputing_keeps_fewer_tensors_for_the_backward_pass() -> None:
    x, _ = small_data(False).tensors
    kept = []
    for recompute in (None, 4):
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        trainer = small_trainer(small_model(), loop="reference", recompute=recompute)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            inputs = x.transpose(0, 1)
            trainer._objective._simulate(inputs, trainer._initial_state(inputs), 0.0)
        kept.append(total)
    assert kept[1] < 0.5 * kept[0]


def test_truncation_updates_after_each_piece_and_cuts_the_gradient() -> None:
    model, twin = small_model(), small_model()
    x, y = small_data(True).tensors
    trainer = small_trainer(model, mean_error, truncate=5)
    loss, _ = trainer.step(x, y)
    assert trainer.updates == 3
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.02)
    state, total = bt.initial_state(twin, (SAMPLES,), dt=1.0), 0.0
    for start, stop in ((0, 5), (5, 10), (10, 12)):
        sol = bt.simulate(
            twin, x[:, start:stop].transpose(0, 1), dt=1.0, state=state, t0=float(start), loop="reference"
        )
        part = mean_error(sol.out.transpose(0, 1), y[:, start:stop])
        optimizer.zero_grad()
        part.backward()
        optimizer.step()
        total += float(part.detach()) * (stop - start) / STEPS
        state = sol.detached_state
    assert loss == pytest.approx(total, rel=1e-9)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_penalties_add_their_formulas() -> None:
    x, y = small_data(False).tensors
    model = small_model()
    weights = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if "recurrent" in name])
    sol = bt.simulate(model, x.transpose(0, 1), dt=1.0, record={"rate": bt.trace("0.out")}, keep_out=True)
    rates = 1000.0 * sol["rate"].detach().mean((0, 1))
    want = (
        last_error(sol.out.detach().transpose(0, 1), y)
        + 2e-7 * (rates - 15.0).square().mean()
        + 0.3 * weights.abs().sum()
    )
    penalties = [RatePenalty("rate", 15.0, 2e-7), WeightPenalty("*recurrent*", 0.3, power=1)]
    loss, _ = small_trainer(model, penalties=penalties, record={"rate": bt.trace("0.out")}).step(x, y)
    assert loss == pytest.approx(float(want), rel=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's own doing
def test_the_inductor_loop_trains_as_the_reference_does() -> None:
    x, y = (tensor[:, :5] for tensor in small_data(True).tensors)
    results = []
    for loop in ("reference", "inductor"):
        model = small_model()
        small_trainer(model, mean_error, loop=loop, truncate=3).step(x, y)
        results.append(weights_of(model))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
