r"""Eligibility traces at the synapses of a CSR structure: what online learning keeps instead of the past.

$$e_{bk} \leftarrow \gamma_k\, e_{bk} + x_{b,\mathrm{row}(k)}\, \psi_{b,\mathrm{indices}_k}$$

With $x$ a trace of presynaptic spikes and $\psi$ the surrogate derivative of the postsynaptic neuron, this is
the recursion of e-prop (Bellec et al. 2020, doi:10.1038/s41467-020-17236-y) and of diagonal real-time recurrent learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import flatten_batch, loop_over_samples, sum_of
from bdtorch.ops._synapses import SynapseEnds
from bdtorch.ops.csr import expect_floating, expect_per_neuron, expect_structure, expect_values, expect_weights
from bdtorch.ops.event_csr import csr_outer

_eligibility_csr = DifferentiableOp("eligibility_csr")


def eligibility_csr(e: Tensor, decay: Tensor, x: Tensor, psi: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    """Advances the traces of all synapses by a step; for the formula see the module. Functional; in place in native loops.

    Args:
        e: ``(*batch, n_synapses)``, float32 or float64.
        decay: ``()`` or ``(n_synapses,)``, the factor by which a trace shrinks in a step.
        x: ``(*batch, n_pre)``.
        psi: ``(*batch, n_post)``; every index must be below n_post.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.

    Returns:
        The new traces, of the shape of `e`.

    Raises:
        TypeError: If a dtype is not one of those above; all of e, decay, x and psi have the same.
        ValueError: If a shape or a device does not fit, or the structure is none (see `check_csr`).
    """
    op = "eligibility_csr"
    expect_structure(op, indices, indptr)
    expect_floating(op, "e", e)
    expect_weights(op, decay, indices)
    for name, tensor in (("decay", decay), ("x", x), ("psi", psi)):
        if tensor.dtype != e.dtype:
            raise TypeError(f"`{op}({name}=...)`: expected {e.dtype}, got {tensor.dtype}")
    for name, tensor, n in (("e", e, len(indices)), ("x", x, indptr.shape[0] - 1), ("psi", psi, None)):
        expect_per_neuron(op, name, tensor, n, e.dtype, indices)
        if tensor.shape[:-1] != e.shape[:-1]:
            raise ValueError(
                f"`{op}({name}=...)`: expected the batch shape of e, {tuple(e.shape[:-1])}, got {tuple(tensor.shape[:-1])}"
            )
    expect_values(op, indices, indptr, psi.shape[-1])
    after: Tensor = _eligibility_csr(flatten_batch(e), decay, flatten_batch(x), flatten_batch(psi), indices, indptr)
    return after if e.dim() <= 2 else after.reshape(e.shape)


def eligibility_gradient(e: Tensor, signal: Tensor, indices: Tensor) -> Tensor:
    r"""Sums the traces over the batch, each with the learning signal of its postsynaptic neuron.

    $$g_k = \sum_b L_{b,\mathrm{indices}_k}\, e_{bk}$$

    Args:
        e: ``(*batch, n_synapses)``.
        signal: ``(*batch, n_post)``, the learning signal $L$.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.

    Returns:
        ``(n_synapses,)``: what a step down the gradient subtracts from the weights, but for the learning rate.

    Raises:
        ValueError: If shapes do not fit.
    """
    if e.dim() == 0 or e.shape[-1] != len(indices) or signal.shape[:-1] != e.shape[:-1]:
        raise ValueError(
            f"`eligibility_gradient(e=..., signal=...)`: expected shapes (*batch, {len(indices)}) and (*batch, n_post), "
            f"got {tuple(e.shape)} and {tuple(signal.shape)}"
        )
    return (e * signal.index_select(-1, indices)).reshape(-1, e.shape[-1]).sum(0)


def csr_sampled(a: Tensor, b: Tensor, indices: Tensor, indptr: Tensor) -> Tensor:
    r"""The values of a dense product where a sparse matrix has entries (sampled dense-dense product).

    $$p_k = \sum_c A_{\mathrm{row}(k), c}\, B_{c, \mathrm{indices}_k}$$

    Args:
        a: ``(n_pre, n)``, float32 or float64.
        b: ``(n, n_post)``, of the dtype of `a`.
        indices: ``(n_synapses,)`` int32, column of each entry.
        indptr: ``(n_pre + 1,)`` int32 or int64, first entry of each row.

    Returns:
        ``(n_synapses,)``.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(
            f"`csr_sampled(a=..., b=...)`: expected shapes (n_pre, n) and (n, n_post), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return csr_outer(a.mT, b, indices, indptr)


def _backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    e, decay, x, psi, indices, indptr = inputs
    gradients: list[Tensor | None] = [None] * 6
    if grad is None:
        return gradients
    ends = SynapseEnds(indices, indptr, None)
    if needs[0]:
        gradients[0] = grad * decay
    if needs[1]:
        gradients[1] = (grad * e).sum_to_size(decay.shape)
    if needs[2]:
        gradients[2] = ends.to_rows(grad * ends.from_columns(psi), x.shape[-1])
    if needs[3]:
        gradients[3] = ends.to_columns(grad * ends.from_rows(x), psi.shape[-1])
    return gradients


def _jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    e, decay, x, psi, indices, indptr = inputs
    ends = SynapseEnds(indices, indptr, None)
    return sum_of([
        None if tangents[0] is None else decay * tangents[0],
        None if tangents[1] is None else tangents[1] * e,
        None if tangents[2] is None else ends.from_rows(tangents[2]) * ends.from_columns(psi),
        None if tangents[3] is None else ends.from_rows(x) * ends.from_columns(tangents[3]),
    ])  # fmt: skip


def _vmap(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """One call, with the samples as further ones of the batch; decays of each sample's own make a call each."""
    if any(dim is not None for dim in (in_dims[1], *in_dims[4:])):
        return loop_over_samples(op, batch_size, in_dims, *args)
    e, x, psi = (
        args[k].expand(batch_size, *args[k].shape) if in_dims[k] is None else args[k].movedim(in_dims[k], 0)
        for k in (0, 2, 3)
    )
    shape, batched = e.shape, e.dim() == 3
    e, x, psi = ((y.flatten(0, 1) if batched else y) for y in (e, x, psi))
    return op(e, args[1], x, psi, *args[4:]).reshape(shape), 0


_eligibility_csr.register_fake(lambda e, *_: torch.empty_like(e, memory_format=torch.contiguous_format))
_eligibility_csr.register_vmap(_vmap)
_eligibility_csr.register_autograd(backward=_backward, jvp=_jvp)
