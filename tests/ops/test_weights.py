"""Dense event products and changes of weights, against plain torch."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.connect import CSR
from bdtorch.ops import include_dir

SIZES = [0, 1, 7, 1000]
KINDS = list(itertools.product([torch.float32, torch.float64, torch.bfloat16, torch.float16], [False, True]))
INF = math.inf


def of_sums(stored: torch.dtype) -> torch.dtype:
    return torch.float32 if stored in (torch.bfloat16, torch.float16) else stored


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def factors(*shape: int, event: bool, dtype: torch.dtype, rate: float = 0.3) -> Tensor:
    active = torch.rand(shape, generator=generator(1)) < rate
    return active if event else active * torch.randn(shape, generator=generator(2), dtype=dtype)


def changed(w: Tensor, s: Tensor, a: Tensor, b: Tensor | None, low: float, high: float) -> Tensor:
    """The formula, for operands of the shape of the weights."""
    moved = w + s * (a if b is None else a + b * w)
    return torch.where(s != 0, moved.clamp(low, high), w)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize(("n_rows", "n_columns"), [*itertools.product(SIZES, SIZES[:3]), (7, 1000), (300, 300)])
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_products(dtype: torch.dtype, event: bool, n_rows: int, n_columns: int, batch: tuple[int, ...]) -> None:
    matrix = torch.randn(n_rows, n_columns, generator=generator(3), dtype=of_sums(dtype)).to(dtype)
    many = torch.randn(*batch, n_rows, n_columns, generator=generator(4), dtype=of_sums(dtype)).to(dtype)
    dtype = of_sums(dtype)
    rows, columns = (factors(*batch, n, event=event, dtype=dtype) for n in (n_rows, n_columns))
    for m in (matrix, many):
        forward, transposed = ops.event_dense(rows, m), ops.event_dense_t(columns, m)
        assert forward.dtype == transposed.dtype == dtype
        want = (rows.double().unsqueeze(-2) @ m.double()).squeeze(-2)
        want_t = (m.double() @ columns.double().unsqueeze(-1)).squeeze(-1)
        tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-11}
        torch.testing.assert_close(forward, want.to(dtype), **tolerance)
        torch.testing.assert_close(transposed, want_t.to(dtype), **tolerance)
        if batch:
            own = m if m.dim() > 2 else m.expand(*batch, n_rows, n_columns)
            for index in itertools.product(*map(range, batch)):
                assert torch.equal(forward[index], ops.event_dense(rows[index], own[index]))
                assert torch.equal(transposed[index], ops.event_dense_t(columns[index], own[index]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64])
def test_every_active_neuron_is_found_once(dtype: torch.dtype) -> None:
    """Whatever their number: entries behind the last whole cache line are looked at in another way."""
    for n in range(1, 300):
        spikes = torch.rand(n, generator=generator(n)) < (0.03, 0.3, 1.0)[n % 3]
        weights = torch.arange(1.0, n + 1).double().unsqueeze(1)
        signed = spikes * torch.tensor([-1.0, 1.0]).repeat(n)[:n].double()  # minus zeros are silent too
        values = spikes if dtype == torch.bool else signed.to(dtype)
        wide = torch.float64 if dtype == torch.bool else dtype
        got = ops.event_dense(values, weights.to(wide))
        assert got.item() == (values.double() @ weights).item(), n


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("rate", [0.02, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_dense_batches_equal_their_samples_for_any_number_of_threads(
    dtype: torch.dtype, event: bool, rate: float, infinite: bool
) -> None:
    """Also where weights of silent neurons are infinite or not a number: they reach nobody."""
    n_rows, n_columns, n_batch = 211, 307, 21
    matrix = torch.randn(n_rows, n_columns, generator=generator(3), dtype=of_sums(dtype)).to(dtype)
    if infinite:
        matrix[::50, ::60], matrix[1::50, ::70] = INF, math.nan
    rows, columns = (factors(n_batch, n, event=event, dtype=of_sums(dtype), rate=rate) for n in (n_rows, n_columns))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append((ops.event_dense(rows, matrix), ops.event_dense_t(columns, matrix)))
    finally:
        torch.set_num_threads(before)
    singles = (
        torch.stack([ops.event_dense(s, matrix) for s in rows]),
        torch.stack([ops.event_dense_t(s, matrix) for s in columns]),
    )
    for result in results:
        torch.testing.assert_close(result, singles, rtol=0, atol=0, equal_nan=True)
    if not infinite:
        exact = (rows.double() @ matrix.double(), columns.double() @ matrix.double().T)
        tolerance = 1e-11 if dtype == torch.float64 else 1e-3
        torch.testing.assert_close(tuple(y.double() for y in singles), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize(("n_rows", "n_columns"), [*itertools.product(SIZES[:3], SIZES[:3]), (7, 1000), (300, 80)])
@pytest.mark.parametrize(("dtype", "event"), KINDS)
def test_changes(dtype: torch.dtype, event: bool, n_rows: int, n_columns: int, batch: tuple[int, ...]) -> None:
    stored, dtype = dtype, of_sums(dtype)
    w = torch.randn(*batch, n_rows, n_columns, generator=generator(3), dtype=dtype).to(stored)
    exists = torch.rand(n_rows, n_columns, generator=generator(4)) < 0.3
    rows, columns = (factors(*batch, n, event=event, dtype=dtype) for n in (n_rows, n_columns))
    a_row, a_column = (torch.randn(*batch, n, generator=generator(5), dtype=dtype) for n in (n_rows, n_columns))
    csr = CSR.from_dense(exists.double())[0] if n_rows and n_columns else None
    for slope, (low, high) in itertools.product((False, True), ((-INF, INF), (-0.5, 0.75), (0.0, INF))):
        b_row, b_column = (a_row.cos(), a_column.cos()) if slope else (None, None)
        spread = [None if x is None else x.to(dtype).unsqueeze(-1) for x in (rows, a_row, b_row)]
        spread_t = [None if x is None else x.to(dtype).unsqueeze(-2) for x in (columns, a_column, b_column)]
        wide = w.to(dtype)
        want = changed(wide, spread[0], spread_t[1], spread_t[2], low, high).to(stored)
        want_t = changed(wide, spread_t[0], spread[1], spread[2], low, high).to(stored)
        bounds = {"low": low, "high": high}
        before = w.clone()
        got = ops.plasticity_dense(w, rows, a_column, b_column, **bounds)
        got_t = ops.plasticity_dense(w, columns, a_row, b_row, columns=True, **bounds)
        assert torch.equal(got, want) and torch.equal(got_t, want_t) and torch.equal(w, before)
        if csr is not None:
            sparse = w[..., exists]
            assert torch.equal(csr.on_pre(sparse, rows, a_column, b_column, **bounds), want[..., exists])
            assert torch.equal(csr.on_post(sparse, columns, a_row, b_row, **bounds), want_t[..., exists])


def test_threads_give_the_same_bits() -> None:
    n = 1500
    w, a = torch.randn(n, n, generator=generator(1)), torch.randn(n, generator=generator(2))
    spikes = torch.rand(n, generator=generator(3)) < 0.2
    csr = CSR.from_dense((torch.rand(n, n, generator=generator(4)) < 0.2).double())[0]
    sparse = torch.randn(csr.synapses, generator=generator(5))

    def everything() -> list[Tensor]:
        return [
            ops.event_dense(spikes, w), ops.event_dense_t(spikes, w),
            ops.plasticity_dense(w, spikes, a, low=-1.0), ops.plasticity_dense(w, spikes, a, columns=True, high=1.0),
            csr.on_pre(sparse, spikes, a), csr.on_post(sparse, spikes, a, a),
        ]  # fmt: skip

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = everything()
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(x, y) for x, y in zip(everything(), single, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_rounding_to_two_bytes_is_that_of_torch(stored: torch.dtype) -> None:
    """To the nearest, halfway to the even; beyond the largest to infinity; with subnormal numbers."""
    special = [
        1.0,
        1.00390625,
        1.01171875,
        -3e38,
        3.4e38,
        1e-40,
        -0.0,
        INF,
        -INF,
        math.nan,
        65504.0,
        65519.996,
        65520.0,
    ]
    bits = torch.randint(-(2**31), 2**31, (100_000,), generator=generator(1)).to(torch.int32).view(torch.float32)
    small = torch.randn(100_000, generator=generator(2)) * 1e-6
    values = torch.cat([torch.tensor(special), bits, small])
    got = ops.plasticity_dense(torch.zeros(1, len(values), dtype=stored), torch.tensor([True]), values)[0]
    torch.testing.assert_close(got, values.to(stored), rtol=0, atol=0, equal_nan=True)


def test_silent_neurons_keep_their_weights_and_nan_comes_through() -> None:
    w = torch.tensor([[5.0, math.nan], [5.0, 1.0]])
    spikes, a = torch.tensor([True, False]), torch.tensor([1.0, 1.0])
    got = ops.plasticity_dense(w, spikes, a, low=0.0, high=2.0)
    torch.testing.assert_close(got, torch.tensor([[2.0, math.nan], [5.0, 1.0]]), equal_nan=True)


def test_operands_of_any_strides() -> None:
    m = torch.randn(6, 8, generator=generator(1)).T
    spikes = (torch.rand(16, generator=generator(2)) < 0.5)[::2]
    torch.testing.assert_close(ops.event_dense(spikes, m), spikes.float() @ m)
    a = torch.randn(6, 2, generator=generator(3))[:, 0]
    want = changed(m, spikes.float()[:, None], a, None, -1.0, 1.0)
    assert torch.equal(ops.plasticity_dense(m, spikes, a, low=-1.0, high=1.0), want)


W, S, A = torch.zeros(3, 4), torch.zeros(3, dtype=torch.bool), torch.zeros(4)
INDICES, INDPTR = torch.tensor([0, 1, 0], dtype=torch.int32), torch.tensor([0, 2, 3])
BAD = {
    "`event_dense(matrix=...)`: expected float32, float64, bfloat16 or float16, got torch.int64": (
        TypeError, lambda: ops.event_dense(S, W.long())),
    "`event_dense(matrix=...)`: expected shape (*batch, n_rows, n_columns), got (4,)": (
        ValueError, lambda: ops.event_dense(S, A)),
    "`event_dense(spikes=...)`: expected bool or torch.float32, got torch.float64": (
        TypeError, lambda: ops.event_dense(S.double(), W)),
    "`event_dense_t(spikes=...)`: expected shape (*batch, 4), got (3,)": (ValueError, lambda: ops.event_dense_t(S, W)),
    "`event_dense(matrix=...)`: expected one matrix, or the batch shape of spikes, (), got (2,)": (
        ValueError, lambda: ops.event_dense(S, torch.zeros(2, 3, 4))),
    "`plasticity_dense(a=...)`: expected shape (*batch, 4), got (3,)": (
        ValueError, lambda: ops.plasticity_dense(W, S, torch.zeros(3))),
    "`plasticity_dense(a=...)`: expected torch.float32, got torch.float64": (
        TypeError, lambda: ops.plasticity_dense(W, S, A.double())),
    "`plasticity_dense(spikes=...)`: expected the batch shape of weights, (), got (2,)": (
        ValueError, lambda: ops.plasticity_dense(W, S.expand(2, 3), A)),
    "`plasticity_dense(low=..., high=...)`: expected low <= high, got 1.0 and 0.0": (
        ValueError, lambda: ops.plasticity_dense(W, S, A, low=1.0, high=0.0)),
    "`plasticity_dense(low=..., high=...)`: expected low <= high, got nan and 0.0": (
        ValueError, lambda: ops.plasticity_dense(W, S, A, low=math.nan, high=0.0)),
    "`plasticity_csr(weights=...)`: expected shape (*batch, 3), got (4,)": (
        ValueError, lambda: ops.plasticity_csr(A, S[:2], A, None, INDICES, INDPTR)),
    "`plasticity_csr(synapses=...)`: expected int32 of shape (3,), got torch.int64 of shape (3,)": (
        ValueError, lambda: ops.plasticity_csr(A[:3], S[:2], A, None, INDICES, INDPTR, INDICES.long())),
    "`plasticity_csr(b=...)`: expected shape (*batch, 4), got (2,)": (
        ValueError, lambda: ops.plasticity_csr(A[:3], S[:2], A, A[:2], INDICES, INDPTR)),
    "`plasticity_csr(indices=...)`: expected values in [0, 1), got 1 at position 1": (
        ValueError, lambda: ops.plasticity_csr(A[:3], S[:2], A[:1], None, INDICES, INDPTR)),
    "`plasticity_csr(synapses=...)`: expected every number in [0, 3) once": (
        ValueError, lambda: ops.plasticity_csr(A[:3], S[:2], A, None, INDICES, INDPTR, INDICES)),
    "`plasticity_csr(synapses=...)`: expected the device of indices, cpu, got meta": (
        ValueError, lambda: ops.plasticity_csr(A[:3], S[:2], A, None, INDICES, INDPTR, INDICES.to("meta"))),
    "`plasticity_dense(a=...)`: expected torch.float32, got torch.bfloat16": (
        TypeError, lambda: ops.plasticity_dense(W.bfloat16(), S, A.bfloat16())),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message: str) -> None:
    kind, call = BAD[message]
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)


def test_headers_are_plain_cpp17_and_stay_within_their_arrays(tmp_path: Path) -> None:
    source, program = Path(__file__).parent / "weights_kernels.cpp", tmp_path / "weights_kernels"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=undefined", f"-I{include_dir()}"]
    subprocess.run([os.environ.get("CXX", "g++"), *flags, str(source), "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures" in result.stdout
