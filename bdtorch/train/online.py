"""Readouts that learn in every step, from their own error: the rules, and the system that applies one."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bdtorch._system import DynamicalSystem
from bdtorch._types import State
from bdtorch.ops import rls_gain, rls_inverse, rls_memory, rls_update
from bdtorch.simulate import Loop, simulate
from bdtorch.train._checks import above_zero, flag, fraction, whole
from bdtorch.train.readout import checked_samples

_FEWEST, _MOST = 64, 256
"""Samples that recursive least squares learns at once: more where its matrix is large, for which products of few are slow."""


class OnlineRule(abc.ABC):
    """How weights follow from an error, one sample at a time. A new rule is `init_state` and `update`, in torch
    operations.
    """

    @abc.abstractmethod
    def init_state(self, like: Tensor) -> State:
        """What the rule remembers, a pytree of tensors, for features like ``like``, ``(*batch, features)``."""

    def learn_all(self, state: State, weight: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Learn from samples that are all known beforehand, where that is quicker than one `update` after the other.

        Args:
            state: What the rule remembers.
            weight: ``(targets, features)``.
            x: Features, ``(samples, features)``.
            y: Targets, ``(samples, targets)``.

        Raises:
            FloatingPointError: Rounding has spoilt what it remembers.

        Returns:
            The weights at the end, and the prediction for each sample before it was learnt, ``(samples, targets)``, equal
            to those of `update` up to rounding. None where there is no quicker way.
        """
        return None

    @abc.abstractmethod
    def update(self, state: State, x: Tensor, error: Tensor) -> tuple[State, Tensor]:
        """What the rule remembers next, and what to add to the weights.

        Args:
            state: What it remembers.
            x: Features, ``(*batch, features)``.
            error: Output minus target, ``(*batch, targets)``.

        Returns:
            The new state, and the change of the weights, ``(*batch, targets, features)``.
        """

    def update_where(self, learn: Tensor, state: State, x: Tensor, error: Tensor) -> tuple[State, Tensor]:
        """As `update`, but where ``learn``, boolean of shape ``()`` or ``(*batch,)``, is False nothing changes."""
        after, change = self.update(state, x, error)
        kept = torch.utils._pytree.tree_map(lambda new, old: torch.where(_each(learn, new), new, old), after, state)
        return kept, torch.where(_each(learn, change), change, 0.0)


@dataclass(frozen=True)
class RLS(OnlineRule):
    r"""Recursive least squares, the rule of FORCE learning.

    $$k = \frac{P x}{\lambda + x^\top P x}, \quad W \leftarrow W - k e^\top, \quad
    P \leftarrow (P - k\,(P x)^\top) / \lambda, \qquad P(0) = I / \alpha$$

    Without forgetting ($\lambda = 1$) the weights are after every sample those of ridge regression with penalty
    $\alpha$ on the samples so far. Long runs want double precision.

    Args:
        alpha: $\alpha$, above 0: large values learn slowly at first.
        forgetting: $\lambda$, in (0, 1].

    Source: Haykin, Adaptive Filter Theory; Sussillo & Abbott (2009), doi:10.1016/j.neuron.2009.07.018.
    """

    alpha: float = 1.0
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", above_zero(self.alpha, "RLS(alpha=...)"))
        object.__setattr__(self, "forgetting", fraction(self.forgetting, "RLS(forgetting=...)", zero=False))

    class State(NamedTuple):
        memory: Tensor
        """$P$ with the updates that are in wait, as `bdtorch.ops.rls_inverse` reads it."""
        pending: Tensor
        """How many are in wait, int64, ``(*batch,)``."""

    def init_state(self, like: Tensor) -> State:
        *batch, n = like.shape
        options = {"dtype": like.dtype, "device": like.device}
        pending = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return self.State(memory=rls_memory(n, _pending(n), 1.0 / self.alpha, tuple(batch), **options), pending=pending)

    def update(self, state: State, x: Tensor, error: Tensor) -> tuple[State, Tensor]:
        return self._update(None, state, x, error)

    def update_where(self, learn: Tensor, state: State, x: Tensor, error: Tensor) -> tuple[State, Tensor]:
        return self._update(learn, state, x, error)

    def _update(self, learn: Tensor | None, state: State, x: Tensor, error: Tensor) -> tuple[State, Tensor]:
        n = x.shape[-1]
        block = _pending(n)
        sample = x.expand(*state.pending.shape, n)
        memory = rls_update(state.memory, state.pending, sample, block=block, learn=learn, forgetting=self.forgetting)
        change = -rls_gain(memory, n, block).unsqueeze(-2) * error.unsqueeze(-1)
        pending = torch.remainder(state.pending + 1, block)
        if learn is not None:
            pending = torch.where(learn, pending, state.pending)
            change = torch.where(_each(learn, change), change, 0.0)
        return self.State(memory=memory, pending=pending), change

    def learn_all(self, state: State, weight: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
        r"""By blocks, without forgetting: a few matrix products for many samples instead of a pass over $P$ for each.

        With $G = P X^\top$ and $I + X G = L D L^\top$, $L$ unit lower triangular, the errors of the block's samples, each
        before it was learnt, are $L^{-1} (X W - Y)$; and $P$ loses $G (I + X G)^{-1} G^\top$.
        """
        if self.forgetting != 1.0:
            return None
        inverse, weight = rls_inverse(state.memory, state.pending, block=_pending(x.shape[1])), weight.mT
        predictions = [y[:0]]
        block = min(_MOST, max(_FEWEST, x.shape[1] // 8))
        for rows, targets in zip(x.split(block), y.split(block), strict=True):
            spread = torch.matmul(inverse, rows.T)
            inner = rows @ spread
            inner.diagonal().add_(1.0)
            factor, lost = torch.linalg.cholesky_ex(inner)
            if lost:
                raise FloatingPointError("`RLS`: rounding made P indefinite; use double precision, or a larger alpha")
            errors = torch.linalg.solve_triangular(factor, rows @ weight - targets, upper=False)
            predictions.append(targets + factor.diagonal().unsqueeze(-1) * errors)
            half = torch.linalg.solve_triangular(factor, spread.T, upper=False)
            weight = weight - half.T @ errors
            inverse = torch.addmm(inverse, half.T, half, alpha=-1.0)
        return weight.mT, torch.cat(predictions)


@dataclass(frozen=True)
class LMS(OnlineRule):
    r"""Least mean squares, the delta rule: $W \leftarrow W - \eta\,x e^\top$.

    Args:
        rate: $\eta$, above 0; stable below 2 over the largest eigenvalue of the features' correlation matrix.
        normalised: Divide by $\lVert x \rVert^2$ (plus 1e-12), so that rates below 2 are stable for any features.

    Source: Widrow & Hoff (1960), Adaptive switching circuits.
    """

    rate: float = 0.01
    normalised: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", above_zero(self.rate, "LMS(rate=...)"))
        flag(self.normalised, "LMS(normalised=...)")

    def init_state(self, like: Tensor) -> State:
        return ()

    def update(self, state: State, x: Tensor, error: Tensor) -> tuple[State, Tensor]:
        step = self.rate * x
        if self.normalised:
            step = step / ((x * x).sum(-1, keepdim=True) + 1e-12)
        return state, -step.unsqueeze(-2) * error.unsqueeze(-1)


def _each(learn: Tensor, value: Tensor) -> Tensor:
    """``learn``, ``()`` or ``(*batch,)``, so that it stands for all of what belongs to an element of the batch."""
    return learn.reshape(*learn.shape, *(1,) * (value.dim() - learn.dim()))


def _pending(n: int) -> int:
    """Updates that recursive least squares of n features keeps in wait: few rows beside many, since all take part in each."""
    return min(32, max(4, n // 8))


class OnlineReadout(DynamicalSystem):
    """A linear readout whose weights are state, and change in every step by a rule.

    The input of a step is a pair ``(x, target)`` of shapes ``(*batch, n_in)`` and ``(*batch, n_out)``, or a triple with a
    boolean that says whether to learn; without a target the weights rest. The output is the prediction before the step
    has learnt, so its errors are those on unseen samples.

    Args:
        n_in: Number of features.
        n_out: Number of targets.
        rule: How to learn.
        bias: Whether a feature that is always 1 joins the others.
        dtype: Floating dtype; default double precision, which recursive least squares wants.
        device: Device.

    Raises:
        TypeError: ``rule`` is no `OnlineRule`.
    """

    class State(NamedTuple):
        weight: Tensor
        """``(*batch, n_out, n_in (+ 1))``, as in `nn.Linear`, with the bias at the end."""
        rule: Any

    def __init__(
        self,
        n_in: int,
        n_out: int,
        rule: OnlineRule,
        *,
        bias: bool = False,
        dtype: torch.dtype | None = torch.float64,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(whole(n_out, "OnlineReadout(n_out=...)"), dtype=dtype, device=device)
        if not isinstance(rule, OnlineRule):
            raise TypeError(f"`OnlineReadout(rule=...)`: expected a rule such as bdtorch.train.RLS(), got {rule!r}")
        self.n_in = whole(n_in, "OnlineReadout(n_in=...)")
        self.rule = rule
        self.biased = flag(bias, "OnlineReadout(bias=...)")

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        features = self.n_in + self.biased
        like = torch.zeros((*batch_shape, features), dtype=self.dtype, device=self.device)
        weight = like.unsqueeze(-2).expand(*batch_shape, self.count, features).clone()
        return self.State(weight=weight, rule=self.rule.init_state(like))

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        x, target, learn = (*inputs, None, None)[:3] if isinstance(inputs, (tuple, list)) else (inputs, None, None)
        y = self.predict(state, x)
        if target is not None and (not target.dim() or target.shape[-1] != self.count):
            raise ValueError(
                f"`OnlineReadout(target)`: expected n_out={self.count} on the last axis, got {tuple(target.shape)}"
            )
        return (state if target is None else self.learn(state, x, y - target, learn)), y

    def predict(self, state: State, x: Tensor) -> Tensor:
        """The outputs for features ``(*batch, n_in)``."""
        if not x.dim() or x.shape[-1] != self.n_in:
            raise ValueError(f"`OnlineReadout(x)`: expected n_in={self.n_in} on the last axis, got {tuple(x.shape)}")
        y: Tensor = torch.matmul(state.weight, self._features(state, x).unsqueeze(-1)).squeeze(-1)
        return y

    def learn(self, state: State, x: Tensor, error: Tensor, learn: Tensor | None = None) -> State:
        """The state after a step with this error; as it was where ``learn``, boolean ``()`` or ``(*batch,)``, is False."""
        features = self._features(state, x)
        if learn is None:
            rule, change = self.rule.update(state.rule, features, error)
        else:
            rule, change = self.rule.update_where(learn, state.rule, features, error)
        return self.State(weight=state.weight + change, rule=rule)

    def _features(self, state: State, x: Tensor) -> Tensor:
        if not self.biased:
            return x
        one = torch.ones((*state.weight.shape[:-2], 1), dtype=x.dtype, device=x.device)
        return torch.cat([x.expand(*one.shape[:-1], self.n_in), one], -1)

    def linear(self, state: State) -> nn.Linear:
        """The readout with the weights of ``state`` (without a batch), as a module that may be trained further."""
        if state.weight.dim() != 2:
            raise ValueError(f"`linear(state=...)`: expected a state without batch, got {tuple(state.weight.shape)}")
        layer = nn.Linear(self.n_in, self.count, bias=self.biased, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            layer.weight.copy_(state.weight[:, : self.n_in])
            if self.biased:
                layer.bias.copy_(state.weight[:, self.n_in])
        return layer


class OnlineFit(NamedTuple):
    """Outcome of `fit_online`."""

    readout: nn.Linear
    """The readout after the last sample."""
    predictions: Tensor
    """What was predicted for each sample before it was learnt, ``(samples, targets)``."""


@torch.no_grad()
def fit_online(x: Tensor, y: Tensor, rule: OnlineRule, *, bias: bool = True, loop: str | Loop = "auto") -> OnlineFit:
    """Learn a readout from samples in their order, each seen once.

    A rule with a quicker way through samples that are all known, as `RLS` has, takes it; others run step by step.

    Args:
        x: Features, ``(*leading, features)``; leading axes are flattened into one of samples.
        y: Targets, ``(*leading, targets)`` or ``(*leading,)``.
        rule: How to learn.
        bias: Whether to learn a bias.
        loop: Time loop, as in `bdtorch.simulate`; given other than "auto", the rule goes step by step in it.

    Raises:
        TypeError, ValueError: An argument is not as described.
        FloatingPointError: The rule diverged.
    """
    rows_x, rows_y = checked_samples(x, y, "fit_online")
    if not isinstance(rule, OnlineRule):
        raise TypeError(f"`fit_online(rule=...)`: expected a rule such as bdtorch.train.RLS(), got {rule!r}")
    flag(bias, "fit_online(bias=...)")
    if not len(rows_x):
        raise ValueError(f"`fit_online(x=...)`: expected at least one sample, got shape {tuple(x.shape)}")
    rows_x = rows_x if rows_x.is_floating_point() else rows_x.to(torch.get_default_dtype())
    system = OnlineReadout(rows_x.shape[1], rows_y.shape[1], rule, bias=bias, dtype=rows_x.dtype, device=rows_x.device)
    rows_y = rows_y.to(rows_x.dtype)
    if loop == "auto":
        known = torch.nn.functional.pad(rows_x, (0, 1), value=1.0) if bias else rows_x
        state = system.init_state()
        made = rule.learn_all(state.rule, state.weight, known, rows_y)
        if made is not None:
            weight, predictions = made
            if not bool(weight.isfinite().all() & predictions.isfinite().all()):
                raise FloatingPointError(f"`fit_online`: {type(rule).__name__} diverged; nothing was learnt")
            return OnlineFit(system.linear(state._replace(weight=weight)), predictions)
    try:
        sol = simulate(system, (rows_x, rows_y), dt=1.0, batch_shape=(), loop=loop, progress=False).whole()
    except FloatingPointError as error:
        raise FloatingPointError(f"`fit_online`: {type(rule).__name__} diverged; nothing was learnt") from error
    return OnlineFit(system.linear(sol.state), sol.out)
