"""Products over the grid of shapes, densities, dtypes and batches, structures by hypothesis, and malformed structures."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bdtorch import connect, ops

SIZES = (0, 1, 7, 1000)
SHAPES = [*itertools.product(SIZES, SIZES), (1000, 3), (3, 997)]
DENSITIES = (0.0, 0.001, 0.1, 1.0)
WEIGHTS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# As many samples as fill a tile, more, fewer; one dense and one sparse activity, so that both kernels for batches run.
BATCHES = ((), (1,), (3,), (5,), (17,), (2, 8), (0,))


def sparse(n_pre: int, n_post: int, density: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, indices, indptr."""
    rows, columns = (torch.rand(n_pre, n_post, generator=generator) < density).nonzero(as_tuple=True)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(rows, minlength=n_pre).cumsum(0)])
    return rows, columns.to(torch.int32), indptr


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_dense_ones_and_batches_their_samples(shape: tuple[int, int], density: float) -> None:
    n_pre, n_post = shape
    generator = torch.Generator().manual_seed(n_pre + 7 * n_post)
    rows, indices, indptr = sparse(n_pre, n_post, density, generator)
    small = len(indices) < 20_000
    for number, (dtype, shared, event) in enumerate(itertools.product(WEIGHTS, (False, True), (False, True))):
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        weights = torch.randn(() if shared else (len(indices),), generator=generator).to(dtype)
        matrix = torch.zeros(n_pre, n_post, dtype=torch.float64)
        if len(indices):
            matrix[rows, indices.long()] = weights.double().expand(len(indices))
        batches = BATCHES if small else (BATCHES[number % len(BATCHES)],)
        for batch, activity in itertools.product(batches, (0.05, 0.8)):
            pre = torch.rand(*batch, n_pre, generator=generator) < activity
            post = torch.rand(*batch, n_post, generator=generator) < activity
            if not event:
                pre, post = (x * torch.randn(x.shape, generator=generator).to(sums) for x in (pre, post))
            for product, x, dense in (
                (lambda s, w=weights: ops.event_csr(s, w, indices, indptr, n_post), pre, matrix),
                (lambda s, w=weights: ops.event_csr_t(s, w, indices, indptr), post, matrix.T),
            ):
                y = product(x)
                assert y.dtype == sums
                tolerance = 1e-12 if sums == torch.float64 else 2e-4
                torch.testing.assert_close(y.double(), x.double() @ dense, rtol=tolerance, atol=tolerance)
                if batch and math.prod(batch):
                    last = x.flatten(0, -2)[-1]
                    assert torch.equal(y.flatten(0, -2)[-1], product(last))


@pytest.mark.parametrize("event", [True, False])
def test_a_dense_batch_has_the_same_bits_for_any_number_of_threads_and_weights_that_are_infinite(event: bool) -> None:
    generator, threads = torch.Generator().manual_seed(0), torch.get_num_threads()
    _, indices, indptr = sparse(501, 499, 0.4, generator)
    weights = torch.randn(len(indices), generator=generator)
    weights[::1000] = torch.inf
    x = torch.rand(37, 501, generator=generator) < 0.5
    x = x if event else x * torch.randn(x.shape, generator=generator)
    values = torch.rand(37, 499, generator=generator)
    results = []
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            results.append(
                (ops.event_csr(x, weights, indices, indptr, 499), ops.event_csr_t(values, weights, indices, indptr))
            )
    finally:
        torch.set_num_threads(threads)
    for y, back in results:
        torch.testing.assert_close(y, results[0][0], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(back, results[0][1], rtol=0, atol=0, equal_nan=True)
    for b in range(37):  # a silent neuron's infinite weight reaches nobody
        single = ops.event_csr(x[b], weights, indices, indptr, 499)
        torch.testing.assert_close(results[0][0][b], single, rtol=0, atol=0, equal_nan=True)


def test_gradients_of_weights_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    _, indices, indptr = sparse(20, 30, 0.3, generator)
    weights = torch.randn(len(indices), generator=generator).bfloat16().requires_grad_()
    spikes = torch.randn(4, 20, generator=generator, requires_grad=True)
    ops.event_csr(spikes, weights, indices, indptr, 30).square().sum().backward()
    assert weights.grad is not None and weights.grad.dtype == torch.bfloat16
    wide = weights.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(ops.event_csr(spikes, wide, indices, indptr, 30).square().sum(), wide)
    assert torch.equal(weights.grad, expected.bfloat16())
    one = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
    ops.event_csr_t(torch.rand(30), one, indices, indptr).sum().backward()
    assert one.grad is not None and one.grad.dtype == torch.bfloat16
    torch.library.opcheck(torch.ops.bdtorch.event_csr.default, (spikes.detach(), weights.detach(), indices, indptr, 30))


edges = st.integers(0, 9).flatmap(
    lambda n: st.tuples(
        st.just(n + 1), st.integers(1, 12), st.lists(st.tuples(st.integers(0, n), st.integers(0, 100)), max_size=60)
    )
)


@settings(max_examples=80, deadline=None)
@given(edges, st.integers(0, 2**32 - 1))
def test_any_list_of_synapses_makes_the_dense_product(
    problem: tuple[int, int, list[tuple[int, int]]], seed: int
) -> None:
    n_pre, n_post, pairs = problem
    pre = torch.tensor([i for i, _ in pairs], dtype=torch.int64)
    post = torch.tensor([j % n_post for _, j in pairs], dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-8, 9, (len(pairs),), generator=generator).double()
    csr, weights = connect.from_edges(pre, post, weight, n_pre, n_post)
    dense = torch.zeros(n_pre, n_post, dtype=torch.float64).index_put((pre, post), weight, accumulate=True)
    ops.check_csr(csr.indices, csr.indptr, n_post, weights=weights)
    x = torch.randint(-2, 3, (n_pre,), generator=generator).double()
    y = torch.randint(-2, 3, (n_post,), generator=generator).double()
    assert torch.equal(csr(x, weights), x @ dense)
    assert torch.equal(csr.transposed(y, weights), dense @ y)
    assert torch.equal(csr.to_dense(weights), dense)


def malform(rng: random.Random, indices: Tensor, indptr: Tensor, weights: Tensor) -> tuple[str, dict[str, Tensor]]:
    """One thing wrong with a sound structure, and the argument that the error must name."""
    k, row = rng.randrange(len(indices)), rng.randrange(1, len(indptr) - 1)
    faults = {
        "negative index": ("indices", {"indices": indices.index_fill(0, torch.tensor([k]), -rng.randrange(1, 2**31))}),
        "large index": ("indices", {"indices": indices.index_fill(0, torch.tensor([k]), rng.randrange(30, 2**31))}),
        "unsorted": ("indices", {"indices": indices.flip(0)}),
        "wide indices": ("indices", {"indices": indices.long()}),
        "floating indices": ("indices", {"indices": indices.float()}),
        "indices of two axes": ("indices", {"indices": indices[None]}),
        "indices elsewhere": ("device|indptr", {"indices": indices.to("meta")}),
        "descending indptr": ("indptr", {"indptr": indptr.index_fill(0, torch.tensor([row]), rng.randrange(2**40, 2**62))}),
        "negative indptr": ("indptr", {"indptr": indptr.index_fill(0, torch.tensor([row]), -rng.randrange(1, 2**62))}),
        "late start": ("indptr", {"indptr": indptr + rng.randrange(1, 9)}),
        "short": ("indptr", {"indptr": indptr[: -rng.randrange(1, 3)]}),
        "empty": ("indptr", {"indptr": indptr[:0]}),
        "floating indptr": ("indptr", {"indptr": indptr.double()}),
        "indptr elsewhere": ("indptr", {"indptr": indptr.to("meta")}),
        "nan": ("weights", {"weights": weights.index_fill(0, torch.tensor([k]), math.nan)}),
        "weights too few": ("weights", {"weights": weights[:-1]}),
        "weights of two axes": ("weights", {"weights": weights[:, None]}),
        "integer weights": ("weights", {"weights": weights.long()}),
        "complex weights": ("weights", {"weights": weights.cfloat()}),
        "weights elsewhere": ("weights", {"weights": weights.to("meta")}),
    }  # fmt: skip
    name = rng.choice(list(faults))
    return faults[name]


def test_500_malformed_structures_are_refused_by_name() -> None:
    rng, refused = random.Random(0), 0
    for seed in range(500):
        generator = torch.Generator().manual_seed(seed)
        connected = torch.rand(12, 30, generator=generator) < 0.4
        connected[5, :3] = True  # at least one row that is unsorted when reversed
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), connected.sum(1).cumsum(0)])
        sound = {
            "indices": connected.nonzero()[:, 1].to(torch.int32),
            "indptr": indptr,
            "weights": torch.randn(int(indptr[-1]), generator=generator),
        }
        ops.check_csr(**sound, n_post=30)
        argument, changed = malform(rng, **sound)
        with pytest.raises((ValueError, TypeError), match=rf"`check_csr\(({argument})=|device of indices"):
            ops.check_csr(**(sound | changed), n_post=30)
        refused += 1
    assert refused == 500


def test_duplicates_are_refused_where_they_are_forbidden() -> None:
    indices, indptr = torch.tensor([0, 1, 1, 1], dtype=torch.int32), torch.tensor([0, 3, 4])
    ops.check_csr(indices, indptr, 2)
    with pytest.raises(ValueError, match=r"ascending, distinct values within each row, got 1 before 1 at position 1"):
        ops.check_csr(indices, indptr, 2, distinct=True)
    ops.check_csr(indices[1:], torch.tensor([0, 1, 2, 3]), 2, distinct=True)


def test_300_calls_with_wrong_arguments_raise_before_a_kernel_runs() -> None:
    """Of the raw ops too, which graphs call without the doors."""
    rng = random.Random(1)
    generator = torch.Generator().manual_seed(0)
    _, indices, indptr = sparse(12, 30, 0.4, generator)
    weights, spikes = torch.randn(len(indices), generator=generator), torch.rand(12, generator=generator)
    right = [spikes, weights, indices, indptr, 30]
    for _ in range(300):
        wrong, position = list(right), rng.randrange(4)
        tensor = right[position]
        assert isinstance(tensor, Tensor)
        wrong[position] = rng.choice([
            tensor[: max(0, len(tensor) - rng.randrange(1, 4))] if position != 3 else tensor[:0],
            tensor.to(torch.complex64),
            tensor.to(torch.uint8),
            tensor.to("meta"),
            tensor[None, None, None] if position else tensor[None, None, None, :3],
        ])  # fmt: skip
        if position == 2 and wrong[2].dtype == torch.int32 and wrong[2].dim() == 1 and not wrong[2].is_meta:
            wrong[1] = weights[: len(wrong[2]) + 1]
        with pytest.raises((ValueError, TypeError)):
            ops.event_csr(*wrong)
        if any(value.is_meta for value in wrong[:4]):
            continue  # the raw op then infers a shape and runs nothing
        with pytest.raises(RuntimeError):
            torch.ops.bdtorch._event_csr_raw(*wrong)
