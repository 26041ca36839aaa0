"""The past of a solution: polynomials in steps, how they are made, and how they are kept and looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate._base import Derivative, hermite
from bdtorch.integrate._equation import blind

_NUDGE = 1e-6  # of a step: rounding errors stay far below it

Pieces = list[Tensor]
"""For each leaf, polynomials in steps: ``(steps, powers, *shape)``."""

Powers = tuple[Tensor, ...]
"""Coefficients of ``1, theta, theta^2, ...`` of one polynomial for each element."""


# Making polynomials


def piece(
    degree: int, derivative: Derivative, y: State, slope: State, after: State, t: Tensor, h: float | Tensor
) -> Pieces:
    """The polynomial of ``theta`` in [0, 1] that a step from ``y`` to ``after`` leaves behind, ``(degree + 1, *shape)``.

    Up to degree 3 it meets the values and slopes at the ends (Hermite). Each further degree meets the derivative at
    further points, where it is evaluated on the polynomial of one degree less (bootstrapping). Its error shrinks as
    ``h ** (degree + 1)``, whatever the method, as long as the method's own error allows.

    Source: Enright, Jackson, Norsett & Thomsen (1986), doi:10.1145/7921.7923.
    """
    start, spec = tree.flatten(y)
    end, slopes = tree.leaves(after), tree.leaves(slope)
    if degree == 1:
        return [torch.stack([a, b - a]) for a, b in zip(start, end, strict=True)]
    if degree == 2:
        rows = [(a, h * k, b - a - h * k) for a, k, b in zip(start, slopes, end, strict=True)]
        return [torch.stack(row) for row in rows]
    ahead = tree.leaves(derivative(after, t + h))
    cubics = [(a, *hermite(a, b, h, k, m)) for a, b, k, m in zip(start, end, slopes, ahead, strict=True)]  # type: ignore[arg-type]

    def slopes_at(known: list[Powers], theta: float) -> list[Tensor]:
        here = tree.unflatten([evaluate(p, theta) for p in known], spec)
        return [h * k for k in tree.leaves(derivative(here, t + theta * h))]

    return [torch.stack(powers) for powers in bootstrap(degree, cubics, slopes_at)]


def bootstrap(
    degree: int, cubics: list[Powers], slopes_at: Callable[[list[Powers], float], list[Tensor]]
) -> list[Powers]:
    """Raise cubics that meet values and slopes at the ends of a step to a degree of up to 5.

    Args:
        degree: At least 3.
        cubics: The cubic of each variable.
        slopes_at: ``slopes_at(polynomials, theta)``, the derivative on the polynomials, times the step.

    Source: Enright, Jackson, Norsett & Thomsen (1986), doi:10.1145/7921.7923.
    """
    if degree == 3:
        return cubics

    def excess(known: list[Powers], theta: float) -> list[Tensor]:
        """By how much the derivative on polynomials exceeds the slope of the cubics."""
        return [k - _evaluate_slope(p, theta) for k, p in zip(slopes_at(known, theta), cubics, strict=True)]

    (a, b), (c, d) = _bend(_THETA), _bend(1.0 - _THETA)
    quartics: list[Powers] = [
        (p[0], p[1], p[2] + r / a, p[3] - 2.0 * r / a, r / a)
        for p, r in zip(cubics, excess(cubics, _THETA), strict=True)
    ]
    if degree == 4:
        return quartics
    result: list[Powers] = []
    for p, r, s in zip(cubics, excess(quartics, _THETA), excess(quartics, 1.0 - _THETA), strict=True):
        even, odd = (d * r - b * s) / (a * d - b * c), (a * s - c * r) / (a * d - b * c)
        result.append((p[0], p[1], p[2] + even, p[3] - 2.0 * even + odd, even - 2.0 * odd, odd))
    return result


BOOTSTRAP_EVALUATIONS = {4: 1, 5: 3}
"""Evaluations of the derivative that `bootstrap` takes to reach a degree above 3."""


def smooth(
    degree: int, derivative: Callable[[Tensor, Tensor], Tensor], y: Tensor, cubic: Powers, t: Tensor, h: Tensor
) -> Powers:
    """The powers of theta of the dense output of an adaptive step, raised from its cubic to ``degree``.

    Args:
        degree: Up to 5.
        derivative: ``f(y, t)`` on ``(*batch, n)`` and ``(*batch,)``.
        y: ``(*batch, n)`` at the beginning.
        cubic: Its powers from the first on.
        t: ``(*batch,)``.
        h: ``(*batch,)``.
    """
    step = h.unsqueeze(-1).to(y.dtype)

    def slopes_at(known: list[Powers], theta: float) -> list[Tensor]:
        return [step * derivative(evaluate(known[0], theta), t + theta * h)]

    return bootstrap(max(3, degree), [(y, *cubic)], slopes_at)[0][1:]


_THETA = 0.2113248654051871  # (1 - 1/sqrt(3)) / 2, where the slope of theta^2 (1 - theta)^2 is largest


def _bend(theta: float) -> tuple[float, float]:
    """Slopes of ``theta^2 (1 - theta)^2`` and of ``theta^3 (1 - theta)^2``, which vanish at both ends."""
    rest = theta * (1.0 - theta)
    return 2.0 * rest * (1.0 - 2.0 * theta), theta * rest * (3.0 - 5.0 * theta)


def evaluate(powers: Tensor | Powers, theta: Tensor | float) -> Tensor:
    """``sum_q powers[q] theta^q``."""
    value = powers[-1]
    for q in range(len(powers) - 2, -1, -1):
        value = value * theta + powers[q]
    return value


def _evaluate_slope(powers: Tensor | Powers, theta: Tensor | float) -> Tensor:
    """The derivative with respect to theta."""
    value = (len(powers) - 1.0) * powers[-1]
    for q in range(len(powers) - 2, 0, -1):
        value = value * theta + q * powers[q]
    return value


def read(pieces: Tensor, row: Tensor, theta: Tensor, width: Tensor | float | None = None) -> Tensor:
    """Look polynomials up: values, or with ``width`` derivatives with respect to time.

    Args:
        pieces: ``(steps, powers, *shape)``.
        row: Which step, int64, of any shape that broadcasts against ``shape``; 0-d reads all components in one step.
        theta: Where in the step, of the shape of ``row``.
        width: Lengths of the steps, of the shape of ``row``.

    Returns:
        Of the common shape of ``row`` and ``shape``.
    """
    if row.dim() == 0:
        powers = pieces.index_select(0, row.reshape(1)).squeeze(0)
    else:
        shape = torch.broadcast_shapes(row.shape, pieces.shape[2:])
        lead = (1,) * (len(shape) - pieces.dim() + 2)
        spread = pieces.reshape(*pieces.shape[:2], *lead, *pieces.shape[2:]).expand(*pieces.shape[:2], *shape)
        index = row.expand(shape).expand(1, pieces.shape[1], *shape)
        powers = spread.gather(0, index).squeeze(0)
    theta = theta.to(pieces.dtype)
    if width is None:
        return evaluate(powers, theta)
    return _evaluate_slope(powers, theta) / (width.to(pieces.dtype) if isinstance(width, Tensor) else width)


def aside(t: Tensor, begin: Tensor | float, h: Tensor | float) -> Tensor:
    """How much later than ``t`` a step from ``begin`` to ``begin + h`` looks back from, in choosing a polynomial.

    At a break between two polynomials this picks the one on the side of the step, whose value or slope is the right
    limit; and a stage outside of the step goes on with the polynomial of the step's end, since one beyond a break would
    spoil the order.
    """
    toward = begin + 0.5 * h - t
    half = torch.as_tensor(0.5 * h, dtype=toward.dtype, device=toward.device)
    return _NUDGE * toward + (toward - torch.clamp(toward, -half, half))


def sample(
    history: Callable[[Tensor], State], lefts: Tensor, widths: Tensor, degree: int, dtype: torch.dtype
) -> Pieces:
    """Polynomials that meet a function at Chebyshev points within each step, which lie off any break at its ends."""
    points = torch.arange(degree + 1, dtype=torch.float64, device=lefts.device)
    nodes = 0.5 - 0.5 * torch.cos(torch.pi * (points + 0.5) / (degree + 1))
    inverse = torch.linalg.inv(nodes.unsqueeze(-1) ** points).to(dtype)
    times = (lefts.unsqueeze(-1) + widths.unsqueeze(-1) * nodes).flatten()
    values = tree.leaves(torch.func.vmap(history)(times))
    rows = [value.reshape(len(lefts), degree + 1, *value.shape[1:]) for value in values]
    return [torch.tensordot(inverse, row, dims=([1], [1])).movedim(0, 1) for row in rows]


# Histories


@dataclass(frozen=True, eq=False)
class History:
    """A past that is made of polynomials: call it with a time. It can be the ``history`` of another solution.

    Attributes:
        edges: Ends of the steps, ``(steps + 1,)`` float64, rising.
        pieces: For each leaf ``(steps, powers, *shape)``: coefficients of the powers of the position in the step, 0 to 1.
        spec: Structure of the state.
    """

    edges: Tensor
    pieces: Pieces
    spec: Any

    @property
    def start(self) -> float:
        """The earliest time it knows."""
        return float(self.edges[0])

    @property
    def end(self) -> float:
        """The latest."""
        return float(self.edges[-1])

    def __call__(self, t: Tensor | float) -> State:
        """The state at ``t``.

        Raises:
            ValueError: ``t`` is outside of what is known.
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=self.edges.device)
        slack = 1e-9 * (self.edges[-1] - self.edges[0])
        if not blind() and not bool(((t >= self.edges[0] - slack) & (t <= self.edges[-1] + slack)).all()):
            raise ValueError(f"`History`: expected times in [{self.start:g}, {self.end:g}], got {t.tolist()}")
        row = (self.edges[1:-1] <= t.unsqueeze(-1)).sum(-1)
        left, right = self.edges[row], self.edges[row + 1]
        return tree.unflatten([read(piece, row, (t - left) / (right - left)) for piece in self.pieces], self.spec)


def sampled(t: Tensor, y: State) -> History:
    """A history through samples: in each interval the cubic through the four samples around it.

    Args:
        t: Times, 1-D, rising, at least 2.
        y: Samples: each leaf has a leading axis of times.

    Raises:
        ValueError: The times do not rise, or do not match the samples.
    """
    if t.dim() != 1 or len(t) < 2 or not bool((t.diff() > 0).all()):
        raise ValueError(f"`sampled(t=...)`: expected at least 2 rising times, got {t.tolist()}")
    flat, spec = tree.flatten(y)
    for leaf in flat:
        if leaf.shape[:1] != t.shape:
            raise ValueError(
                f"`sampled(y=...)`: expected a leading axis of {len(t)} times, got shape {tuple(leaf.shape)}"
            )
    edges = t.detach().to(torch.float64)
    near, steps = min(4, len(t)), len(t) - 1
    first = (torch.arange(steps, device=t.device) - 1).clamp(0, len(t) - near)
    members = first.unsqueeze(-1) + torch.arange(near, device=t.device)
    theta = (edges[members] - edges[:-1, None]) / edges.diff()[:, None]
    inverse = torch.linalg.inv(theta.unsqueeze(-1) ** torch.arange(near, dtype=torch.float64, device=t.device))
    pieces = [torch.einsum("sij,sj...->si...", inverse.to(leaf.dtype), leaf[members]) for leaf in flat]
    return History(edges, pieces, spec)


# The ring


@dataclass(frozen=True)
class Ring:
    """The last ``rows`` steps, in which number k stands in row ``k mod rows``. All of it is pure and can be traced.

    Attributes:
        rows: Number of steps kept.
        start: Time of step number 0.
        dt: Length of the steps, or None where they differ; then the state holds ``left`` and ``width``, ``(rows,)``.
    """

    rows: int
    start: float
    dt: float | None

    def begin(self, pieces: Pieces, lefts: Tensor, widths: Tensor) -> dict[str, Any]:
        """The state that holds the ``rows`` steps before number 0."""
        state: dict[str, Any] = {"pieces": list(pieces)}
        if self.dt is None:
            state |= {"left": lefts, "width": widths}
        return state

    def push(
        self, state: dict[str, Any], new: Pieces, number: Tensor, left: Tensor, width: Tensor | float
    ) -> dict[str, Any]:
        """Put step ``number`` in the place of the oldest."""
        row = torch.remainder(number, self.rows).to(torch.int64)
        moved: dict[str, Any] = {
            "pieces": [_put(ring, row, piece) for ring, piece in zip(state["pieces"], new, strict=True)]
        }
        if self.dt is None:
            moved |= {"left": _put(state["left"], row, left), "width": _put(state["width"], row, _column(width))}
        return moved

    def find(
        self, state: dict[str, Any], s: Tensor, aside: Tensor, number: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | float, Tensor]:
        """Where a time is kept.

        Args:
            state: State of the ring before step ``number``.
            s: Times, of any shape.
            aside: How much later a time to take in choosing the polynomial; see `aside`.
            number: Number of the step that looks back.

        Returns:
            Row, position in its step, length of that step, and how far the time lies beyond the ring: a time later than
            the last step's end is positive, one earlier than the first's beginning negative, in steps.
        """
        if self.dt is not None:
            position = (s - self.start) / self.dt
            whole = torch.floor(position + aside / self.dt)
            inside = torch.maximum(torch.minimum(whole, number - 1.0), number - float(self.rows))
            return torch.remainder(inside, self.rows).to(torch.int64), position - inside, self.dt, whole - inside
        left, width = state["left"], state["width"]
        last = torch.remainder(number - 1.0, self.rows).to(torch.int64)
        nudged = s + aside
        passed = (left <= nudged.unsqueeze(-1)).sum(-1).to(torch.float64)
        inside = number - float(self.rows) + torch.clamp(passed, min=1.0) - 1.0
        row = torch.remainder(inside, self.rows).to(torch.int64)
        begin, length = (column.index_select(0, row.flatten()).reshape(row.shape) for column in (left, width))
        theta = (s - begin) / length
        beyond = torch.where(row == last, torch.floor((nudged - begin) / length), torch.clamp(passed - 1.0, max=0.0))
        return row, theta, length, torch.where(passed < 1.0, passed - 1.0, beyond)

    def history(self, state: dict[str, Any], number: int, end: float, spec: Any) -> History:
        """What the ring holds after steps up to ``number - 1``, in order."""
        order = torch.arange(number - self.rows, number) % self.rows
        if self.dt is not None:
            device = state["pieces"][0].device
            edges = self.start + self.dt * torch.arange(
                number - self.rows, number + 1, dtype=torch.float64, device=device
            )
        else:
            edges = torch.cat([state["left"][order], state["left"].new_tensor([end])])
        return History(edges, [ring[order] for ring in state["pieces"]], spec)


def _column(width: Tensor | float) -> Tensor:
    assert isinstance(width, Tensor), "unequal steps come as tensors"
    return width


def _put(ring: Tensor, row: Tensor, value: Tensor) -> Tensor:
    index = row.reshape((1,) * ring.dim()).expand(1, *ring.shape[1:])
    return ring.scatter(0, index, value.to(ring.dtype).unsqueeze(0))
