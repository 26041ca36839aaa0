"""Sorting synapses and turning structures round, against torch's sorts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bdtorch import ops
from bdtorch.ops.csr_order import csr_sort, csr_transpose

SIZES = [(1, 1, 0), (1, 1, 5), (7, 4, 60), (4, 900, 3000), (100_000, 3, 2000), (70_000, 90_000, 20_000)]


@pytest.mark.parametrize(("n_pre", "n_post", "n"), SIZES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_sorted_by_source_then_target_and_stable(n_pre: int, n_post: int, n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    pre = torch.randint(0, n_pre, (n,), generator=generator).to(dtype)
    post = torch.randint(0, n_post, (2 * n,), generator=generator)[::2]  # with a stride
    expected = torch.argsort(pre.long() * n_post + post, stable=True)
    indices, indptr, order = csr_sort(pre, post, n_pre, n_post)
    assert torch.equal(order, expected) and torch.equal(indices, post[expected].int())
    assert torch.equal(indptr.diff(), torch.bincount(pre, minlength=n_pre)) and indptr[0] == 0
    again, _, kept = csr_sort(pre[order], post[order], n_pre, n_post)  # already in order
    assert torch.equal(again, indices) and torch.equal(kept, torch.arange(n))


@pytest.mark.parametrize(("n_pre", "n_post", "n"), SIZES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_transposed_keeps_the_order_of_equals(n_pre: int, n_post: int, n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    pre, post = (torch.randint(0, size, (n,), generator=generator) for size in (n_pre, n_post))
    indices, indptr, order = csr_sort(pre, post, n_pre, n_post)
    rows, starts, back = csr_transpose(indices, indptr.to(dtype), n_post)
    expected = torch.argsort(indices, stable=True)
    assert torch.equal(back, expected.int()) and torch.equal(rows, pre[order][expected].int())
    assert torch.equal(starts.diff(), torch.bincount(post, minlength=n_post)) and starts[0] == 0
    alone, _, none = csr_transpose(indices, indptr.to(dtype), n_post, numbered=False)
    assert torch.equal(alone, rows) and none.numel() == 0


def test_schemas_and_fakes() -> None:
    pre, post = torch.tensor([1, 0, 1]), torch.tensor([2, 1, 0])
    torch.library.opcheck(torch.ops.bdtorch.csr_sort.default, (pre, post, 2, 3))
    indices, indptr, _ = csr_sort(pre, post, 2, 3)
    for numbered in (False, True):
        torch.library.opcheck(torch.ops.bdtorch.csr_transpose.default, (indices, indptr, 3, numbered))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda i: csr_sort(i, i[:2], 3, 3), ValueError, r"csr_sort\(pre=..., post=.*\(3,\) and \(2,\)"),
        (lambda i: csr_sort(i[None], i[None], 3, 3), ValueError, r"csr_sort\(pre=..., post=.*\(1, 3\)"),
        (lambda i: csr_sort(i, i, 2, 3), ValueError, r"csr_sort\(pre=.*\[0, 2\), got 0 to 2"),
        (lambda i: csr_sort(i, i - 1, 3, 3), ValueError, r"csr_sort\(post=.*\[0, 3\), got -1 to 1"),
        (lambda i: csr_sort(i.double(), i, 3, 3), TypeError, r"csr_sort\(pre=.*float64"),
        (lambda i: csr_sort(i, i > 0, 3, 3), TypeError, r"csr_sort\(post=.*bool"),
        (lambda i: csr_transpose(i.int(), i, 3), ValueError, r"csr_transpose\(indptr=.*from 0 to n_synapses=3"),
        (lambda i: csr_transpose(i.int(), torch.tensor([0, 3]), 2), ValueError, r"csr_transpose\(indices=.*\[0, 2\)"),
        (lambda i: csr_transpose(i.flip(0).int(), torch.tensor([0, 3]), 3), ValueError, r"\(indices=.*ascending"),
        (lambda i: csr_transpose(i, torch.tensor([0, 3]), 3), TypeError, r"csr_transpose\(indices=.*int64"),
    ],
)
def test_errors_name_the_argument(call: Callable[[torch.Tensor], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.arange(3))


def test_raw_operators_refuse_what_would_leave_their_arrays() -> None:
    sort, transpose = torch.ops.bdtorch.csr_sort, torch.ops.bdtorch.csr_transpose
    with pytest.raises(RuntimeError, match=r"csr_sort\(post=...\): expected indices in \[0, 2\), got 2"):
        sort(torch.tensor([0, 1]), torch.tensor([0, 2]), 2, 2)
    with pytest.raises(RuntimeError, match="expected a CSR structure of 2 columns"):
        transpose(torch.tensor([0, 2], dtype=torch.int32), torch.tensor([0, 2]), 2, True)
    assert torch.ops.bdtorch.csr_columns(torch.tensor([0, 2], dtype=torch.int32), torch.tensor([0, 2])) == 3
    assert torch.ops.bdtorch.csr_columns(torch.tensor([2, 0], dtype=torch.int32), torch.tensor([0, 2])) == -1
    assert torch.ops.bdtorch.csr_columns(torch.tensor([2, 0], dtype=torch.int32), torch.tensor([0, 1, 2])) == 3
    ops.check_csr(torch.tensor([2, 0], dtype=torch.int32), torch.tensor([0, 1, 2]), 3)
