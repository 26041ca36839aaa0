"""Numbers of two bytes in the native loop: rounded operation by operation, to the bit as PyTorch rounds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from tests.simulate.native.stepping import assert_same, both, run
from tests.simulate.native.test_operations import BINARY, FLOATS, SHAPED, UNARY, batch, shapes

TWO_BYTES = (torch.bfloat16, torch.float16)
COARSER = {"rsqrt", "floor_divide", "div floor"}
"""Operations that PyTorch makes of several roundings in float16."""


def _names(table: dict[str, Any]) -> list[str]:
    return [name for name, (_, dtypes, *_) in table.items() if set(FLOATS) <= set(dtypes)]


QUICK_BFLOAT16 = [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]


@pytest.mark.parametrize("dtype", QUICK_BFLOAT16)
def test_every_elementwise_operation(dtype: torch.dtype) -> None:
    cases = [(name, *UNARY[name][:1], dtype, UNARY[name][2], 1) for name in _names(UNARY)]
    cases += [(name, *BINARY[name][:1], dtype, BINARY[name][2], 2) for name in _names(BINARY)]
    results = batch(cases)
    wrong = {}
    for name, _, _, exact, _ in cases:
        try:
            assert_same(
                *results[name, dtype], exact=exact and not (name in COARSER and dtype == torch.float16), units=4
            )
        except AssertionError as error:
            wrong[name] = str(error)
    assert not wrong


@pytest.mark.parametrize("dtype", QUICK_BFLOAT16)
def test_shapes_reductions_and_products(dtype: torch.dtype) -> None:
    """Sums and products are made in float and rounded once, and movement changes nothing."""
    state = shapes(dtype, torch.Generator().manual_seed(1))

    def step(x: list[Tensor], t: Tensor) -> Any:
        return [leaf.flip(list(range(leaf.dim()))) for leaf in x], [f(*x) for f, _ in SHAPED.values()]

    native, reference = both(step, *state)
    for name, a, b in zip(SHAPED, native, reference, strict=False):
        try:
            assert_same(a, b, exact=SHAPED[name][1] and name != "outer", units=4)
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.parametrize("dtype", TWO_BYTES)
def test_every_number_survives_and_every_float_is_rounded_as_torch_does(dtype: torch.dtype) -> None:
    """All 65,536 numbers; and floats of every exponent, with ties, their neighbours, and what overflows."""
    stored = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    generator = torch.Generator().manual_seed(2)
    bits = torch.randint(-(2**31), 2**31, (1 << 18,), generator=generator, dtype=torch.int64).to(torch.int32)
    wide = stored.float()
    halfway = (wide[:-1].double() + wide[1:].double()).div(2).float()
    near = [
        halfway,
        torch.nextafter(halfway, torch.tensor(torch.inf)),
        torch.nextafter(halfway, -torch.tensor(torch.inf)),
    ]
    floats = torch.cat([bits.view(torch.float32), wide, *near, torch.tensor([65504.0, 65519.9, 65520.0, 3.4e38])])

    def step(x: list[Tensor], t: Tensor) -> Any:
        return x, (x[0].float(), x[1].to(dtype), x[1].double().to(dtype), x[0] + 0)

    native, reference = both(step, stored, floats, steps=1)
    for a, b in zip(native, reference, strict=True):
        finite = ~b.isnan()
        assert torch.equal(a.isnan(), b.isnan())
        assert torch.equal(a[finite], b[finite])
        assert torch.equal(torch.signbit(a[finite].float()), torch.signbit(b[finite].float()))


@pytest.mark.parametrize("dtype", TWO_BYTES)
def test_single_numbers_keep_their_places(dtype: torch.dtype) -> None:
    """A number beside a tensor is taken as it is by arithmetic, and rounded first by comparisons and choices."""
    x = torch.linspace(-2.0, 2.0, 300).to(dtype)
    one = torch.tensor(0.3)

    def step(x: list[Tensor], t: Tensor) -> Any:
        v, k = x
        return [v * 0.9 + 0.05, k], (
            v * 0.3, v * k, 1 / (v + 3.3), k - v, v > 0.3, v > k, torch.where(v > 0, v, 0.3), torch.maximum(v, k.to(dtype)),
            v * 3 + (v > 0) * 0.1, v.clamp(-0.3, 0.3), torch.tensor([1, 2, 257] * 100) * v, v * t,
        )  # fmt: skip

    for a, b in zip(*both(step, x, one, steps=20), strict=True):
        assert_same(a, b, exact=True)


@pytest.mark.parametrize("dtype", TWO_BYTES)
def test_records_of_numbers_of_two_bytes(dtype: torch.dtype) -> None:
    x = torch.linspace(-2.0, 2.0, 101).to(dtype)

    def step(x: list[Tensor], t: Tensor) -> Any:
        return [x[0].roll(1) * 0.99], x[0] * (x[0] > 1)

    options = {"steps": 9, "record": {"x": bt.trace("x0", every=2), "spikes": bt.spikes()}}
    native, reference = (run(step, x, loop=loop, **options) for loop in ("native", "reference"))
    assert torch.equal(native["x"], reference["x"]) and native["x"].dtype == dtype
    assert len(native["spikes"]) > 9
    assert torch.equal(native["spikes"].step, reference["spikes"].step)
    assert torch.equal(native["spikes"].index, reference["spikes"].index)


@pytest.mark.parametrize("dtype", TWO_BYTES)
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_read_weights_of_two_bytes(dtype: torch.dtype, threads: int) -> None:
    generator = torch.Generator().manual_seed(3)
    indptr, indices = torch.tensor([0, 3, 3, 5, 8, 9]), torch.tensor([0, 2, 6, 1, 6, 0, 3, 4, 5], dtype=torch.int32)
    sparse, matrix = (torch.randn(shape, generator=generator).to(dtype) for shape in ((9,), (5, 7)))
    a = torch.randn(7, generator=generator)
    delays = torch.tensor([0, 1, 2, 2, 1, 0, 1, 0, 2], dtype=torch.int32)
    ring, cursor = torch.randn(3, 7, generator=generator), torch.tensor(1)

    def step(x: list[Tensor], t: Tensor) -> Any:
        spikes, rates, w, m, ring = x
        product: Callable[..., Tensor] = bt.ops.event_csr
        out = (
            product(spikes, w, indices, indptr, 7), product(rates, w[0], indices, indptr, 7),
            bt.ops.event_csr_t(a > 0, w, indices, indptr), bt.ops.event_csr_t(a, w, indices, indptr),
            bt.ops.event_dense(spikes, m), bt.ops.event_dense(rates, m), bt.ops.event_dense_t(a > 0, m),
        )  # fmt: skip
        w = bt.ops.plasticity_csr(w, spikes, a, None, indices, indptr, low=-1.0)
        m = bt.ops.plasticity_dense(m, rates, a, a * 0.1, high=1.5)
        ring = bt.ops.event_csr_delayed(ring, cursor, spikes, w, indices, indptr, delays)
        return [spikes.roll(1), rates.roll(1), w, m, ring], out

    state = (torch.arange(5) % 2 == 0, torch.randn(5, generator=generator).relu(), sparse, matrix, ring)
    for x, y in zip(*both(step, *state, steps=5, threads=threads), strict=True):
        assert_same(x, y, exact=True)
