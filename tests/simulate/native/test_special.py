"""The special functions of generated loops, against SciPy's over their whole ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import scipy.special
import torch
from torch import Tensor

from tests.simulate.native.stepping import both

pytestmark = pytest.mark.usefixtures("compiled_quickly")
D = torch.float64


def grid(low: float, high: float, count: int = 2001) -> Tensor:
    return torch.linspace(low, high, count, dtype=D)


def scales(low: float, high: float) -> Tensor:
    return torch.logspace(low, high, 301, dtype=D)


POSITIVE = torch.cat([grid(0.01, 40), scales(-8, 12)])
AROUND = torch.cat([grid(-60, 60), grid(19, 21), scales(-300, 2), -scales(-300, 2)])
# The function, its argument, what SciPy calls it, and by how many epsilons of a value it may be off. Near a zero of
# digamma the argument's own rounding is more than that of the value, which is held against its neighbours' there.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, Callable[[Any], Any], float]] = {
    "digamma": (torch.digamma, torch.cat([POSITIVE, grid(-9.3, -0.01)]), scipy.special.digamma, 16),
    "trigamma": (lambda x: torch.polygamma(1, x), POSITIVE, lambda x: scipy.special.polygamma(1, x), 16),
    "erfinv": (torch.erfinv, torch.cat([grid(-1, 1), 1 - scales(-15, -1), scales(-300, -1)]), scipy.special.erfinv, 8),
    "erfcx": (torch.special.erfcx, torch.cat([grid(-2, 60), scales(1, 300)]), scipy.special.erfcx, 16),
    "i0": (torch.i0, AROUND, scipy.special.i0, 16),
    "i0e": (torch.special.i0e, torch.cat([AROUND, scales(2, 300)]), scipy.special.i0e, 16),
    "i1": (torch.special.i1, AROUND, scipy.special.i1, 16),
    "i1e": (torch.special.i1e, torch.cat([AROUND, scales(2, 300)]), scipy.special.i1e, 16),
    "zeta near its pole": (lambda q: torch.special.zeta(1.01, q), POSITIVE, lambda q: scipy.special.zeta(1.01, q), 16),
    "zeta": (lambda q: torch.special.zeta(2.5, q), POSITIVE, lambda q: scipy.special.zeta(2.5, q), 16),
    "zeta far off": (lambda q: torch.special.zeta(20.0, q), grid(0.01, 40), lambda q: scipy.special.zeta(20.0, q), 16),
}


def test_special_functions() -> None:
    arguments = [x for _, x, _, _ in FUNCTIONS.values()]
    step = lambda x, t: (x, [f(y) for (f, *_), y in zip(FUNCTIONS.values(), x, strict=True)])  # noqa: E731
    native, _ = both(step, *arguments, steps=1)
    for (name, (_, x, function, units)), found in zip(FUNCTIONS.items(), native[: len(FUNCTIONS)], strict=True):
        expected = torch.as_tensor(function(x.numpy()))
        off = (found[0] - expected).abs() / (expected.abs() + (1.0 if name == "digamma" else 0.0)).clamp(min=1e-300)
        off = torch.where(found[0] == expected, 0.0, off)
        worst = int(off.nan_to_num(torch.inf).argmax())
        message = f"{name} of {x[worst].item()!r} is {found[0][worst].item()!r}, not {expected[worst].item()!r}"
        assert off[worst] <= units * torch.finfo(D).eps, message


@pytest.mark.parametrize("dtype", [torch.float32, D], ids=str)
def test_special_functions_at_the_ends_of_their_ranges(dtype: torch.dtype) -> None:
    functions = (torch.digamma, torch.erfinv, torch.special.erfcx, torch.i0, torch.special.i0e, torch.special.i1e)
    ends = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, -1.0, -2.0, 1.0, 2.0, -0.5], dtype=dtype)
    native, reference = both(lambda x, t: (x, [f(x[0]) for f in functions]), ends, steps=1)
    for found, expected in zip(native, reference, strict=True):
        relative = 1e-13 if dtype == D else 4e-6  # which is what PyTorch's own are off by in single precision
        torch.testing.assert_close(found, expected, rtol=relative, atol=0.0, equal_nan=True)
