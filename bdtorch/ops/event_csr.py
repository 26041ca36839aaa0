r"""Event-driven products with a sparse matrix in CSR form, the connectivity of spiking networks.

The matrix :math:`W` has a row for each presynaptic and a column for each postsynaptic neuron. Row :math:`i` owns the
synapses ``indptr[i] <= k < indptr[i + 1]``, synapse ``k`` ends at neuron ``indices[k]``, and indices ascend within a
row. A 0-d weight is shared by all synapses, a 1-D one has a value for each.

The three ops are the partial derivatives of one trilinear form :math:`\sum_{bij} s_{bi} W_{ij} g_{bj}`, so they are
each other's derivatives, of any order. Weights may be stored in bfloat16; sums are then made and returned in float32.
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

_event_csr_unordered = DifferentiableOp("event_csr")
_event_csr_ordered = DifferentiableOp("event_csr_ordered")
_event_csr_t = DifferentiableOp("event_csr_t")
_csr_outer = DifferentiableOp("csr_outer")


def event_csr(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    r"""Sums the weights of the synapses of active neurons onto their targets.

    .. math:: y_{bj} = \sum_i s_{bi} W_{ij}

    Only rows with :math:`s_{bi} \ne 0` are read. The gradient with respect to floating-point spikes is that of the
    product, so silent neurons receive one too; bool spikes receive none.

    Args:
        spikes: ``(*batch, n_pre)``, bool, or of the dtype of the sums (a nonzero value is an event and a factor).
        weights: ``()`` or ``(n_synapses,)``, float32, float64, or bfloat16 with sums in float32.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.
        n_post: Number of postsynaptic neurons, above every index (`check_csr` verifies it; calls do not).

    Returns:
        ``(*batch, n_post)`` in the dtype of the sums and the units of `weights`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
    """
    _expect_structure("event_csr", indices, indptr)
    _expect_weights("event_csr", weights, indices)
    if n_post < 0:
        raise ValueError(f"`event_csr(n_post=...)`: expected a nonnegative number, got {n_post}")
    _expect_per_neuron("event_csr", "spikes", spikes, indptr.shape[0] - 1, dtype_of_sums(weights), indices)
    y = _event_csr(_flatten_batch(spikes), weights, indices, indptr, n_post)
    return y if spikes.dim() <= 2 else y.reshape(*spikes.shape[:-1], n_post)


def event_csr_t(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    r"""Applies the transposed matrix: from postsynaptic values to presynaptic sums.

    .. math:: x_{bi} = \sum_j W_{ij} s_{bj}

    Args:
        spikes: ``(*batch, n_post)``, bool or of the dtype of the sums; every index must be below n_post.
        weights: ``()`` or ``(n_synapses,)``, float32, float64, or bfloat16 with sums in float32.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.

    Returns:
        ``(*batch, n_pre)`` in the dtype of the sums and the units of `weights`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
    """
    _expect_structure("event_csr_t", indices, indptr)
    _expect_weights("event_csr_t", weights, indices)
    _expect_per_neuron("event_csr_t", "spikes", spikes, None, dtype_of_sums(weights), indices)
    sums: Tensor = _event_csr_t(_flatten_batch(spikes), weights, indices, indptr)
    return sums if spikes.dim() <= 2 else sums.reshape(*spikes.shape[:-1], indptr.shape[0] - 1)


def csr_outer(x: Tensor, g: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    r"""Multiplies pre- and postsynaptic values at each synapse and sums over the batch: the gradient of the weights.

    .. math:: p_k = \sum_b x_{b,\mathrm{row}(k)} \, g_{b,\mathrm{indices}_k}

    Presynaptic neurons with :math:`x_{bi} = 0` are skipped.

    Args:
        x: ``(*batch, n_pre)``, bool or of the dtype of `g`.
        g: ``(*batch, n_post)``, float32 or float64; every index must be below n_post.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.

    Returns:
        ``(n_synapses,)`` in the dtype of `g`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
    """
    _expect_structure("csr_outer", indices, indptr)
    _expect_floating("csr_outer", "g", g)
    _expect_per_neuron("csr_outer", "g", g, None, g.dtype, indices)
    _expect_per_neuron("csr_outer", "x", x, indptr.shape[0] - 1, g.dtype, indices)
    if x.shape[:-1] != g.shape[:-1]:
        raise ValueError(
            f"`csr_outer(g=...)`: expected the batch shape of x, {tuple(x.shape[:-1])}, got {tuple(g.shape[:-1])}"
        )
    products: Tensor = _csr_outer(_flatten_batch(x), _flatten_batch(g), indices, indptr)
    return products


def check_csr(
    indices: Tensor, indptr: Tensor, n_post: int, *, weights: Tensor | None = None, distinct: bool = False
) -> None:
    """Verifies the values of a CSR structure, once; the ops rely on it and never read outside a verified structure.

    Args:
        indices: ``(n_synapses,)`` int32, in [0, n_post), ascending within each row; equal ones are parallel synapses.
        indptr: ``(n_pre + 1,)`` int32 or int64, ascending from 0 to n_synapses.
        n_post: Number of postsynaptic neurons.
        weights: ``()`` or ``(n_synapses,)``, to be verified too: no NaN.
        distinct: Whether parallel synapses are forbidden.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a value is not as above; the message names the first such position.
    """
    _expect_structure("check_csr", indices, indptr)
    if weights is not None:
        _expect_weights("check_csr", weights, indices)
        _expect_numbers(weights)
    if not 0 <= n_post <= torch.iinfo(torch.int32).max:
        raise ValueError(f"`check_csr(n_post=...)`: expected a number in [0, 2**31), got {n_post}")
    n_synapses = indices.shape[0]
    if indptr[0] != 0 or indptr[-1] != n_synapses:
        raise ValueError(
            f"`check_csr(indptr=...)`: expected values from 0 to n_synapses={n_synapses}, "
            f"got {int(indptr[0])} to {int(indptr[-1])}"
        )
    descents = (indptr[1:] < indptr[:-1]).nonzero()
    if descents.numel():
        row = int(descents[0])
        raise ValueError(
            f"`check_csr(indptr=...)`: expected ascending values, "
            f"got {int(indptr[row])} before {int(indptr[row + 1])} at position {row}"
        )
    outside = ((indices < 0) | (indices >= n_post)).nonzero()
    if outside.numel():
        k = int(outside[0])
        raise ValueError(
            f"`check_csr(indices=...)`: expected values in [0, {n_post}), got {int(indices[k])} at position {k}"
        )
    within_row = torch.ones(max(0, n_synapses - 1), dtype=torch.bool, device=indices.device)
    first_of_row = indptr[1:-1].to(torch.int64)
    first_of_row = first_of_row[(first_of_row > 0) & (first_of_row < n_synapses)]
    within_row[first_of_row - 1] = False  # from the end of one row to the start of the next
    follows = indices[1:] > indices[:-1] if distinct else indices[1:] >= indices[:-1]
    unsorted = (within_row & ~follows).nonzero()
    if unsorted.numel():
        k, order = int(unsorted[0]), "ascending, distinct" if distinct else "ascending"
        raise ValueError(
            f"`check_csr(indices=...)`: expected {order} values within each row, "
            f"got {int(indices[k])} before {int(indices[k + 1])} at position {k}"
        )


def _expect_numbers(weights: Tensor) -> None:
    missing = weights.detach().isnan().reshape(-1).nonzero()
    if missing.numel():
        raise ValueError(f"`check_csr(weights=...)`: expected numbers, got nan at position {int(missing[0])}")


def dtype_of_sums(weights: Tensor) -> torch.dtype:
    """The dtype of products with stored weights: theirs, and float32 for bfloat16."""
    return torch.float32 if weights.dtype == torch.bfloat16 else weights.dtype


def _flatten_batch(per_neuron: Tensor) -> Tensor:
    """From (*batch, n) to the (n,) or (batch, n) of the kernels."""
    return per_neuron if per_neuron.dim() <= 2 else per_neuron.flatten(0, -2)


def _expect_structure(op: str, indices: Tensor, indptr: Tensor) -> None:
    if indices.dtype != torch.int32:
        raise TypeError(f"`{op}(indices=...)`: expected int32, got {indices.dtype}")
    if indptr.dtype != torch.int32 and indptr.dtype != torch.int64:
        raise TypeError(f"`{op}(indptr=...)`: expected int32 or int64, got {indptr.dtype}")
    if indices.dim() != 1:
        raise ValueError(f"`{op}(indices=...)`: expected shape (n_synapses,), got {tuple(indices.shape)}")
    if indptr.dim() != 1 or indptr.shape[0] == 0:
        raise ValueError(f"`{op}(indptr=...)`: expected shape (n_pre + 1,), got {tuple(indptr.shape)}")
    if indptr.device != indices.device:
        raise ValueError(f"`{op}(indptr=...)`: expected the device of indices, {indices.device}, got {indptr.device}")


def _expect_floating(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32 and tensor.dtype != torch.float64:
        raise TypeError(f"`{op}({name}=...)`: expected float32 or float64, got {tensor.dtype}")


def _expect_weights(op: str, weights: Tensor, indices: Tensor) -> None:
    if weights.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        raise TypeError(f"`{op}(weights=...)`: expected float32, float64 or bfloat16, got {weights.dtype}")
    if weights.dim() != 0 and weights.shape != indices.shape:
        raise ValueError(f"`{op}(weights=...)`: expected shape () or ({indices.shape[0]},), got {tuple(weights.shape)}")
    if weights.device != indices.device:
        raise ValueError(f"`{op}(weights=...)`: expected the device of indices, {indices.device}, got {weights.device}")


def _expect_per_neuron(
    op: str, name: str, tensor: Tensor, n: int | None, dtype: torch.dtype, indices: Tensor
) -> None:  # fmt: skip
    if tensor.dtype != torch.bool and tensor.dtype != dtype:
        raise TypeError(f"`{op}({name}=...)`: expected bool or {dtype}, got {tensor.dtype}")
    if tensor.dim() == 0 or (n is not None and tensor.shape[-1] != n):
        size = "n_post" if n is None else n
        raise ValueError(f"`{op}({name}=...)`: expected shape (*batch, {size}), got {tuple(tensor.shape)}")
    if tensor.device != indices.device:
        raise ValueError(f"`{op}({name}=...)`: expected the device of indices, {indices.device}, got {tensor.device}")


def _event_csr(spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, n_post: int) -> Tensor:
    ordered = torch.are_deterministic_algorithms_enabled() and spikes.is_cuda
    y: Tensor = (_event_csr_ordered if ordered else _event_csr_unordered)(spikes, weights, indices, indptr, n_post)
    return y


def _weight_gradient(x: Tensor, g: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    """The derivative of sum_bij x_bi W_ij g_bj with respect to the weights."""
    if weights.dim() == 1:
        products: Tensor = _csr_outer(x, g, indices, indptr)
        return products.to(weights.dtype)
    inputs = _event_csr(x, g.new_ones(()), indices, indptr, g.shape[-1])
    return (inputs * g).sum().to(weights.dtype)


def _sum_of(terms: Sequence[Tensor | None]) -> Tensor | None:
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def _event_csr_backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    spikes, weights, indices, indptr, _ = inputs
    if grad is None:
        return [None] * 5
    to_spikes = _event_csr_t(grad, weights, indices, indptr) if needs[0] else None
    to_weights = _weight_gradient(spikes, grad, weights, indices, indptr) if needs[1] else None
    return [to_spikes, to_weights, None, None, None]


def _event_csr_jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    spikes, weights, indices, indptr, n_post = inputs
    return _sum_of([
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
    return _sum_of([
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
    return _sum_of([
        None if tangents[0] is None else _csr_outer(tangents[0], g, indices, indptr),
        None if tangents[1] is None else _csr_outer(x, tangents[1], indices, indptr),
    ])  # fmt: skip


def _loop_over_samples(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """Batches by one call per sample, where weights or structure differ between samples or outputs must stay apart."""
    samples = [
        [arg if dim is None else arg.select(dim, b) for arg, dim in zip(args, in_dims, strict=True)]
        for b in range(batch_size)
    ]
    return torch.stack([op(*sample) for sample in samples]), 0


def _fold_into_batch(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """Batches the first argument only: one call, with the samples as further rows of its batch."""
    if any(dim is not None for dim in in_dims[1:]):
        return _loop_over_samples(op, batch_size, in_dims, *args)
    spikes = args[0].movedim(in_dims[0], 0)
    out = op(spikes.flatten(0, -2), *args[1:])
    return out.reshape(*spikes.shape[:-1], out.shape[-1]), 0


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
    _scatter.register_vmap(_fold_into_batch)
    _scatter.register_autograd(backward=_event_csr_backward, jvp=_event_csr_jvp)
_event_csr_t.register_vmap(_fold_into_batch)
_csr_outer.register_vmap(_loop_over_samples)
_event_csr_t.register_autograd(backward=_event_csr_t_backward, jvp=_event_csr_t_jvp)
_csr_outer.register_autograd(backward=_csr_outer_backward, jvp=_csr_outer_jvp)
