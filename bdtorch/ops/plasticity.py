r"""Event-driven changes of weights, affine in the weight and bounded: what rules of plasticity are made of.

$$w_{ij} \leftarrow \mathrm{clip}\big(w_{ij} + s_i (a_j + b_j w_{ij}),\; low,\; high\big)$$
    \quad \text{where } s_i \ne 0

Here $i$ runs over the neurons that spike and $j$ over their partners, in either direction. Weights of
neurons without an event are not touched, not even to bring them within the bounds. With $a$ a trace of the
partners' spikes this is a pair rule; $b$ makes bounds soft; a factor $s_i$ other than 1 makes triplet and
voltage rules. Functional here; a native loop changes weights in place.

Weights in bfloat16 or float16 are changed in float32, the dtype of the other operands, and rounded to the nearest: a
change below a 512th (a 4096th) of the weight may be lost, so small steps call for float32.

A gradient goes to weights, `a`, `b` and floating-point spikes: that of the formula, 0 where a bound cut the weight.
Rounding to two bytes counts as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import loop_over_samples, sum_of
from bdtorch.ops._synapses import SynapseEnds
from bdtorch.ops.csr import (
    dtype_of_sums,
    expect_permutation,
    expect_spikes,
    expect_stored,
    expect_structure,
    expect_values,
)

_plasticity_dense = DifferentiableOp("plasticity_dense")
_plasticity_csr = DifferentiableOp("plasticity_csr")


def plasticity_dense(
    weights: Tensor,
    spikes: Tensor,
    a: Tensor,
    b: Tensor | None = None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    columns: bool = False,
) -> Tensor:
    """Changes the rows, or the columns, of active neurons in a dense matrix of weights; for the formula see the module.

    Args:
        weights: ``(*batch, n_rows, n_columns)``, float32, float64, bfloat16 or float16.
        spikes: ``(*batch, n_rows)``, or with `columns` ``(*batch, n_columns)``: bool, or a factor of the dtype of
            `weights` (float32 for two bytes).
        a: ``(*batch, n_columns)``, or with `columns` ``(*batch, n_rows)``, in the unit of the weights.
        b: Like `a`, without unit; None for 0.
        low: Lower bound, in the unit of the weights.
        high: Upper bound.
        columns: Whether it is the columns' neurons that spike.

    Returns:
        The new weights, of the shape of `weights`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or bounds are not in order.
    """
    op = "plasticity_dense"
    expect_stored(op, "weights", weights)
    if weights.dim() < 2:
        raise ValueError(f"`{op}(weights=...)`: expected shape (*batch, n_rows, n_columns), got {tuple(weights.shape)}")
    batch, (n_rows, n_columns) = weights.shape[:-2], weights.shape[-2:]
    n_spiking, n_terms = (n_columns, n_rows) if columns else (n_rows, n_columns)
    _expect_change(op, weights, batch, spikes, n_spiking, a, b, n_terms, low, high)
    tensors = _one_batch_axis(len(batch), (weights, 2), (spikes, 1), (a, 1), (b, 1))
    after: Tensor = _plasticity_dense(*tensors, float(low), float(high), columns)
    return after.reshape(weights.shape) if len(batch) > 1 else after


def plasticity_csr(
    weights: Tensor,
    spikes: Tensor,
    a: Tensor,
    b: Tensor | None,
    indices: Tensor,
    indptr: Tensor,
    synapses: Tensor | None = None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> Tensor:
    """Changes the synapses of active rows of a CSR structure; for the formula see the module.

    With `synapses` the structure is the transpose of the one that orders the weights, and its rows are the columns of
    the matrix: spikes are then postsynaptic ones.

    Args:
        weights: ``(*batch, n_synapses)``, float32, float64, bfloat16 or float16.
        spikes: ``(*batch, n_rows)``, bool, or a factor of the dtype of `weights` (float32 for two bytes).
        a: ``(*batch, n)``, a value for each neuron that `indices` names, in the unit of the weights.
        b: Like `a`, without unit; None for 0.
        indices: ``(n_synapses,)`` int32, partner at each position.
        indptr: ``(n_rows + 1,)`` int32 or int64, first position of each row.
        synapses: ``(n_synapses,)`` int32, a permutation: the weight at each position; None where weights are in the
            order of the positions.
        low: Lower bound, in the unit of the weights.
        high: Upper bound.

    Returns:
        The new weights, of the shape of `weights`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, bounds are not in order, the structure is none (see
            `check_csr`), or `synapses` no permutation.
    """
    op = "plasticity_csr"
    expect_structure(op, indices, indptr)
    expect_stored(op, "weights", weights)
    if weights.dim() == 0 or weights.shape[-1] != indices.shape[0]:
        raise ValueError(f"`{op}(weights=...)`: expected shape (*batch, {len(indices)}), got {tuple(weights.shape)}")
    if weights.device != indices.device:
        raise ValueError(f"`{op}(weights=...)`: expected the device of indices, {indices.device}, got {weights.device}")
    if synapses is not None and (synapses.dtype != torch.int32 or synapses.shape != indices.shape):
        raise ValueError(
            f"`{op}(synapses=...)`: expected int32 of shape ({len(indices)},), "
            f"got {synapses.dtype} of shape {tuple(synapses.shape)}"
        )
    if synapses is not None and synapses.device != indices.device:
        raise ValueError(
            f"`{op}(synapses=...)`: expected the device of indices, {indices.device}, got {synapses.device}"
        )
    batch = weights.shape[:-1]
    _expect_change(op, weights, batch, spikes, indptr.shape[0] - 1, a, b, None, low, high)
    expect_values(op, indices, indptr, a.shape[-1])
    if synapses is not None:
        expect_permutation(op, "synapses", synapses)
    tensors = _one_batch_axis(len(batch), (weights, 1), (spikes, 1), (a, 1), (b, 1))
    after: Tensor = _plasticity_csr(*tensors, indices, indptr, synapses, float(low), float(high))
    return after.reshape(weights.shape) if len(batch) > 1 else after


def _expect_change(
    op: str,
    weights: Tensor,
    batch: torch.Size,
    spikes: Tensor,
    n_spiking: int,
    a: Tensor,
    b: Tensor | None,
    n_terms: int | None,
    low: float,
    high: float,
) -> None:
    expect_spikes(op, spikes, weights, "weights", n_spiking)
    for name, term in (("a", a), ("b", b)):
        if term is None:
            continue
        if term.dtype != dtype_of_sums(weights):
            raise TypeError(f"`{op}({name}=...)`: expected {dtype_of_sums(weights)}, got {term.dtype}")
        if term.device != weights.device:
            raise ValueError(f"`{op}({name}=...)`: expected the device of weights, {weights.device}, got {term.device}")
        wanted = n_terms if n_terms is not None or name == "a" else a.shape[-1]
        if term.dim() == 0 or (wanted is not None and term.shape[-1] != wanted):
            size = "n" if wanted is None else wanted
            raise ValueError(f"`{op}({name}=...)`: expected shape (*batch, {size}), got {tuple(term.shape)}")
    for name, term in (("spikes", spikes), ("a", a), ("b", b)):
        if term is not None and term.shape[:-1] != batch:
            raise ValueError(
                f"`{op}({name}=...)`: expected the batch shape of weights, {tuple(batch)}, got {tuple(term.shape[:-1])}"
            )
    if not low <= high:
        raise ValueError(f"`{op}(low=..., high=...)`: expected low <= high, got {low} and {high}")


def _one_batch_axis(n_batch: int, *operands: tuple[Tensor | None, int]) -> list[Tensor | None]:
    """The batch axes of every operand as one; the number of its other axes stands beside it."""
    if n_batch <= 1:
        return [tensor for tensor, _ in operands]
    return [None if tensor is None else tensor.flatten(0, -1 - rest) for tensor, rest in operands]


# Derivatives: those of the formula, element by element, and sums over the elements that share an operand.


def _slopes(
    w: Tensor, s: Tensor, a: Tensor, b: Tensor | None, low: float, high: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The partial derivatives of the new weight with respect to w, s, a and b."""
    growth = a if b is None else a + b * w
    free = w + s * growth
    inside = (((free >= low) & (free <= high)) | (s == 0)).to(w.dtype)
    own = inside if b is None else inside * (1 + s * b)
    return own, inside * growth, inside * s, inside * s * w


class _Dense:
    """The neurons at both ends of every element of a matrix, with those that spike as its rows: like `SynapseEnds`."""

    def __init__(self, columns: bool) -> None:
        self.of_spikes, self.of_terms = (-2, -1) if columns else (-1, -2)

    def from_rows(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.of_spikes)

    def from_columns(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.of_terms)

    def to_rows(self, x: Tensor, n: int) -> Tensor:
        return x.sum(self.of_spikes)

    def to_columns(self, x: Tensor, n: int) -> Tensor:
        return x.sum(self.of_terms)


def _structure_and_bounds(inputs: Sequence[Any]) -> tuple[_Dense | SynapseEnds, float, float]:
    if isinstance(inputs[4], Tensor):
        return SynapseEnds(*inputs[4:7]), inputs[7], inputs[8]
    return _Dense(inputs[6]), inputs[4], inputs[5]


def _spread(inputs: Sequence[Any]) -> tuple[_Dense | SynapseEnds, tuple[Tensor, ...]]:
    """The structure, and the slopes of every weight."""
    where, low, high = _structure_and_bounds(inputs)
    w, spikes, a, b = inputs[:4]
    s = where.from_rows(spikes.to(a.dtype))
    spread_b = None if b is None else where.from_columns(b)
    return where, _slopes(w.to(a.dtype), s, where.from_columns(a), spread_b, low, high)


def _backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    gradients: list[Tensor | None] = [None] * len(inputs)
    if grad is None:
        return gradients
    where, slopes = _spread(inputs)
    grad = grad.to(inputs[2].dtype)
    if needs[0]:
        gradients[0] = (grad * slopes[0]).to(inputs[0].dtype)
    if needs[1]:
        gradients[1] = where.to_rows(grad * slopes[1], inputs[1].shape[-1])
    for k in (2, 3):
        if needs[k]:
            gradients[k] = where.to_columns(grad * slopes[k], inputs[k].shape[-1])
    return gradients


def _jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    where, slopes = _spread(inputs)
    spread = (lambda x: x, where.from_rows, where.from_columns, where.from_columns)
    change = sum_of([
        None if tangent is None else slope * put(tangent)
        for slope, put, tangent in zip(slopes, spread, tangents, strict=False)
    ])  # fmt: skip
    return None if change is None else change.to(inputs[0].dtype)


def _vmap(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """One call, with the samples as further ones of the batch; a structure of each sample's own makes a call each."""
    if any(dim is not None for dim in in_dims[4:]):
        return loop_over_samples(op, batch_size, in_dims, *args)
    operands: list[Any] = [
        x if x is None else x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(args[:4], in_dims, strict=False)
    ]
    shape, batched = operands[0].shape, operands[1].dim() == 3
    after = op(*(x if x is None or not batched else x.flatten(0, 1) for x in operands), *args[4:])
    return after.reshape(shape), 0


for _op in (_plasticity_dense, _plasticity_csr):
    _op.register_fake(lambda weights, *_: torch.empty_like(weights, memory_format=torch.contiguous_format))
    _op.register_vmap(_vmap)
    _op.register_autograd(backward=_backward, jvp=_jvp)
