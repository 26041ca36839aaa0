"""Several batches to an update: as one batch of all their samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import bdtorch as bt
from bdtorch.train import BPTT, WeightPenalty
from tests.train.small import SAMPLES, NoisyReadout, last_error, mean_error, small_data, small_model, weights_of

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4),
}


def _equal(one: nn.Module, other: nn.Module, tolerance: float = 1e-9) -> None:
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("truncate", [None, 5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_several_batches_are_one_large_batch(optimizer: str, truncate: int | None) -> None:
    """Three of 7, 7 and 6 samples, clipped, with a penalty and a schedule of updates."""
    found = []
    for size, accumulate in ((20, 1), (7, 3)):
        model = small_model()
        rule = OPTIMIZERS[optimizer](model.parameters())
        trainer = BPTT(
            model,
            mean_error,
            rule,
            dt=1.0,
            accumulate=accumulate,
            truncate=truncate,
            clip_norm=None if optimizer == "LBFGS" else 0.3,
            penalties=[WeightPenalty("*recurrent*", 1e-3)],
            metrics={"error": mean_error},
            scheduler=torch.optim.lr_scheduler.ExponentialLR(rule, 0.9),
            scheduler_every="update",
        )
        history = trainer.fit(DataLoader(small_data(True), batch_size=size), 3, progress=False)
        assert trainer.updates == 3 * (1 if truncate is None else 3)
        assert rule.param_groups[0]["lr"] == pytest.approx(rule.defaults["lr"] * 0.9**trainer.updates)
        found.append((model, [epoch.loss for epoch in history], [epoch.metrics["error"] for epoch in history]))
    _equal(found[0][0], found[1][0], 1e-7 if optimizer == "LBFGS" else 1e-9)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-7)
    if truncate is None:
        assert found[1][2] == pytest.approx(found[0][2], rel=1e-7)
    assert (weights_of(found[0][0])[0] - weights_of(small_model())[0]).abs().max() > 1e-3


def test_the_last_group_of_an_epoch_is_averaged_over_what_it_has() -> None:
    """Batches of 8, 8 and 4 samples in groups of two: the second update is the mean of four samples."""
    model, twin = small_model(), small_model()
    counts: list[int] = []
    trainer = BPTT(model, last_error, torch.optim.SGD(model.parameters(), lr=0.1), dt=1.0, accumulate=2)
    data = DataLoader(small_data(False), batch_size=8)
    trainer.fit(data, 1, progress=False, after_batch=lambda number: counts.append(number))
    assert counts == [2, 3]
    hand = torch.optim.SGD(twin.parameters(), lr=0.1)
    x, y = small_data(False).tensors
    for part in (slice(0, 16), slice(16, 20)):
        hand.zero_grad()
        last_error(bt.simulate(twin, x[part].transpose(0, 1), dt=1.0).out.transpose(0, 1), y[part]).backward()
        hand.step()
    _equal(model, twin)


def test_batches_of_different_lengths_make_one_update() -> None:
    model, twin = small_model(), small_model()
    x, y = small_data(True).tensors
    parts = [(x[:5], y[:5]), (x[5:12, :7], y[5:12, :7]), (x[12:, :3], y[12:, :3])]
    trainer = BPTT(model, mean_error, torch.optim.SGD(model.parameters(), lr=0.1), dt=1.0)
    loss, _ = trainer.step_together(parts)
    hand = torch.optim.SGD(twin.parameters(), lr=0.1)
    want = torch.zeros((), dtype=torch.float64)
    for one, target in parts:
        out = bt.simulate(twin, one.transpose(0, 1), dt=1.0).out.transpose(0, 1)
        want = want + len(one) / SAMPLES * mean_error(out, target)
    want.backward()
    hand.step()
    assert loss == pytest.approx(float(want.detach()), rel=1e-9)
    _equal(model, twin)
    trainer.truncate = 4  # pieces of 4, 4 and 4 steps; 4 and 3; 3
    trainer.step_together(parts)
    assert trainer.updates == 4
    with pytest.raises(ValueError, match=r"`BPTT.step_together\(batches=...\)`: expected at least one batch, got none"):
        trainer.step_together([])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_by_groups_resumes_exactly(tmp_path: Path, optimizer: str) -> None:
    """Stopped after the second of three groups of the second epoch, with noise, shuffling and a schedule of updates."""

    def begin() -> tuple[BPTT, DataLoader[Any]]:
        torch.manual_seed(4)
        model = NoisyReadout()
        rule = OPTIMIZERS[optimizer](model.parameters())
        scheduler = torch.optim.lr_scheduler.SequentialLR(
            rule,
            [
                torch.optim.lr_scheduler.LinearLR(rule, 0.1, total_iters=4),
                torch.optim.lr_scheduler.CosineAnnealingLR(rule, 8),
            ],
            milestones=[4],
        )
        trainer = BPTT(
            model,
            lambda out, y: (out - y.float()).square().mean(),
            rule,
            dt=1.0,
            accumulate=2,
            scheduler=scheduler,
            scheduler_every="update",
            seed=3,
        )
        loader: DataLoader[Any] = DataLoader(
            small_data(True),
            4,
            shuffle=True,
            collate_fn=lambda rows: [torch.stack(c).float() for c in zip(*rows, strict=True)],
        )
        return trainer, loader

    whole, loader = begin()
    whole.fit(loader, 3, progress=False)
    stopped, loader = begin()
    stopped.fit(loader, 3, progress=False, after_batch=lambda number: number == 4 and len(stopped.history) == 1)
    stopped.save(tmp_path / "run", loader)
    resumed, loader = begin()
    resumed.seed = 7  # the checkpoint's is the run's
    torch.rand(9)
    resumed.load(tmp_path / "run", loader)
    resumed.fit(loader, 3, progress=False)
    assert resumed.updates == whole.updates == 9
    assert [e.loss for e in resumed.history] == [e.loss for e in whole.history]
    for one, other in zip(weights_of(resumed.system), weights_of(whole.system), strict=True):
        assert torch.equal(one, other)


def test_batches_of_a_group_have_noise_of_their_own() -> None:
    x, y = (tensor[:4].float() for tensor in small_data(True).tensors)
    model = NoisyReadout()
    seen: list[Tensor] = []
    trainer = BPTT(model, lambda out, y: seen.append(out.detach()) or (out - y).square().mean(),
                   torch.optim.SGD(model.parameters(), lr=1e-9), dt=1.0)  # fmt: skip
    trainer.step_together([(x, y), (x, y)])
    assert (seen[0] - seen[1]).abs().min(-1).values.max() > 1e-3


@pytest.mark.slow
def test_full_groups_are_lightnings() -> None:
    """Two batches of equal size to an update, clipped; Lightning is the learner of `notebooks/external_training.py`."""
    import lightning

    data = DataLoader(small_data(True), batch_size=5, drop_last=True)

    class Learner(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.system = small_model()

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return mean_error(bt.simulate(self.system, x.transpose(0, 1), dt=1.0).out.transpose(0, 1), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 0.02)

    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about loaders without workers
        learner, plain = Learner(), small_model()
        lightning.Trainer(
            max_epochs=3, accumulate_grad_batches=2, gradient_clip_val=0.5, enable_model_summary=False, **options
        ).fit(learner, data)
    trainer = BPTT(plain, mean_error, torch.optim.Adam(plain.parameters(), 0.02), dt=1.0, accumulate=2, clip_norm=0.5)
    trainer.fit(data, 3, progress=False)
    assert trainer.updates == 6
    _equal(learner.system, plain)
