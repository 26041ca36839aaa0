"""The trainer: its updates are those of a loop written by hand; checkpoints resume exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bdtorch as bt
from bdtorch.train import BPTT, RatePenalty, WeightPenalty

STEPS, SAMPLES, N_IN = 12, 20, 3


def _model(seed: int = 0) -> bt.Sequential:
    cell = bt.rates.LeakyRate(6, tau=5.0, dtype=torch.float64)
    return bt.Sequential(bt.Recurrent(cell, N_IN, seed=seed), bt.Readout(6, 2, seed=seed, dtype=torch.float64))


def _data(time: bool) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, STEPS, N_IN, generator=generator, dtype=torch.float64)
    y = torch.stack([x.cumsum(1).mean(-1), x[..., 0]], -1)
    return TensorDataset(x, y if time else y[:, -1])


def _last(out: Tensor, y: Tensor) -> Tensor:
    return (out[:, -1] - y).square().mean()


def _mean(out: Tensor, y: Tensor) -> Tensor:
    return (out - y).square().mean()


def _weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def _trainer(model: Any, loss: Any = _last, **options: Any) -> BPTT:
    return BPTT(model, loss, torch.optim.Adam(model.parameters(), lr=0.02), dt=1.0, **options)


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_a_step_is_a_plain_update(loop: str) -> None:
    model, twin = _model(), _model()
    x, y = _data(False).tensors
    loss, metrics = _trainer(model, loop=loop, clip_norm=0.5, metrics={"error": _last}).step(x, y)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.02)
    want = _last(bt.simulate(twin, x.transpose(0, 1), dt=1.0, loop="reference").out.transpose(0, 1), y)
    want.backward()
    assert nn.utils.clip_grad_norm_(twin.parameters(), 0.5) > 0.5
    optimizer.step()
    assert loss == pytest.approx(float(want.detach()), rel=1e-9)
    assert metrics == {"error": pytest.approx(loss)}
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loop", ["reference", "native"])
def test_recomputing_changes_nothing_but_memory(loop: str) -> None:
    x, y = _data(False).tensors
    results = []
    for recompute in (None, 5, 12, 1):
        model = _model()
        penalty = RatePenalty("rate", 30.0, 1e-6)
        _trainer(model, loop=loop, recompute=recompute, penalties=[penalty], record={"rate": bt.trace("0.out")}).step(
            x, y
        )
        results.append(_weights(model))
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
    x, _ = _data(False).tensors
    results = []
    for recompute in (None, 5):
        model = _Exponential()
        _trainer(model, lambda out, y: (out - y).square().mean(), loop=loop, recompute=recompute).step(x, x)
        results.append(model.k.detach().clone())
    assert (results[0] - 1.0).abs().min() > 1e-3
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_recomputing_keeps_fewer_tensors_for_the_backward_pass() -> None:
    x, _ = _data(False).tensors
    kept = []
    for recompute in (None, 4):
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        trainer = _trainer(_model(), loop="reference", recompute=recompute)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            inputs = x.transpose(0, 1)
            trainer._simulate(inputs, trainer._initial_state(inputs), 0.0)
        kept.append(total)
    assert kept[1] < 0.5 * kept[0]


def test_truncation_updates_after_each_piece_and_cuts_the_gradient() -> None:
    model, twin = _model(), _model()
    x, y = _data(True).tensors
    trainer = _trainer(model, _mean, truncate=5)
    loss, _ = trainer.step(x, y)
    assert trainer.updates == 3
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.02)
    state, total = bt.initial_state(twin, (SAMPLES,), dt=1.0), 0.0
    for start, stop in ((0, 5), (5, 10), (10, 12)):
        sol = bt.simulate(
            twin, x[:, start:stop].transpose(0, 1), dt=1.0, state=state, t0=float(start), loop="reference"
        )
        part = _mean(sol.out.transpose(0, 1), y[:, start:stop])
        optimizer.zero_grad()
        part.backward()
        optimizer.step()
        total += float(part.detach()) * (stop - start) / STEPS
        state = torch.utils._pytree.tree_map(torch.Tensor.detach, sol.state)
    assert loss == pytest.approx(total, rel=1e-9)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_penalties_add_their_formulas() -> None:
    x, y = _data(False).tensors
    model = _model()
    weights = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if "recurrent" in name])
    sol = bt.simulate(model, x.transpose(0, 1), dt=1.0, record={"rate": bt.trace("0.out")}, keep_out=True)
    rates = 1000.0 * sol["rate"].detach().mean((0, 1))
    want = (
        _last(sol.out.detach().transpose(0, 1), y) + 2e-7 * (rates - 15.0).square().mean() + 0.3 * weights.abs().sum()
    )
    penalties = [RatePenalty("rate", 15.0, 2e-7), WeightPenalty("*recurrent*", 0.3, power=1)]
    loss, _ = _trainer(model, penalties=penalties, record={"rate": bt.trace("0.out")}).step(x, y)
    assert loss == pytest.approx(float(want), rel=1e-9)


def test_fit_learns_and_reports() -> None:
    model = _model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.5)
    trainer = BPTT(
        model, _mean, optimizer, dt=1.0, scheduler=scheduler, metrics={"worst": lambda o, y: (o - y).abs().max()}
    )
    loader = DataLoader(_data(True), batch_size=7, shuffle=True)
    history = trainer.fit(loader, 12, validation=loader, progress=False)
    assert [epoch.number for epoch in history] == list(range(1, 13))
    assert history[-1].loss < 0.5 * history[0].loss
    assert set(history[-1].metrics) == {"worst"}
    assert set(history[-1].validation) == {"loss", "worst"}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert trainer.evaluate(loader)["loss"] == pytest.approx(history[-1].validation["loss"])
    assert len(trainer.fit(loader, 20, progress=False, after_epoch=lambda epoch: epoch.number == 15)) == 15


class _Noisy(bt.DynamicalSystem):
    """A readout of an Ornstein-Uhlenbeck process added to the input: every update draws anew."""

    def __init__(self) -> None:
        super().__init__(2)
        self.noise = bt.stimuli.OrnsteinUhlenbeck(2)
        self.layer = nn.Linear(N_IN, 2)

    def init_state(self, batch_shape: tuple[int, ...] = (), *, seed: int = 0) -> Any:
        return self.noise.init_state(batch_shape, seed=seed)

    def step(self, state: Any, inputs: Tensor, t: Tensor, dt: float) -> tuple[Any, Tensor]:
        state, noise = self.noise.step(state, None, t, dt)
        return state, self.layer(inputs) + noise


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_resumed_training_is_bit_equal(tmp_path: Path, own_generator: bool) -> None:
    data = TensorDataset(*(tensor.float() for tensor in _data(True).tensors))

    def begin() -> tuple[BPTT, DataLoader[Any]]:
        torch.manual_seed(0)
        model = _Noisy()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(5) if own_generator else None
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        trainer = BPTT(model, _mean, optimizer, dt=1.0, scheduler=scheduler, seed=3)
        return trainer, DataLoader(data, batch_size=6, shuffle=True, generator=generator)

    whole, loader = begin()
    whole.fit(loader, 4, progress=False)
    first, loader = begin()
    first.fit(loader, 2, progress=False, after_epoch=lambda epoch: first.save(tmp_path / "run", loader))
    torch.randn(7)
    second, loader = begin()
    torch.randn(3)
    second.load(tmp_path / "run", loader)
    second.fit(loader, 4, progress=False)
    for one, other in zip(whole.system.parameters(), second.system.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [epoch.loss for epoch in whole.history] == [epoch.loss for epoch in second.history]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_noise_differs_between_updates() -> None:
    x, y = (tensor.float() for tensor in _data(True).tensors)
    model = _Noisy()
    trainer = BPTT(model, _mean, torch.optim.SGD(model.parameters(), lr=1e-12), dt=1.0)
    assert trainer.step(x, y)[0] != trainer.step(x, y)[0]


def test_spikes_without_a_surrogate_are_noticed_in_every_loop() -> None:
    x, y = _data(True).tensors
    layer = bt.Recurrent(bt.neurons.LIF(6, v_th=0.5, dtype=torch.float64), N_IN)
    model = bt.Sequential(layer, bt.Readout(6, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"got none for layers.0.input.weight, layers.0.recurrent.weight; do spikes"):
        _trainer(model, _mean, loop="reference").step(x, y)
    trainer = _trainer(model, _mean, loop="native")
    trainer.step(x, y)
    still = r"first two gradients of layers.0.input.weight, layers.0.recurrent.weight are zero"
    with pytest.warns(UserWarning, match=still):
        trainer.step(x, y)


def test_a_readout_that_begins_at_zero_is_no_reason_to_warn() -> None:
    x, y = _data(True).tensors
    layer = bt.Recurrent(bt.neurons.LIF(6, v_th=0.5, dtype=torch.float64, surrogate=bt.surrogate.Sigmoid()), N_IN)
    model = bt.Sequential(layer, bt.Readout(6, 2, dtype=torch.float64))
    for parameter in model.layers[1].parameters():
        torch.nn.init.zeros_(parameter)
    trainer = _trainer(model, _mean)
    for _ in range(3):
        trainer.step(x, y)  # a warning is an error in this suite


def test_the_progress_bar_shows_loss_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _trainer(_model(), metrics={"error": _last})
    loader = DataLoader(_data(False), batch_size=10)
    trainer.fit(loader, 2, progress=False)
    assert capsys.readouterr().err == ""
    trainer.fit(loader, 4, progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert f"loss={trainer.history[-1].loss:.4g}" in shown
    assert f"error={trainer.history[-1].metrics['error']:.4g}" in shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's own doing
def test_the_inductor_loop_trains_as_the_reference_does() -> None:
    x, y = (tensor[:, :5] for tensor in _data(True).tensors)
    results = []
    for loop in ("reference", "inductor"):
        model = _model()
        _trainer(model, _mean, loop=loop, truncate=3).step(x, y)
        results.append(_weights(model))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    model = _model()
    x, y = _data(False).tensors
    for options, message in (
        ({"truncate": 0}, r"`BPTT\(truncate=...\)`: expected a positive number of steps or None, got 0"),
        ({"recompute": 1.5}, r"`BPTT\(recompute=...\)`: expected a positive number of steps or None, got 1.5"),
        ({"clip_norm": -1.0}, r"`BPTT\(clip_norm=...\)`: expected a finite number above 0 or None, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            _trainer(model, **options)
    with pytest.raises(TypeError, match=r"`BPTT\(optimizer=...\)`: expected one of torch.optim, got str"):
        BPTT(model, _last, "adam", dt=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`BPTT\(loss=...\)`: expected a scalar, got shape \(20, 2\)"):
        _trainer(model, lambda out, y: out[:, -1] - y).step(x, y)
    with pytest.raises(ValueError, match=r"expected targets \(batch, time=12, ...\) to truncate, got \(20, 2\)"):
        _trainer(model, truncate=5).step(x, y)
    with pytest.raises(ValueError, match=r"`BPTT.step\(x=...\)`: expected tensors \(batch, time, ...\), got \(20,\)"):
        _trainer(model).step(x[:, 0, 0], y)
    with pytest.raises(ValueError, match=r"`BPTT.step\(x=...\)`: expected at least one step, got \(20, 0, 3\)"):
        _trainer(model).step(x[:, :0], y)
    for wrong in (y[:-1], y[:1]):
        with pytest.raises(
            ValueError, match=r"`BPTT.step\(y=...\)`: expected batch=20 on the first axis, as of x, got"
        ):
            _trainer(model).step(x, wrong)
    with pytest.raises(ValueError, match=r"`BPTT.evaluate\(y=...\)`: expected batch=20 on the first axis"):
        _trainer(model).evaluate([(x, y[:-1])])
    with pytest.raises(ValueError, match=r"`BPTT\(loss=...\)`: failed for outputs \(20, 12, 2\) and y \(20, 11, 2\)"):
        _trainer(model, _mean).step(x, _data(True).tensors[1][:, 1:])
    with pytest.raises(ValueError, match="expected a loss that depends on parameters which require gradients"):
        _trainer(model, lambda out, y: out.detach().mean()).step(x, y)
    with pytest.raises(ValueError, match=r"`BPTT.fit\(data=...\)`: expected batches \(x, y\), got 3 parts"):
        _trainer(model).fit([(x, y, y)], 1, progress=False)
    with pytest.raises(
        TypeError, match=r"`BPTT\(scheduler=...\)`: expected one of torch.optim.lr_scheduler, got float"
    ):
        _trainer(model, scheduler=0.1)
    model.idle = nn.Parameter(torch.zeros(2))
    for loop in ("reference", "native"):
        trainer = _trainer(model, loop=loop)
        with pytest.raises(ValueError, match=r"expected every parameter to get a gradient, got none for idle"):
            trainer.step(x, y)
    del model.idle
    before = _weights(model)
    with pytest.raises(FloatingPointError, match="the loss of update 1 is nan; nothing was updated"):
        _trainer(model).step(x, y * float("nan"))
    assert all(torch.equal(one, other) for one, other in zip(before, _weights(model), strict=True))
    empty = _trainer(model)
    with pytest.raises(ValueError, match="expected at least one batch, got none"):
        empty.fit([], 1, progress=False)
    with pytest.raises(ValueError, match=r"`WeightPenalty\(pattern=...\)`: expected a match among"):
        _trainer(model, penalties=[WeightPenalty("nothing")]).step(x, y)
    torch.save({"format": "other"}, tmp_path / "other")
    with pytest.raises(ValueError, match="expected a checkpoint of format"):
        _trainer(model).load(tmp_path / "other")


@pytest.mark.parametrize("own_generator", [False, True])
def test_training_stopped_within_an_epoch_goes_on_with_the_next_batch(tmp_path: Path, own_generator: bool) -> None:
    def begin() -> tuple[Any, BPTT, DataLoader[Any]]:
        torch.manual_seed(4)
        generator = torch.Generator().manual_seed(3) if own_generator else None
        loader: DataLoader[Any] = DataLoader(_data(True), 4, shuffle=True, generator=generator)
        model = _model()
        return model, _trainer(model, _mean, truncate=5), loader

    whole, trainer, loader = begin()
    trainer.fit(loader, 3, progress=False)

    _, stopped, loader = begin()
    stopped.fit(loader, 3, progress=False, after_batch=lambda number: number == 3 and len(stopped.history) == 1)
    assert len(stopped.history) == 1
    stopped.save(tmp_path / "run.ckpt", loader)

    model, resumed, loader = begin()
    torch.rand(5)
    resumed.load(tmp_path / "run.ckpt", loader)
    resumed.fit(loader, 3, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))
    assert [e.loss for e in resumed.history] == [e.loss for e in trainer.history]
    assert resumed.updates == trainer.updates


@pytest.mark.parametrize("shape", [(SAMPLES, 1, 2), (SAMPLES, STEPS, 1), (1, STEPS, 2)])
def test_targets_are_not_spread_to_the_size_of_the_outputs(shape: tuple[int, ...]) -> None:
    x, _ = _data(True).tensors
    y = torch.zeros(shape, dtype=torch.float64)
    for loss in (_mean, nn.functional.mse_loss, lambda out, y: (y - out).abs().mean()):
        with pytest.raises(ValueError, match=r"expand it|expected batch"):
            _trainer(_model(), loss).step(x, y)
    # Masks, and parts of the outputs that are of the targets' size, are meant.
    target, mask = torch.zeros(SAMPLES, STEPS, 2, dtype=torch.float64), torch.ones(SAMPLES, STEPS, 1)
    _trainer(_model(), lambda out, y: ((out - y[0]).square() * y[1]).mean()).step(x, (target, mask))
    _trainer(_model(), lambda out, y: (out[:, -1:] - y).square().mean()).step(x, target[:, :1])


def test_lbfgs_updates_as_in_a_loop_by_hand() -> None:
    model, twin = _model(), _model()
    x, y = _data(True).tensors
    trainer = BPTT(model, _mean, torch.optim.LBFGS(model.parameters(), max_iter=5), dt=1.0)
    trainer.fit([(x, y)], 3, progress=False)
    optimizer = torch.optim.LBFGS(twin.parameters(), max_iter=5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _mean(bt.simulate(twin, x.transpose(0, 1), dt=1.0).out.transpose(0, 1), y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    x, y = _data(False).tensors
    with pytest.raises(ValueError, match="metrics"):
        _trainer(_model(), metrics={"error": lambda out, y: out}).step(x, y)
    with pytest.raises(ValueError, match="penalties"):
        _trainer(_model(), penalties=[lambda system, sol: torch.ones(2)]).step(x, y)
    with pytest.raises(TypeError, match="epochs"):
        _trainer(_model()).fit([(x, y)], 1.5)  # type: ignore[arg-type]
    (tmp_path / "other.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="checkpoint of format"):
        _trainer(_model()).load(tmp_path / "other.ckpt")
