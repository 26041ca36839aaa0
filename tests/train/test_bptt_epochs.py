"""Epochs of the trainer: reports, schedulers, noise, and checkpoints that resume exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bdtorch as bt
from bdtorch.train import BPTT
from tests.train.small import (
    N_IN,
    NoisyReadout,
    last_error,
    mean_error,
    small_data,
    small_model,
    small_trainer,
    weights_of,
)


def test_fit_learns_and_reports() -> None:
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, gamma=0.5)
    trainer = BPTT(
        model, mean_error, optimizer, dt=1.0, scheduler=scheduler, metrics={"worst": lambda o, y: (o - y).abs().max()}
    )
    loader = DataLoader(small_data(True), batch_size=7, shuffle=True)
    history = trainer.fit(loader, 12, validation=loader, progress=False)
    assert [epoch.number for epoch in history] == list(range(1, 13))
    assert history[-1].loss < 0.5 * history[0].loss
    assert set(history[-1].metrics) == {"worst"}
    assert set(history[-1].validation) == {"loss", "worst"}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert trainer.evaluate(loader)["loss"] == pytest.approx(history[-1].validation["loss"])
    assert len(trainer.fit(loader, 20, progress=False, after_epoch=lambda epoch: epoch.number == 15)) == 15


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_resumed_training_is_bit_equal(tmp_path: Path, own_generator: bool) -> None:
    data = TensorDataset(*(tensor.float() for tensor in small_data(True).tensors))

    def begin() -> tuple[BPTT, DataLoader[Any]]:
        torch.manual_seed(0)
        model = NoisyReadout()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(5) if own_generator else None
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        trainer = BPTT(model, mean_error, optimizer, dt=1.0, scheduler=scheduler, seed=3)
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
    x, y = (tensor.float() for tensor in small_data(True).tensors)
    model = NoisyReadout()
    trainer = BPTT(model, mean_error, torch.optim.SGD(model.parameters(), lr=1e-12), dt=1.0)
    assert trainer.step(x, y)[0] != trainer.step(x, y)[0]


def test_the_progress_bar_shows_loss_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = small_trainer(small_model(), metrics={"error": last_error})
    loader = DataLoader(small_data(False), batch_size=10)
    trainer.fit(loader, 2, progress=False)
    assert capsys.readouterr().err == ""
    trainer.fit(loader, 4, progress=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert f"loss={trainer.history[-1].loss:.4g}" in shown
    assert f"error={trainer.history[-1].metrics['error']:.4g}" in shown


@pytest.mark.parametrize("own_generator", [False, True])
def test_training_stopped_within_an_epoch_goes_on_with_the_next_batch(tmp_path: Path, own_generator: bool) -> None:
    def begin() -> tuple[Any, BPTT, DataLoader[Any]]:
        torch.manual_seed(4)
        generator = torch.Generator().manual_seed(3) if own_generator else None
        loader: DataLoader[Any] = DataLoader(small_data(True), 4, shuffle=True, generator=generator)
        model = small_model()
        return model, small_trainer(model, mean_error, truncate=5), loader

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


def test_lbfgs_updates_as_in_a_loop_by_hand() -> None:
    model, twin = small_model(), small_model()
    x, y = small_data(True).tensors
    trainer = BPTT(model, mean_error, torch.optim.LBFGS(model.parameters(), max_iter=5), dt=1.0)
    trainer.fit([(x, y)], 3, progress=False)
    optimizer = torch.optim.LBFGS(twin.parameters(), max_iter=5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean_error(bt.simulate(twin, x.transpose(0, 1), dt=1.0).out.transpose(0, 1), y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


class _Weighed(nn.Module):
    """A loss with a parameter of its own, and noise on the outputs while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return (self.dropout(out) * self.scale - y).square().mean()


def test_parameters_of_the_loss_are_trained_and_saved(tmp_path: Path) -> None:
    def begin() -> tuple[BPTT, _Weighed]:
        torch.manual_seed(0)
        model, loss = small_model(), _Weighed()
        optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.05, momentum=0.9)
        return BPTT(model, loss, optimizer, dt=1.0), loss

    data = DataLoader(small_data(True), 5)
    whole, loss = begin()
    whole.fit(data, 4, progress=False)
    first, _ = begin()
    first.fit(data, 2, progress=False)
    first.save(tmp_path / "run", data)
    second, other = begin()
    second.load(tmp_path / "run", data)
    second.fit(data, 4, progress=False)
    assert (loss.scale - 1.0).abs().min() > 1e-3
    assert torch.equal(loss.scale, other.scale)
    assert whole.evaluate(data) == second.evaluate(data) == second.evaluate(data)  # nothing is dropped there


def test_checkpoints_of_another_training_are_named(tmp_path: Path) -> None:
    trainer = small_trainer(small_model())
    trainer.save(tmp_path / "run")
    wide = bt.Sequential(bt.Recurrent(bt.rates.LeakyRate(7, dtype=torch.float64), N_IN))
    with pytest.raises(
        ValueError, match=r"`BPTT.load\(path=...\)`: expected a checkpoint of this system and optimizer"
    ):
        small_trainer(wide, mean_error).load(tmp_path / "run")
    part = bt.Sequential(bt.Recurrent(bt.rates.LeakyRate(6, tau=5.0, dtype=torch.float64), N_IN, seed=3))
    before = weights_of(part)
    with pytest.raises(ValueError, match="expected a checkpoint of this system"):
        small_trainer(part, mean_error).load(tmp_path / "run")
    assert all(map(torch.equal, before, weights_of(part)))  # and nothing of it is taken
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ValueError, match="expected a checkpoint of a trainer with a scheduler"):
        BPTT(model, mean_error, optimizer, dt=1.0, scheduler=scheduler).load(tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        trainer.load(tmp_path / "nothing")
