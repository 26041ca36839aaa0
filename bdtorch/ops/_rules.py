"""What the rules of several ops share: batching, and sums of tangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def flatten_batch(per_neuron: Tensor) -> Tensor:
    """From ``(*batch, n)`` to the ``(n,)`` or ``(batch, n)`` of the kernels."""
    return per_neuron if per_neuron.dim() <= 2 else per_neuron.flatten(0, -2)


def sum_of(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of those that are there; None stands for zero."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def loop_over_samples(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """Batches by one call per sample, where weights or structure differ between samples or outputs must stay apart."""
    samples = [
        [arg if dim is None else arg.select(dim, b) for arg, dim in zip(args, in_dims, strict=True)]
        for b in range(batch_size)
    ]
    return torch.stack([op(*sample) for sample in samples]), 0


def fold_into_batch(op: Any, batch_size: int, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
    """Batches the first argument only: one call, with the samples as further rows of its batch."""
    if any(dim is not None for dim in in_dims[1:]):
        return loop_over_samples(op, batch_size, in_dims, *args)
    spikes = args[0].movedim(in_dims[0], 0)
    out = op(spikes.flatten(0, -2), *args[1:])
    return out.reshape(*spikes.shape[:-1], out.shape[-1]), 0
