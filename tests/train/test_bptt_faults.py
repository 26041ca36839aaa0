"""What the trainer does not take, and what it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bdtorch as bt
from bdtorch.train import BPTT, WeightPenalty
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


def test_spikes_without_a_surrogate_are_noticed_in_every_loop() -> None:
    x, y = small_data(True).tensors
    layer = bt.Recurrent(bt.neurons.LIF(6, v_th=0.5, dtype=torch.float64), N_IN)
    model = bt.Sequential(layer, bt.Readout(6, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"got none for layers.0.input.weight, layers.0.recurrent.weight; do spikes"):
        small_trainer(model, mean_error, loop="reference").step(x, y)
    trainer = small_trainer(model, mean_error, loop="native")
    trainer.step(x, y)
    still = r"first two gradients of layers.0.input.weight, layers.0.recurrent.weight are zero"
    with pytest.warns(UserWarning, match=still):
        trainer.step(x, y)


def test_a_readout_that_begins_at_zero_is_no_reason_to_warn() -> None:
    x, y = small_data(True).tensors
    layer = bt.Recurrent(bt.neurons.LIF(6, v_th=0.5, dtype=torch.float64, surrogate=bt.surrogate.Sigmoid()), N_IN)
    model = bt.Sequential(layer, bt.Readout(6, 2, dtype=torch.float64))
    for parameter in model.layers[1].parameters():
        torch.nn.init.zeros_(parameter)
    trainer = small_trainer(model, mean_error)
    for _ in range(3):
        trainer.step(x, y)  # a warning is an error in this suite


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"truncate": 0}, ValueError, r"`BPTT\(truncate=...\)`: expected a positive integer, got 0"),
        ({"recompute": 1.5}, ValueError, r"`BPTT\(recompute=...\)`: expected a positive integer, got 1.5"),
        ({"accumulate": True}, ValueError, r"`BPTT\(accumulate=...\)`: expected a positive integer, got True"),
        ({"clip_norm": -1.0}, ValueError, r"`BPTT\(clip_norm=...\)`: expected a finite number above 0, got -1.0"),
        ({"clip_norm": "1"}, ValueError, r"`BPTT\(clip_norm=...\)`: expected a finite number above 0, got '1'"),
        ({"seed": 0.5}, ValueError, r"`BPTT\(seed=...\)`: expected a whole number of at least 0, got 0.5"),
        ({"dt": "1"}, ValueError, r"`BPTT\(dt=...\)`: expected a finite number above 0, got '1'"),
        ({"penalties": 3}, TypeError, r"`BPTT\(penalties=...\)`: expected a sequence of penalties, got 3"),
        ({"penalties": [0.1]}, TypeError, r"`BPTT\(penalties=...\)`: expected a sequence of penalties, got \[0.1\]"),
        ({"metrics": [last_error]}, TypeError, r"`BPTT\(metrics=...\)`: expected a mapping by name, got list"),
        ({"metrics": {"a": 1.0}}, TypeError, r"`BPTT\(metrics=\{'a': ...\}\)`: expected a function, got 1.0"),
        ({"metrics": {"loss": last_error}}, ValueError, r"`BPTT\(metrics=...\)`: expected another name than 'loss'"),
        ({"record": ["z"]}, TypeError, r"`BPTT\(record=...\)`: expected a mapping by name, got list"),
        (
            {"scheduler": 0.1},
            TypeError,
            r"`BPTT\(scheduler=...\)`: expected one of torch.optim.lr_scheduler, got float",
        ),
        ({"scheduler_every": "step"}, ValueError, r"`BPTT\(scheduler_every=...\)`: expected 'epoch' or 'update'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = small_model()
    with pytest.raises(error, match=message):
        BPTT(model, last_error, torch.optim.SGD(model.parameters()), **{"dt": 1.0, **options})


def test_an_optimizer_and_a_scheduler_must_be_those_of_the_system() -> None:
    model, other = small_model(), small_model()
    optimizer, foreign = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, other))
    with pytest.raises(ValueError, match=r"expected parameters of the system or the loss, got 3 others, .* \(3, 6\)"):
        BPTT(model, last_error, foreign, dt=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(foreign, 1)
    with pytest.raises(
        ValueError, match=r"`BPTT\(scheduler=...\)`: expected a scheduler of `optimizer`, got one of an"
    ):
        BPTT(model, last_error, optimizer, dt=1.0, scheduler=scheduler)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match="expected 'epoch' for ReduceLROnPlateau"):
        BPTT(model, last_error, optimizer, dt=1.0, scheduler=plateau, scheduler_every="update")
    late = BPTT(model, last_error, optimizer, dt=1.0)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(4))]})
    with pytest.raises(ValueError, match=r"got 1 others, of shapes \(4,\)"):
        late.step(*small_data(False).tensors)


def test_inputs_of_another_width_are_named() -> None:
    x, y = small_data(False).tensors
    trainer = small_trainer(small_model())
    for call, name in ((trainer.step, "step"), (lambda x, y: trainer.evaluate([(x, y)]), "evaluate")):
        with pytest.raises(
            ValueError, match=rf"`BPTT.{name}\(x=...\)`: expected 3 inputs on the last axis, got \(20, 12, 2"
        ):
            call(x[..., :2], y)
        with pytest.raises(ValueError, match=rf"`BPTT.{name}\(x=...\)`: expected tensors \(batch, time, ...\), got"):
            call([], y)


def test_a_gradient_that_is_not_finite_updates_nothing() -> None:
    x, y = small_data(False).tensors
    for clip_norm in (None, 1.0):
        model = small_model()
        before = weights_of(model)
        trainer = small_trainer(model, lambda out, y: (out - out.detach()).square().sum().sqrt(), clip_norm=clip_norm)
        with pytest.raises(FloatingPointError, match=r"gradient of update 1 is not finite for layers.0.input.weight, "):
            trainer.step(x, y)
        assert all(torch.equal(one, other) for one, other in zip(before, weights_of(model), strict=True))


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    model = small_model()
    x, y = small_data(False).tensors
    with pytest.raises(TypeError, match=r"`BPTT\(optimizer=...\)`: expected one of torch.optim, got str"):
        BPTT(model, last_error, "adam", dt=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`BPTT\(loss=...\)`: expected a scalar, got shape \(20, 2\)"):
        small_trainer(model, lambda out, y: out[:, -1] - y).step(x, y)
    with pytest.raises(ValueError, match=r"expected targets \(batch, time=12, ...\) to truncate, got \(20, 2\)"):
        small_trainer(model, truncate=5).step(x, y)
    with pytest.raises(ValueError, match=r"`BPTT.step\(x=...\)`: expected tensors \(batch, time, ...\), got \(20,\)"):
        small_trainer(model).step(x[:, 0, 0], y)
    with pytest.raises(ValueError, match=r"`BPTT.step\(x=...\)`: expected at least one step, got \(20, 0, 3\)"):
        small_trainer(model).step(x[:, :0], y)
    for wrong in (y[:-1], y[:1]):
        with pytest.raises(
            ValueError, match=r"`BPTT.step\(y=...\)`: expected batch=20 on the first axis, as of x, got"
        ):
            small_trainer(model).step(x, wrong)
    with pytest.raises(ValueError, match=r"`BPTT.evaluate\(y=...\)`: expected batch=20 on the first axis"):
        small_trainer(model).evaluate([(x, y[:-1])])
    with pytest.raises(ValueError, match=r"`BPTT\(loss=...\)`: failed for outputs \(20, 12, 2\) and y \(20, 11, 2\)"):
        small_trainer(model, mean_error).step(x, small_data(True).tensors[1][:, 1:])
    with pytest.raises(ValueError, match="expected a loss that depends on parameters which require gradients"):
        small_trainer(model, lambda out, y: out.detach().mean()).step(x, y)
    with pytest.raises(ValueError, match=r"`BPTT.fit\(data=...\)`: expected batches \(x, y\), got 3 parts"):
        small_trainer(model).fit([(x, y, y)], 1, progress=False)
    model.idle = nn.Parameter(torch.zeros(2))
    for loop in ("reference", "native"):
        trainer = small_trainer(model, loop=loop)
        with pytest.raises(ValueError, match=r"expected every parameter to get a gradient, got none for idle"):
            trainer.step(x, y)
    del model.idle
    before = weights_of(model)
    with pytest.raises(FloatingPointError, match="the loss of update 1 is nan; nothing was updated"):
        small_trainer(model).step(x, y * float("nan"))
    assert all(torch.equal(one, other) for one, other in zip(before, weights_of(model), strict=True))
    empty = small_trainer(model)
    with pytest.raises(ValueError, match="expected at least one batch, got none"):
        empty.fit([], 1, progress=False)
    with pytest.raises(ValueError, match=r"`WeightPenalty\(pattern=...\)`: expected a match among"):
        small_trainer(model, penalties=[WeightPenalty("nothing")]).step(x, y)
    torch.save({"format": "other"}, tmp_path / "other")
    with pytest.raises(ValueError, match="expected a checkpoint of format"):
        small_trainer(model).load(tmp_path / "other")


def test_one_target_of_a_sample_is_not_spread_over_the_batch() -> None:
    x, _ = small_data(True).tensors
    y = torch.zeros(SAMPLES, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"a target of shape \(20,\) is compared with \(20, 1\); expand it"):
        small_trainer(small_model(), lambda out, y: (out[:, -1, :1] - y).square().mean()).step(x, y)
    small_trainer(small_model(), lambda out, y: (out[:, -1, 0] - y).square().mean()).step(x, y)


def test_what_is_no_data_is_named() -> None:
    x, y = small_data(False).tensors
    trainer = small_trainer(small_model())
    with pytest.raises(TypeError, match=r"`BPTT.fit\(data=...\)`: expected batches \(x, y\), got int"):
        trainer.fit(3, 1, progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`BPTT.step\(x=...\)`: expected at least one sample, got \(0, 12, 3\)"):
        trainer.step(x[:0], y[:0])
    with pytest.raises(ValueError, match=r"`BPTT.step\(x=...\)`: expected tensors .*, got ndarray"):
        trainer.step(x.numpy(), y)
    for name in ("after_epoch", "after_batch"):
        with pytest.raises(TypeError, match=rf"`BPTT.fit\({name}=...\)`: expected a function, got 3"):
            trainer.fit([(x, y)], 1, progress=False, **{name: 3})
    once = iter([(x, y)])
    trainer.fit(once, 1, progress=False)
    with pytest.raises(ValueError, match=r"got none \(an iterator gives its batches once\)"):
        trainer.fit(once, 2, progress=False)


@pytest.mark.parametrize("shape", [(SAMPLES, 1, 2), (SAMPLES, STEPS, 1), (1, STEPS, 2)])
def test_targets_are_not_spread_to_the_size_of_the_outputs(shape: tuple[int, ...]) -> None:
    x, _ = small_data(True).tensors
    y = torch.zeros(shape, dtype=torch.float64)
    for loss in (mean_error, nn.functional.mse_loss, lambda out, y: (y - out).abs().mean()):
        with pytest.raises(ValueError, match=r"expand it|expected batch"):
            small_trainer(small_model(), loss).step(x, y)
    # Masks, and parts of the outputs that are of the targets' size, are meant.
    target, mask = torch.zeros(SAMPLES, STEPS, 2, dtype=torch.float64), torch.ones(SAMPLES, STEPS, 1)
    small_trainer(small_model(), lambda out, y: ((out - y[0]).square() * y[1]).mean()).step(x, (target, mask))
    small_trainer(small_model(), lambda out, y: (out[:, -1:] - y).square().mean()).step(x, target[:, :1])


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    x, y = small_data(False).tensors
    with pytest.raises(ValueError, match="metrics"):
        small_trainer(small_model(), metrics={"error": lambda out, y: out}).step(x, y)
    with pytest.raises(ValueError, match="penalties"):
        small_trainer(small_model(), penalties=[lambda system, sol: torch.ones(2)]).step(x, y)
    with pytest.raises(ValueError, match=r"`BPTT.fit\(epochs=...\)`: expected a whole number of at least 0, got 1.5"):
        small_trainer(small_model()).fit([(x, y)], 1.5)  # type: ignore[arg-type]
    (tmp_path / "other.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="checkpoint of format"):
        small_trainer(small_model()).load(tmp_path / "other.ckpt")
