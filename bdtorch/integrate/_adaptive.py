"""The adaptive driver: trials of steps, each trajectory with a step of its own, until all have arrived."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch.integrate._base import Adaptive, IntegrationError
from bdtorch.integrate._control import LEAST, PIController, first_step
from bdtorch.integrate._loop import Pace, Prepared, Progress, PythonLoop, TimeLoop
from bdtorch.integrate._outputs import Outputs, concrete
from bdtorch.integrate._scalars import scalars
from bdtorch.integrate.events import EventWatch

Rows = Callable[[list[Any]], Callable[[Tensor, Tensor], Tensor]]
"""``rows(arguments)`` is a derivative ``f(y, s)`` on ``(*batch, n)`` and ``(*batch,)``; ``s`` always grows."""

Walk = dict[str, Any]
"""What evolves from trial to trial: ``t``, ``h``, ``y``, ``slope``, ``last`` (logarithm of the error), ``rejected``, ``failed``,
``steps`` and ``rejections`` of each trajectory, ``stop`` (its end), ``atol`` and ``args`` (which stay)."""

_NEAR = 1e-20  # of the span: how near to time 0 steps may shrink with the time; a run may have to begin with tiny ones
_LARGEST = 1 << 25  # bytes of the records of one chunk


@dataclass(frozen=True)
class Tolerance:
    """How exact, and how far a solver may go for it; see `odeint`."""

    rtol: float
    controller: PIController
    first_step: float | None
    max_step: float
    max_steps: int


class Chunks:
    """How many trials to make before looking at the outcome: as many as leave few chunks, and seldom trials beyond the end.

    Args:
        span: Length of the run.
        pace: How many trials earlier runs took.
        most: Trials of a chunk at most.
    """

    def __init__(self, span: float, pace: Pace, most: int) -> None:
        self.span, self.pace, self.most = span, pace, most
        self.trials = 0  # made so far
        self.count = min(max(4, int(0.75 * pace.density * span)), most)  # of the next chunk

    def made(self) -> None:
        """Note that the trials of a chunk have been made."""
        self.trials += self.count

    def plan(self, covered: float) -> None:
        """Choose the next chunk, given how much of the span the last of the trajectories has covered."""
        left = self.trials * (self.span / max(covered, 1e-3 * self.span) - 1.0)
        self.count = min(1 + int(0.75 * left), 4 * self.count, self.most)

    def end(self) -> int:
        """Remember the pace, and say how many trials it took."""
        self.pace.density = self.trials / self.span
        return self.trials


@dataclass(frozen=True)
class Driver:
    """Adaptive solution of one equation by one method.

    Attributes:
        method: A method with an error estimate.
        rows: The derivative, given its further arguments.
        tolerance: How exact.
        dense: Whether outputs lie between the ends.
        name: What an error calls a component, given its number.
        sign: By what errors multiply times: -1 where the true time falls.
    """

    method: Adaptive
    rows: Rows
    tolerance: Tolerance
    dense: bool
    name: Callable[[int], str]
    sign: float = 1.0

    def attempt(self, walk: Walk, slices: Any, number: Tensor) -> tuple[Walk, dict[str, Any]]:
        """Try one step of every trajectory that has not arrived: a pure step for a `TimeLoop`."""
        t, h, y, stop = walk["t"], walk["h"], walk["y"], walk["stop"]
        control, rtol = self.tolerance.controller, self.tolerance.rtol
        of_time, of_state = scalars(h), scalars(y)
        remaining = stop - t
        active = (remaining > of_time(0.0)) & ~walk["failed"]
        step = torch.where(active, torch.minimum(h, remaining), of_time(0.0))
        trial = self.method.trial(self.rows(walk["args"]), y, walk["slope"], t, step, self.dense)
        ratio = control.error(trial, y, rtol, walk["atol"])
        accepted = active & (ratio <= of_state(1.0))
        refused = active & ~accepted
        size, least = torch.log(ratio), of_state(LEAST)
        factor = control.factor(size, walk["last"], walk["rejected"], self.method.error_order)
        tried = torch.maximum(
            step, torch.where(accepted, h * of_time(0.1), of_time(0.0))
        )  # a step cut by the end says less
        wanted = tried * factor.to(h.dtype)
        if not math.isinf(self.tolerance.max_step):
            wanted = torch.where(wanted < self.tolerance.max_step, wanted, self.tolerance.max_step)
        after = torch.where(accepted, torch.where(step >= remaining, stop, t + step), t)
        floor = torch.maximum(t.abs(), stop.abs() * of_time(_NEAR)) * of_time(8.0 * torch.finfo(t.dtype).eps)
        wide = accepted.unsqueeze(-1)
        moved: Walk = {
            "t": after,
            "h": torch.where(active, wanted, h),
            "y": torch.where(wide, trial.y, y),
            "slope": torch.where(wide, trial.slope, walk["slope"]),
            "last": torch.where(accepted, torch.where(size > least, size, least), walk["last"]),
            "rejected": refused,
            "failed": walk["failed"] | (refused & (wanted < floor)),
            "steps": walk["steps"] + accepted,
            "rejections": walk["rejections"] + refused,
            "stop": stop,
            "atol": walk["atol"],
            "args": walk["args"],
        }
        seen = (
            {"t": t, "after": after, "step": step, "y": y, "powers": trial.powers} if self.dense else {"after": after}
        )
        return moved, seen

    def begin(self, y: Tensor, start: float, end: float, atol: Tensor, args: list[Any], slope: Tensor) -> Walk:
        """The walk before its first trial."""
        batch = y.shape[:-1]
        t = torch.full(batch, start, dtype=torch.float64, device=y.device)
        limit = min(self.tolerance.max_step, end - start)
        longest = torch.full_like(t, limit)
        if self.tolerance.first_step is None:
            control = self.tolerance.controller
            h = first_step(
                self.rows(args), y, slope, t, self.method.error_order, self.tolerance.rtol, atol,
                control.norm, longest,
            )  # fmt: skip
        else:
            h = torch.full_like(t, min(self.tolerance.first_step, limit))
        none = torch.zeros(batch, dtype=torch.bool, device=y.device)
        count = torch.zeros(batch, dtype=torch.int64, device=y.device)
        return {
            "t": t, "h": h, "y": y, "slope": slope, "last": torch.zeros(batch, dtype=y.dtype, device=y.device),
            "rejected": none, "failed": none, "steps": count, "rejections": count,
            "stop": torch.full_like(t, end), "atol": atol, "args": args,
        }  # fmt: skip

    def run(
        self,
        walk: Walk,
        outputs: Tensor,
        *,
        loop: TimeLoop,
        prepared: Prepared,
        watch: EventWatch | None = None,
        progress: bool | None = None,
        pace: Pace | None = None,
    ) -> tuple[Tensor, Walk, int]:
        """Walk to the last of the output times.

        Args:
            walk: Where to begin.
            outputs: ``(T,)`` times, rising; the first is the beginning.
            loop: What ``prepared`` was made of.
            prepared: `attempt`, made ready.
            watch: Events to look for after every trial.
            progress: Show a bar; default where the run takes long.
            pace: How many trials earlier runs took, by which to guess how many to begin with.

        Returns:
            ``(T, *batch, n)``, NaN after the end of a trajectory that an event ended; the last walk; and the number of
            trials.

        Raises:
            IntegrationError: A step became too small, or there were too many.
        """
        start, end = float(outputs[0]), float(outputs[-1])
        table = Outputs(outputs, walk["y"])
        chunks = Chunks(end - start, pace or Pace(), 1 if watch else self._most_trials(walk["y"], loop))
        with Progress(end - start, progress, "odeint") as bar:
            while True:
                walk, seen = prepared(walk, (), chunks.trials, chunks.count)
                chunks.made()
                if watch:
                    walk, seen = watch.look(self, walk, seen)
                if self.dense:
                    table.fill(seen)
                if bool(concrete(walk["failed"]).any()):
                    raise self._failure(walk, start)
                here = float(concrete(torch.where(walk["stop"] > walk["t"], walk["t"], torch.inf)).min())
                if math.isinf(here):
                    break
                if chunks.trials >= self.tolerance.max_steps:
                    raise self._exhaustion(walk, chunks.trials, here, end)
                bar.update(here - start)
                chunks.plan(here - start)
        return table.finish(walk["y"], walk["stop"] >= end), walk, chunks.end()

    def _exhaustion(self, walk: Walk, trials: int, here: float, end: float) -> Exception:
        return IntegrationError(
            f"`odeint(max_steps=...)`: {trials} steps were not enough, and reached t = {self.sign * here:g} of "
            f"{self.sign * end:g}; " + self._advice(walk)
        )

    def _advice(self, walk: Walk) -> str:
        y = concrete(walk["y"])
        finest = 10.0 * torch.finfo(y.dtype).eps * y.abs()
        if bool((concrete(walk["atol"]) + self.tolerance.rtol * y.abs() < finest).any()):
            return f"rtol={self.tolerance.rtol:g} and atol ask for more digits than {y.dtype} has"
        return "for a stiff equation take bdtorch.integrate.Rodas4()"

    def _most_trials(self, y: Tensor, loop: TimeLoop) -> int:
        """Trials of a chunk: their records are to stay in memory that is quickly at hand."""
        width = 9 if self.dense else 1
        return max(1, min(8 if isinstance(loop, PythonLoop) else 256, _LARGEST // max(1, width * 8 * y.numel())))

    def _failure(self, walk: Walk, start: float) -> Exception:
        if torch._C._are_functorch_transforms_active():
            return IntegrationError("`odeint`: the step became too small to go on, inside a torch.func transform")
        where = tuple(walk["failed"].nonzero()[0].tolist())
        t = float(walk["t"][where])
        peek = walk["h"] + 1e-9 * torch.maximum(walk["t"].abs(), _NEAR * walk["stop"].abs().clamp(min=abs(start)))
        ahead = walk["y"] + peek.unsqueeze(-1).to(walk["y"].dtype) * walk["slope"]
        bad = (~(self.rows(walk["args"])(ahead, walk["t"] + peek).isfinite() & ahead.isfinite()))[where].nonzero()
        of = f" of trajectory {where if len(where) > 1 else where[0]}" if where else ""
        if len(bad):
            return FloatingPointError(
                f"`odeint(f=...)`: the derivative becomes NaN or infinite just after t = {self.sign * t:g}, "
                f"in {self.name(int(bad[0]))}{of}"
            )
        largest = int(walk["y"][where].abs().argmax())
        value = float(walk["y"][where][largest])
        return IntegrationError(
            f"`odeint`: the step fell below what t = {self.sign * t:g} can resolve{of}; the solution may have a singularity "
            f"there ({self.name(largest)} is {value:g}), or the tolerance asks for more than the dtype has"
        )


def unlimited(value: float | None) -> float:
    """None as infinity."""
    return math.inf if value is None else float(value)
