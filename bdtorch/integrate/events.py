"""Events: times where a function of the state passes through zero, found off the grid of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bdtorch._types import State
from bdtorch.integrate._base import IntegrationError

if TYPE_CHECKING:
    from bdtorch.integrate._adaptive import Driver, Walk

_BISECTIONS = 30
_POLISHES = 3
_PARTS = 4  # of a step that are looked at
_SOON = 1.0 / 1024.0  # of a step, after which something that rests on a zero is looked at
_CROWD, _MANY = 1e-8, 16  # of the run: resets less apart than that, so many in succession, will not end


@dataclass(frozen=True)
class Event:
    """Something that happens where ``function(t, y, *args)`` passes through zero.

    The crossing is bracketed by the ends of an accepted step, found on the dense output, and polished with steps of the
    method itself, so its time has the accuracy of the solution. Every step is looked at in four parts; a function that
    crosses twice within one of them goes unseen (see ``max_step`` of `odeint`).

    An event happens where the solution comes to the zero, not where it begins there: neither at the initial time, nor where a
    reset puts it. What a reset jumps over has not been crossed either. Events of the same time all happen, and their resets
    are made in the order in which the events are given. An output at the time of a reset is the state before it.

    Args:
        function: ``g(t, y, *args)``, with ``t`` of shape ``(*batch,)``; returns ``(*batch,)``.
        direction: 1 for crossings upwards, -1 for crossings downwards, 0 for both; as met along the integration.
        terminal: Whether the trajectory ends there.
        reset: ``reset(t, y, *args) -> y`` after the event, as a spike resets a neuron; default no change.
    """

    function: Callable[..., Tensor]
    direction: int = 0
    terminal: bool = False
    reset: Callable[..., State] | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"`Event(function=...)`: expected a function of (t, y, *args), got {self.function!r}")
        if isinstance(self.direction, bool) or self.direction not in (-1, 0, 1):
            raise ValueError(f"`Event(direction=...)`: expected -1, 0 or 1, got {self.direction!r}")
        if not isinstance(self.terminal, bool):
            raise TypeError(f"`Event(terminal=...)`: expected True or False, got {self.terminal!r}")
        if self.reset is not None and not callable(self.reset):
            raise TypeError(f"`Event(reset=...)`: expected a function of (t, y, *args) or None, got {self.reset!r}")
        if self.terminal and self.reset is not None:
            raise ValueError("`Event(reset=...)`: expected None where the event is terminal")


@dataclass(frozen=True, eq=False)
class Occurrences:
    """When and where an event happened, in the order of time within each trajectory.

    Attributes:
        t: ``(k,)`` times.
        y: The state just before any reset, each leaf with a leading axis of length ``k``.
        trajectory: ``(k, batch_dims)`` int64, the trajectory's index.
    """

    t: Tensor
    y: State
    trajectory: Tensor


@dataclass
class EventWatch:
    """Looks for events after every trial, and notes them.

    Attributes:
        events: What to look for.
        functions: Their functions on ``(*batch,)`` rising time and ``(*batch, n)``.
        resets: Their resets on the same, None where there is none.
        before: Their values at the beginning of the step; at a zero, the least number of the side to which they leave it.
        noted: ``(time, rows, trajectory)`` of every find, event by event.
        span: The length of the run.
        last: The time of the last reset of each trajectory.
        crowded: How many resets of each trajectory came hardly later than the one before.
    """

    events: tuple[Event, ...]
    functions: list[Callable[[Tensor, Tensor], Tensor]]
    resets: list[Callable[[Tensor, Tensor], Tensor] | None]
    before: list[Tensor] = field(default_factory=list)
    noted: list[list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=list)
    span: Tensor = field(default_factory=lambda: torch.zeros(()))
    last: Tensor = field(default_factory=lambda: torch.zeros(()))
    crowded: Tensor = field(default_factory=lambda: torch.zeros(()))

    def begin(self, walk: Walk) -> None:
        """Note the values at the start."""
        t, y = walk["t"], walk["y"]
        self.before = [self._left(k, function(t, y), t, y, walk["slope"]) for k, function in enumerate(self.functions)]
        self.noted = [[] for _ in self.events]
        self.span, self.last, self.crowded = walk["stop"] - t, torch.full_like(t, -torch.inf), torch.zeros_like(t)

    def _left(self, k: int, value: Tensor, t: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        """The value of event ``k``, where it is 0 with the sign that it is about to have."""
        value = value.detach()
        zero = value == 0
        if not bool(zero.any()):
            return value
        with torch.no_grad():
            rate = torch.func.jvp(self.functions[k], (t, y.detach()), (torch.ones_like(t), slope.detach()))[1]
        return torch.where(zero, torch.sign(rate) * torch.finfo(value.dtype).tiny, value)

    def look(self, driver: Driver, walk: Walk, seen: dict[str, Any]) -> tuple[Walk, dict[str, Any]]:
        """Find what happened in the last trial, cut the step where a reset or an end falls, and go on from there."""
        t, y = seen["t"][0], seen["y"][0]
        self.before = [self._peeked(k, before, seen) for k, before in enumerate(self.before)]
        walk, seen, end = self._shortened(driver, walk, seen)
        after = [function(walk["t"], walk["y"]) for function in self.functions]
        moved = seen["step"][0] > 0
        fired = [moved & _crossed(e, a, b) for e, a, b in zip(self.events, self.before, after, strict=True)]
        if not any(bool(mask.any()) for mask in fired):
            self.before = after
            return walk, seen
        step, powers = seen["step"][0], [power[0] for power in seen["powers"]]
        thetas = [
            torch.where(mask, self._found(k, driver, walk["args"], t, y, step, powers, end), torch.inf)
            if bool(mask.any()) else torch.full_like(t, torch.inf)
            for k, mask in enumerate(fired)
        ]  # fmt: skip
        cutting = [
            theta if event.terminal or event.reset is not None else torch.full_like(theta, torch.inf)
            for event, theta in zip(self.events, thetas, strict=True)
        ]
        cut = torch.stack(cutting).amin(0)
        walk, seen = self._resume(driver, walk, seen, cut, cutting, thetas, after)
        return walk, seen

    def _shortened(self, driver: Driver, walk: Walk, seen: dict[str, Any]) -> tuple[Walk, dict[str, Any], Tensor]:
        """The walk with steps in which a function crosses more than once ended after the first time, and the part left."""
        t, y, step, powers = seen["t"][0], seen["y"][0], seen["step"][0], [power[0] for power in seen["powers"]]
        end = torch.ones_like(t)
        with torch.no_grad():
            for function, before in zip(self.functions, self.before, strict=True):
                values = [before, *(function(t + part * step, _interpolated(y, powers, part)) for part in _parts(t))]
                negative = torch.stack(values) < 0
                changed = negative[1:] != negative[:-1]
                several = (changed.sum(0) > 1) & (walk["t"] > t)
                first = (changed.to(torch.int8).argmax(0) + 1).to(t.dtype) / _PARTS
                end = torch.where(several & (first < end), first, end)
        short = end < 1.0
        if not bool(short.any()):
            return walk, seen, end
        time = torch.where(short, t + end * step, walk["t"])
        state = torch.where(short.unsqueeze(-1), self._moved(driver, walk["args"], t, y, end * step), walk["y"])
        slope = torch.where(short.unsqueeze(-1), driver.rows(walk["args"])(state, time), walk["slope"])
        return {**walk, "t": time, "y": state, "slope": slope}, {**seen, "after": time.unsqueeze(0)}, end

    def _peeked(self, k: int, before: Tensor, seen: dict[str, Any]) -> Tensor:
        """The value of event ``k`` at the beginning of a step, or where it rests on 0 there, its value soon afterwards."""
        if not bool((before == 0).any()):
            return before
        t, y, step, powers = seen["t"][0], seen["y"][0], seen["step"][0], [power[0] for power in seen["powers"]]
        with torch.no_grad():
            soon = self.functions[k](t + _SOON * step, _interpolated(y, powers, torch.full_like(t, _SOON)))
        return torch.where(before == 0, soon, before)

    def _resume(
        self,
        driver: Driver,
        walk: Walk,
        seen: dict[str, Any],
        cut: Tensor,
        cutting: list[Tensor],
        thetas: list[Tensor],
        after: list[Tensor],
    ) -> tuple[Walk, dict[str, Any]]:
        t, y, step = seen["t"][0], seen["y"][0], seen["step"][0]
        for k, theta in enumerate(thetas):
            happened = theta.isfinite() & (theta <= cut)
            if bool(happened.any()):
                time = t + torch.where(happened, theta, 0.0) * step
                rows = self._moved(driver, walk["args"], t, y, torch.where(happened, theta, 0.0) * step)
                where = happened.nonzero()
                self.noted[k].append((time[happened], rows[happened], where))
        stopped = cut.isfinite()
        if not bool(stopped.any()):
            self.before = after
            return walk, seen
        part = torch.where(stopped, cut, 1.0) * step
        time = torch.where(stopped, t + part, walk["t"])
        state = torch.where(stopped.unsqueeze(-1), self._moved(driver, walk["args"], t, y, part), walk["y"])
        stop = walk["stop"]
        for event, reset, theta in zip(self.events, self.resets, cutting, strict=True):
            here = stopped & (theta == cut)
            if event.terminal:
                stop = torch.where(here, time, stop)
            elif reset is not None and bool(here.any()):
                state = torch.where(here.unsqueeze(-1), reset(time, state), state)
        slope = torch.where(stopped.unsqueeze(-1), driver.rows(walk["args"])(state, time), walk["slope"])
        self._check_crowd(time, stopped & (time < stop), driver.sign)
        anew = [function(time, state) for function in self.functions]
        # What lies on its zero after a reset has just crossed it, whatever the sign of the rounding error.
        anew = [
            torch.where(theta.isfinite() & (new.abs() <= 1e-10 * (old.abs() + late.abs())), 0.0, new)
            for theta, new, old, late in zip(thetas, anew, self.before, after, strict=True)
        ]
        self.before = [self._left(k, new, time, state, slope) for k, new in enumerate(anew)]
        walk = {**walk, "t": time, "y": state, "slope": slope, "stop": stop}
        return walk, {**seen, "after": time.unsqueeze(0)}

    def _check_crowd(self, time: Tensor, reset: Tensor, sign: float) -> None:
        """Give up where resets follow one another for ever without getting on."""
        time = time.detach()
        near = time - self.last <= _CROWD * self.span
        self.crowded = torch.where(reset, torch.where(near, self.crowded + 1, 0), self.crowded)
        self.last = torch.where(reset, time, self.last)
        if bool((self.crowded >= _MANY).any()):
            here = sign * float(time.flatten()[self.crowded.flatten().argmax()])
            raise IntegrationError(
                f"`odeint(events=...)`: resets follow one another without end at t = {here:g}, as where a bouncing ball "
                "comes to rest; let a terminal event end the trajectory there"
            )

    def _moved(self, driver: Driver, args: list[Any], t: Tensor, y: Tensor, part: Tensor) -> Tensor:
        """The solution after part of a step, by the method itself."""
        derivative = driver.rows(args)
        return driver.method.trial(derivative, y, derivative(y, t), t, part, False).y

    def _found(
        self,
        k: int,
        driver: Driver,
        args: list[Any],
        t: Tensor,
        y: Tensor,
        step: Tensor,
        powers: list[Tensor],
        end: Tensor,
    ) -> Tensor:
        """Where in the step, in [0, end], event ``k`` falls; differentiable."""
        function = self.functions[k]
        with torch.no_grad():
            low, high = torch.zeros_like(t), end
            sign = torch.sign(function(t + high * step, _interpolated(y, powers, high)))
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                late = torch.sign(function(t + middle * step, _interpolated(y, powers, middle))) == sign
                low, high = torch.where(late, low, middle), torch.where(late, middle, high)
            theta = 0.5 * (low + high)
        for number in range(_POLISHES):
            traced = number >= _POLISHES - 2  # the first of two gives gradients, and both together theirs
            with torch.set_grad_enabled(torch.is_grad_enabled() and traced):
                theta = self._polished(function, driver, args, t, y, step, theta)
        return theta

    def _polished(
        self, function: Any, driver: Driver, args: list[Any], t: Tensor, y: Tensor, step: Tensor, theta: Tensor
    ) -> Tensor:
        """One Newton step, whose derivative is that of the implicit function."""
        time, rows = t + theta * step, self._moved(driver, args, t, y, theta * step)
        rate = torch.func.jvp(function, (time, rows), (torch.ones_like(time), driver.rows(args)(rows, time)))[1]
        value = function(time, rows)
        change = value / torch.where(rate * step == 0, torch.inf, rate * step)
        return (theta - change).clamp(0.0, 1.0)


def _interpolated(y: Tensor, powers: list[Tensor], theta: Tensor) -> Tensor:
    value = torch.zeros_like(y)
    for power in reversed(powers):
        value = (value + power) * theta.unsqueeze(-1).to(y.dtype)
    return y + value


def _parts(t: Tensor) -> list[Tensor]:
    """The ends of the parts in which a step is looked at."""
    return [torch.full_like(t, (k + 1) / _PARTS) for k in range(_PARTS)]


def _crossed(event: Event, before: Tensor, after: Tensor) -> Tensor:
    up = (before < 0) & (after >= 0)
    down = (before > 0) & (after <= 0)
    return (up | down) if event.direction == 0 else (up if event.direction > 0 else down)
