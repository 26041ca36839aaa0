"""What a trainer differentiates: the loss of a simulation, whole or in pieces that are taken again going backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.simulate import Loop, Record, Solution, simulate
from bdtorch.train._checks import above_zero, whole
from bdtorch.train._pieces import checked_loss, cut, extent, joined, recomputed, swapped
from bdtorch.train.penalties import Penalty


class Objective:
    """A loss with penalties, and metrics, of what a system puts out. Arguments are those of `BPTT`."""

    def __init__(
        self,
        system: DynamicalSystem,
        loss: Callable[[Tensor, Any], Tensor],
        *,
        dt: float,
        loop: str | Loop,
        recompute: int | None,
        penalties: Sequence[Penalty],
        metrics: Mapping[str, Callable[[Tensor, Any], Any]] | None,
        record: Mapping[str, Record | Callable[[State, Any], Any]] | None,
    ) -> None:
        if not isinstance(system, DynamicalSystem):
            raise TypeError(f"`BPTT(system=...)`: expected a DynamicalSystem, got {type(system).__name__}")
        if not callable(loss):
            raise TypeError(f"`BPTT(loss=...)`: expected a function of outputs and y, got {loss!r}")
        for name, given in (("metrics", metrics), ("record", record)):
            if given is not None and not isinstance(given, Mapping):
                raise TypeError(f"`BPTT({name}=...)`: expected a mapping by name, got {type(given).__name__}")
        if not isinstance(penalties, Sequence) or not all(callable(penalty) for penalty in penalties):
            raise TypeError(f"`BPTT(penalties=...)`: expected a sequence of penalties, got {penalties!r}")
        for name, metric in (metrics or {}).items():
            if name == "loss":
                raise ValueError("`BPTT(metrics=...)`: expected another name than 'loss', which is the loss's own")
            if not callable(metric):
                raise TypeError(f"`BPTT(metrics={{{name!r}: ...}})`: expected a function, got {metric!r}")
        self.system, self.function, self.loop = system, loss, loop
        self.dt = above_zero(dt, "BPTT(dt=...)")
        self.recompute = None if recompute is None else whole(recompute, "BPTT(recompute=...)")
        self.penalties, self.metrics, self.record = tuple(penalties), dict(metrics or {}), dict(record or {})

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The system, and the loss where it is a module too, by what their parameters' names begin with."""
        return {"": self.system, **({"loss.": self.function} if isinstance(self.function, nn.Module) else {})}

    def train(self, mode: bool) -> None:
        """Put the modules into the mode for training, or for evaluation."""
        for module in self.modules.values():
            module.train(mode)

    def value(self, inputs: Any, state: State, t0: float, target: Any) -> tuple[Solution, Any, Tensor]:
        """The solution, its output with the batch first, and the loss with penalties, to be differentiated."""
        sol = self._simulate(inputs, state, t0)
        out = swapped(sol.out)
        loss = self.loss(out, target)
        for penalty in self.penalties:
            term = penalty(self.system, sol)
            if not isinstance(term, Tensor) or term.dim():
                raise ValueError(f"`BPTT(penalties=...)`: expected scalars, got {term!r} of {penalty!r}")
            loss = loss + term
        return sol, out, loss

    def loss(self, out: Any, y: Any) -> Tensor:
        """The loss alone, checked."""
        return checked_loss(self.function, out, y, "BPTT(loss=...)", "y")

    @torch.no_grad()
    def measure(self, out: Any, y: Any) -> dict[str, float]:
        """The metrics."""
        values = {name: metric(out, y) for name, metric in self.metrics.items()}
        for name, value in values.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(
                    f"`BPTT(metrics={{{name!r}: ...}})`: expected a number, got shape {tuple(value.shape)}"
                )
        return {name: float(value) for name, value in values.items()}

    def _simulate(self, inputs: Any, state: State, t0: float) -> Solution:
        if self.recompute is None:
            return self.piece(inputs, state, t0)
        steps, solutions = extent(inputs), []
        for start in range(0, steps, self.recompute):
            part = cut(inputs, start, min(start + self.recompute, steps))
            at = t0 + start * self.dt
            solutions.append(recomputed(functools.partial(self.piece, part, t0=at), state))
            state = solutions[-1].state
        return joined(solutions)

    def piece(self, inputs: Any, state: State, t0: float) -> Solution:
        """A simulation that keeps its output."""
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
        ).whole()
