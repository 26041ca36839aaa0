"""Values, order of summation, bounds and errors of the event-driven CSR ops."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from bdtorch import ops


class Problem(NamedTuple):
    """A random matrix with values for its neurons."""

    weights: Tensor
    indices: Tensor
    indptr: Tensor
    dense: Tensor  # (n_pre, n_post)
    pre: Tensor  # (*batch, n_pre), about 30 % active
    post: Tensor  # (*batch, n_post)


def make_problem(
    n_pre: int,
    n_post: int,
    *,
    density: float = 0.2,
    dtype: torch.dtype = torch.float64,
    indptr_dtype: torch.dtype = torch.int64,
    shared: bool = False,
    event: bool = True,
    batch: tuple[int, ...] = (),
    seed: int = 0,
) -> Problem:
    rng = np.random.default_rng(seed)
    connected = rng.random((n_pre, n_post)) < density
    _, indices = connected.nonzero()
    indptr = np.concatenate([[0], connected.sum(1).cumsum()])
    values = np.full(len(indices), 0.7) if shared else rng.normal(size=len(indices))
    dense = np.zeros((n_pre, n_post))
    dense[connected] = values
    pre = torch.from_numpy(rng.random((*batch, n_pre)) < 0.3)
    post = torch.from_numpy(rng.random((*batch, n_post)) < 0.5)
    if not event:
        pre = (pre * torch.from_numpy(rng.normal(size=pre.shape))).to(dtype)
        post = (post * torch.from_numpy(rng.normal(size=post.shape))).to(dtype)
    return Problem(
        weights=torch.tensor(0.7 if shared else values, dtype=dtype),
        indices=torch.from_numpy(indices.astype(np.int32)),
        indptr=torch.from_numpy(indptr).to(indptr_dtype),
        dense=torch.from_numpy(dense).to(dtype),
        pre=pre,
        post=post,
    )


SHAPES = [(0, 0), (0, 3), (3, 0), (1, 1), (7, 5), (64, 65), (1000, 300)]
VARIANTS = [
    {"dtype": dtype, "indptr_dtype": indptr_dtype, "shared": shared, "event": event}
    for dtype, indptr_dtype, shared, event in itertools.product(
        [torch.float32, torch.float64], [torch.int32, torch.int64], [False, True], [False, True]
    )
]


def assert_sum_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype
    tolerance = 1e-4 if actual.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 2), (0,)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_ops_equal_dense_products(shape: tuple[int, int], batch: tuple[int, ...], variant: dict) -> None:
    p = make_problem(*shape, batch=batch, **variant)
    dtype, structure = p.dense.dtype, (p.indices, p.indptr)
    assert_sum_close(ops.event_csr(p.pre, p.weights, *structure, shape[1]), p.pre.to(dtype) @ p.dense)
    assert_sum_close(ops.event_csr_t(p.post, p.weights, *structure), p.post.to(dtype) @ p.dense.T)

    n_batch = math.prod(batch)
    x, g = (p.pre.to(dtype).reshape(n_batch, shape[0]), p.post.to(dtype).reshape(n_batch, shape[1]))
    rows = torch.repeat_interleave(torch.arange(shape[0]), p.indptr.diff())
    assert_sum_close(ops.csr_outer(p.pre, p.post.to(dtype), *structure), (x.T @ g)[rows, p.indices.long()])


@pytest.mark.parametrize("event", [True, False])
def test_event_csr_adds_rows_in_ascending_order(event: bool) -> None:
    p = make_problem(300, 50, dtype=torch.float32, event=event)
    expected = np.zeros(50, np.float32)
    weights, indices, spikes = (p.weights.numpy(), p.indices.numpy(), p.pre.numpy().astype(np.float32))
    for i in range(300):
        k = slice(int(p.indptr[i]), int(p.indptr[i + 1]))
        if spikes[i] != 0:
            expected[indices[k]] += weights[k] * spikes[i]
    assert np.array_equal(ops.event_csr(p.pre, p.weights, p.indices, p.indptr, 50).numpy(), expected)


def all_ops(p: Problem, n_post: int) -> list[Tensor]:
    return [
        ops.event_csr(p.pre, p.weights, p.indices, p.indptr, n_post),
        ops.event_csr_t(p.post, p.weights, p.indices, p.indptr),
        ops.csr_outer(p.pre, p.post.to(p.dense.dtype), p.indices, p.indptr),
    ]


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("event", [True, False])
def test_bits_do_not_depend_on_the_number_of_threads(event: bool, batch: tuple[int, ...]) -> None:
    # Large enough for several threads, and prime, so that no partition is even.
    p = make_problem(1009, 997, density=0.3, dtype=torch.float32, event=event, batch=batch)
    threads = torch.get_num_threads()
    try:
        results = []
        for n_threads in (1, 2, 3, 7):
            torch.set_num_threads(n_threads)
            results.append(all_ops(p, 997))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.parametrize("n_post", [1, 2, 3, 5, 997])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("silent", [0.0, 0.1])
def test_bits_where_most_are_active(dtype: torch.dtype, n_post: int, silent: float) -> None:
    """Such rows are added by a loop of their own, unless threads share them; rows of any length, also the last."""
    p = make_problem(1009, n_post, density=0.3, dtype=dtype, event=False)
    rng = np.random.default_rng(1)
    spikes = torch.from_numpy(rng.normal(size=1009) * (rng.random(1009) >= silent)).to(dtype)
    infinite = torch.from_numpy(rng.random(len(p.weights)) < 0.01 * (silent > 0))
    weights = torch.where(infinite, torch.inf, p.weights)
    expected = np.zeros(n_post, p.weights.numpy().dtype)
    for i in range(1009):
        k = slice(int(p.indptr[i]), int(p.indptr[i + 1]))
        if spikes[i] != 0:
            with np.errstate(invalid="ignore"):  # infinities of both signs
                expected[p.indices.numpy()[k]] += weights.numpy()[k] * spikes.numpy()[i]
    threads = torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            y = ops.event_csr(spikes, weights, p.indices, p.indptr, n_post).numpy()
            assert np.array_equal(y, expected, equal_nan=True)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("event", [True, False])
def test_a_batch_equals_its_samples_to_the_bit(event: bool) -> None:
    p = make_problem(700, 500, dtype=torch.float32, event=event, batch=(4,))
    y, x, _ = all_ops(p, 500)
    for b in range(4):
        single = all_ops(p._replace(pre=p.pre[b], post=p.post[b]), 500)
        assert torch.equal(y[b], single[0])
        assert torch.equal(x[b], single[1])


def test_silent_rows_are_not_read() -> None:
    p = make_problem(100, 80, batch=(2,))
    silent = ~p.pre.any(0)
    rows = torch.repeat_interleave(torch.arange(100), p.indptr.diff())
    assert silent[rows].any()
    poisoned = torch.where(silent[rows], torch.nan, p.weights)
    y = ops.event_csr(p.pre, poisoned, p.indices, p.indptr, 80)
    assert torch.equal(y, ops.event_csr(p.pre, p.weights, p.indices, p.indptr, 80))


def test_nan_of_an_active_row_arrives() -> None:
    p = make_problem(10, 8, density=1.0)
    y = ops.event_csr(torch.ones(10, dtype=torch.bool), p.weights.index_fill(0, torch.tensor([3]), torch.nan),
                      p.indices, p.indptr, 8)  # fmt: skip
    assert y.isnan().nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_what_differs_from_zero_is_an_event(n: int, dtype: torch.dtype) -> None:
    indptr, indices = torch.arange(n + 1), torch.arange(n, dtype=torch.int32)
    special = torch.tensor(
        [0.0, -0.0, -1.0, float("nan"), float("inf"), torch.finfo(dtype).smallest_normal / 4], dtype=dtype
    )
    for shift in range(6):
        spikes = special[(torch.arange(n) + shift) % 6]
        out = ops.event_csr(spikes, torch.ones((), dtype=dtype), indices, indptr, n)
        assert torch.equal(out.nan_to_num(7.0), spikes.nan_to_num(7.0))


def test_parallel_synapses_add_up() -> None:
    indices, indptr = torch.tensor([1, 1, 2], dtype=torch.int32), torch.tensor([0, 3])
    ops.check_csr(indices, indptr, 3)
    y = ops.event_csr(torch.tensor([True]), torch.tensor([1.0, 2.0, 4.0]), indices, indptr, 3)
    assert y.tolist() == [0.0, 3.0, 4.0]


def test_arguments_need_not_be_contiguous() -> None:
    p = make_problem(60, 40, event=False, batch=(5,))

    def strided(tensor: Tensor) -> Tensor:
        spread = tensor.new_zeros((*tensor.shape, 3))
        spread[..., 1] = tensor
        assert not spread[..., 1].is_contiguous()
        return spread[..., 1]

    scattered = Problem(*map(strided, p))
    assert all(map(torch.equal, all_ops(scattered, 40), all_ops(p, 40)))
    one_for_all = p.pre[0].expand(5, 60)
    y = ops.event_csr(one_for_all, p.weights, p.indices, p.indptr, 40)
    assert torch.equal(y[4], ops.event_csr(p.pre[0], p.weights, p.indices, p.indptr, 40))


def call(**changed: object) -> Callable[[], object]:
    """A call of event_csr with some arguments replaced."""
    p = make_problem(4, 3, density=1.0)
    arguments = {"spikes": p.pre, "weights": p.weights, "indices": p.indices, "indptr": p.indptr, "n_post": 3}
    return lambda: ops.event_csr(**(arguments | changed))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"spikes": torch.zeros(4)}, TypeError, r"spikes=\.\.\.\)`: expected bool or torch.float64, got torch.float32"),
        ({"spikes": torch.zeros(5, dtype=torch.bool)}, ValueError, r"spikes=.*shape \(\*batch, 4\), got \(5,\)"),
        ({"spikes": torch.tensor(True)}, ValueError, r"spikes=.*got \(\)"),
        ({"spikes": torch.zeros(4, dtype=torch.bool, device="meta")}, ValueError, "spikes=.*device of indices, cpu"),
        ({"weights": torch.zeros(12, dtype=torch.int32)}, TypeError, "weights=.*or float16, got torch.int32"),
        ({"weights": torch.zeros(11)}, ValueError, r"weights=.*expected shape \(\) or \(12,\), got \(11,\)"),
        ({"weights": torch.zeros(1)}, ValueError, r"weights=.*got \(1,\)"),
        ({"weights": torch.zeros(12, device="meta")}, ValueError, "weights=.*device"),
        ({"indices": torch.zeros(12, dtype=torch.int64)}, TypeError, "indices=.*expected int32, got torch.int64"),
        ({"indices": torch.zeros(2, 6, dtype=torch.int32)}, ValueError, r"indices=.*got \(2, 6\)"),
        ({"indptr": torch.zeros(5)}, TypeError, "indptr=.*expected int32 or int64, got torch.float32"),
        ({"indptr": torch.zeros(0, dtype=torch.int64)}, ValueError, r"indptr=.*\(n_pre \+ 1,\), got \(0,\)"),
        ({"indptr": torch.zeros(5, dtype=torch.int64, device="meta")}, ValueError, "indptr=.*device"),
        ({"n_post": -1}, ValueError, r"n_post=\.\.\.\)`: expected a nonnegative number, got -1"),
    ],
)  # fmt: skip
def test_event_csr_names_a_bad_argument(changed: dict, error: type[Exception], message: str) -> None:
    call()()
    with pytest.raises(error, match=rf"`event_csr\({message}"):
        call(**changed)()


def test_transposed_and_outer_name_a_bad_argument() -> None:
    p = make_problem(4, 3, density=1.0)
    structure = (p.indices, p.indptr)
    with pytest.raises(TypeError, match=r"`event_csr_t\(spikes=.*expected bool or torch.float64, got torch.int64"):
        ops.event_csr_t(torch.zeros(3, dtype=torch.int64), p.weights, *structure)
    with pytest.raises(ValueError, match=r"`event_csr_t\(weights=.*got \(3,\)"):
        ops.event_csr_t(p.post, p.weights[:3], *structure)
    with pytest.raises(TypeError, match=r"`csr_outer\(g=.*expected float32 or float64, got torch.bool"):
        ops.csr_outer(p.pre, p.post, *structure)
    with pytest.raises(ValueError, match=r"`csr_outer\(x=.*expected shape \(\*batch, 4\), got \(3,\)"):
        ops.csr_outer(p.post, p.post.double(), *structure)
    with pytest.raises(ValueError, match=r"`csr_outer\(g=.*batch shape of x, \(\), got \(2,\)"):
        ops.csr_outer(p.pre, torch.zeros(2, 3, dtype=torch.float64), *structure)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("indptr_dtype", [torch.int32, torch.int64])
def test_check_csr_accepts_what_is_sound(shape: tuple[int, int], indptr_dtype: torch.dtype) -> None:
    p = make_problem(*shape, indptr_dtype=indptr_dtype)
    ops.check_csr(p.indices, p.indptr, shape[1])


@pytest.mark.parametrize(
    ("indices", "indptr", "n_post", "message"),
    [
        ([0, 1], [0, 1, 3], 2, r"indptr=.*from 0 to n_synapses=2, got 0 to 3"),
        ([0, 1], [1, 1, 2], 2, r"indptr=.*got 1 to 2"),
        ([0, 1], [0, 2, 1, 2], 2, r"indptr=.*ascending values, got 2 before 1 at position 1"),
        ([0, 1], [0, -1, 2], 2, r"indptr=.*got 0 before -1 at position 0"),
        ([0, 2], [0, 1, 2], 2, r"indices=.*in \[0, 2\), got 2 at position 1"),
        ([-1, 1], [0, 1, 2], 2, r"indices=.*got -1 at position 0"),
        ([0, 2, 1, 2], [0, 1, 4], 3, r"indices=.*ascending values within each row, got 2 before 1 at position 1"),
        ([1, 0], [0, 0, 2, 2], 3, r"indices=.*got 1 before 0 at position 0"),
        ([], [0], -1, r"n_post=.*got -1"),
        ([], [0], 2**31, r"n_post=.*got 2147483648"),
    ],
)
def test_check_csr_rejects(indices: list[int], indptr: list[int], n_post: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"`check_csr\({message}"):
        ops.check_csr(torch.tensor(indices, dtype=torch.int32), torch.tensor(indptr), n_post)


def test_raw_calls_with_wrong_shapes_raise() -> None:
    p = make_problem(4, 3, density=1.0)
    structure = (p.indices, p.indptr)
    with pytest.raises(RuntimeError, match=r"event_csr\(spikes=.*expected shape \(4,\)"):
        torch.ops.bdtorch.event_csr(p.pre[:3], p.weights, *structure, 3)
    with pytest.raises(RuntimeError, match=r"event_csr\(weights=.*expected a 0-d tensor or shape \(12,\)"):
        torch.ops.bdtorch.event_csr(p.pre, p.weights[:3], *structure, 3)
    with pytest.raises(RuntimeError, match=r"event_csr_t\(weights=.*expected float32 or float64"):
        torch.ops.bdtorch.event_csr_t(p.post, p.weights.int(), *structure)
    with pytest.raises(RuntimeError, match=r"csr_outer: x and g differ in their batch"):
        torch.ops.bdtorch.csr_outer(p.pre, p.post.double()[None], *structure)


def test_kernel_headers_are_found() -> None:
    assert (ops.include_dir() / "bdtorch" / "event_csr.h").is_file()
