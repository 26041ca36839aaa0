"""Ways to seek points of small speed, from many starts at once."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.analyze._rows import RowMap

Operator = Callable[[Tensor], Tensor]

_BYTES = 1 << 28
"""What the Jacobians of one block of starts may take."""


@dataclass(eq=False)
class Progress:
    """Where every start has got to.

    Attributes:
        x: The points, ``(starts, n)``.
        q: Half the squared speed of each, ``(starts,)``; infinite where it is not a number.
        iterations: How many steps each has taken, ``(starts,)``.
    """

    x: Tensor
    q: Tensor
    iterations: Tensor


@dataclass(frozen=True)
class Search(abc.ABC):
    r"""How to make $q(x) = \lVert f(x) \rVert^2 / 2$ small.

    Args:
        iterations: Most steps from each start.
    """

    iterations: int = 100

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"`{type(self).__name__}(iterations=...)`: expected at least 1, got {self.iterations!r}")

    def block(self, n: int, width: int) -> int:
        """How many starts of ``n`` variables, of ``width`` bytes each, to take at once."""
        return max(1, _BYTES // (64 * n * width))

    def search(self, rows: RowMap, starts: Tensor, tolerance: float) -> Progress:
        """Go from every start until $q$ is at most ``tolerance``, nothing gets better, or ``iterations`` are done."""
        parts = starts.split(self.block(starts.shape[1], starts.element_size()))
        done = [self._from(rows, part, tolerance) for part in parts]
        return Progress(*(torch.cat([getattr(p, name) for p in done]) for name in ("x", "q", "iterations")))

    @abc.abstractmethod
    def _from(self, rows: RowMap, x: Tensor, tolerance: float) -> Progress:
        """`search` within a block."""


def half_square(f: Tensor) -> Tensor:
    """``q`` of residuals ``(points, n)``; infinite where it is not a number."""
    q = 0.5 * f.square().sum(1)
    return torch.where(q.isfinite(), q, math.inf)


def _speed(rows: RowMap, x: Tensor) -> Tensor:
    with torch.no_grad():
        return half_square(rows.residual(x))


@dataclass(frozen=True)
class Newton(Search):
    r"""Damped Newton's method: $x \leftarrow x - s\,J^{-1} f$, with $s$ halved until $q$ falls.

    Where $J$ is singular it takes the shortest step that solves the linearised equations best. A step costs $n^3$ for
    each start.
    """

    def block(self, n: int, width: int) -> int:
        return max(1, _BYTES // (4 * n * n * width))

    def _from(self, rows: RowMap, x: Tensor, tolerance: float) -> Progress:
        state = Progress(x.clone(), _speed(rows, x), torch.zeros(len(x), dtype=torch.int64, device=x.device))
        alive = state.q.isfinite()
        for _ in range(self.iterations):
            alive = alive & (state.q > tolerance)
            at = alive.nonzero()[:, 0]
            if not len(at):
                break
            f, jacobian = rows.jacobian(state.x[at], rows.residual)
            moved = _backtracked(rows, state.x[at], state.q[at], _newton_step(jacobian, -f))
            state.iterations[at] += 1
            alive[at] = moved.q < state.q[at]
            better = at[moved.q < state.q[at]]
            kept = moved.q < state.q[at]
            state.x[better], state.q[better] = moved.x[kept], moved.q[kept]
        return state


def _newton_step(jacobian: Tensor, side: Tensor) -> Tensor:
    step, info = torch.linalg.solve_ex(jacobian, side.unsqueeze(-1))
    size = step.abs().amax((1, 2))
    singular = ((info != 0) | ~size.isfinite()) & jacobian.isfinite().all(2).all(1)
    for number in singular.nonzero()[:, 0].tolist():
        step[number] = torch.linalg.pinv(jacobian[number], rtol=1e-10) @ side[number].unsqueeze(-1)
    return step.squeeze(-1)


def _backtracked(rows: RowMap, x: Tensor, q: Tensor, step: Tensor, halvings: int = 12) -> Progress:
    """The points along ``step`` at which ``q`` first falls enough; where it never does, the start."""
    best, best_q = x.clone(), q.clone()
    open_ = torch.arange(len(x), device=x.device)
    scale = 1.0
    for _ in range(halvings):
        trial = x[open_] + scale * step[open_]
        value = _speed(rows, trial)
        fine = value < (1.0 - 1e-4 * scale) * q[open_]
        best[open_[fine]], best_q[open_[fine]] = trial[fine], value[fine]
        open_ = open_[~fine]
        if not len(open_):
            break
        scale *= 0.5
    return Progress(best, best_q, open_)


@dataclass(frozen=True)
class GaussNewton(Search):
    r"""Levenberg-Marquardt: each step minimises $\lVert f + J d \rVert^2 + \mu \lVert d \rVert^2$, by conjugate gradients on
    products with $J$ and $J^\top$.

    No matrix is made, so it suits networks of many units; and it converges also where fixed points are not isolated, as
    on a line or ring attractor, moving no further along it than it must.

    Args:
        iterations: Most steps from each start.
        inner: Most conjugate gradient steps for each of them.
        accuracy: How far conjugate gradients reduce the gradient of a step, as a fraction.
    """

    inner: int = 100
    accuracy: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.inner, bool) or not isinstance(self.inner, int) or self.inner < 1:
            raise ValueError(f"`GaussNewton(inner=...)`: expected at least 1, got {self.inner!r}")
        if not 0.0 < self.accuracy < 1.0:
            raise ValueError(f"`GaussNewton(accuracy=...)`: expected a number in (0, 1), got {self.accuracy!r}")

    def _from(self, rows: RowMap, x: Tensor, tolerance: float) -> Progress:
        state = Progress(x.clone(), _speed(rows, x), torch.zeros(len(x), dtype=torch.int64, device=x.device))
        damping = torch.full_like(state.q, 1e-3)
        alive = state.q.isfinite()
        for _ in range(self.iterations):
            at = (alive & (state.q > tolerance)).nonzero()[:, 0]
            if not len(at):
                break
            trial, predicted, scale = self._step(rows, state.x[at], damping[at])
            value, before = _speed(rows, trial), state.q[at]
            gain = (before - value) / predicted.clamp_min(torch.finfo(x.dtype).tiny)
            better = value < before
            state.x[at[better]], state.q[at[better]] = trial[better], value[better]
            state.iterations[at] += 1
            damping[at] *= torch.where(gain > 0.5, 0.1, torch.where(gain > 0.1, 1.0, 10.0))
            # A minimum of q that is no zero, or rounding: nothing more to gain.
            stalled = (better & (before - value <= 1e-6 * before)) | (damping[at] > 1e8) | (scale == 0)
            alive[at] = ~stalled
        return state

    def _step(self, rows: RowMap, x: Tensor, damping: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next points, by how much the model says that q falls, and the scale of the damping."""
        with _linear(rows, x) as (f, forward, back):
            residual = -f
            slope = back(residual)
            norm = slope.square().sum(1)
            scale = norm / f.square().sum(1)
            shift = (damping * scale).unsqueeze(1)
            step, direction, rest = torch.zeros_like(x), slope.clone(), norm.clone()
            for _ in range(self.inner):
                image = forward(direction)
                weight = image.square().sum(1) + (shift * direction.square()).sum(1)
                length = torch.where(rest > 0, rest / weight, 0.0).unsqueeze(1)
                step = step + length * direction
                residual = residual - length * image
                slope = back(residual) - shift * step
                new = slope.square().sum(1)
                if bool((new <= self.accuracy**2 * norm).all()):
                    break
                direction = slope + torch.where(rest > 0, new / rest, 0.0).unsqueeze(1) * direction
                rest = new
            predicted = 0.5 * (f.square().sum(1) - residual.square().sum(1))
        return x + step, predicted, scale


@contextmanager
def _linear(rows: RowMap, x: Tensor) -> Iterator[tuple[Tensor, Operator, Operator]]:
    """The residual at ``x``, and products of its Jacobian and of the transpose with rows."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = rows.residual(point)
        probe = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, point, probe, create_graph=True)

    def back(v: Tensor) -> Tensor:
        return torch.autograd.grad(value, point, v, retain_graph=True)[0]

    def forward(v: Tensor) -> Tensor:  # the derivative of `back`, which is linear
        if not pulled.requires_grad:
            return torch.zeros_like(v)
        return torch.autograd.grad(pulled, probe, v, retain_graph=True)[0]

    yield value.detach(), forward, back


@dataclass(frozen=True)
class GradientDescent(Search):
    r"""First-order search: Adam on $q$, with a rate that decays by a factor from step to step.

    Args:
        iterations: Most steps from each start.
        rate: Rate of the first step, in the unit of the state.
        decay: Factor of the rate from one step to the next, in (0, 1].

    Source: Sussillo & Barak (2013), doi:10.1162/NECO_a_00409; Kingma & Ba (2014), arXiv:1412.6980.
    """

    iterations: int = 5000
    rate: float = 0.05
    decay: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rate < math.inf:
            raise ValueError(f"`GradientDescent(rate=...)`: expected a finite number above 0, got {self.rate!r}")
        if not 0.0 < self.decay <= 1.0:
            raise ValueError(f"`GradientDescent(decay=...)`: expected a number in (0, 1], got {self.decay!r}")

    def _from(self, rows: RowMap, x: Tensor, tolerance: float) -> Progress:
        state = Progress(x.clone(), _speed(rows, x), torch.zeros(len(x), dtype=torch.int64, device=x.device))
        at = (state.q.isfinite() & (state.q > tolerance)).nonzero()[:, 0]
        point, first, second = state.x[at], torch.zeros_like(state.x[at]), torch.zeros_like(state.x[at])
        for step in range(1, self.iterations + 1):
            if not len(at):
                break
            q, slope = _slope(rows, point)
            # The best of each so far, for Adam does not only go down.
            better = q < state.q[at]
            state.x[at[better]], state.q[at[better]] = point[better], q[better]
            state.iterations[at] = step
            going = (q > tolerance) & q.isfinite()
            if not bool(going.all()):
                at, point, first, second, slope = (v[going] for v in (at, point, first, second, slope))
            first = torch.lerp(slope, first, 0.9)
            second = torch.lerp(slope.square(), second, 0.999)
            rate = self.rate * self.decay ** (step - 1) * math.sqrt(1.0 - 0.999**step) / (1.0 - 0.9**step)
            point = point - rate * first / (second.sqrt() + 1e-12)
        return state


def _slope(rows: RowMap, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        q = 0.5 * rows.residual(point).square().sum(1)
        (slope,) = torch.autograd.grad(q.sum(), point)
    return torch.where(q.isfinite(), q, math.inf).detach(), slope
