"""Connectivity to and from lists of synapses, `torch.sparse` and `scipy.sparse`.

Everything here passes through `CSR`, and carries weights along: synapses are put into the order of a CSR, rows
ascending, then targets, and the weights with them. Gradients flow through the weights.

A fixed number of synapses per source or target has no layout of its own: without ``indptr`` a row is found by a
multiplication instead of two loads that share a cache line, and 8 bytes are saved per row, 0.1 % of the memory of a
thousand synapses. `from_targets` and `from_sources` take such tables.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdtorch._types import Value
from bdtorch.connect.data import CSR, Connectivity
from bdtorch.connect.procedural import Procedural
from bdtorch.ops.csr_order import csr_sort


def as_csr(connect: Connectivity, weight: Value = 1.0) -> tuple[CSR, Tensor]:
    """The synapses of any connectivity as data.

    Args:
        connect: The connectivity.
        weight: What its `forward` gets: one number, or a tensor of its `weight_shape`.

    Returns:
        The structure, and the weight of each synapse, ``(synapses,)``.
    """
    if isinstance(connect, CSR):
        return connect, _as_weight(weight, connect.indices.device).expand(connect.synapses)
    if isinstance(connect, Procedural):
        csr, weights = connect.materialise(weight)
        return csr, weights.expand(csr.synapses)
    # Of the others every pair is a synapse where a weight of 1 shows it.
    pre, post = connect.to_dense(1.0).nonzero(as_tuple=True)
    values = connect.to_dense(_as_weight(weight, pre.device))[pre, post]
    return from_edges(pre, post, values, connect.n_pre, connect.n_post)


def from_edges(pre: Tensor, post: Tensor, weight: Tensor, n_pre: int, n_post: int) -> tuple[CSR, Tensor]:
    """Synapses ``pre[k] -> post[k]`` of weight ``weight[k]``, in any order; parallel ones stay separate.

    Args:
        pre: ``(synapses,)`` integers in [0, n_pre).
        post: ``(synapses,)`` integers in [0, n_post).
        weight: ``(synapses,)``.
        n_pre: Number of sources.
        n_post: Number of targets.

    Returns:
        The structure, and the weights in its order.

    Raises:
        ValueError: Lengths differ, an index is outside its population, or a weight is NaN.
    """
    indices, indptr, order = csr_sort(pre, post, n_pre, n_post, op="from_edges")
    if weight.shape != pre.shape:
        raise ValueError(f"`from_edges(weight=...)`: expected shape {tuple(pre.shape)}, got {tuple(weight.shape)}")
    missing = weight.detach().isnan().nonzero()
    if missing.numel():
        raise ValueError(f"`from_edges(weight=...)`: expected numbers, got nan at position {int(missing[0])}")
    return CSR(indices, indptr, n_post), weight[order]


def to_edges(connect: Connectivity, weight: Value = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Sources and targets (int64) and weights of all synapses, ``(synapses,)`` each.

    Args:
        connect: The connectivity.
        weight: What its `forward` gets: one number, or a tensor of its `weight_shape`.
    """
    csr, weights = as_csr(connect, weight)
    return csr.rows, csr.indices.long(), weights


def from_targets(targets: Tensor, weight: Tensor, n_post: int) -> tuple[CSR, Tensor]:
    """A fixed number of synapses per source: row i of ``(n_pre, n)`` lists the targets of source i, in any order.

    Args:
        targets: Integers in [0, ``n_post``), ``(n_pre, n)``.
        weight: Of the same shape, or one that is spread to it.
        n_post: Number of targets.
    """
    _expect_table("from_targets(targets=...)", targets)
    sources = torch.arange(targets.shape[0], device=targets.device).repeat_interleave(targets.shape[1])
    return from_edges(sources, targets.reshape(-1), weight.expand(targets.shape).reshape(-1), len(targets), n_post)


def from_sources(sources: Tensor, weight: Tensor, n_pre: int) -> tuple[CSR, Tensor]:
    """A fixed number of synapses per target: row j of ``(n_post, n)`` lists the sources of target j, in any order.

    Args:
        sources: Integers in [0, ``n_pre``), ``(n_post, n)``.
        weight: Of the same shape, or one that is spread to it.
        n_pre: Number of sources.
    """
    _expect_table("from_sources(sources=...)", sources)
    targets = torch.arange(sources.shape[0], device=sources.device).repeat_interleave(sources.shape[1])
    return from_edges(sources.reshape(-1), targets, weight.expand(sources.shape).reshape(-1), n_pre, len(sources))


def from_torch(matrix: Tensor) -> tuple[CSR, Tensor]:
    """The synapses of a matrix ``(n_pre, n_post)`` of any of torch's layouts; of a strided one, its nonzero entries.

    Args:
        matrix: The weights.

    Raises:
        ValueError: Not a matrix.
    """
    if matrix.dim() != 2:
        raise ValueError(f"`from_torch(matrix=...)`: expected 2 axes, got shape {tuple(matrix.shape)}")
    if matrix.layout == torch.strided:
        return CSR.from_dense(matrix)
    # An uncoalesced matrix may list a pair several times; they stay separate synapses.
    listed = matrix if matrix.layout == torch.sparse_coo else matrix.to_sparse_coo()
    pre, post = listed._indices()
    return from_edges(pre, post, listed._values(), *matrix.shape)


def to_torch(connect: Connectivity, weight: Value = 1.0, *, layout: torch.layout = torch.sparse_csr) -> Tensor:
    """The weight matrix ``(n_pre, n_post)`` in one of torch's sparse layouts; parallel synapses are summed.

    Args:
        connect: The connectivity.
        weight: What its `forward` gets.
        layout: ``torch.sparse_csr``, ``torch.sparse_csc`` or ``torch.sparse_coo``.

    Raises:
        ValueError: Another layout.
    """
    pre, post, weights = to_edges(connect, weight)
    size = (connect.n_pre, connect.n_post)
    listed = torch.sparse_coo_tensor(torch.stack([pre, post]), weights, size, check_invariants=True).coalesce()
    if layout == torch.sparse_coo:
        return listed
    if layout not in (torch.sparse_csr, torch.sparse_csc):
        raise ValueError(f"`to_torch(layout=...)`: expected sparse_csr, sparse_csc or sparse_coo, got {layout}")
    return listed.to_sparse(layout=layout)


def from_scipy(matrix: Any) -> tuple[CSR, Tensor]:
    """The synapses of a `scipy.sparse` matrix or array ``(n_pre, n_post)``, stored zeros and duplicates included.

    Args:
        matrix: Weights; a row is a source.
    """
    listed = matrix.tocoo()
    if listed.ndim != 2:
        raise ValueError(f"`from_scipy(matrix=...)`: expected 2 axes, got shape {listed.shape}")
    pre, post, values = (torch.from_numpy(array.copy()) for array in (listed.row, listed.col, listed.data))
    return from_edges(pre, post, values, *listed.shape)


def to_scipy(connect: Connectivity, weight: Value = 1.0) -> Any:
    """The weight matrix as `scipy.sparse.csr_array`, which has further formats; parallel synapses stay separate.

    Args:
        connect: The connectivity.
        weight: What its `forward` gets: one number, or a tensor of its `weight_shape`.
    """
    from scipy.sparse import csr_array

    csr, weights = as_csr(connect, weight)
    arrays = (weights.detach().cpu().numpy().copy(), csr.indices.cpu().numpy(), csr.indptr.cpu().numpy())
    return csr_array(arrays, shape=(csr.n_pre, csr.n_post))


def _as_weight(weight: Value, device: torch.device) -> Tensor:
    values = torch.as_tensor(weight, device=device)
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def _expect_table(argument: str, table: Tensor) -> None:
    if table.dim() != 2 or table.is_floating_point() or table.dtype == torch.bool:
        raise ValueError(f"`{argument}`: expected a table of integers, got {table.dtype} of shape {tuple(table.shape)}")
