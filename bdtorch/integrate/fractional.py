"""Methods for fractional equations, in the sense of Caputo, with orders in (0, 1]."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdtorch import _tree as tree
from bdtorch._types import State
from bdtorch.integrate import _memory as memory
from bdtorch.integrate._base import Derivative
from bdtorch.integrate._coupling import Coupling, Dense
from bdtorch.integrate._memory import Direct, Exponentials, SumOfExponentials
from bdtorch.integrate.implicit import largest


class FractionalIntegrator(abc.ABC):
    """A method for ``D^alpha y = f(y, t)``. Methods hold no state and compare by value."""

    @abc.abstractmethod
    def order(self, alpha: float) -> float:
        """Order of convergence at a fixed time, for solutions as smooth as the method can use."""

    @abc.abstractmethod
    def start(self, y0: State, alpha: list[Tensor], steps: int, dt: float) -> Solver:
        """Make ready for a number of steps."""


class Solver(abc.ABC):
    """A method with the weights of its memory for one run.

    Args:
        y0: Initial state.
        alpha: Order of each leaf, float64, of shapes that broadcast to those of the leaves.
        dt: Step.

    Attributes:
        takes_slopes: Whether the state holds the slopes ``f`` at its ``y``, and ``first`` those at the start.
    """

    takes_slopes = False

    def __init__(self, y0: State, alpha: list[Tensor], dt: float) -> None:
        flat, self.spec = tree.flatten(y0)
        self.y0, self.alpha, self.dt = flat, alpha, dt
        self.scale = [dt**order for order in alpha]

    @abc.abstractmethod
    def begin(self, derivative: Derivative, t: Tensor) -> dict[str, Any]:
        """The state before the first step, with ``y`` in it."""

    @abc.abstractmethod
    def step(self, derivative: Derivative, state: dict[str, Any], t: Tensor, number: Tensor) -> dict[str, Any]:
        """Advance from ``t``, step ``number``."""

    def evaluate(self, derivative: Derivative, y: list[Tensor], t: Tensor) -> list[Tensor]:
        """``f``, leaf by leaf."""
        return tree.leaves(derivative(tree.unflatten(y, self.spec), t))

    def tree(self, leaves: list[Tensor]) -> State:
        """Leaves as a state."""
        return tree.unflatten(leaves, self.spec)

    def cast(self, values: list[Tensor]) -> list[Tensor]:
        """In the dtype of the state."""
        return [value.to(leaf.dtype) for value, leaf in zip(values, self.y0, strict=True)]


def _gamma(x: Tensor) -> Tensor:
    return torch.exp(torch.lgamma(x))


@dataclass(frozen=True)
class CaputoEuler(FractionalIntegrator):
    r"""The fractional Euler method: the integral form by rectangles.

    $$y_{n+1} = y_0 + \frac{h^\alpha}{\Gamma(\alpha + 1)} \sum_{k=0}^{n} \big((k+1)^\alpha - k^\alpha\big) f_{n-k}$$

    Order 1.

    Args:
        fast: Carry the past along in a `SumOfExponentials`; default the sum itself.

    Source: Li & Zeng (2013), doi:10.1080/01630563.2012.706673.
    """

    fast: SumOfExponentials | None = None

    def __post_init__(self) -> None:
        _check_fast("CaputoEuler", self.fast)

    def order(self, alpha: float) -> float:
        return 1.0

    def start(self, y0: State, alpha: list[Tensor], steps: int, dt: float) -> Solver:
        return _Euler(y0, alpha, steps, dt, self.fast)


class _Euler(Solver):
    def __init__(self, y0: State, alpha: list[Tensor], steps: int, dt: float, fast: SumOfExponentials | None) -> None:
        super().__init__(y0, alpha, dt)
        self.scale = self.cast([scale / _gamma(order + 1.0) for scale, order in zip(self.scale, alpha, strict=True)])
        self.sums = [_sum(fast, order, steps, dt, leaf) for order, leaf in zip(alpha, self.y0, strict=True)]

    def begin(self, derivative: Derivative, t: Tensor) -> dict[str, Any]:
        past = [total.begin(leaf) for total, leaf in zip(self.sums, self.y0, strict=True)]
        return {"y": self.tree(self.y0), "past": past}

    def step(self, derivative: Derivative, state: dict[str, Any], t: Tensor, number: Tensor) -> dict[str, Any]:
        slopes = tree.leaves(derivative(state["y"], t))
        after, past = [], []
        for y0, scale, total, before, f in zip(self.y0, self.scale, self.sums, state["past"], slopes, strict=True):
            if isinstance(total, Exponentials):
                after.append(y0 + scale * (f + total.total(before)))
                past.append(total.push(before, f))
            else:
                past.append(total.push(before, f, number))
                after.append(y0 + scale * total.total(past[-1], number))
        return {"y": self.tree(after), "past": past}


def _sum(fast: SumOfExponentials | None, alpha: Tensor, steps: int, dt: float, leaf: Tensor) -> Direct | Exponentials:
    if fast is None:
        return Direct(memory.rectangle_weights(alpha, steps), leaf)
    rates, weights = fast.terms(1.0 - alpha, dt, dt * (steps + 1))
    return Exponentials(rates, weights, alpha * dt**-alpha, dt, False, leaf)


@dataclass(frozen=True)
class AdamsBashforthMoulton(FractionalIntegrator):
    r"""The fractional predictor-corrector method: the integral form by straight lines.

    $$y_{n+1} = y_0 + \frac{h^\alpha}{\Gamma(\alpha + 2)} \big(f_{n+1} + \alpha f_n + H_n\big), \qquad
    \tilde y_{n+1} = y_0 + \frac{h^\alpha}{\Gamma(\alpha + 2)} \big((\alpha + 1) f_n + H_n\big)$$

    with $H_n$ the integral over all steps before the last, which predictor and corrector share: this halves the work of the
    original method, and raises its order from $\min(2, 1 + \alpha)$ to $\min(2, 1 + 2 \alpha)$ where $f$ is smooth in time.
    Where $f$ itself begins like $t^\alpha$, as for a linear equation, the order is $1 + \alpha$.

    Args:
        corrections: How often to correct.
        fast: Carry the past along in a `SumOfExponentials`; default the sum itself.

    Source: Diethelm, Ford & Freed (2002), doi:10.1023/A:1016592219341; Deng (2007), doi:10.1016/j.cam.2006.08.008, for the
        shared sum.
    """

    corrections: int = 1
    fast: SumOfExponentials | None = None

    def __post_init__(self) -> None:
        _check_fast("AdamsBashforthMoulton", self.fast)
        if not isinstance(self.corrections, int) or isinstance(self.corrections, bool) or self.corrections < 1:
            raise ValueError(
                f"`AdamsBashforthMoulton(corrections=...)`: expected a positive integer, got {self.corrections!r}"
            )

    def order(self, alpha: float) -> float:
        return min(2.0, 1.0 + (1.0 + self.corrections) * alpha)

    def start(self, y0: State, alpha: list[Tensor], steps: int, dt: float) -> Solver:
        return _Adams(y0, alpha, steps, dt, self.corrections, self.fast)


class _Adams(Solver):
    takes_slopes = True

    def __init__(
        self, y0: State, alpha: list[Tensor], steps: int, dt: float, corrections: int, fast: SumOfExponentials | None
    ) -> None:
        super().__init__(y0, alpha, dt)
        self.corrections = corrections
        self.scale = self.cast([scale / _gamma(order + 2.0) for scale, order in zip(self.scale, alpha, strict=True)])
        self.order = self.cast(alpha)
        self.sums: list[Direct | Exponentials] = []
        self.starts: list[Tensor] = []
        for order, leaf in zip(alpha, self.y0, strict=True):
            if fast is None:
                weights = memory.trapezoid_weights(order + 1.0, steps)
                weights = torch.cat([weights[:1] - order, weights[1:]])
                self.sums.append(Direct(weights, leaf))
                self.starts.append(memory.start_weights(order, steps).to(leaf.dtype))
            else:
                rates, weights = fast.terms(1.0 - order, dt, dt * (steps + 1))
                self.sums.append(Exponentials(rates, weights, order * (order + 1.0) * dt**-order, dt, True, leaf))

    def begin(self, derivative: Derivative, t: Tensor) -> dict[str, Any]:
        slopes = self.evaluate(derivative, self.y0, t)
        past = [total.begin(leaf) for total, leaf in zip(self.sums, self.y0, strict=True)]
        state = {"y": self.tree(self.y0), "past": past, "f": slopes}
        return state if not self.starts else {**state, "first": slopes}

    def step(self, derivative: Derivative, state: dict[str, Any], t: Tensor, number: Tensor) -> dict[str, Any]:
        slopes, past, sums = state["f"], [], []
        for k, (total, before, f) in enumerate(zip(self.sums, state["past"], slopes, strict=True)):
            if isinstance(total, Exponentials):
                past.append(before)
                sums.append(total.total(before))
                continue
            past.append(total.push(before, f, number))
            start = self.starts[k].index_select(0, number.to(torch.int64).reshape(1)).squeeze(0)
            sums.append(total.total(past[-1], number) + start * state["first"][k])
        known = [order * f + h for order, f, h in zip(self.order, slopes, sums, strict=True)]
        ahead = slopes
        for _ in range(1 + self.corrections):  # the prediction takes the slope to stay as it is
            after = [y0 + scale * (f + k) for y0, scale, f, k in zip(self.y0, self.scale, ahead, known, strict=True)]
            ahead = self.evaluate(derivative, after, t + self.dt)
        for k, total in enumerate(self.sums):
            if isinstance(total, Exponentials):
                past[k] = total.push(past[k], slopes[k], ahead[k])
        return {**state, "y": self.tree(after), "past": past, "f": ahead}


def _check_fast(name: str, fast: Any) -> None:
    if fast is not None and not isinstance(fast, SumOfExponentials):
        raise TypeError(f"`{name}(fast=...)`: expected a SumOfExponentials object or None, got {fast!r}")


def _check_memory(name: str, rows: Any) -> None:
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
        raise ValueError(f"`{name}(memory=...)`: expected a positive number of steps or None, got {rows!r}")


@dataclass(frozen=True)
class GrunwaldLetnikov(FractionalIntegrator):
    r"""The explicit Gruenwald-Letnikov method.

    $$\sum_{k=0}^{n+1} (-1)^k \binom{\alpha}{k} (y_{n+1-k} - y_0) = h^\alpha f_n$$

    Order 1. With a short memory the sum ends at the last ``memory`` steps, at an error that stays and is about
    ``(h memory) ** -alpha / gamma(1 - alpha)`` times the deviation from ``y0``.

    Args:
        memory: Number of past steps that count; default all.

    Source: Podlubny (1999), Fractional Differential Equations, sections 7.3 and 8.1; Scherer, Kalla, Tang & Huang (2011),
        doi:10.1016/j.camwa.2011.03.054.
    """

    memory: int | None = None

    def __post_init__(self) -> None:
        _check_memory("GrunwaldLetnikov", self.memory)

    def order(self, alpha: float) -> float:
        return 1.0

    def start(self, y0: State, alpha: list[Tensor], steps: int, dt: float) -> Solver:
        return _Differences(y0, alpha, min(steps, self.memory or steps), dt)


class _Differences(Solver):
    def __init__(self, y0: State, alpha: list[Tensor], rows: int, dt: float) -> None:
        super().__init__(y0, alpha, dt)
        self.scale = self.cast(self.scale)
        self.sums = [
            Direct(memory.difference_weights(order, rows + 1)[1:], leaf)
            for order, leaf in zip(alpha, self.y0, strict=True)
        ]

    def begin(self, derivative: Derivative, t: Tensor) -> dict[str, Any]:
        past = [total.begin(leaf) for total, leaf in zip(self.sums, self.y0, strict=True)]
        return {"y": self.tree(self.y0), "past": past}

    def step(self, derivative: Derivative, state: dict[str, Any], t: Tensor, number: Tensor) -> dict[str, Any]:
        slopes, flat = tree.leaves(derivative(state["y"], t)), tree.leaves(state["y"])
        after, past = [], []
        for k, (y0, scale, total) in enumerate(zip(self.y0, self.scale, self.sums, strict=True)):
            past.append(total.push(state["past"][k], flat[k] - y0, number))
            after.append(y0 + scale * slopes[k] - total.total(past[k], number))
        return {"y": self.tree(after), "past": past}


@dataclass(frozen=True)
class L1(FractionalIntegrator):
    r"""The implicit L1 method: the derivative of the solution's straight lines.

    $$\frac{h^{-\alpha}}{\Gamma(2 - \alpha)} \sum_{k=0}^{n} \big((k+1)^{1-\alpha} - k^{1-\alpha}\big) (y_{n+1-k} - y_{n-k})
    = f_{n+1}$$

    solved by a fixed number of Newton iterations; stable for stiff equations. Order $2 - \alpha$ for smooth solutions, and 1
    at a fixed time for those that begin like $t^\alpha$. Where the last iteration still moves the solution by more than the
    cube root of the machine's precision, the step yields NaN, which `fdeint` reports.

    Args:
        memory: Number of past steps that count; default all.
        fast: Carry the past along in a `SumOfExponentials`; default the sum itself.
        iterations: Newton iterations per step.
        coupling: Which variables are coupled; default all.

    Source: Lin & Xu (2007), doi:10.1016/j.jcp.2007.02.001; Jin, Lazarov & Zhou (2016), doi:10.1093/imanum/dru063, for
        solutions that are not smooth.
    """

    memory: int | None = None
    fast: SumOfExponentials | None = None
    iterations: int = 4
    coupling: Coupling | None = None

    def __post_init__(self) -> None:
        _check_memory("L1", self.memory)
        _check_fast("L1", self.fast)
        if self.memory is not None and self.fast is not None:
            raise ValueError("`L1(memory=...)`: expected None with fast, which keeps the whole past at no cost")
        if not isinstance(self.iterations, int) or isinstance(self.iterations, bool) or self.iterations < 1:
            raise ValueError(f"`L1(iterations=...)`: expected a positive integer, got {self.iterations!r}")

    def order(self, alpha: float) -> float:
        return 2.0 - alpha

    def start(self, y0: State, alpha: list[Tensor], steps: int, dt: float) -> Solver:
        return _Lines(y0, alpha, steps, dt, self)


class _Lines(Solver):
    def __init__(self, y0: State, alpha: list[Tensor], steps: int, dt: float, method: L1) -> None:
        super().__init__(y0, alpha, dt)
        self.method = method
        self.coupling = method.coupling or Dense()
        self.scale = self.cast([scale * _gamma(2.0 - order) for scale, order in zip(self.scale, alpha, strict=True)])
        self.sums: list[Direct | Exponentials] = []
        for order, leaf in zip(alpha, self.y0, strict=True):
            if method.fast is None:
                weights = memory.rectangle_weights(1.0 - order, min(steps, method.memory or steps) + 1)[1:]
                self.sums.append(Direct(weights, leaf))
            else:
                rates, weights = method.fast.terms(order, dt, dt * (steps + 1))
                self.sums.append(Exponentials(rates, weights, (1.0 - order) * dt ** (order - 1.0), dt, False, leaf))

    def begin(self, derivative: Derivative, t: Tensor) -> dict[str, Any]:
        past = [total.begin(leaf) for total, leaf in zip(self.sums, self.y0, strict=True)]
        return {"y": self.tree(self.y0), "past": past}

    def step(self, derivative: Derivative, state: dict[str, Any], t: Tensor, number: Tensor) -> dict[str, Any]:
        flat = tree.leaves(state["y"])
        base = []
        for leaf, total, past in zip(flat, self.sums, state["past"], strict=True):
            held = total.total(past) if isinstance(total, Exponentials) else total.total(past, number - 1.0)
            base.append(leaf - held)
        after = tree.leaves(self._solve(derivative, state["y"], self.tree(base), t + self.dt))
        past = []
        for k, total in enumerate(self.sums):
            rise = after[k] - flat[k]
            old = state["past"][k]
            past.append(total.push(old, rise) if isinstance(total, Exponentials) else total.push(old, rise, number))
        return {"y": self.tree(after), "past": past}

    def _solve(self, derivative: Derivative, y: State, base: State, t: Tensor) -> State:
        """``x = base + scale f(x, t)``."""
        guess, unpack = self.coupling.pack(y)
        constant = self.coupling.pack(base)[0]
        spread = [scale.expand_as(leaf) for scale, leaf in zip(self.scale, self.y0, strict=True)]
        scale = self.coupling.pack(self.tree(spread))[0]

        def slope(z: Tensor, s: Tensor) -> Tensor:
            return self.coupling.pack(derivative(unpack(z), s))[0]

        solve = self.coupling.factor(scale.unsqueeze(-1) * self.coupling.differentiate(slope, guess, t), 1.0)
        change = torch.zeros_like(guess)
        for _ in range(self.method.iterations):
            change = solve(constant + scale * slope(guess, t) - guess)
            guess = guess + change
        bound = torch.finfo(guess.dtype).eps ** (1 / 3)
        settled = largest(change) <= bound * (largest(guess) + bound)
        return unpack(torch.where(settled.unsqueeze(-1), guess, torch.nan))
