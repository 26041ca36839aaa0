"""Step-size control: error norms, the PI controller, and the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Trial
from bdtorch.integrate._coupling import Dense
from bdtorch.integrate._equation import blind
from bdtorch.integrate._scalars import scalars

Norm = Callable[[Tensor], Tensor]
"""Maps ``(*batch, n)`` to ``(*batch,)``."""

LEAST = math.log(1e-4)
"""The logarithm of the least error that the controller remembers: smaller ones say nothing about the next step."""


def rms_norm(x: Tensor) -> Tensor:
    """The root of the mean square."""
    return x.square().mean(-1).sqrt()


def max_norm(x: Tensor) -> Tensor:
    """The largest magnitude."""
    return x.abs().amax(-1)


@dataclass(frozen=True)
class PIController:
    r"""Chooses the next step from the error ``E`` of this one and of the last accepted one, in units of the tolerance.

    $$h' = h \cdot \min\big(f_{max}, \max(f_{min},\; s\,E^{-(1 - 3\beta/4)/k}\,E_{last}^{\beta/k})\big)$$

    with ``k`` the power with which the error estimate shrinks. A step of ``E > 1`` is rejected; the step after a
    rejection does not grow.

    Args:
        beta: Weight of the last error, in [0, 1]; 0 is the plain controller.
        safety: Factor ``s``, in (0, 1).
        shrink: Least factor, in (0, 1).
        grow: Largest factor, above 1.
        norm: Norm of the error: `rms_norm` or `max_norm`, or any function ``(*batch, n) -> (*batch,)``.

    Source: Gustafsson (1991), doi:10.1145/210232.210242; Hairer & Wanner (1996), section IV.2,
        doi:10.1007/978-3-642-05221-7.
    """

    beta: float = 0.2
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0
    norm: Norm = rms_norm

    def __post_init__(self) -> None:
        for name, low, high in (("safety", 0.0, 1.0), ("shrink", 0.0, 1.0), ("grow", 1.0, math.inf)):
            value = getattr(self, name)
            if not low < value < high:
                raise ValueError(f"`PIController({name}=...)`: expected a number in ({low:g}, {high:g}), got {value!r}")
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"`PIController(beta=...)`: expected a number in [0, 1], got {self.beta!r}")
        if not callable(self.norm):
            raise TypeError(f"`PIController(norm=...)`: expected a function of a tensor, got {self.norm!r}")

    def error(self, trial: Trial, before: Tensor, rtol: float, atol: Tensor) -> Tensor:
        """The error in units of the tolerance, ``(*batch,)``; infinite where it is no number. Carries no gradient."""
        after, number = trial.y.detach(), scalars(before)
        infinite = number(math.inf)
        scale = atol + torch.maximum(before.detach().abs(), after.abs()) * number(rtol)
        norms = [self.norm(error.detach() / scale) for error in trial.errors]
        ratio = norms[0]
        if len(norms) == 2:  # of DOP853: Hairer, Norsett & Wanner (1993), section II.10
            mixed = (norms[0].square() + 0.01 * norms[1].square()).sqrt()
            ratio = torch.where(mixed == 0, 0.0, norms[0].square() / torch.where(mixed == 0, 1.0, mixed))
        ratio = ratio + (after * number(0.0)).sum(-1)  # NaN where the solution is no number
        sound = ratio < infinite if trial.sound is None else (ratio < infinite) & trial.sound
        return torch.where(sound, ratio, infinite)

    def factor(self, size: Tensor, last: Tensor, rejected: Tensor, order: int) -> Tensor:
        """By how much to change the step, ``(*batch,)``.

        Args:
            size: Logarithm of the error.
            last: Logarithm of the last accepted one, at least `LEAST`.
            rejected: Whether the step before this one was rejected.
            order: Power with which the error shrinks.
        """
        # By logarithms and selections: loops make vector instructions of them, and calls of powers.
        number = scalars(size)
        exponent = last * number(self.beta) - size * number(1.0 - 0.75 * self.beta)
        wanted = torch.exp(exponent / number(order)) * number(self.safety)
        wanted = torch.where(wanted > number(self.shrink), wanted, number(self.shrink))
        limit = torch.where(rejected | (size > number(0.0)), torch.ones_like(wanted), number(self.grow))
        return torch.where(wanted < limit, wanted, limit)


def first_step(
    derivative: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    slope: Tensor,
    t: Tensor,
    order: int,
    rtol: float,
    atol: Tensor,
    norm: Norm,
    longest: Tensor,
) -> Tensor:
    """A first step from the size of the solution, its slope and its curvature, ``(*batch,)``.

    Source: Hairer, Norsett & Wanner (1993), section II.4, doi:10.1007/978-3-540-78862-1.
    """
    y, slope = y.detach(), slope.detach()
    scale = atol + rtol * y.abs()
    size, speed = norm(y / scale), norm(slope / scale)
    tiny = (size < 1e-5) | (speed < 1e-5)
    guess = torch.where(tiny, 1e-6, 0.01 * size / torch.where(speed == 0, 1.0, speed))
    guess = torch.minimum(guess.to(t.dtype), longest)
    ahead = y + guess.unsqueeze(-1).to(y.dtype) * slope
    curvature = norm((derivative(ahead, t + guess).detach() - slope) / scale) / guess.to(y.dtype)
    largest = torch.maximum(speed, curvature)
    straight = largest <= 1e-15
    power = (0.01 / torch.where(straight, 1.0, largest)).pow(1.0 / order)
    second = torch.where(straight, torch.maximum(torch.full_like(guess, 1e-6), guess * 1e-3), power.to(guess.dtype))
    second = torch.where(second.isfinite(), second, guess)
    return torch.minimum(torch.minimum(100.0 * guess, second), longest)


def checked_tolerance(atol: Any, y0: State, layout: Dense) -> Tensor:
    """The absolute tolerance as a row that broadcasts to the packed state."""
    flat, spec = tree.flatten(y0)
    given, given_spec = tree.flatten(atol)
    if given_spec != spec and len(given) == 1:
        given = given * len(flat)
    if len(given) != len(flat):
        raise ValueError(f"`odeint(atol=...)`: expected a number or the structure of y0, got {atol!r}")
    full: list[Tensor] = []
    for leaf, value in zip(flat, given, strict=True):
        row = torch.as_tensor(value, dtype=leaf.dtype, device=leaf.device).detach()
        if not blind() and not bool((row > 0).all() & row.isfinite().all()):
            raise ValueError(
                f"`odeint(atol=...)`: expected finite numbers above 0 in {leaf.dtype}, got {row.min().item():g} from {value!r}"
            )
        try:
            full.append(row.expand(leaf.shape))
        except RuntimeError:
            raise ValueError(
                f"`odeint(atol=...)`: expected a shape that broadcasts to {tuple(leaf.shape)}, got {tuple(row.shape)}"
            ) from None
    return layout.pack(tree.unflatten(full, spec))[0].contiguous()


def check_resolution(y: Tensor, rtol: float, atol: Tensor) -> None:
    """Reject tolerances below the rounding of the dtype: steps for them are so short that nothing is added to the solution."""
    rounding = 0.5 * torch.finfo(y.dtype).eps
    if rtol >= rounding or blind():
        return
    small = rtol * y.detach().abs() + atol < rounding * y.detach().abs()
    if bool(small.any()):
        size = float(y.detach().abs()[small][0])
        raise ValueError(
            f"`odeint(rtol=...)`: expected tolerances that {y.dtype} resolves, rtol |y| + atol of at least {rounding:.2g} |y|, "
            f"got rtol={rtol:g} and too small an atol where |y| is {size:g}"
        )
