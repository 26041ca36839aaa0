"""The solution at the output times, from the dense output of the steps that pass them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 14  # numbers that are evaluated at once: so many stay in the cache from one operation to the next


def concrete(x: Tensor) -> Tensor:
    """The numbers below the wrappers of `torch.func` transforms, for the questions that a loop must ask of them: how far the
    trajectories have come.
    """
    while _wrapped(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.detach()


class Outputs:
    """The rows of a solution, of which each chunk of trials fills some; what a trajectory never reaches is NaN.

    Args:
        times: ``(T,)``, rising.
        y: State at the first of them, ``(*batch, n)``.
    """

    def __init__(self, times: Tensor, y: Tensor) -> None:
        self.times, self.batch = times, y.shape[:-1]
        absent = torch.full_like(y, torch.nan).expand(len(times) - 1, *y.shape)
        self.table = torch.cat([y.unsqueeze(0), absent])

    def fill(self, seen: dict[str, Any]) -> None:
        """Evaluate the dense output at the times that these trials passed.

        Args:
            seen: Of each trial, stacked: ``t`` and ``after``, its ends, and ``step``, all ``(trials, *batch)``; ``y``, the
                state at its beginning, and ``powers``, the coefficients of the dense output, ``(trials, *batch, n)``.
        """
        if _wrapped(seen["after"]):
            self._fill_everywhere(seen)
            return
        trajectories = self.batch.numel()
        ends = torch.cat([seen["t"][:1], seen["after"]]).detach().reshape(-1)
        passed = torch.searchsorted(self.times, ends, right=True)  # output times up to each end
        before, within = passed[:-trajectories], passed[trajectories:] - passed[:-trajectories]
        all_steps = torch.repeat_interleave(within)  # number of the step for each output, in the order of the steps
        skipped = before - within.cumsum(0) + within  # its row, less its position among these
        rows = self.table.view(-1, self.table.shape[-1])
        done = 0
        for steps in all_steps.split(max(1, _BLOCK // max(1, rows.shape[-1]))):
            if len(steps):
                row = skipped.index_select(0, steps) + torch.arange(done, done + len(steps), device=steps.device)
                value = _evaluated(seen, steps, self.times.index_select(0, row))
                rows.index_copy_(0, row * trajectories + steps % trajectories, value)
                done += len(steps)

    def _fill_everywhere(self, seen: dict[str, Any]) -> None:
        """The same under `torch.func` transforms, where it is hidden which outputs are whose: evaluate all for all."""
        after, wanted = seen["after"], self.times.reshape(-1, *(1,) * len(self.batch))
        inside = (wanted > seen["t"][0]) & (wanted <= after[-1])
        passed = (after.unsqueeze(0) < wanted.unsqueeze(1)).sum(1).clamp(max=len(after) - 1)
        columns = torch.arange(self.batch.numel(), device=after.device).reshape(self.batch)
        steps = (passed * self.batch.numel() + columns).flatten()
        value = _evaluated(seen, steps, wanted.expand(inside.shape).flatten())
        self.table = torch.where(inside.unsqueeze(-1), value.reshape(self.table.shape), self.table)

    def finish(self, last: Tensor, arrived: Tensor) -> Tensor:
        """All rows, ``(T, *batch, n)``.

        Args:
            last: State that the trials ended with.
            arrived: For which trajectories that is at the last output time, ``(*batch,)``.
        """
        row = torch.where(arrived.unsqueeze(-1), last, self.table[-1])
        if _wrapped(row) or _wrapped(self.table):
            return torch.cat([self.table[:-1], row.unsqueeze(0)])
        self.table[-1] = row
        return self.table


def _evaluated(seen: dict[str, Any], steps: Tensor, wanted: Tensor) -> Tensor:
    """The dense output of steps with these numbers, ``(k,)``, counted through all trials, at wanted times; ``(k, n)``."""
    lead = seen["after"].dim()

    def picked(values: Tensor) -> Tensor:
        return values.reshape(-1, *values.shape[lead:]).index_select(0, steps)

    y, step = picked(seen["y"]), picked(seen["step"])
    theta = (wanted - picked(seen["t"])) / torch.where(step > 0.0, step, 1.0)
    theta = theta.clamp(0.0, 1.0).unsqueeze(-1).to(y.dtype)
    theta = theta.expand_as(y).contiguous()  # once, for whatever goes through short rows takes long
    value = torch.zeros_like(y)
    for power in reversed(seen["powers"]):
        value = (value + picked(power)) * theta
    return y + value


def _wrapped(x: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
