"""Backpropagation through time: a thin trainer over `bdtorch.simulate`, `torch.optim` and `DataLoader`."""

from __future__ import annotations

import copy
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bdtorch import _tree as tree
from bdtorch._files import replacing
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.ops.random import fold
from bdtorch.simulate import Loop, Record
from bdtorch.train._checks import above_zero, whole
from bdtorch.train._objective import Objective
from bdtorch.train._pieces import Batch, check_batch, check_targets, checked_inputs, cut, extent, pairs, swapped
from bdtorch.train._progress import FORMAT, Epoch, Means, Place, read_checkpoint
from bdtorch.train.penalties import Penalty


class BPTT:
    """Trains a system by gradients through time. It holds no magic: `step` is a simulation, a loss, a backward pass and
    an update, and may be called by itself.

    Batches are pairs ``(x, y)`` with the batch on the first axis, as a `DataLoader` collates them: ``x`` is
    ``(batch, time, ...)``, and the loss gets outputs ``(batch, time, ...)`` beside ``y`` as the loader gives it.

    Args:
        system: What to train.
        loss: ``loss(out, y)``, a scalar in torch operations: a mean over samples where batches differ in size or are
            accumulated. A module may have parameters of its own, which are then trained and saved too.
        optimizer: Any of `torch.optim`, over parameters of the system or the loss (of `LBFGS` a step is one update).
        dt: Step, ms.
        loop: Time loop, as in `bdtorch.simulate`.
        accumulate: Batches that `fit` makes one update of, as on one batch of all their samples, in the memory of one
            (``accumulate_grad_batches`` of Lightning; but an epoch's last group, if smaller, is averaged over what it has).
        truncate: Cut the gradient every so many steps and update after each piece; then ``y`` needs an axis time like
            ``x``. None goes through whole sequences.
        recompute: Keep only the states every so many steps and simulate each piece again in the backward pass, so that
            memory grows with the number of pieces; None keeps what every step needs.
        clip_norm: Largest norm of the whole gradient; None for none.
        penalties: Terms added to the training loss, such as `RatePenalty`.
        metrics: Functions of outputs and ``y`` to report, by name.
        record: What penalties need recorded, as in `bdtorch.simulate`.
        scheduler: Of `torch.optim.lr_scheduler`, over the same optimizer.
        scheduler_every: Advance it after each ``"epoch"`` (on the validation loss where it asks) or each ``"update"``.
        seed: Names initial values and noise; every update draws anew.

    Raises:
        TypeError, ValueError: An argument is not as described.
    """

    def __init__(
        self,
        system: DynamicalSystem,
        loss: Callable[[Tensor, Any], Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        dt: float,
        loop: str | Loop = "auto",
        accumulate: int = 1,
        truncate: int | None = None,
        recompute: int | None = None,
        clip_norm: float | None = None,
        penalties: Sequence[Penalty] = (),
        metrics: Mapping[str, Callable[[Tensor, Any], Any]] | None = None,
        record: Mapping[str, Record | Callable[[State, Any], Any]] | None = None,
        scheduler: Any = None,
        scheduler_every: str = "epoch",
        seed: int = 0,
    ) -> None:
        self._objective = Objective(
            system, loss, dt=dt, loop=loop, recompute=recompute, penalties=penalties, metrics=metrics, record=record
        )
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"`BPTT(optimizer=...)`: expected one of torch.optim, got {type(optimizer).__name__}")
        _check_scheduler(scheduler, scheduler_every, optimizer)
        self.system, self.optimizer = system, optimizer
        self.scheduler, self.scheduler_every = scheduler, scheduler_every
        self.accumulate = whole(accumulate, "BPTT(accumulate=...)")
        self.truncate = None if truncate is None else whole(truncate, "BPTT(truncate=...)")
        self.clip_norm = None if clip_norm is None else above_zero(clip_norm, "BPTT(clip_norm=...)")
        self.seed = whole(seed, "BPTT(seed=...)", least=0)
        self.updates = 0
        self._trained()
        self._still: set[str] = set()  # parameters without a gradient so far
        self._place: Place | None = None  # within an epoch that is not over
        self.history: list[Epoch] = []

    # Updates

    def step(self, x: Any, y: Any) -> tuple[float, dict[str, float]]:
        """Train on one batch; returns its loss, penalties included, and its metrics.

        Raises:
            ValueError: The loss is no scalar, a parameter gets no gradient, lengths do not fit, or the update made a
                parameter such as a time constant negative.
            FloatingPointError: The loss or its gradient is NaN or infinite; the piece that gave it updated nothing.
        """
        return self.step_together([(x, y)])

    def step_together(self, batches: Sequence[tuple[Any, Any]]) -> tuple[float, dict[str, float]]:
        """Train on several batches at once: as `step` on one batch of all their samples, where the loss is their mean,
        in the memory of one. Batches may differ in size and in length.
        """
        if not batches:
            raise ValueError("`BPTT.step_together(batches=...)`: expected at least one batch, got none")
        begun = [self._begin(x, y, number) for number, (x, y) in enumerate(batches)]
        self._objective.train(True)
        longest = max(batch.steps for batch in begun)
        piece = longest if self.truncate is None else self.truncate
        for start in range(0, longest, piece):
            self._update([batch for batch in begun if start < batch.steps], start, start + piece)
        means = Means()
        for batch in begun:
            means.add({"loss": batch.loss, **self._objective.measure(batch.out(), batch.y)}, batch.samples)
        values = means.result("step_together(batches=...)")
        return values.pop("loss"), values

    def _begin(self, x: Any, y: Any, number: int) -> Batch:
        inputs = checked_inputs(x, self.system, "step")
        check_batch(x, y, "step")
        steps = extent(inputs)
        if self.truncate is not None:
            check_targets(y, steps)
        return Batch(inputs, y, self._initial_state(inputs, number), extent(x), steps)

    def _initial_state(self, inputs: Any, number: int = 0) -> State:
        batch = tree.tensors(inputs)[0].shape[1]
        seed = fold(self.seed, str(self.updates))
        return initial_state(
            self.system, (batch,), dt=self._objective.dt, seed=fold(seed, str(number)) if number else seed
        )

    def _update(self, batches: list[Batch], start: int, stop: int) -> None:
        """One update from the same piece of every batch."""
        samples = sum(batch.samples for batch in batches)
        shares = [batch.samples / samples for batch in batches]
        first: list[tuple[Any, Any, Tensor]] = []

        def gradient() -> Tensor:
            self.optimizer.zero_grad()
            results = [self._backward(*pair, start, stop) for pair in zip(batches, shares, strict=True)]
            self._check_gradients()
            if not first:  # `LBFGS` asks more than once
                first.extend(results)
            return torch.stack([share * loss for share, (*_, loss) in zip(shares, results, strict=True)]).sum()

        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(gradient)
        else:
            gradient()
            self.optimizer.step()
        self.updates += 1
        self._check_positive()
        if self.scheduler is not None and self.scheduler_every == "update":
            self.scheduler.step()
        for batch, result in zip(batches, first, strict=True):
            batch.advance(*result, min(stop, batch.steps) - start)

    def _backward(self, batch: Batch, share: float, start: int, stop: int) -> tuple[Any, Any, Tensor]:
        """Add a batch's share of the gradient; returns the state after the piece, its output and its loss."""
        stop = min(stop, batch.steps)
        target = batch.y if self.truncate is None else cut(batch.y, start, stop, axis=1)
        inputs = cut(batch.inputs, start, stop)
        sol, out, loss = self._objective.value(inputs, batch.state, start * self._objective.dt, target)
        if not bool(loss.detach().isfinite()):
            raise FloatingPointError(
                f"`BPTT`: the loss of update {self.updates + 1} is {loss.item()}; nothing was updated"
            )
        if not loss.requires_grad:
            raise ValueError(
                "`BPTT(loss=...)`: expected a loss that depends on parameters which require gradients, got one that does not"
            )
        (share * loss).backward()
        return tree.map(Tensor.detach, sol.state), tree.map(Tensor.detach, out), loss.detach()

    def _trained(self) -> dict[str, Tensor]:
        """The optimizer's parameters by their names."""
        names = {
            id(p): at + name for at, part in self._objective.modules.items() for name, p in part.named_parameters()
        }
        given = [p for group in self.optimizer.param_groups for p in group["params"]]
        foreign = [tuple(p.shape) for p in given if id(p) not in names]
        if foreign:
            raise ValueError(
                f"`BPTT(optimizer=...)`: expected parameters of the system or the loss, got {len(foreign)} others, of "
                f"shapes {', '.join(map(str, foreign))}; was the system copied or changed after the optimizer was made?"
            )
        return {names[id(p)]: p for p in given}

    def _check_gradients(self) -> None:
        """Clip the gradient, and reject one that is missing or not finite."""
        trained = self._trained()
        if self.updates < 2:
            self._check_presence(trained)
        gradients = [p.grad for p in trained.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(norm.isfinite()):
            wild = [name for name, p in trained.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
            raise FloatingPointError(
                f"`BPTT`: the gradient of update {self.updates + 1} is not finite"
                f"{' for ' + ', '.join(wild) if wild else ' in norm'}; nothing was updated"
            )
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(trained.values(), self.clip_norm, norm)

    def _check_presence(self, trained: dict[str, Tensor]) -> None:
        idle = [name for name, p in trained.items() if p.requires_grad and p.grad is None]
        if idle:
            raise ValueError(
                f"`BPTT(optimizer=...)`: expected every parameter to get a gradient, got none for {', '.join(idle)}; "
                "do spikes have a surrogate, and does the loss depend on them?"
            )
        still = {name for name, p in trained.items() if p.grad is not None and not bool(p.grad.any())}
        # Weights of a readout that are zero at first let no gradient through before they have changed.
        self._still = still if not self.updates else self._still & still
        if self.updates and self._still:
            warnings.warn(
                f"`BPTT`: the first two gradients of {', '.join(sorted(self._still))} are zero everywhere; do spikes have a "
                "surrogate, and do neurons come near their thresholds?",
                stacklevel=6,
            )

    def _check_positive(self) -> None:
        for path, part in self.system.named_modules():
            for name in getattr(part, "positive_parameters", ()):
                least = getattr(part, name).min().item()
                if not least > 0.0:
                    raise ValueError(
                        f"`BPTT`: update {self.updates} made {f'{path}.{name}'.lstrip('.')} {least:g}, which must stay "
                        f"above 0; `bdtorch.train.positive` keeps it there"
                    )

    # Epochs

    def fit(
        self,
        data: Iterable[Any],
        epochs: int,
        *,
        validation: Iterable[Any] | None = None,
        progress: bool | None = None,
        after_epoch: Callable[[Epoch], Any] | None = None,
        after_batch: Callable[[int], Any] | None = None,
    ) -> list[Epoch]:
        """Train until ``epochs`` epochs are behind in all, those before a `load` included.

        Stopped within an epoch, or loaded from a checkpoint that was saved within one, it goes on with the next batch.

        Args:
            data: Batches, such as a `DataLoader`.
            epochs: Number of epochs in all.
            validation: Batches to evaluate after each epoch.
            progress: Show a bar; default in terminals.
            after_epoch: Called with each `Epoch`; training stops where it returns True. To save checkpoints:
                ``lambda epoch: trainer.save("run.ckpt", data)``, which returns None.
            after_batch: Called after each update of `step_together`, with the number of this epoch's batches so far;
                training stops where it returns True.

        Returns:
            The history, also in ``history``.
        """
        from tqdm.auto import tqdm  # takes a while to import

        whole(epochs, "BPTT.fit(epochs=...)", least=0)
        for name, call in (("after_epoch", after_epoch), ("after_batch", after_batch)):
            if call is not None and not callable(call):
                raise TypeError(f"`BPTT.fit({name}=...)`: expected a function, got {call!r}")
        remaining = range(len(self.history) + 1, epochs + 1)
        shown = sys.stderr.isatty() if progress is None else progress
        with tqdm(remaining, unit="epoch", disable=not shown) as bar:
            for number in bar:
                epoch = self._epoch(number, data, validation, after_batch)
                if epoch is None:
                    break
                self.history.append(epoch)
                bar.set_postfix({"loss": f"{epoch.loss:.4g}", **{k: f"{v:.4g}" for k, v in epoch.metrics.items()}})
                if after_epoch is not None and after_epoch(epoch):
                    break
        return self.history

    def _epoch(
        self, number: int, data: Iterable[Any], validation: Iterable[Any] | None, after: Callable[[int], Any] | None
    ) -> Epoch | None:
        """An epoch, or what is left of it; None where ``after`` stopped it."""
        began = time.perf_counter()
        place = self._place = self._place or Place.first(data)
        batches = place.rest(pairs(data, "fit"), data)
        while group := list(islice(batches, self.accumulate)):
            loss, metrics = self.step_together(group)
            place.means.add({"loss": loss, **metrics}, sum(extent(x) for x, _ in group))
            place.batches += len(group)
            if after is not None and after(place.batches):
                return None
        means, self._place = place.means, None
        values = means.result("fit(data=...)")
        checked = self.evaluate(validation) if validation is not None else {}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(checked.get("loss", values["loss"]))
        elif self.scheduler is not None and self.scheduler_every == "epoch":
            self.scheduler.step()
        return Epoch(number, values.pop("loss"), values, checked, time.perf_counter() - began)

    @torch.no_grad()
    def evaluate(self, data: Iterable[Any]) -> dict[str, float]:
        """Loss (without penalties) and metrics, means over the samples of ``data``."""
        self._objective.train(False)
        means = Means()
        for x, y in pairs(data, "evaluate"):
            inputs = checked_inputs(x, self.system, "evaluate")
            check_batch(x, y, "evaluate")
            out = swapped(self._objective.piece(inputs, self._initial_state(inputs), 0.0).out)
            loss = float(self._objective.loss(out, y))
            means.add({"loss": loss, **self._objective.measure(out, y)}, extent(x))
        return means.result("evaluate(data=...)")

    # Checkpoints

    def save(self, path: str | os.PathLike[str], data: Any = None) -> None:
        """Write everything that training goes on from, whole or not at all: weights, optimizer, scheduler, history, the
        place within the epoch, torch's random state, and that of ``data.generator`` where the `DataLoader` has one.
        """
        generator = getattr(data, "generator", None)
        content = {
            "format": FORMAT,
            "modules": {at: module.state_dict() for at, module in self._objective.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "seed": self.seed,
            "updates": self.updates,
            "place": None if self._place is None else self._place.content(),
            "history": [asdict(epoch) for epoch in self.history],
            "random": torch.get_rng_state(),
            "generator": None if generator is None else generator.get_state(),
        }
        with replacing(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: str | os.PathLike[str], data: Any = None) -> None:
        """Go on from what `save` wrote, bit for bit as if never stopped (given the same data and torch).

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such checkpoint, or one of another system, optimizer or scheduler.
        """
        content = read_checkpoint(path)
        modules = self._objective.modules
        if (content["scheduler"] is None) != (self.scheduler is None) or content["modules"].keys() != modules.keys():
            raise ValueError(
                "`BPTT.load(path=...)`: expected a checkpoint of a trainer with a scheduler, and a loss that is a module, "
                f"where this one has them, got {os.fspath(path)!r}"
            )
        before = {at: copy.deepcopy(module.state_dict()) for at, module in modules.items()}
        try:
            for at, module in modules.items():
                module.load_state_dict(content["modules"][at])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError) as error:
            for at, module in modules.items():  # what fits is taken before the error comes
                module.load_state_dict(before[at])
            raise ValueError(
                f"`BPTT.load(path=...)`: expected a checkpoint of this system and optimizer, got {os.fspath(path)!r}: {error}"
            ) from error
        if self.scheduler is not None:
            self.scheduler.load_state_dict(content["scheduler"])
        self.seed, self.updates = content["seed"], content["updates"]
        self._place = None if content["place"] is None else Place.of(content["place"])
        self.history = [Epoch(**epoch) for epoch in content["history"]]
        torch.set_rng_state(content["random"])
        if content["generator"] is not None and getattr(data, "generator", None) is not None:
            data.generator.set_state(content["generator"])


def _check_scheduler(scheduler: Any, every: str, optimizer: torch.optim.Optimizer) -> None:
    if every not in ("epoch", "update"):
        raise ValueError(f"`BPTT(scheduler_every=...)`: expected 'epoch' or 'update', got {every!r}")
    if scheduler is None:
        return
    if not hasattr(scheduler, "step") or not hasattr(scheduler, "optimizer"):
        raise TypeError(
            f"`BPTT(scheduler=...)`: expected one of torch.optim.lr_scheduler, got {type(scheduler).__name__}"
        )
    if scheduler.optimizer is not optimizer:
        raise ValueError("`BPTT(scheduler=...)`: expected a scheduler of `optimizer`, got one of another optimizer")
    if every == "update" and isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError("`BPTT(scheduler_every=...)`: expected 'epoch' for ReduceLROnPlateau, got 'update'")
