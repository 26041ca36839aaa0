"""Dense products of the native loop, and the sums of outer products that gradients are made of."""

import pytest
import torch

import bdtorch as bt
from bdtorch.simulate.loops.native.outer import add_outer
from tests.simulate.native.stepping import flat, run

SIZES = [(1, 1, 1), (1, 40, 33), (2, 3, 70), (7, 300, 16), (13, 257, 19), (65, 64, 5), (100, 5, 300)]


def with_zeros(rows: int, columns: int, fraction: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(rows, columns, dtype=dtype)
    return torch.where(torch.rand(rows, columns) < fraction, torch.zeros((), dtype=dtype), x)


@pytest.mark.parametrize(("rows", "inner", "columns"), SIZES)
@pytest.mark.parametrize("silent", [0.0, 0.97, 1.0])
def test_outer_products_add_up(rows, inner, columns, silent):
    torch.manual_seed(rows)
    left, right = with_zeros(inner, rows, silent), torch.randn(inner, columns)
    total = torch.randn(rows, columns)
    expected = total.double() + left.double().T @ right.double()
    add_outer(total, left, right, 1)
    assert (total - expected).abs().max() < 1e-5 * inner**0.5 + 1e-6


@pytest.mark.parametrize("silent", [0.0, 0.9, 0.99])
def test_outer_products_have_the_same_bits_for_any_number_of_threads(silent):
    torch.manual_seed(0)
    left, right = with_zeros(700, 101, silent), torch.randn(700, 130)
    totals = [torch.ones(101, 130) for _ in range(3)]
    for threads, total in enumerate(totals, 1):
        add_outer(total, left, right, threads)
    assert all(torch.equal(total, totals[0]) for total in totals)


def test_a_row_has_the_same_bits_whether_zeros_are_left_out_or_not():
    torch.manual_seed(1)
    left, right = with_zeros(300, 40, 0.95), torch.randn(300, 50)
    sparse, dense = torch.zeros(40, 50), torch.zeros(80, 50)
    add_outer(sparse, left, right, 1)
    add_outer(dense, torch.cat([left, torch.ones(300, 40)], 1), right, 1)  # enough for blocks
    assert torch.equal(sparse, dense[:40])


def test_an_infinite_gradient_is_not_lost_behind_a_zero():
    left, right = torch.zeros(20, 9), torch.ones(20, 4)
    right[3, 2] = float("inf")
    total = torch.zeros(9, 4)
    add_outer(total, left, right, 1)
    assert total[:, 2].isnan().all() and torch.equal(total[:, :2], torch.zeros(9, 2))


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 40, 33), (13, 257, 19), (65, 64, 5), (9, 4, 40)])
@pytest.mark.parametrize("silent", [0.0, 0.5, 0.97])
def test_products_inside_the_loop(rows, inner, columns, silent):
    torch.manual_seed(rows)
    weights, back = torch.randn(inner, columns).double(), torch.randn(columns, inner).double() / columns
    start = with_zeros(rows, inner, silent, torch.float64)

    def step(state, t):
        return [torch.tanh((state[0] @ weights) @ back)], state[0]

    reference = flat(run(step, start, loop="reference", steps=2))
    runs = [flat(run(step, start, loop=bt.Native(threads=threads), steps=2)) for threads in (1, 3)]
    for expected, one, three in zip(reference, *runs, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-11, atol=1e-11)
        assert torch.equal(one, three)
