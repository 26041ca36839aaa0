"""Checks of the operators on stored weights, rings and traces, and of segments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops._checks import Check, csr_of, deterministic
from bdtorch.ops.csr import TWO_BYTES

LOW, HIGH, SLOTS = -0.5, 0.75, 6
DTYPES = (torch.float32, torch.float64, *TWO_BYTES)


def weight_checks(cuda: bool) -> Iterator[Check]:
    """Dense products, changes of weights, delayed products and traces, against the CPU's or against their formulas."""
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 1, 1.0), (65, 7, 0.3), (300, 500, 0.1))
    for (n_pre, n_post, density), stored, batch, event in itertools.product(shapes, DTYPES, ((), (5,)), (True, False)):
        sums = torch.float32 if stored in TWO_BYTES else stored

        def values(*shape: int, dtype: torch.dtype = sums, batch: tuple[int, ...] = batch) -> Tensor:
            return torch.randn(*batch, *shape, generator=generator, dtype=torch.float64).to(dtype)

        indices, indptr = csr_of(n_pre, n_post, density, generator)
        name = f"{n_pre} x {n_post}, {str(stored)[6:]}, batch {batch}, {'bool' if event else 'float'} spikes"
        pre, post = (values(n) - 0.5 for n in (n_pre, n_post))
        spikes = (pre > 0, post > 0) if event else (pre.relu(), post.relu())
        terms, dense = (pre.cos(), post.cos()), values(n_pre, n_post, dtype=stored)
        synapses = values(len(indices), dtype=stored)
        yield from _dense_checks(cuda, name, spikes, terms, dense)
        yield from _sparse_changes(cuda, name, spikes, terms, synapses, indices, indptr)
        ring, weights = values(SLOTS, n_post), values(len(indices), dtype=stored, batch=())
        yield from _delayed_checks(cuda, name, ring, spikes[0], weights, indices, indptr)
        if stored not in TWO_BYTES and not event:
            traces, decay = values(len(indices)), torch.tensor(0.9, dtype=sums)
            yield from _trace_checks(cuda, name, traces, decay, pre, post, indices, indptr)


def _either(cuda: bool, operator: Callable[..., Tensor], formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What is right: what the operator gives on the CPU, and there, what the formula says."""
    return operator if cuda else formula


def _dense_checks(
    cuda: bool, name: str, spikes: tuple[Tensor, Tensor], terms: tuple[Tensor, Tensor], dense: Tensor
) -> Iterator[Check]:
    tolerance = 1e-10 if dense.dtype == torch.float64 else 1e-4

    def rows(s: Tensor, m: Tensor) -> Tensor:
        return (s.double().unsqueeze(-2) @ m.double()).squeeze(-2).to(terms[0].dtype)

    def columns(s: Tensor, m: Tensor) -> Tensor:
        return rows(s, m.mT)

    products = (("event_dense", rows, spikes[0]), ("event_dense_t", columns, spikes[1]))
    for product, formula, s in products:
        door = getattr(ops, product)
        yield Check(f"{product}, {name}", door, (s, dense), _either(cuda, door, formula), tolerance)
    for by_columns in (False, True):
        s, a = (spikes[1], terms[0]) if by_columns else (spikes[0], terms[1])
        of_spikes, of_terms = (-2, -1) if by_columns else (-1, -2)

        def change(w: Tensor, s: Tensor, a: Tensor, b: Tensor | None, by_columns: bool = by_columns) -> Tensor:
            return ops.plasticity_dense(w, s, a, b, low=LOW, high=HIGH, columns=by_columns)

        def formula_of_change(
            w: Tensor, s: Tensor, a: Tensor, b: Tensor | None, i: int = of_spikes, j: int = of_terms
        ) -> Tensor:
            return _changed(w, s.unsqueeze(i), a.unsqueeze(j), None if b is None else b.unsqueeze(j))

        for slope in (None, a.sin()):
            title = f"plasticity_dense, {'columns' if by_columns else 'rows'}, {'a' if slope is None else 'a and b'}, {name}"
            yield Check(title, change, (dense, s, a, slope), _either(cuda, change, formula_of_change))


def _sparse_changes(
    cuda: bool, name: str, spikes: tuple[Tensor, Tensor], terms: tuple[Tensor, Tensor], weights: Tensor,
    indices: Tensor, indptr: Tensor,
) -> Iterator[Check]:  # fmt: skip
    rows = _rows_of(indptr)
    order = torch.argsort(indices, stable=True)
    counts = torch.bincount(indices, minlength=spikes[1].shape[-1])
    of_targets = (
        rows[order].to(torch.int32),
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        order.to(torch.int32),
    )

    def change(w: Tensor, s: Tensor, a: Tensor, i: Tensor, p: Tensor, k: Tensor | None) -> Tensor:
        return ops.plasticity_csr(w, s, a, a, i, p, k, low=LOW, high=HIGH)

    def formula(w: Tensor, s: Tensor, a: Tensor, i: Tensor, p: Tensor, k: Tensor | None) -> Tensor:
        starts, ends = _rows_of(p), i.long()
        if k is not None:
            back = torch.argsort(k)
            starts, ends = starts[back], ends[back]
        return _changed(w, s[..., starts], a[..., ends], a[..., ends])

    right = _either(cuda, change, formula)
    arguments = (weights, spikes[0], terms[1], indices, indptr, None)
    yield Check(f"plasticity_csr, {name}", change, arguments, right)
    yield Check(f"plasticity_csr, by targets, {name}", change, (weights, spikes[1], terms[0], *of_targets), right)


def _delayed_checks(
    cuda: bool, name: str, ring: Tensor, spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor
) -> Iterator[Check]:
    cursor = torch.full(spikes.shape[:-1], SLOTS - 1)
    delays = (torch.arange(len(indices)) % SLOTS).to(torch.int32)
    n_post = ring.shape[-1]

    def formula(r: Tensor, c: Tensor, s: Tensor, w: Tensor, i: Tensor, p: Tensor, d: Tensor) -> Tensor:
        place = torch.remainder(c.unsqueeze(-1) + d, SLOTS) * n_post + i
        amount = s[..., _rows_of(p)].double() * w.double()
        flat = r.double().flatten(-2)
        return flat.scatter_add(-1, place, amount).reshape(r.shape).to(r.dtype)

    door = ops.event_csr_delayed
    arguments = (ring, cursor, spikes, weights, indices, indptr, delays)
    tolerance = 1e-10 if ring.dtype == torch.float64 else 1e-4
    yield Check(f"event_csr_delayed, {name}", door, arguments, _either(cuda, door, formula), tolerance)
    if cuda:
        yield Check(f"event_csr_delayed, deterministic, {name}", deterministic(door), arguments, door)


def _trace_checks(
    cuda: bool, name: str, traces: Tensor, decay: Tensor, x: Tensor, psi: Tensor, indices: Tensor, indptr: Tensor
) -> Iterator[Check]:
    def formula(e: Tensor, g: Tensor, x: Tensor, psi: Tensor, i: Tensor, p: Tensor) -> Tensor:
        return g * e + x[..., _rows_of(p)] * psi[..., i.long()]

    door = ops.eligibility_csr
    arguments = (traces, decay, x, psi, indices, indptr)
    yield Check(f"eligibility_csr, {name}", door, arguments, _either(cuda, door, formula), 1e-6)

    def sampled(a: Tensor, b: Tensor, i: Tensor, p: Tensor) -> Tensor:
        return (a.double() @ b.double())[_rows_of(p), i.long()].to(a.dtype)

    a, b = x.reshape(-1, x.shape[-1]).mT, psi.reshape(-1, psi.shape[-1])
    right = _either(cuda, ops.csr_sampled, sampled)
    yield Check(f"csr_sampled, {name}", ops.csr_sampled, (a, b, indices, indptr), right, 1e-4)


def segment_checks(cuda: bool) -> Iterator[Check]:
    """Reductions over segments, which are torch's, against the CPU's or against one segment after the other."""
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(0, 40, (700,), generator=generator)
    values = torch.randn(3, 700, generator=generator)
    n = 45  # the last five are empty
    reductions: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
        "sum": (lambda v: v.sum(-1), 0.0),
        "mean": (lambda v: v.mean(-1), 0.0),
        "max": (lambda v: v.amax(-1), -torch.inf),
        "min": (lambda v: v.amin(-1), torch.inf),
    }
    for name, (reduce, empty) in reductions.items():
        door = getattr(ops, f"segment_{name}")

        def formula(v: Tensor, i: Tensor, n: int, reduce: Any = reduce, empty: float = empty) -> Tensor:
            parts = [v[:, i == j] for j in range(n)]
            return torch.stack([reduce(p) if p.numel() else v.new_full((len(v),), empty) for p in parts], -1)

        arguments = (values, index, n)
        finite: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = _finite
        yield Check(f"segment_{name}", finite(door), arguments, finite(_either(cuda, door, formula)), 1e-5)

    def softmax(v: Tensor, i: Tensor, n: int) -> Tensor:
        out = torch.empty_like(v)
        for j in range(n):
            out[:, i == j] = torch.softmax(v[:, i == j], -1)
        return out

    right = _either(cuda, ops.segment_softmax, softmax)
    yield Check("segment_softmax", ops.segment_softmax, (values, index, n), right, 1e-5)


def _finite(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without infinities, whose differences are not numbers."""
    return lambda *arguments: function(*arguments).clamp(-1e3, 1e3)


def _rows_of(indptr: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(indptr) - 1, device=indptr.device), indptr.diff())


def _changed(weights: Tensor, spikes: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
    """The formula of plasticity, rounded as the operator rounds."""
    w, s = weights.to(a.dtype), spikes.to(a.dtype)
    after = (w + s * (a if b is None else a + b * w)).clamp(LOW, HIGH)
    return torch.where(spikes != 0, after.to(weights.dtype), weights)
