"""Sorting synapses into CSR structures, and turning these round."""

from __future__ import annotations

import torch
from torch import Tensor

from bdtorch.ops.csr import expect_structure, expect_values

_csr_sort = torch.ops.bdtorch.csr_sort.default
_csr_transpose = torch.ops.bdtorch.csr_transpose.default
_LIMIT = 2**31


def csr_sort(
    pre: Tensor, post: Tensor, n_pre: int, n_post: int, *, op: str = "csr_sort"
) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts synapses ``pre[k] -> post[k]`` by source, then target; equal ones keep their order.

    Args:
        pre: ``(synapses,)`` integers in [0, n_pre); less than 2**31.
        post: Likewise, in [0, n_post).
        n_pre: Number of sources.
        n_post: Number of targets.
        op: What error messages call the function.

    Returns:
        ``indices``, int32, and ``indptr``, int64, of the structure; and ``order``, int64, of each of its synapses the
        number k in the list.

    Raises:
        TypeError: If a dtype is not one of those above.
        ValueError: If a shape or a value is not as above.
    """
    if pre.shape != post.shape or pre.dim() != 1:
        raise ValueError(
            f"`{op}(pre=..., post=...)`: expected two vectors of equal length, "
            f"got shapes {tuple(pre.shape)} and {tuple(post.shape)}"
        )
    if not pre.shape[0] < _LIMIT:
        raise ValueError(f"`{op}(pre=...)`: expected less than 2**31 synapses, got {pre.shape[0]}")
    pre = _expect_indices(f"{op}(pre=...)", pre, n_pre)
    post = _expect_indices(f"{op}(post=...)", post, n_post)
    if pre.device.type == "cpu":
        indices, indptr, order = _csr_sort(pre, post, n_pre, n_post)
        return indices, indptr, order.long()
    order = torch.argsort(pre.long() * n_post + post.long(), stable=True)
    return post[order].to(torch.int32), _starts(pre, n_pre), order


def csr_transpose(
    indices: Tensor, indptr: Tensor, n_columns: int, *, numbered: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """The same synapses by column.

    Args:
        indices: ``(synapses,)`` int32, in [0, n_columns), ascending within each row; less than 2**31.
        indptr: ``(n_rows + 1,)`` int32 or int64.
        n_columns: Number of columns.
        numbered: Whether the order is wanted.

    Returns:
        ``rows``, int32, those of each column in ascending order; their ``indptr``, int64, ``(n_columns + 1,)``; and
        ``order``, int32, of each of these synapses its number in the structure, or empty.

    Raises:
        TypeError, ValueError: If it is no structure, as `check_csr` says.
    """
    expect_structure("csr_transpose", indices, indptr)
    expect_values("csr_transpose", indices, indptr, n_columns)
    if not indices.shape[0] < _LIMIT:
        raise ValueError(f"`csr_transpose(indices=...)`: expected less than 2**31 synapses, got {indices.shape[0]}")
    if indices.device.type == "cpu":
        rows, starts, order = _csr_transpose(indices, indptr, n_columns, numbered)
        return rows, starts, order
    order = torch.argsort(indices, stable=True)
    n_rows = indptr.shape[0] - 1
    sources = torch.repeat_interleave(torch.arange(n_rows, dtype=torch.int32, device=indices.device), indptr.diff())
    return sources[order], _starts(indices, n_columns), order.to(torch.int32)[: None if numbered else 0]


def _expect_indices(argument: str, index: Tensor, count: int) -> Tensor:
    """The integers in one of the dtypes of the kernel."""
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f"`{argument}`: expected integers, got {index.dtype}")
    if index.numel():
        lowest, highest = (int(end) for end in torch.aminmax(index))
        if lowest < 0 or highest >= count:
            raise ValueError(f"`{argument}`: expected indices in [0, {count}), got {lowest} to {highest}")
    return index if index.dtype in (torch.int32, torch.int64) else index.long()


def _starts(index: Tensor, n: int) -> Tensor:
    """Where each of n begins among sorted numbers."""
    counts = torch.bincount(index.long(), minlength=n)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@torch.library.register_fake(_csr_sort)
def _(pre: Tensor, post: Tensor, n_pre: int, n_post: int) -> tuple[Tensor, Tensor, Tensor]:
    indices = torch.empty_like(pre, dtype=torch.int32, memory_format=torch.contiguous_format)
    return indices, pre.new_empty((n_pre + 1,), dtype=torch.int64), torch.empty_like(indices)


@torch.library.register_fake(_csr_transpose)
def _(indices: Tensor, indptr: Tensor, n_columns: int, numbered: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.empty_like(indices, memory_format=torch.contiguous_format)
    starts = indices.new_empty((n_columns + 1,), dtype=torch.int64)
    return rows, starts, rows.new_empty((indices.shape[0] if numbered else 0,))
