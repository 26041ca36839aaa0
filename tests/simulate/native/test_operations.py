"""Every operation that the native loop knows, against the same step taken by PyTorch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bdtorch.simulate.loops.native import operations, trace
from tests.simulate.native.stepping import assert_same, both

FLOATS = (torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32)
NUMBERS = FLOATS + INTEGERS
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -3.5, 1e-3, 7.0, -20.0, 88.0, math.inf, -math.inf, math.nan)


def values(dtype: torch.dtype, shift: int = 0) -> Tensor:
    """Representative values, rotated by ``shift``; 67 of them, so that vector loops have a remainder."""
    if dtype == torch.bool:
        return torch.arange(67).roll(shift) % 3 == 0
    if not dtype.is_floating_point:
        return ((torch.arange(67) * 37) % 41 - 17).roll(shift).to(dtype)
    pairs = torch.tensor(list(itertools.product(SPECIAL, repeat=2)))[:, min(shift, 1)]
    grid = torch.linspace(-4.0, 4.0, 67).roll(5 * shift)
    return torch.cat([pairs, grid]).to(dtype)


UNARY: dict[str, tuple[Callable[[Tensor], Tensor], tuple[torch.dtype, ...], bool]] = {
    "abs": (torch.abs, NUMBERS, True),
    "acos": (torch.acos, FLOATS, False),
    "asin": (torch.asin, FLOATS, False),
    "atan": (torch.atan, FLOATS, False),
    "ceil": (torch.ceil, NUMBERS, True),
    "clamp both": (lambda x: x.clamp(-1, 2), NUMBERS, True),
    "clamp low": (lambda x: x.clamp(min=-1), NUMBERS, True),
    "clamp high": (lambda x: x.clamp(max=2), NUMBERS, True),
    "clamp float of int": (lambda x: x.clamp(-1.5, 2.5), NUMBERS, True),
    "clamp_min": (lambda x: torch.clamp_min(x, 1), NUMBERS, True),
    "clamp_max": (lambda x: torch.clamp_max(x, 1), NUMBERS, True),
    "clone": (torch.clone, (*NUMBERS, torch.bool), True),
    "cos": (torch.cos, FLOATS, False),
    "cosh": (torch.cosh, FLOATS, False),
    "erf": (torch.erf, FLOATS, False),
    "erfc": (torch.erfc, FLOATS, False),
    "exp": (torch.exp, FLOATS, False),
    "exp of int": (torch.exp, INTEGERS, False),
    "exp2": (torch.exp2, FLOATS, False),
    "expm1": (torch.expm1, FLOATS, False),
    "floor": (torch.floor, NUMBERS, True),
    "full_like": (lambda x: x + torch.full_like(x, 3), NUMBERS, True),
    "isfinite": (torch.isfinite, NUMBERS, True),
    "isinf": (torch.isinf, NUMBERS, True),
    "isnan": (torch.isnan, NUMBERS, True),
    "log": (lambda x: torch.log(x.abs()), FLOATS, False),
    "log of negative": (torch.log, FLOATS, False),
    "log10": (torch.log10, FLOATS, False),
    "log1p": (torch.log1p, FLOATS, False),
    "log2": (torch.log2, FLOATS, False),
    "logical_not": (torch.logical_not, (*NUMBERS, torch.bool), True),
    "bitwise_not": (torch.bitwise_not, (*INTEGERS, torch.bool), True),
    "masked_fill": (lambda x: x.masked_fill(x > 0, 2), NUMBERS, True),
    "masked_fill tensor": (lambda x: x.masked_fill(x > 0, x.new_tensor(2)), NUMBERS, True),
    "neg": (torch.neg, NUMBERS, True),
    "new_full": (lambda x: x + x.new_full((67,), 2).sum(), INTEGERS, True),
    "new_ones": (lambda x: x + x.new_ones(()), NUMBERS, True),
    "new_zeros": (lambda x: x - x.new_zeros(()), NUMBERS, True),
    "ones_like": (lambda x: x + torch.ones_like(x), NUMBERS, True),
    "zeros_like": (lambda x: torch.zeros_like(x) - x, NUMBERS, True),
    "reciprocal": (torch.reciprocal, NUMBERS, True),
    "relu": (torch.relu, NUMBERS, True),
    "round": (torch.round, NUMBERS, True),
    "rsqrt": (torch.rsqrt, NUMBERS, True),
    "sgn": (torch.sgn, NUMBERS, True),
    "sign": (torch.sign, NUMBERS, True),
    "sigmoid": (torch.sigmoid, FLOATS, False),
    "sin": (torch.sin, FLOATS, False),
    "sinh": (torch.sinh, FLOATS, False),
    "sqrt": (torch.sqrt, NUMBERS, True),
    "tan": (torch.tan, FLOATS, False),
    "tanh": (torch.tanh, FLOATS, False),
    "trunc": (torch.trunc, NUMBERS, True),
    "zero_": (lambda x: (x + 1).zero_() + x, NUMBERS, True),
    "fill_": (lambda x: (x + 1).fill_(7) + x, NUMBERS, True),
    "copy_": (lambda x: (x * 2).copy_(x > 0) + x, NUMBERS, True),
    "in place": (lambda x: (x * 2).add_(1).mul_(x).sub_(3), NUMBERS, True),
    "in place on int": (lambda x: (x > 0).to(torch.int32).add_(torch.ones(x.shape, dtype=torch.int64)), FLOATS, True),
    "casts": (lambda x: x.nan_to_num(0.0, 9.0, -9.0).to(torch.int32).to(torch.float64), FLOATS, True),
    "from int": (lambda x: x.to(torch.float32) / 3 + (x != 0).to(torch.float32), INTEGERS, True),
    "from bool": (lambda x: x.to(torch.int64) * 3 + x.to(torch.float32).to(torch.int64), (torch.bool,), True),
}
UNARY |= {f"pow {p}": (lambda x, p=p: x**p, NUMBERS, p in (0, 1, 2, 3)) for p in (0, 1, 2, 3, 5)}
UNARY |= {f"pow {p}": (lambda x, p=p: x**p, FLOATS, False) for p in (0.5, -0.5, -1.0, -2.0, 1.7)}
UNARY |= {f"{p} pow": (lambda x, p=p: p**x, FLOATS, False) for p in (2.0, 0.5)}
DECOMPOSED = {
    "elu": F.elu,
    "gelu": F.gelu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "softplus": F.softplus,
    "square": torch.square,
    "hypot": lambda x: torch.hypot(x, x + 1),
    "nan_to_num": lambda x: x.nan_to_num(1.0, 2.0, 3.0),
    "logaddexp": lambda x: torch.logaddexp(x, x + 1),
    "heaviside": lambda x: torch.heaviside(x, x.new_tensor(0.5)),
    "log_sigmoid": F.logsigmoid,
    "mish": F.mish,
    "deg2rad": torch.deg2rad,
    "frac": torch.frac,
    "sinc": torch.sinc,
    "copysign": lambda x: torch.copysign(x, 1 - x),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x + 3, value=0.5),
    "lerp scalar": lambda x: torch.lerp(x, x + 1, 0.3),
    "lerp tensor": lambda x: torch.lerp(x, x + 1, x.clamp(0, 1)),
    "softmax": lambda x: x.nan_to_num(0.0, 9.0, -9.0).softmax(-1),
}
UNARY |= {name: (function, FLOATS, False) for name, function in DECOMPOSED.items()}

BINARY: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[torch.dtype, ...], bool]] = {
    "add": (torch.add, (*NUMBERS, torch.bool), True),
    "add alpha": (lambda a, b: torch.add(a, b, alpha=3), NUMBERS, False),
    "sub": (torch.sub, NUMBERS, True),
    "sub alpha": (lambda a, b: torch.sub(a, b, alpha=3), NUMBERS, False),
    "rsub": (torch.rsub, NUMBERS, True),
    "rsub scalar": (lambda a, b: 5 - a + (2 - b), NUMBERS, True),
    "mul": (torch.mul, (*NUMBERS, torch.bool), True),
    "div": (torch.div, NUMBERS, True),
    "div scalar": (lambda a, b: a / 3 + b / 0.1, NUMBERS, True),
    "atan2": (torch.atan2, FLOATS, False),
    "maximum": (torch.maximum, (*NUMBERS, torch.bool), True),
    "minimum": (torch.minimum, (*NUMBERS, torch.bool), True),
    "clamp tensors": (lambda a, b: torch.clamp(a, b, b + 1), NUMBERS, True),
    "clamp_min tensor": (torch.clamp_min, NUMBERS, True),
    "clamp_max tensor": (torch.clamp_max, NUMBERS, True),
    "pow": (lambda a, b: torch.pow(a, b), FLOATS, False),
    "pow of ints": (lambda a, b: torch.pow(a, b), INTEGERS, True),
    "fmod": (torch.fmod, FLOATS, True),
    "fmod scalar": (lambda a, b: torch.fmod(a, 3) + torch.fmod(b, -4), NUMBERS, True),
    "remainder": (torch.remainder, FLOATS, True),
    "remainder scalar": (lambda a, b: torch.remainder(a, 3) + torch.remainder(b, -4), NUMBERS, True),
    "floor_divide": (torch.floor_divide, FLOATS, True),
    "floor_divide scalar": (lambda a, b: a // 3 + b // -4, NUMBERS, True),
    "div floor": (lambda a, b: torch.div(a, b, rounding_mode="floor"), FLOATS, True),
    "div floor scalar": (lambda a, b: torch.div(a, -3, rounding_mode="floor"), NUMBERS, True),
    "div trunc": (lambda a, b: torch.div(a, b, rounding_mode="trunc"), FLOATS, True),
    "div trunc scalar": (lambda a, b: torch.div(a, -3, rounding_mode="trunc"), NUMBERS, True),
    "div by constants": (lambda a, b: a // (torch.arange(a.numel(), dtype=a.dtype) % 5 - 7), INTEGERS, True),
    "where": (lambda a, b: torch.where(a > b, a, b), NUMBERS, True),
    "where promotes": (lambda a, b: torch.where(a > b, a, 0.5), NUMBERS, True),
    "where scalars": (lambda a, b: torch.where(a > b, 1.5, 0.25), NUMBERS, True),
    "mixed dtypes": (lambda a, b: a * (b > 0) + a.to(torch.float32) * b.to(torch.int32), INTEGERS, True),
    "logical_and": (torch.logical_and, (*NUMBERS, torch.bool), True),
    "logical_or": (torch.logical_or, (*NUMBERS, torch.bool), True),
    "logical_xor": (torch.logical_xor, (*NUMBERS, torch.bool), True),
}
for name in ("eq", "ne", "lt", "le", "gt", "ge"):
    compare = getattr(torch, name)
    BINARY[name] = (compare, (*NUMBERS, torch.bool), True)
    BINARY[f"{name} scalar"] = (lambda a, b, f=compare: f(a, 0.5) ^ f(b, 1), NUMBERS, True)
for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    combine = getattr(torch, name)
    BINARY[name] = (combine, (*INTEGERS, torch.bool), True)
    BINARY[f"{name} scalar"] = (lambda a, b, f=combine: f(a, 5) + f(b, -3), INTEGERS, True)

CASES = [(n, f, d, exact, 1) for n, (f, dtypes, exact) in UNARY.items() for d in dtypes]
CASES += [(n, f, d, exact, 2) for n, (f, dtypes, exact) in BINARY.items() for d in dtypes]


def batch(cases) -> dict[tuple[str, torch.dtype], tuple[Tensor, Tensor]]:
    """Many operations in one step and one compiler run: native and reference results by name and dtype."""
    state, places = [], {}
    for dtype in {dtype: None for _, _, dtype, _, _ in cases}:
        places[dtype] = len(state)
        state += [values(dtype), values(dtype, 1)]

    def step(x, t):
        after = [leaf.roll(1, 0) for leaf in x]
        return after, [f(*x[places[dtype] : places[dtype] + arity]) for _, f, dtype, _, arity in cases]

    native, reference = both(step, *state)
    keys = [(name, dtype) for name, _, dtype, _, _ in cases]
    return dict(zip(keys, zip(native, reference, strict=False), strict=False))


@pytest.fixture(scope="module")
def elementwise() -> dict[tuple[str, torch.dtype], tuple[Tensor, Tensor]]:
    double = [case for case in CASES if case[2] == torch.float64]
    return batch(double) | batch([case for case in CASES if case[2] != torch.float64])


@pytest.mark.parametrize(
    ("name", "dtype", "exact"), [(n, d, e) for n, _, d, e, _ in CASES], ids=[f"{c[0]}-{str(c[2])[6:]}" for c in CASES]
)
def test_elementwise(elementwise, name, dtype, exact):
    assert_same(*elementwise[name, dtype], exact=exact)
