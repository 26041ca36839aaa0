"""Backpropagation through time: a thin trainer over `bdtorch.simulate`, `torch.optim` and `DataLoader`."""

from __future__ import annotations

import functools
import math
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bdtorch import _tree as tree
from bdtorch._files import replacing
from bdtorch._system import DynamicalSystem, initial_state
from bdtorch._types import State
from bdtorch.ops.random import fold
from bdtorch.simulate import Loop, Record, Solution, simulate
from bdtorch.train._pieces import (
    Means,
    Place,
    Unspread,
    check_batch,
    check_targets,
    checked_inputs,
    cut,
    extent,
    joined,
    pairs,
    recomputed,
    swapped,
)
from bdtorch.train.penalties import Penalty

_FORMAT = "bdtorch-training-1"


@dataclass
class Epoch:
    """What one pass over the data gave.

    Attributes:
        number: Counted from 1.
        loss: Mean training loss, penalties included.
        metrics: Mean of each metric on the training data.
        validation: Loss (without penalties) and metrics on the validation data.
        seconds: Wall time.
    """

    number: int
    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class BPTT:
    """Trains a system by gradients through time. It holds no magic: `step` is a simulation, a loss, a backward pass and
    an update, and may be called by itself.

    Batches are pairs ``(x, y)`` with the batch on the first axis, as a `DataLoader` collates them: ``x`` is
    ``(batch, time, ...)``, and the loss gets outputs ``(batch, time, ...)`` beside ``y`` as the loader gives it.

    Args:
        system: What to train.
        loss: ``loss(out, y)``, a scalar in torch operations.
        optimizer: Any of `torch.optim`, over the parameters to train (of `LBFGS` a step is one update).
        dt: Step, ms.
        loop: Time loop, as in `bdtorch.simulate`.
        truncate: Cut the gradient every so many steps and update after each piece; then ``y`` needs an axis time like
            ``x``. None goes through whole sequences.
        recompute: Keep only the states every so many steps and simulate each piece again in the backward pass, so that
            memory grows with the number of pieces; None keeps what every step needs.
        clip_norm: Largest norm of the whole gradient; None for none.
        penalties: Terms added to the training loss, such as `RatePenalty`.
        metrics: Functions of outputs and ``y`` to report, by name.
        record: What penalties need recorded, as in `bdtorch.simulate`.
        scheduler: Of `torch.optim.lr_scheduler`, advanced after each epoch (on the validation loss where it asks).
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
        truncate: int | None = None,
        recompute: int | None = None,
        clip_norm: float | None = None,
        penalties: Sequence[Penalty] = (),
        metrics: Mapping[str, Callable[[Tensor, Any], Any]] | None = None,
        record: Mapping[str, Record | Callable[[State, Any], Any]] | None = None,
        scheduler: Any = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(system, DynamicalSystem):
            raise TypeError(f"`BPTT(system=...)`: expected a DynamicalSystem, got {type(system).__name__}")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"`BPTT(optimizer=...)`: expected one of torch.optim, got {type(optimizer).__name__}")
        for name, value in (("truncate", truncate), ("recompute", recompute)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"`BPTT({name}=...)`: expected a positive number of steps or None, got {value!r}")
        if scheduler is not None and not hasattr(scheduler, "step"):
            raise TypeError(
                f"`BPTT(scheduler=...)`: expected one of torch.optim.lr_scheduler, got {type(scheduler).__name__}"
            )
        if clip_norm is not None and not (isinstance(clip_norm, (int, float)) and 0.0 < clip_norm < math.inf):
            raise ValueError(f"`BPTT(clip_norm=...)`: expected a finite number above 0 or None, got {clip_norm!r}")
        if not callable(loss):
            raise TypeError(f"`BPTT(loss=...)`: expected a function of outputs and y, got {loss!r}")
        self.system, self.loss, self.optimizer = system, loss, optimizer
        self.dt, self.loop, self.truncate, self.recompute = dt, loop, truncate, recompute
        self.clip_norm, self.penalties, self.metrics = clip_norm, tuple(penalties), dict(metrics or {})
        self.record, self.scheduler, self.seed = dict(record or {}), scheduler, seed
        self.updates = 0
        self._still: set[str] = set()  # parameters without a gradient so far
        self._place: Place | None = None  # within an epoch that is not over
        self.history: list[Epoch] = []

    # One batch

    def step(self, x: Any, y: Any) -> tuple[float, dict[str, float]]:
        """Train on one batch; returns its loss, penalties included, and its metrics.

        Raises:
            ValueError: The loss is no scalar, a parameter gets no gradient, or lengths do not fit.
            FloatingPointError: The loss is NaN or infinite; nothing was updated by the piece that gave it.
        """
        inputs = checked_inputs(x, "step")
        check_batch(x, y, "step")
        steps = extent(inputs)
        piece = steps if self.truncate is None else self.truncate
        if self.truncate is not None:
            check_targets(y, steps)
        state = self._initial_state(inputs)
        total, outs = 0.0, []
        self.system.train()
        for start in range(0, steps, piece):
            stop = min(start + piece, steps)
            target = y if self.truncate is None else cut(y, start, stop, axis=1)
            sol, out, loss = self._update(cut(inputs, start, stop), state, start * self.dt, target)
            total += float(loss.detach()) * (stop - start) / steps
            outs.append(tree.map(torch.Tensor.detach, out))
            state = tree.map(torch.Tensor.detach, sol.state)
        out = tree.map(lambda *parts: torch.cat(parts, 1), *outs) if len(outs) > 1 else outs[0]
        return total, self._measure(out, y)

    def _initial_state(self, inputs: Any) -> State:
        batch = tree.tensors(inputs)[0].shape[1]
        return initial_state(self.system, (batch,), dt=self.dt, seed=fold(self.seed, str(self.updates)))

    def _update(self, inputs: Any, state: State, t0: float, target: Any) -> tuple[Solution, Any, Tensor]:
        found: list[tuple[Solution, Any, Tensor]] = []

        def gradient() -> Tensor:
            sol = self._simulate(inputs, state, t0)
            out = swapped(sol.out)
            loss = self._loss(out, target)
            for penalty in self.penalties:
                term = penalty(self.system, sol)
                if not isinstance(term, Tensor) or term.dim():
                    raise ValueError(f"`BPTT(penalties=...)`: expected scalars, got {term!r} of {penalty!r}")
                loss = loss + term
            self._backward(loss)
            found.append((sol, out, loss))
            return loss

        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(gradient)
        else:
            gradient()
            self.optimizer.step()
        self.updates += 1
        return found[0]

    def _backward(self, loss: Tensor) -> None:
        if not bool(loss.detach().isfinite()):
            raise FloatingPointError(
                f"`BPTT`: the loss of update {self.updates + 1} is {loss.item()}; nothing was updated"
            )
        if not loss.requires_grad:
            raise ValueError(
                "`BPTT(loss=...)`: expected a loss that depends on parameters which require gradients, got one that does not"
            )
        self.optimizer.zero_grad()
        loss.backward()
        if self.updates < 2:
            self._check_gradients()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.clip_norm)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _check_gradients(self) -> None:
        names = {id(p): name for name, p in self.system.named_parameters()}
        idle = [names.get(id(p), "?") for p in self._parameters() if p.requires_grad and p.grad is None]
        if idle:
            raise ValueError(
                f"`BPTT(optimizer=...)`: expected every parameter to get a gradient, got none for {', '.join(idle)}; "
                "do spikes have a surrogate, and does the loss depend on them?"
            )
        still = {names.get(id(p), "?") for p in self._parameters() if p.grad is not None and not bool(p.grad.any())}
        # Weights of a readout that are zero at first let no gradient through before they have changed.
        self._still = still if not self.updates else self._still & still
        if self.updates and self._still:
            warnings.warn(
                f"`BPTT`: the first two gradients of {', '.join(sorted(self._still))} are zero everywhere; do spikes have a "
                "surrogate, and do neurons come near their thresholds?",
                stacklevel=4,
            )

    def _loss(self, out: Any, y: Any) -> Tensor:
        try:
            with Unspread(y):
                loss = self.loss(out, y)
        except (RuntimeError, ValueError) as error:
            shapes = [
                tree.map(lambda leaf: tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf, v) for v in (out, y)
            ]
            raise ValueError(f"`BPTT(loss=...)`: failed for outputs {shapes[0]} and y {shapes[1]}: {error}") from error
        if not isinstance(loss, Tensor) or loss.dim():
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"`BPTT(loss=...)`: expected a scalar, got {got}")
        return loss

    def _measure(self, out: Any, y: Any) -> dict[str, float]:
        with torch.no_grad():
            values = {name: metric(out, y) for name, metric in self.metrics.items()}
        for name, value in values.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(
                    f"`BPTT(metrics={{{name!r}: ...}})`: expected a number, got shape {tuple(value.shape)}"
                )
        return {name: float(value) for name, value in values.items()}

    # Simulation, whole or in pieces that are taken again in the backward pass

    def _simulate(self, inputs: Any, state: State, t0: float) -> Solution:
        if self.recompute is None or not torch.is_grad_enabled():
            return self._piece(inputs, state, t0)
        steps, solutions = extent(inputs), []
        for start in range(0, steps, self.recompute):
            part = cut(inputs, start, min(start + self.recompute, steps))
            at = t0 + start * self.dt
            solutions.append(recomputed(functools.partial(self._piece, part, t0=at), state))
            state = solutions[-1].state
        return joined(solutions)

    def _piece(self, inputs: Any, state: State, t0: float) -> Solution:
        return simulate(
            self.system,
            inputs,
            dt=self.dt,
            state=state,
            t0=t0,
            record=self.record,
            keep_out=True,
            loop=self.loop,
            progress=False,
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
            after_batch: Likewise, with the number of batches of this epoch so far.

        Returns:
            The history, also in ``history``.
        """
        from tqdm.auto import tqdm  # takes a while to import

        if isinstance(epochs, bool) or not isinstance(epochs, int):
            raise TypeError(f"`BPTT.fit(epochs=...)`: expected a whole number, got {epochs!r}")
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
        for x, y in place.rest(pairs(data, "fit"), data):
            loss, metrics = self.step(x, y)
            place.means.add({"loss": loss, **metrics}, extent(x))
            place.batches += 1
            if after is not None and after(place.batches):
                return None
        means, self._place = place.means, None
        values = means.result("fit(data=...)")
        checked = self.evaluate(validation) if validation is not None else {}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(checked.get("loss", values["loss"]))
        elif self.scheduler is not None:
            self.scheduler.step()
        return Epoch(number, values.pop("loss"), values, checked, time.perf_counter() - began)

    @torch.no_grad()
    def evaluate(self, data: Iterable[Any]) -> dict[str, float]:
        """Loss (without penalties) and metrics, means over the samples of ``data``."""
        self.system.eval()
        means = Means()
        for x, y in pairs(data, "evaluate"):
            inputs = checked_inputs(x, "evaluate")
            check_batch(x, y, "evaluate")
            out = swapped(self._piece(inputs, self._initial_state(inputs), 0.0).out)
            means.add({"loss": float(self._loss(out, y)), **self._measure(out, y)}, extent(x))
        return means.result("evaluate(data=...)")

    # Checkpoints

    def save(self, path: str | os.PathLike[str], data: Any = None) -> None:
        """Write everything that training goes on from, whole or not at all: weights, optimizer, scheduler, history, the
        place within the epoch, torch's random state, and that of ``data.generator`` where the `DataLoader` has one.
        """
        generator = getattr(data, "generator", None)
        content = {
            "format": _FORMAT,
            "system": self.system.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
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
            ValueError: It is no such checkpoint.
        """
        try:
            content = torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
            content = None
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(
                f"`BPTT.load(path=...)`: expected a checkpoint of format {_FORMAT!r}, got {os.fspath(path)!r}"
            )
        self.system.load_state_dict(content["system"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.scheduler is not None and content["scheduler"] is not None:
            self.scheduler.load_state_dict(content["scheduler"])
        self.updates = content["updates"]
        self._place = None if content.get("place") is None else Place.of(content["place"])
        self.history = [Epoch(**epoch) for epoch in content["history"]]
        torch.set_rng_state(content["random"])
        if content["generator"] is not None and getattr(data, "generator", None) is not None:
            data.generator.set_state(content["generator"])
