r"""Event-driven products with a sparse matrix in CSR form, the connectivity of spiking networks.

The matrix $W$ has a row for each presynaptic and a column for each postsynaptic neuron. Row $i$ owns the
synapses ``indptr[i] <= k < indptr[i + 1]``, synapse ``k`` ends at neuron ``indices[k]``, and indices ascend within a
row. A 0-d weight is shared by all synapses, a 1-D one has a value for each.

The three ops are the partial derivatives of one trilinear form $\sum_{bij} s_{bi} W_{ij} g_{bj}$, so they are
each other's derivatives, of any order. Weights may be stored in bfloat16 or float16; sums are then made and returned in float32.
Results are equal to the bit for any number of threads, and those of a batch
equal those of its samples. On a GPU `event_csr` adds with atomics, in no fixed order, unless
`torch.use_deterministic_algorithms` is on: then its results are those of the CPU, to the bit, and take longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import flatten_batch, fold_into_batch, loop_over_samples, sum_of
from bdtorch.ops.csr import (
    dtype_of_sums,
    expect_floating,
    expect_per_neuron,
    expect_structure,
    expect_values,
    expect_weights,
    is_known,
)

_event_csr_unordered = DifferentiableOp("event_csr")
_event_csr_ordered = DifferentiableOp("event_csr_ordered")
_event_csr_t = DifferentiableOp("event_csr_t")
_csr_outer = DifferentiableOp("csr_outer")


def event_csr(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    r"""Sums the weights of the synapses of active neurons onto their targets.

    $$y_{bj} = \sum_i s_{bi} W_{ij}$$

    Only rows with $s_{bi} \ne 0$ are read. The gradient with respect to floating-point spikes is that of the
    product, so silent neurons receive one too; bool spikes receive none.

    Args:
        spikes: ``(*batch, n_pre)``, bool, or of the dtype of the sums (a nonzero value is an event and a factor).
        weights: ``()`` or ``(n_synapses,)``, float32, float64, or bfloat16 or float16 with sums in float32.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.
        n_post: Number of postsynaptic neurons, above every index.

    Returns:
        ``(*batch, n_post)`` in the dtype of the sums and the units of `weights`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or the structure is none (see `check_csr`).
    """
    if not torch.compiler.is_compiling() and is_known(indices, indptr, n_post) and spikes.dim() <= 2:
        try:  # the kernel's host checks forms again, in a tenth of the time
            return _event_csr(spikes, weights, indices, indptr, n_post)
        except RuntimeError:
            _expect_arguments(spikes, weights, indices, indptr, n_post)
            raise
    _expect_arguments(spikes, weights, indices, indptr, n_post)
    expect_values("event_csr", indices, indptr, n_post)
    y = _event_csr(flatten_batch(spikes), weights, indices, indptr, n_post)
    return y if spikes.dim() <= 2 else y.reshape(*spikes.shape[:-1], n_post)


def event_csr_t(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    r"""Applies the transposed matrix: from postsynaptic values to presynaptic sums.

    $$x_{bi} = \sum_j W_{ij} s_{bj}$$

    Args:
        spikes: ``(*batch, n_post)``, bool or of the dtype of the sums; every index must be below n_post.
        weights: ``()`` or ``(n_synapses,)``, float32, float64, or bfloat16 or float16 with sums in float32.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.

    Returns:
        ``(*batch, n_pre)`` in the dtype of the sums and the units of `weights`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or the structure is none (see `check_csr`).
    """
    expect_structure("event_csr_t", indices, indptr)
    expect_weights("event_csr_t", weights, indices)
    expect_per_neuron("event_csr_t", "spikes", spikes, None, dtype_of_sums(weights), indices)
    expect_values("event_csr_t", indices, indptr, spikes.shape[-1])
    sums: Tensor = _event_csr_t(flatten_batch(spikes), weights, indices, indptr)
    return sums if spikes.dim() <= 2 else sums.reshape(*spikes.shape[:-1], indptr.shape[0] - 1)


def csr_outer(x: Tensor, g: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    r"""Multiplies pre- and postsynaptic values at each synapse and sums over the batch: the gradient of the weights.

    $$p_k = \sum_b x_{b,\mathrm{row}(k)} \, g_{b,\mathrm{indices}_k}$$

    Presynaptic neurons with $x_{bi} = 0$ are skipped.

    Args:
        x: ``(*batch, n_pre)``, bool or of the dtype of `g`.
        g: ``(*batch, n_post)``, float32 or float64; every index must be below n_post.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.

    Returns:
        ``(n_synapses,)`` in the dtype of `g`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or the structure is none (see `check_csr`).
    """
    expect_structure("csr_outer", indices, indptr)
    expect_floating("csr_outer", "g", g)
    expect_per_neuron("csr_outer", "g", g, None, g.dtype, indices)
    expect_per_neuron("csr_outer", "x", x, indptr.shape[0] - 1, g.dtype, indices)
    if x.shape[:-1] != g.shape[:-1]:
        raise ValueError(
            f"`csr_outer(g=...)`: expected the batch shape of x, {tuple(x.shape[:-1])}, got {tuple(g.shape[:-1])}"
        )
    expect_values("csr_outer", indices, indptr, g.shape[-1])
    products: Tensor = _csr_outer(flatten_batch(x), flatten_batch(g), indices, indptr)
    return products


def _expect_arguments(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> None:
    expect_structure("event_csr", indices, indptr)
    expect_weights("event_csr", weights, indices)
    if n_post < 0:
        raise ValueError(f"`event_csr(n_post=...)`: expected a nonnegative number, got {n_post}")
    expect_per_neuron("event_csr", "spikes", spikes, indptr.shape[0] - 1, dtype_of_sums(weights), indices)


def _event_csr(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    ordered = spikes.is_cuda and torch.are_deterministic_algorithms_enabled()
    y: Tensor = (_event_csr_ordered if ordered else _event_csr_unordered)(spikes, weights, indices, indptr, n_post)
    return y


def _weight_gradient(x: Tensor, g: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    """The derivative of sum_bij x_bi W_ij g_bj with respect to the weights."""
    if weights.dim() == 1:
        products: Tensor = _csr_outer(x, g, indices, indptr)
        return products.to(weights.dtype)
    inputs = _event_csr(x, g.new_ones(()), indices, indptr, g.shape[-1])
    return (inputs * g).sum().to(weights.dtype)


def _event_csr_backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    spikes, weights, indices, indptr, _ = inputs
    if grad is None:
        return [None] * 5
    to_spikes = _event_csr_t(grad, weights, indices, indptr) if needs[0] else None
    to_weights = _weight_gradient(spikes, grad, weights, indices, indptr) if needs[1] else None
    return [to_spikes, to_weights, None, None, None]


def _event_csr_jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    spikes, weights, indices, indptr, n_post = inputs
    return sum_of([
        None if tangents[0] is None else _event_csr(tangents[0], weights, indices, indptr, n_post),
        None if tangents[1] is None else _event_csr(spikes, tangents[1], indices, indptr, n_post),
    ])  # fmt: skip


def _event_csr_t_backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    spikes, weights, indices, indptr = inputs
    if grad is None:
        return [None] * 4
    to_spikes = _event_csr(grad, weights, indices, indptr, spikes.shape[-1]) if needs[0] else None
    to_weights = _weight_gradient(grad, spikes.to(grad.dtype), weights, indices, indptr) if needs[1] else None
    return [to_spikes, to_weights, None, None]


def _event_csr_t_jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    spikes, weights, indices, indptr = inputs
    return sum_of([
        None if tangents[0] is None else _event_csr_t(tangents[0], weights, indices, indptr),
        None if tangents[1] is None else _event_csr_t(spikes, tangents[1], indices, indptr),
    ])  # fmt: skip


def _csr_outer_backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    x, g, indices, indptr = inputs
    if grad is None:
        return [None] * 4
    to_x = _event_csr_t(g, grad, indices, indptr) if needs[0] else None
    to_g = _event_csr(x, grad, indices, indptr, g.shape[-1]) if needs[1] else None
    return [to_x, to_g, None, None]


def _csr_outer_jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    x, g, indices, indptr = inputs
    return sum_of([
        None if tangents[0] is None else _csr_outer(tangents[0], g, indices, indptr),
        None if tangents[1] is None else _csr_outer(x, tangents[1], indices, indptr),
    ])  # fmt: skip


def _event_csr_fake(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    return weights.new_empty((*spikes.shape[:-1], n_post), dtype=dtype_of_sums(weights))


@_event_csr_t.register_fake
def _(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    return weights.new_empty((*spikes.shape[:-1], indptr.shape[0] - 1), dtype=dtype_of_sums(weights))


@_csr_outer.register_fake
def _(x: Tensor, g: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    return g.new_empty(indices.shape)


for _scatter in (_event_csr_unordered, _event_csr_ordered):
    _scatter.register_fake(_event_csr_fake)
    _scatter.register_vmap(fold_into_batch)
    _scatter.register_autograd(backward=_event_csr_backward, jvp=_event_csr_jvp)
_event_csr_t.register_vmap(fold_into_batch)
_csr_outer.register_vmap(loop_over_samples)
_event_csr_t.register_autograd(backward=_event_csr_t_backward, jvp=_event_csr_t_jvp)
_csr_outer.register_autograd(backward=_csr_outer_backward, jvp=_csr_outer_jvp)
