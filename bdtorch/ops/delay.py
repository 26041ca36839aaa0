r"""Products with a delay of its own for every synapse: events are written into the slots of a ring, to be read later.

$$\mathrm{ring}_{b,\,(c_b + d_k) \bmod n,\,\mathrm{indices}_k} \mathrel{+}= w_k\, s_{b,\mathrm{row}(k)}$$

The cursor $c$ is the slot to be read next, so that a delay of 0 steps arrives with that reading; whoever reads a
slot clears it and moves the cursor on. Functional here; a native loop writes into the ring in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bdtorch.ops._autograd import DifferentiableOp
from bdtorch.ops._rules import loop_over_samples, sum_of
from bdtorch.ops._synapses import SynapseEnds
from bdtorch.ops.csr import dtype_of_sums, expect_spikes, expect_structure, expect_values, expect_weights

_unordered = DifferentiableOp("event_csr_delayed")
_ordered = DifferentiableOp("event_csr_delayed_ordered")


def event_csr_delayed(
    ring: Tensor, cursor: Tensor, spikes: Tensor, weights: Tensor, indices: Tensor, indptr: Tensor, delays: Tensor
) -> Tensor:
    """Adds the weights of the synapses of active neurons to the slots in which they arrive; for the formula see above.

    A delay must be below the number of slots (`check_delays` verifies it; calls do not, and take it modulo the ring).
    On a GPU events that meet are added in no fixed order, unless `torch.use_deterministic_algorithms` is on: then
    results are those of the CPU, to the bit, and take longer.

    Args:
        ring: ``(*batch, n_slots, n_post)``, what is on its way, in the dtype of the sums and the units of `weights`.
        cursor: ``(*batch,)`` int64, the slot to be read next, in [0, n_slots).
        spikes: ``(*batch, n_pre)``, bool, or of the dtype of the sums.
        weights: ``()`` or ``(n_synapses,)``, float32, float64, or bfloat16 or float16 with sums in float32.
        indices: ``(n_synapses,)`` int32, postsynaptic neuron of each synapse.
        indptr: ``(n_pre + 1,)`` int32 or int64, first synapse of each row.
        delays: ``(n_synapses,)`` int32, in steps.

    Returns:
        The ring with the events, of the shape of `ring`.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a device does not fit, or the structure is none (see `check_csr`).
    """
    op = "event_csr_delayed"
    expect_structure(op, indices, indptr)
    expect_weights(op, weights, indices)
    expect_spikes(op, spikes, weights, "weights", indptr.shape[0] - 1)
    batch = spikes.shape[:-1]
    if ring.dtype != dtype_of_sums(weights):
        raise TypeError(f"`{op}(ring=...)`: expected {dtype_of_sums(weights)}, got {ring.dtype}")
    if ring.dim() != spikes.dim() + 1 or ring.shape[:-2] != batch or not ring.shape[-2]:
        raise ValueError(f"`{op}(ring=...)`: expected shape {(*batch, 'n_slots', 'n_post')}, got {tuple(ring.shape)}")
    if cursor.dtype != torch.int64 or cursor.shape != batch:
        raise ValueError(
            f"`{op}(cursor=...)`: expected int64 of shape {tuple(batch)}, got {cursor.dtype} of {tuple(cursor.shape)}"
        )
    if delays.dtype != torch.int32 or delays.shape != indices.shape:
        raise ValueError(
            f"`{op}(delays=...)`: expected int32 of shape ({len(indices)},), got {delays.dtype} of {tuple(delays.shape)}"
        )
    for name, tensor in (("ring", ring), ("cursor", cursor), ("delays", delays)):
        if tensor.device != indices.device:
            raise ValueError(
                f"`{op}({name}=...)`: expected the device of indices, {indices.device}, got {tensor.device}"
            )
    expect_values(op, indices, indptr, ring.shape[-1])
    structure = (weights, indices, indptr, delays)
    if len(batch) <= 1:
        return _event_csr_delayed(ring, cursor, spikes, *structure)
    flat = _event_csr_delayed(ring.flatten(0, -3), cursor.flatten(), spikes.flatten(0, -2), *structure)
    return flat.reshape(ring.shape)


def check_delays(delays: Tensor, n_slots: int) -> None:
    """Verifies the values of delays, once.

    Args:
        delays: ``(n_synapses,)`` int32, in steps, in [0, n_slots).
        n_slots: Number of slots of the ring.

    Raises:
        ValueError: If a delay is outside; the message names the first.
    """
    outside = (delays < 0) | (delays >= n_slots)
    if bool(outside.any()):
        k = int(outside.nonzero()[0])
        raise ValueError(
            f"`check_delays(delays=...)`: expected values in [0, {n_slots}), got {int(delays[k])} at position {k}"
        )


def _event_csr_delayed(ring: Tensor, *arguments: Tensor) -> Tensor:
    ordered = torch.are_deterministic_algorithms_enabled() and ring.is_cuda
    after: Tensor = (_ordered if ordered else _unordered)(ring, *arguments)
    return after


def _at_arrival(g: Tensor, cursor: Tensor, indices: Tensor, delays: Tensor) -> Tensor:
    """The elements of a ring's gradient in which the synapses arrive, ``(*batch, n_synapses)``."""
    n_slots, n_post = g.shape[-2:]
    slots = torch.remainder(cursor.unsqueeze(-1) + delays, n_slots)
    return g.reshape(*g.shape[:-2], n_slots * n_post).gather(-1, slots * n_post + indices)


def _backward(inputs: Sequence[Any], needs: Sequence[bool], grad: Tensor | None) -> list[Tensor | None]:
    _, cursor, spikes, weights, indices, indptr, delays = inputs
    gradients: list[Tensor | None] = [None] * 7
    if grad is None:
        return gradients
    gradients[0] = grad if needs[0] else None
    ends = SynapseEnds(indices, indptr, None)
    arrived = _at_arrival(grad, cursor, indices, delays)
    if needs[2]:
        gradients[2] = ends.to_rows(arrived * weights, spikes.shape[-1])
    if needs[3]:
        products = arrived * ends.from_rows(spikes.to(grad.dtype))
        gradients[3] = products.sum_to_size(weights.shape).to(weights.dtype)
    return gradients


def _jvp(inputs: Sequence[Any], tangents: Sequence[Tensor | None]) -> Tensor | None:
    ring, cursor, spikes, weights, *structure = inputs
    empty = torch.zeros_like(ring)
    return sum_of([
        tangents[0],
        None if tangents[2] is None else _event_csr_delayed(empty, cursor, tangents[2], weights, *structure),
        None if tangents[3] is None else _event_csr_delayed(empty, cursor, spikes, tangents[3], *structure),
    ])  # fmt: skip


def _vmap(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """One call, with the samples as further ones of the batch; weights of each sample's own make a call each."""
    if any(dim is not None for dim in in_dims[3:]):
        return loop_over_samples(op, batch_size, in_dims, *args)
    operands = [
        x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(args[:3], in_dims, strict=False)
    ]
    shape, batched = operands[0].shape, operands[2].dim() == 3
    after = op(*(x.flatten(0, 1) if batched else x for x in operands), *args[3:])
    return after.reshape(shape), 0


for _op in (_unordered, _ordered):
    _op.register_fake(lambda ring, *_: torch.empty_like(ring, memory_format=torch.contiguous_format))
    _op.register_vmap(_vmap)
    _op.register_autograd(backward=_backward, jvp=_jvp)
