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
from bdtorch.integrate.events import EventWatch

Rows = Callable[[Tensor, Tensor, list[Any]], Tensor]
"""``derivative(y, s, arguments)`` on ``(*batch, n)`` and ``(*batch,)``; ``s`` always grows."""

Walk = dict[str, Any]
"""What evolves from trial to trial: ``t``, ``h``, ``y``, ``slope``, ``last`` (logarithm of the error), ``rejected``, ``failed``,
``steps`` and ``rejections`` of each trajectory, ``stop`` (its end), ``atol`` and ``args`` (which stay)."""

_NEAR = 1e-20  # of the span: how near to time 0 steps may shrink with the time; a run may have to begin with tiny ones
_LARGEST = 1 << 26  # bytes of the records of one chunk


@dataclass(frozen=True)
class Tolerance:
    """How exact, and how far a solver may go for it; see `odeint`."""

    rtol: float
    controller: PIController
    first_step: float | None
    max_step: float
    max_steps: int


def concrete(x: Tensor) -> Tensor:
    """The numbers below the wrappers of `torch.func` transforms, for the one question that a loop must ask of them:
    whether any trajectory is still on its way.
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.detach()


@dataclass(frozen=True)
class Driver:
    """Adaptive solution of one equation by one method.

    Attributes:
        method: A method with an error estimate.
        rows: The derivative.
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
        remaining = stop - t
        active = (remaining > 0) & ~walk["failed"]
        step = torch.where(active, torch.minimum(h, remaining), 0.0)

        def derivative(z: Tensor, s: Tensor) -> Tensor:
            return self.rows(z, s, walk["args"])

        trial = self.method.trial(derivative, y, walk["slope"], t, step, self.dense)
        ratio = control.error(trial, y, rtol, walk["atol"])
        accepted = active & (ratio <= 1.0)
        refused = active & ~accepted
        size = torch.log(ratio)
        factor = control.factor(size, walk["last"], walk["rejected"], self.method.error_order)
        tried = torch.maximum(step, torch.where(accepted, 0.1 * h, 0.0))  # a step cut by the end says less
        wanted = tried * factor.to(h.dtype)
        if not math.isinf(self.tolerance.max_step):
            wanted = torch.where(wanted < self.tolerance.max_step, wanted, self.tolerance.max_step)
        after = torch.where(accepted, torch.where(step >= remaining, stop, t + step), t)
        floor = 8.0 * torch.finfo(t.dtype).eps * torch.maximum(t.abs(), _NEAR * stop.abs())
        wide = accepted.unsqueeze(-1)
        moved: Walk = {
            "t": after,
            "h": torch.where(active, wanted, h),
            "y": torch.where(wide, trial.y, y),
            "slope": torch.where(wide, trial.slope, walk["slope"]),
            "last": torch.where(accepted, torch.where(size > LEAST, size, LEAST), walk["last"]),
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
                lambda z, s: self.rows(z, s, args), y, slope, t, self.method.error_order, self.tolerance.rtol, atol,
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
        rows = [
            walk["y"].unsqueeze(0),
            torch.full_like(walk["y"], torch.nan).expand(len(outputs) - 1, *walk["y"].shape),
        ]
        table = torch.cat(rows)
        start, end = float(outputs[0]), float(outputs[-1])
        largest = 1 if watch else self._chunk(walk["y"], loop)
        pace = pace or Pace()
        trials, count = 0, min(max(4, int(0.75 * pace.density * (end - start))), largest)
        with Progress(end - start, progress, "odeint") as bar:
            while True:
                walk, seen = prepared(walk, (), trials, count)
                trials += count
                if watch:
                    walk, seen = watch.look(self, walk, seen)
                if self.dense:
                    table = _filled(table, outputs, seen)
                if bool(concrete(walk["failed"]).any()):
                    raise self._failure(walk, start)
                here = float(concrete(torch.where(walk["stop"] > walk["t"], walk["t"], end)).min())
                if not bool(concrete(walk["stop"] > walk["t"]).any()):
                    break
                if trials >= self.tolerance.max_steps:
                    raise IntegrationError(
                        f"`odeint(max_steps=...)`: {trials} steps were not enough, and reached t = {self.sign * here:g} of "
                        f"{self.sign * end:g}; " + self._advice(walk)
                    )
                bar.update(here - start)
                covered = max((here - start) / (end - start), 1e-3)
                left = trials * (1.0 / covered - 1.0)
                count = min(1 + int(0.75 * left), 4 * count, largest)  # few chunks, and seldom trials beyond the end
        pace.density = trials / (end - start)
        arrived = (walk["stop"] >= end).unsqueeze(-1)
        last = torch.where(arrived, walk["y"], table[-1]).unsqueeze(0)
        return torch.cat([table[:-1], last]), walk, trials

    def _advice(self, walk: Walk) -> str:
        y = concrete(walk["y"])
        finest = 10.0 * torch.finfo(y.dtype).eps * y.abs()
        if bool((concrete(walk["atol"]) + self.tolerance.rtol * y.abs() < finest).any()):
            return f"rtol={self.tolerance.rtol:g} and atol ask for more digits than {y.dtype} has"
        return "for a stiff equation take bdtorch.integrate.Rodas4()"

    def _chunk(self, y: Tensor, loop: TimeLoop) -> int:
        width = 9 if self.dense else 1
        return max(1, min(4 if isinstance(loop, PythonLoop) else 256, _LARGEST // max(1, width * 8 * y.numel())))

    def _failure(self, walk: Walk, start: float) -> Exception:
        if torch._C._are_functorch_transforms_active():
            return IntegrationError("`odeint`: the step became too small to go on, inside a torch.func transform")
        where = tuple(walk["failed"].nonzero()[0].tolist())
        t = float(walk["t"][where])
        peek = walk["h"] + 1e-9 * torch.maximum(walk["t"].abs(), _NEAR * walk["stop"].abs().clamp(min=abs(start)))
        ahead = walk["y"] + peek.unsqueeze(-1).to(walk["y"].dtype) * walk["slope"]
        bad = (~(self.rows(ahead, walk["t"] + peek, walk["args"]).isfinite() & ahead.isfinite()))[where].nonzero()
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


def _filled(table: Tensor, outputs: Tensor, seen: dict[str, Any]) -> Tensor:
    """Evaluate the dense output at the output times that these trials passed."""
    first, last = float(concrete(seen["t"][0]).min()), float(concrete(seen["after"][-1]).max())
    low = int(torch.searchsorted(outputs, first, right=True))
    high = int(torch.searchsorted(outputs, last, right=True))
    if high <= low:
        return table
    after = seen["after"].detach()
    trials, batch = after.shape[0], after.shape[1:]
    wanted = outputs[low:high].reshape(-1, *(1,) * len(batch))
    inside = (wanted > seen["t"][0]) & (wanted <= after[-1])
    passed = _passed(after, outputs[low:high]).clamp(max=trials - 1)
    rows = (passed * batch.numel() + torch.arange(batch.numel(), device=after.device)).flatten()

    def picked(values: Tensor) -> Tensor:
        rest = values.shape[after.dim() :]
        return values.reshape(-1, *rest).index_select(0, rows).reshape(high - low, *batch, *rest)

    step = picked(seen["step"])
    theta = (wanted - picked(seen["t"])) / torch.where(inside, step, 1.0)
    theta = theta.clamp(0.0, 1.0).unsqueeze(-1).to(table.dtype)
    value = torch.zeros_like(table[low:high])
    for power in reversed(seen["powers"]):
        value = (value + picked(power)) * theta
    value = picked(seen["y"]) + value
    block = torch.where(inside.unsqueeze(-1), value, table[low:high])
    return torch.cat([table[:low], block, table[high:]])


def _passed(after: Tensor, outputs: Tensor) -> Tensor:
    """How many of the trials end before each output time, ``(outputs, trajectories)``."""
    columns = after.reshape(len(after), -1)
    if torch._C._functorch.is_functorch_wrapped_tensor(after):  # for which there is no search
        return (columns.unsqueeze(0) < outputs.reshape(-1, 1, 1)).sum(1)
    wanted = outputs.detach().expand(columns.shape[1], -1)
    return torch.searchsorted(columns.t().contiguous(), wanted.contiguous()).t()


def unlimited(value: float | None) -> float:
    """None as infinity."""
    return math.inf if value is None else float(value)
