"""Synapses of a CSR structure seen from their neurons, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


class SynapseEnds:
    """The neurons at both ends of every synapse of a CSR structure, and how values get from neurons to synapses and back.

    Plain torch, differentiable in any mode: for derivatives, which need every synapse.

    Args:
        indices: ``(n_synapses,)``, neuron at each position of the structure.
        indptr: ``(n_rows + 1,)``, first position of each row.
        synapses: The synapse at each position; None where synapses are in the order of the positions.
    """

    def __init__(self, indices: Tensor, indptr: Tensor, synapses: Tensor | None) -> None:
        n_rows = torch.arange(indptr.shape[0] - 1, device=indptr.device)
        rows = torch.repeat_interleave(n_rows, indptr.diff(), output_size=indices.shape[0])
        columns = indices.long()
        if synapses is not None:
            order = torch.empty_like(columns).index_copy(
                0, synapses.long(), torch.arange(len(columns), device=rows.device)
            )
            rows, columns = rows[order], columns[order]
        self.rows, self.columns = rows, columns

    def from_rows(self, x: Tensor) -> Tensor:
        """Values of the rows' neurons, ``(..., n_rows)``, at each synapse."""
        return x.index_select(-1, self.rows)

    def from_columns(self, x: Tensor) -> Tensor:
        """Values of the neurons that indices name, at each synapse."""
        return x.index_select(-1, self.columns)

    def to_rows(self, x: Tensor, n: int) -> Tensor:
        """Sums over the synapses of each of the ``n`` rows."""
        return x.new_zeros((*x.shape[:-1], n)).scatter_add(-1, self.rows.expand_as(x), x)

    def to_columns(self, x: Tensor, n: int) -> Tensor:
        """Sums over the synapses of each of the ``n`` neurons that indices name."""
        return x.new_zeros((*x.shape[:-1], n)).scatter_add(-1, self.columns.expand_as(x), x)
