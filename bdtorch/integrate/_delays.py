"""Delays: what a user may give, what they are at a time, and which breaks in the solution they carry forward."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State

_MOST_BREAKS = 10_000


@dataclass(frozen=True, eq=False)
class Lag:
    """One delay.

    Attributes:
        leaves: For each leaf of the state a delay that broadcasts against it; None where it is a function.
        function: ``delay(t, y, *args)``; None where it is constant.
        numbers: The distinct positive values of a constant delay, rising.
        zeros: Whether a constant delay is 0 for some components.
    """

    leaves: list[Tensor] | None
    function: Callable[..., Any] | None
    numbers: tuple[float, ...] = ()
    zeros: bool = False

    def at(self, t: Tensor, y: State, args: tuple[Any, ...]) -> list[Tensor]:
        """The delay of each leaf."""
        if self.leaves is not None:
            return self.leaves
        assert self.function is not None
        return _per_leaf(self.function(t, y, *args), y)


def _per_leaf(value: Any, y: State) -> list[Tensor]:
    flat, spec = tree.flatten(y)
    if isinstance(value, (Tensor, int, float)):
        return [torch.as_tensor(value, dtype=torch.float64, device=flat[0].device)] * len(flat)  # looked up once
    value = tree.aligned(value, y)
    given, given_spec = tree.flatten(value)
    if given_spec != spec or not all(isinstance(delay, (Tensor, int, float)) for delay in given):
        raise TypeError(f"`delays`: expected a delay, or delays in the structure of the state, got {value!r}")
    return [torch.as_tensor(delay, dtype=torch.float64, device=flat[0].device) for delay in tree.leaves(value)]


def checked_lags(door: str, name: str, delays: Any, y: State) -> tuple[Lag, ...]:
    """Delays as `Lag` objects.

    Raises:
        TypeError, ValueError: One is neither a number, a tensor, a tree like the state nor a function; or is negative,
            not finite, or of a shape that does not broadcast against the state.
    """
    if isinstance(delays, (int, float, Tensor, Mapping)) or callable(delays) or hasattr(delays, "_fields"):
        delays = (delays,)
    if not isinstance(delays, Sequence) or isinstance(delays, str):
        raise TypeError(f"`{door}({name}=...)`: expected a delay or a tuple of delays, got {delays!r}")
    return tuple(_checked_lag(f"`{door}({name}=...)`", delay, y) for delay in delays)


def _checked_lag(label: str, delay: Any, y: State) -> Lag:
    if callable(delay):
        return Lag(None, delay)
    if isinstance(delay, bool) or delay is None or isinstance(delay, str):
        raise TypeError(f"{label}: expected numbers, tensors or functions of (t, y, *args), got {delay!r}")
    try:
        leaves = _per_leaf(delay, y)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{label}: expected a delay or delays in the structure of the state, got {delay!r}") from None
    for (leaf_name, leaf), values in zip(tree.named_leaves(y), leaves, strict=True):
        try:
            shape = torch.broadcast_shapes(values.shape, leaf.shape)
        except RuntimeError:
            shape = torch.Size()
        if len(shape) < leaf.dim() or (leaf.dim() and shape[len(shape) - leaf.dim() :] != leaf.shape):
            of = f" for {leaf_name!r}" if leaf_name else ""
            want, got = tuple(leaf.shape), tuple(values.shape)
            raise ValueError(f"{label}: expected a shape that broadcasts against {want}, got {got}{of}")
    numbers = _numbers(label, delay, leaves)
    wrong = next((number for number in numbers if not 0.0 <= number < math.inf), None)
    if wrong is not None:
        raise ValueError(f"{label}: expected finite delays of at least 0, got {wrong:g}")
    distinct = sorted(set(numbers))
    return Lag(leaves, None, tuple(value for value in distinct if value > 0), distinct[0] == 0.0)


def _numbers(label: str, delay: Any, leaves: list[Tensor]) -> list[float]:
    """The values of a constant delay, which transforms and compilers must not hide."""
    given = tree.leaves(delay)
    if not any(isinstance(value, Tensor) for value in given):
        return [float(value) for value in given]
    hidden = torch._C._functorch.is_functorch_wrapped_tensor
    if torch.compiler.is_compiling() or any(hidden(values) for values in leaves):
        raise ValueError(
            f"{label}: expected numbers, or a function of (t, y, *args) with max_delay, under torch.func transforms and in "
            "compiled graphs, got tensors"
        )
    numbers: list[float] = torch.cat([values.detach().flatten() for values in leaves]).tolist()
    return numbers


def breaks(
    roots: Sequence[tuple[float, int]], lags: Sequence[float], neutral: Sequence[float], end: float, levels: int
) -> list[tuple[float, int]]:
    """Where derivatives of the solution jump, up to ``end``, with their levels, in order.

    A break of level k, a jump of the derivative of order k + 1, is carried by a delay to a break of level k + 1, and by
    a delayed slope to one of level k.

    Args:
        roots: Breaks to begin with.
        lags: Delays of values.
        neutral: Delays of slopes.
        end: The latest time.
        levels: The highest level of interest.

    Raises:
        ValueError: There are too many of them.

    Source: Bellen & Zennaro (2003), chapter 2, doi:10.1093/acprof:oso/9780198506546.001.0001.
    """
    found: list[tuple[float, int]] = []
    queue = list(roots)
    heapq.heapify(queue)
    while queue:
        time, level = heapq.heappop(queue)
        close = 1e-9 * max(1.0, abs(time))
        if any(known >= time - close and below <= level for known, below in reversed(found[-8:])):
            continue
        found.append((time, level))
        if len(found) > _MOST_BREAKS:
            raise ValueError(
                f"`ddeint(levels=...)`: expected fewer, or 0 for none, since {len(lags) + len(neutral)} delays carry "
                f"the break at t = {roots[0][0]:g} to more than {_MOST_BREAKS} places"
            )
        for lag in lags:
            if level < levels and time + lag <= end:
                heapq.heappush(queue, (time + lag, level + 1))
        for lag in neutral:
            if time + lag <= end:
                heapq.heappush(queue, (time + lag, level))
    merged: list[tuple[float, int]] = []
    for time, level in found:
        if not merged or time - merged[-1][0] > 1e-9 * max(1.0, abs(time)):
            merged.append((time, level))
    return merged
