"""Division by numbers that are known beforehand: the bits of a division, but for quotients among the smallest numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from bdtorch.simulate.loops.native.reciprocal import reciprocal
from tests.simulate.native.stepping import both

DIVISORS = (
    3.0,
    -3.0,
    5.0,
    7.0,
    10.0,
    12.5,
    -18.0,
    0.75,
    80.0,
    1000.0,
    1023.0,
    -0.0390625,
    341.0 * 2.0**30,
    3.0 * 2.0**-38,
)
FLOATS = {torch.float32: (24, torch.int32), torch.float64: (53, torch.int64)}


def dividends(divisor: float, dtype: torch.dtype) -> Tensor:
    """Any pattern of bits, special numbers, subnormal numbers, and such as come closest to the middle between two quotients."""
    bits, whole = FLOATS[dtype]
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randint(
        torch.iinfo(whole).min, torch.iinfo(whole).max, (20_000,), dtype=whole, generator=generator
    )
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1.0, torch.finfo(dtype).max], dtype=dtype)
    close = []
    for number in range(2 ** (bits - 1) + 1, 2 ** (bits - 1) + 4001):
        x = float(Fraction(divisor) * Fraction(2 * number + 1, 2**bits))
        close += [x, -x * 3.0]
    hard = torch.tensor(close, dtype=dtype)
    neighbours = [torch.nextafter(hard, torch.full_like(hard, end)) for end in (torch.inf, -torch.inf)]
    smallest = torch.arange(1, 2**16, 31, dtype=whole).view(dtype)
    return torch.cat([patterns.view(dtype), special, smallest, -smallest, hard, *neighbours])


@pytest.mark.parametrize("dtype", FLOATS)
def test_quotients_are_those_of_a_division(dtype: torch.dtype) -> None:
    """Equal bits wherever no subnormal number is near, and neighbours there."""
    whole, tiny = FLOATS[dtype][1], torch.finfo(dtype).tiny
    x = torch.cat([dividends(divisor, dtype) for divisor in DIVISORS])
    out, _ = both(lambda state, t: (state, tuple(state[0] / divisor for divisor in DIVISORS)), x, steps=1)
    for divisor, native in zip(DIVISORS, out, strict=False):
        native, exact = native.reshape(-1), x / divisor
        factor = abs(Fraction(divisor).numerator)
        smallest = 2 * tiny * (factor // (factor & -factor))
        apart = (native.view(whole).long() - exact.view(whole).long()).abs()
        apart[exact.isnan() & native.isnan()] = 0
        assert int(apart[(exact.abs() >= smallest) | (x == 0) | exact.isnan()].max()) == 0, divisor
        assert int(apart.max()) <= 1, divisor


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("divisor", DIVISORS)
def test_parts_of_a_reciprocal(dtype: torch.dtype, divisor: float) -> None:
    parts = reciprocal(divisor, dtype)
    assert parts is not None
    high, low = parts
    assert torch.tensor(parts, dtype=dtype).tolist() == [high, low]
    assert high * divisor > 0 and low * divisor > 0  # so that zeros and infinities keep their signs
    bits = FLOATS[dtype][0]
    assert abs(1 / Fraction(divisor) - Fraction(high) - Fraction(low)) <= abs(1 / Fraction(divisor)) / 2 ** (
        2 * bits - 1
    )


@pytest.mark.parametrize(
    "divisor", [0.0, 1.0, -2.0, 0.25, 0.1, 1025.0, 2.0**45 * 3, 3 * 2.0**-45, float("inf"), float("nan")]
)
def test_other_divisors_are_divided_by(divisor: float) -> None:
    assert reciprocal(divisor, torch.float64) is None


def test_other_dtypes_are_divided() -> None:
    assert reciprocal(3.0, torch.bfloat16) is None
