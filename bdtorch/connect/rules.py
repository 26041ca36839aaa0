"""Rules that draw connectivity. A rule is a small value; `build` draws it for two populations from a seed."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bdtorch.connect.data import CSR, Connectivity, Dense, Identity
from bdtorch.ops import random


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
        counts, indices = torch.zeros(n_pre, dtype=torch.int64), [torch.empty(0, dtype=torch.int32)]
        # Part by part: the pairs of a large network take several times the memory of its targets.
        for pairs in _bernoulli_positions(n_pre * n_post, self.p, seed):
            pre, post = pairs // n_post, pairs % n_post
            if not self.autapses and self_offset is not None:
                other = post != pre + self_offset
                pre, post = pre[other], post[other]
            counts += torch.bincount(pre, minlength=n_pre)
            indices.append(post.to(torch.int32))
        return CSR(torch.cat(indices), torch.cat([counts.new_zeros(1), counts.cumsum(0)]), n_post)


@dataclass(frozen=True)
class FixedNumberPost(Rule):
    """Every target receives exactly ``n`` synapses from distinct, uniformly drawn sources (fixed in-degree)."""

    n: int
    autapses: bool = True

    def __post_init__(self) -> None:
        _check_count("FixedNumberPost(n=...)", self.n)

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> CSR:
        skip = None
        if not self.autapses and self_offset is not None:
            skip = torch.arange(n_post) - self_offset  # the source that each target itself is
        sources = _distinct_rows("FixedNumberPost(n=...)", n_post, n_pre, self.n, seed, skip)
        targets = torch.arange(n_post).repeat_interleave(self.n)
        return CSR.from_edges(sources.reshape(-1), targets, n_pre, n_post)


@dataclass(frozen=True)
class FixedNumberPre(Rule):
    """Every source makes exactly ``n`` synapses on distinct, uniformly drawn targets (fixed out-degree)."""

    n: int
    autapses: bool = True

    def __post_init__(self) -> None:
        _check_count("FixedNumberPre(n=...)", self.n)

    def build(self, n_pre: int, n_post: int, *, seed: int = 0, self_offset: int | None = None) -> CSR:
        skip = None
        if not self.autapses and self_offset is not None:
            skip = torch.arange(n_pre) + self_offset
        targets = _distinct_rows("FixedNumberPre(n=...)", n_pre, n_post, self.n, seed, skip)
        return CSR.from_edges(torch.arange(n_pre).repeat_interleave(self.n), targets.reshape(-1), n_pre, n_post)


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


def _uniforms(seed: int, block: int, n: int) -> Tensor:
    key = random.make_key(seed)
    return random.uniform(key, torch.full_like(key, block), n, dtype=torch.float64)


def _bernoulli_positions(total: int, p: float, seed: int) -> Iterator[Tensor]:
    """The successes of ``total`` Bernoulli trials, ascending and in parts, drawn by their geometric gaps: time grows with
    successes.

    Source: Batagelj & Brandes (2005), doi:10.1103/PhysRevE.71.036113.
    """
    if p == 0.0:
        return
    if p == 1.0:
        yield torch.arange(total)
        return
    expected = total * p
    chunk = min(int(expected + 6.0 * math.sqrt(expected * (1.0 - p)) + 16), 1 << 22)
    last, block = -1, 0
    while last < total:
        u = _uniforms(seed, block, chunk)
        gaps = (torch.log1p(-u) / math.log1p(-p)).floor().clamp(max=float(total)).to(torch.int64) + 1
        positions = last + gaps.cumsum(0)
        yield positions[positions < total]
        last, block = int(positions[-1]), block + 1


def _distinct_rows(label: str, rows: int, choices: int, n: int, seed: int, skip: Tensor | None) -> Tensor:
    """``n`` distinct values of ``range(choices)`` in each of ``rows`` rows, uniform over subsets without ``skip[row]``.

    Sparse rows draw duplicates (and the skipped value) again until none is left, which is uniform because it amounts to
    drawing one after the other and rejecting what is already there. Dense rows rank random keys.
    """
    barred = torch.full((rows, 1), -1) if skip is None else skip[:, None]
    available = choices - int(bool(((barred >= 0) & (barred < choices)).any()))
    if n > available:
        raise ValueError(f"`{label}`: expected at most {available} distinct partners, got {n}")
    if 2 * n > choices:
        keys = _uniforms(seed, 0, rows * choices).reshape(rows, choices)
        return keys.masked_fill(torch.arange(choices) == barred, 2.0).argsort(1)[:, :n]
    values = (_uniforms(seed, 0, rows * n) * choices).to(torch.int64).reshape(rows, n)
    block = 1
    while True:
        values = values.sort(dim=1).values
        rejected = values == barred
        rejected[:, 1:] |= values[:, 1:] == values[:, :-1]
        count = int(rejected.sum())
        if not count:
            return values
        values[rejected] = (_uniforms(seed, block, count) * choices).to(torch.int64)
        block += 1
