"""Recursive least squares with postponed updates: its formula, its transforms, its limits."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from bdtorch.ops import rls_gain, rls_inverse, rls_memory, rls_update

# Below and above a line of the cache, of P that is kept whole (up to 256 KB) and of P of which a triangle is kept.
CASES = [
    (n, block, forgetting, dtype)
    for n, block, forgetting in [(1, 1, 1.0), (5, 4, 0.9), (16, 8, 1.0), (37, 32, 0.97), (333, 5, 1.0), (260, 32, 0.99)]
    for dtype in (torch.float32, torch.float64)
]


def formula(samples: Tensor, initial: float, forgetting: float) -> tuple[Tensor, Tensor]:
    """P and the last gain, by the formula as it stands, in the dtype of the samples."""
    p = initial * torch.eye(samples.shape[1], dtype=samples.dtype)
    gain = torch.zeros(samples.shape[1], dtype=samples.dtype)
    for row in samples:
        spread = p @ row
        gain = spread / (forgetting + row @ spread)
        p = (p - torch.outer(gain, spread)) / forgetting
    return p, gain


def taken(samples: Tensor, block: int, initial: float, forgetting: float) -> tuple[Tensor, Tensor]:
    """The memory after these samples, and how many updates are in wait."""
    memory = rls_memory(samples.shape[1], block, initial, dtype=samples.dtype)
    for k, row in enumerate(samples):
        memory = rls_update(memory, torch.tensor(k % block), row, block=block, forgetting=forgetting)
    return memory, torch.tensor(len(samples) % block)


@pytest.mark.parametrize(("n", "block", "forgetting", "dtype"), CASES)
def test_it_is_its_formula_before_and_after_a_fold(n: int, block: int, forgetting: float, dtype: torch.dtype) -> None:
    samples = torch.randn(2 * block + 1, n, generator=torch.Generator().manual_seed(n)).to(dtype)
    for count in (1, block, block + 1, 2 * block + 1):
        memory, pending = taken(samples[:count], block, 2.0, forgetting)
        want, gain = formula(samples[:count].double(), 2.0, forgetting)
        plain, plain_gain = formula(samples[:count], 2.0, forgetting)
        eps = torch.finfo(dtype).eps
        found = rls_inverse(memory, pending, block=block, forgetting=forgetting).double()
        assert torch.equal(found, found.mT)
        found_gain = rls_gain(memory, n, block).double()
        # As exact as updates at once, but for the rounding of P as it was at first, 2, from which all is taken off.
        for mine, plainly, right in ((found, plain, want), (found_gain, plain_gain, gain)):
            allowed = 2.0 * (plainly.double() - right).abs().max() + 16.0 * eps * max(2.0, float(right.abs().max()))
            assert (mine - right).abs().max() <= allowed


@pytest.mark.slow
def test_it_stays_symmetric_and_positive_in_single_precision() -> None:
    """A hundred thousand samples with a hundredfold range of variances: P is the inverse of what has been seen."""
    n, block, steps = 24, 8, 100_000
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(steps, n, generator=generator) * torch.logspace(-1.0, 0.0, n)
    memory, count = rls_memory(n, block, 1.0), torch.tensor(0)
    for row in samples:
        memory = rls_update(memory, count, row, block=block)
        count = (count + 1) % block
    p = rls_inverse(memory, count, block=block).double()
    want = torch.linalg.inv(torch.eye(n).double() + samples.double().mT @ samples.double())
    assert torch.equal(p, p.mT)
    assert torch.linalg.eigvalsh(p).min() > 0.0
    assert (p - want).norm() < 0.01 * want.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_samples_and_masks_keep_the_others(dtype: torch.dtype) -> None:
    n, block, generator = 21, 4, torch.Generator().manual_seed(1)
    memory = rls_memory(n, block, 0.5, (2, 3), dtype=dtype)
    count = torch.tensor([[0, 1, 3], [2, 3, 0]])
    memory[..., n : n + block, :n] = 0.1 * torch.randn(2, 3, block, n, generator=generator).to(dtype)
    x = torch.randn(2, 3, n, generator=generator).to(dtype)
    learn = torch.tensor([[True, False, True], [False, True, True]])
    before = memory.clone()
    after = rls_update(memory, count, x, block=block, learn=learn, forgetting=0.9)
    assert torch.equal(memory, before)
    for a in range(2):
        for b in range(3):
            one = rls_update(memory[a, b], count[a, b], x[a, b], block=block, learn=learn[a, b], forgetting=0.9)
            assert torch.equal(after[a, b], one)
            if not learn[a, b]:
                assert torch.equal(one[: n + block], memory[a, b, : n + block])
                assert not rls_gain(one, n, block).any()
    shared = rls_update(memory, torch.tensor(1), x, block=block, learn=torch.tensor(True))
    assert torch.equal(shared[1, 2], rls_update(memory[1, 2], torch.tensor(1), x[1, 2], block=block))


def test_vmap_and_compiled_graphs_give_the_same_bits() -> None:
    n, block = 9, 3
    memory = rls_memory(n, block, 1.0, (4,), dtype=torch.float64)
    x = torch.randn(4, n, dtype=torch.float64)
    count = torch.tensor([0, 1, 2, 2])
    update = functools.partial(rls_update, block=block, forgetting=0.95)
    want = update(memory, count, x)
    assert torch.equal(torch.func.vmap(update)(memory, count, x), want)
    masked = torch.func.vmap(lambda m, y, on: update(m, count[1], y, learn=on), in_dims=(None, 0, 0))
    on = torch.tensor([True, False, True, True])
    assert torch.equal(masked(memory[0], x, on)[2], update(memory[0], count[1], x[2]))
    torch.library.opcheck(
        torch.ops.bdtorch.rls_update.default, (memory, count, x, None, block, 0.95),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )  # fmt: skip
    assert torch.equal(torch.compile(update, backend="aot_eager", fullgraph=True)(memory, count, x), want)


def test_it_has_no_derivative_and_says_so() -> None:
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    after = rls_update(rls_memory(3, 2, 1.0, dtype=torch.float64), torch.tensor(0), x, block=2)
    with pytest.raises(NotImplementedError, match="recursive least squares has no derivative"):
        after.sum().backward()


def test_rounding_that_spoils_it_is_not_hidden() -> None:
    memory = rls_memory(2, 2, -3.0)  # not a covariance
    assert rls_update(memory, torch.tensor(0), torch.ones(2), block=2)[2, :2].isnan().all()


def test_bad_arguments_are_named() -> None:
    memory, zero, x = rls_memory(5, 4, 1.0), torch.tensor(0), torch.ones(5)
    for call, message in (
        (lambda: rls_memory(0, 4, 1.0), r"`rls_memory\(n=..., block=...\)`: expected n >= 1"),
        (lambda: rls_memory(5, 33, 1.0), r"expected n >= 1 and 1 to 32, got 5, 33"),
        (lambda: rls_update(memory, zero, x[:4], block=4), r"`rls_update\(memory=...\)`: expected shape \(10, 16\)"),
        (lambda: rls_update(memory, zero, x, block=3), r"`rls_update\(memory=...\)`: expected shape \(10, 16\)"),
        (lambda: rls_update(memory, zero, x, block=0), r"`rls_update\(block=...\)`: expected 1 to 32, got 0"),
        (lambda: rls_update(memory, zero, x[None], block=4), r"`rls_update\(x=...\)`: expected one sample for each"),
        (lambda: rls_update(memory, zero[None], x, block=4), r"`rls_update\(count=...\)`: expected shape \(\) or \(\)"),
        (lambda: rls_update(memory, zero, x, block=4, forgetting=0.0), r"`rls_update\(forgetting=...\)`"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in (
        (lambda: rls_memory(5, 4, 1.0, dtype=torch.float16), r"`rls_memory\(dtype=...\)`: expected float32 or float64"),
        (lambda: rls_update(memory, zero, x.double(), block=4), r"`rls_update\(x=...\)`: expected torch.float32"),
        (lambda: rls_update(memory, zero.int(), x, block=4), r"`rls_update\(count=...\)`: expected torch.int64"),
        (lambda: rls_update(memory, zero, x, block=4, learn=zero), r"`rls_update\(learn=...\)`: expected torch.bool"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    for count in (-1, 4):
        with pytest.raises(RuntimeError, match=rf"expected values in \[0, 4\), got {count}"):
            rls_update(memory, torch.tensor(count), x, block=4)
