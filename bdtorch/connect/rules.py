"""Rules that draw connectivity. A rule is a small value; `build` draws it for two populations from a seed."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch

from bdtorch.connect.data import CSR, Connectivity, Dense, Identity
from bdtorch.ops.csr_order import csr_transpose
from bdtorch.ops.draw import draw_bernoulli, draw_distinct, partners


@dataclass(frozen=True)
class Rule(abc.ABC):
    """How two populations are wired."""

    @abc.abstractmethod
    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> Connectivity:
        """Draw the connectivity.

        Args:
            n_pre: Number of sources.
            n_post: Number of targets.
            seed: Names the draw; the same on every device.
            self_offset: Where sources are among the targets, the target that source 0 is.
        """


@dataclass(frozen=True)
class FixedProbability(Rule):
    """Every ordered pair is connected independently with probability ``p``.

    Args:
        p: Probability, in [0, 1].
        autapses: Whether a neuron may reach itself.
    """

    p: float
    autapses: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"`FixedProbability(p=...)`: expected a probability in [0, 1], got {self.p!r}")

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> CSR:
        barred = None if self.autapses else self_offset
        return CSR(*draw_bernoulli(seed, n_pre, n_post, self.p, self_offset=barred), n_post)


@dataclass(frozen=True)
class FixedNumberPost(Rule):
    """Every target receives exactly ``n`` synapses from distinct, uniformly drawn sources (fixed in-degree)."""

    n: int
    autapses: bool = True

    def __post_init__(self) -> None:
        _check_count("FixedNumberPost(n=...)", self.n)

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> CSR:
        own = None if self.autapses or self_offset is None else -self_offset  # the source that target 0 itself is
        by_target = _fixed_number("FixedNumberPost(n=...)", n_post, n_pre, self.n, seed, own)
        sources, indptr, _ = csr_transpose(by_target.indices, by_target.indptr, n_pre, numbered=False)
        return CSR(sources, indptr, n_post)


@dataclass(frozen=True)
class FixedNumberPre(Rule):
    """Every source makes exactly ``n`` synapses on distinct, uniformly drawn targets (fixed out-degree)."""

    n: int
    autapses: bool = True

    def __post_init__(self) -> None:
        _check_count("FixedNumberPre(n=...)", self.n)

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> CSR:
        own = None if self.autapses else self_offset
        return _fixed_number("FixedNumberPre(n=...)", n_pre, n_post, self.n, seed, own)


@dataclass(frozen=True)
class OneToOne(Rule):
    """Source i reaches target i; the populations have equal size."""

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> Identity:
        if n_pre != n_post:
            raise ValueError(f"`OneToOne`: expected populations of equal size, got {n_pre} and {n_post}")
        return Identity(n_pre)


@dataclass(frozen=True)
class AllToAll(Rule):
    """Every source reaches every target.

    Args:
        autapses: Whether a neuron reaches itself.
        order: Whether the weights of a source (``"pre"``) or of a target (``"post"``) lie side by side, see `Dense`.
    """

    autapses: bool = True
    order: str = "pre"

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> Dense:
        return Dense(n_pre, n_post, self_offset=None if self.autapses else self_offset, order=self.order)


def _check_count(label: str, n: int) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"`{label}`: expected a non-negative integer, got {n!r}")


def _fixed_number(label: str, rows: int, choices: int, n: int, seed: int, self_offset: int | None) -> CSR:
    """Rows of n distinct values, row i without ``i + self_offset``."""
    available = partners(rows, choices, self_offset)
    if n > available:
        raise ValueError(f"`{label}`: expected at most {available} distinct partners, got {n}")
    drawn = draw_distinct(seed, rows, choices, n, self_offset=self_offset)
    return CSR(drawn.reshape(-1), torch.arange(rows + 1) * n, choices)
