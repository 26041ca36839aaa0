"""Every operation that the native loop knows, against the same step taken by PyTorch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bdtorch.simulate.loops.native import operations
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Step, assert_same, body_of, both
from tests.simulate.native.test_further_operations import FAMILIES, START
from tests.simulate.native.test_wider_operations import ALGEBRA, STEPS, V

ATEN = torch.ops.aten
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
    "sqrt": (torch.sqrt, NUMBERS, False),  # that of MKL, which PyTorch takes for float32, is not rounded correctly
    "tan": (torch.tan, FLOATS, False),
    "tanh": (torch.tanh, FLOATS, False),
    "trunc": (torch.trunc, NUMBERS, True),
    "fill_ tensor": (lambda x: torch.empty_like(x).fill_(x.view(-1)[3]), NUMBERS, True),
    "new_empty": (lambda x: x.new_empty(2, x.numel()).fill_(3).sub_(x), NUMBERS, True),
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
    "gelu": lambda x: F.gelu(x.clamp(-3, 3)),  # 1 + erf cancels below
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "softplus": F.softplus,
    "square": torch.square,
    "nan_to_num": lambda x: x.nan_to_num(1.0, 2.0, 3.0),
    "logaddexp": lambda x: torch.logaddexp(x, x + 1),
    "heaviside": lambda x: torch.heaviside(x, x.new_tensor(0.5)),
    "log_sigmoid": F.logsigmoid,
    "mish": F.mish,
    "deg2rad": torch.deg2rad,
    "frac": torch.frac,
    "sinc": torch.sinc,
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
    "overloads of scalars": (
        lambda a, b: ATEN.add.Scalar(a, 2) + ATEN.sub.Scalar(b, 3) - ATEN.mul.Scalar(b, 5),
        NUMBERS,
        True,
    ),
    "div overloads": (
        lambda a, b: ATEN.div.Scalar(a, 3) + ATEN.div.Scalar_mode(b, 5, rounding_mode="floor"),
        NUMBERS,
        True,
    ),
    "floor_divide overload": (lambda a, b: ATEN.floor_divide.Scalar(a, 3), NUMBERS, True),
    "where overload": (
        lambda a, b: ATEN.where.ScalarSelf(a > b, 2, b),
        NUMBERS,
        True,
    ),
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


def test_square_roots_are_rounded_correctly():
    x = torch.linspace(0.01, 4.0, 1003)
    native, _ = both(lambda x, t: (x, torch.sqrt(x[0])), x, steps=1)
    torch.testing.assert_close(native[0][0], x.double().sqrt().float(), rtol=0.0, atol=0.0)


# Shapes: broadcasting, views, reductions, products, movement. `m` is (5, 6), `r` (6,), `c` (5, 1), `k` (), `o` (1,),
# `d` (2, 5, 6), `i` int64 in [0, 5) of shape (5, 6), `b` bool of shape (5, 6).

SHAPED: dict[str, tuple[Callable[..., Tensor], bool]] = {
    "broadcast": (lambda m, r, c, k, o, d, i, b: m * r + c - k / o + d, True),
    "broadcast before": (lambda m, r, c, k, o, d, i, b: (r * k + c * o) * d, True),
    "transpose": (lambda m, r, c, k, o, d, i, b: m.t() * 2 + m.t(), True),
    "transpose with itself": (lambda m, r, c, k, o, d, i, b: m[:, :5] + m[:, :5].t(), True),
    "permute": (lambda m, r, c, k, o, d, i, b: d.permute(2, 0, 1) + d.permute(2, 0, 1) * 3, True),
    "steps": (lambda m, r, c, k, o, d, i, b: m[::2, 1::2] * m[1::2, ::2].sum(), False),
    "steps alone": (lambda m, r, c, k, o, d, i, b: m[::2, 1::2] * r[::2], True),
    "negative slice": (lambda m, r, c, k, o, d, i, b: m[-3:, :-2] + 1, True),
    "slice beyond": (lambda m, r, c, k, o, d, i, b: m[2:99, -99:] + 1, True),
    "empty slice": (lambda m, r, c, k, o, d, i, b: m[3:3] * 2, True),
    "select": (lambda m, r, c, k, o, d, i, b: m[2] * m[-1] + d[1, 3], True),
    "diagonal-like": (lambda m, r, c, k, o, d, i, b: m[1:, 1] * m[:-1, -1], True),
    "flip": (lambda m, r, c, k, o, d, i, b: m.flip(0) * m.flip(-1) + m.flip(0, 1), True),
    "roll": (lambda m, r, c, k, o, d, i, b: m.roll(2, 0) + m.roll(-1, 1) + m.roll(7), True),
    "unsqueeze": (lambda m, r, c, k, o, d, i, b: r.unsqueeze(1) * r.unsqueeze(0), True),
    "squeeze": (lambda m, r, c, k, o, d, i, b: c.squeeze() * c.squeeze(1) + c.squeeze(0).squeeze(-1), True),
    "squeeze dims": (lambda m, r, c, k, o, d, i, b: c[None].squeeze((0, 2)) * 2, True),
    "expand": (lambda m, r, c, k, o, d, i, b: c.expand(5, 6) + r.expand(3, 5, 6), True),
    "reshape": (lambda m, r, c, k, o, d, i, b: m.reshape(3, 10) + m.t().reshape(3, 10), True),
    "view of slice": (lambda m, r, c, k, o, d, i, b: m[1:3].reshape(-1) * 2, True),
    "flatten": (lambda m, r, c, k, o, d, i, b: d.flatten(1) + d.transpose(1, 2).flatten(1), True),
    "split": (lambda m, r, c, k, o, d, i, b: m.split(2)[2] + m.split([1, 4])[1][-1] * m.split(4, 1)[1][:1, :1], True),
    "chunk": (lambda m, r, c, k, o, d, i, b: m.chunk(3, 1)[2] + 1, True),
    "unbind": (lambda m, r, c, k, o, d, i, b: m.unbind()[1] * m.unbind(1)[2].sum(), False),
    "cat": (lambda m, r, c, k, o, d, i, b: torch.cat([m, m.t()[:, :5].reshape(5, 6), r[None]]), True),
    "cat axis": (lambda m, r, c, k, o, d, i, b: torch.cat([m[:, 4:], c, m.new_zeros(5, 0)], -1), True),
    "cat promotes": (lambda m, r, c, k, o, d, i, b: torch.cat([m, i]), True),
    "stack": (lambda m, r, c, k, o, d, i, b: torch.stack([m, m * 2], 1), True),
    "pad": (lambda m, r, c, k, o, d, i, b: F.pad(m, (1, 2, 0, 3), value=4.0) + F.pad(m, (-1, 4, 3, 0)), True),
    "repeat": (lambda m, r, c, k, o, d, i, b: m.repeat(2, 1) + r.repeat(10, 1), True),
    "detach": (lambda m, r, c, k, o, d, i, b: m.detach() * r.data, True),
    "contiguous": (lambda m, r, c, k, o, d, i, b: m.t().contiguous().view(-1) + m.t().clone().reshape(-1), True),
    "gather": (lambda m, r, c, k, o, d, i, b: m.gather(1, i) + m.gather(0, i) * m.gather(-1, i.flip(0)), True),
    "gather part": (lambda m, r, c, k, o, d, i, b: m.gather(0, i[:2, :3]) + m.t().gather(0, i[:2, :3]), True),
    "gather of 0-d": (lambda m, r, c, k, o, d, i, b: k.gather(0, i[0, 0] * 0) + o.gather(0, i[0, :1] * 0), True),
    "scatter of 0-d": (lambda m, r, c, k, o, d, i, b: k.scatter(0, i[0, 0] * 0, k * 2) + r[0], True),
    "scatter": (lambda m, r, c, k, o, d, i, b: m.scatter(0, i[:1], m * 2) + m.scatter(0, i[:1], 9.0), True),
    "scatter_add": (
        lambda m, r, c, k, o, d, i, b: m.scatter_add(0, i, m * 2).scatter_add(1, i[:2, :1], m[:2, :1]),
        False,
    ),
    "scatter_reduce": (lambda m, r, c, k, o, d, i, b: m.scatter_reduce(0, i, m * 2, "amax"), True),
    "scatter part": (lambda m, r, c, k, o, d, i, b: m.scatter(1, i[:2, :1], m.t()[:2, :1]), True),
    "index_select": (lambda m, r, c, k, o, d, i, b: m.index_select(1, i[0]) + d.index_select(0, i[0] % 2).sum(), False),
    "index": (lambda m, r, c, k, o, d, i, b: m[i[0]] + r[i].sum() + m[:, -i[1] - 1].sum(), False),
    "index constant": (lambda m, r, c, k, o, d, i, b: d[:, torch.tensor([[0, -1], [2, 2]])], True),
    "sum": (lambda m, r, c, k, o, d, i, b: m.sum() + d.sum((0, 2)) + m.sum(1) + k.sum(), False),
    "sum keepdim": (lambda m, r, c, k, o, d, i, b: m - m.sum(1, keepdim=True) + m.t().sum(0)[:, None], False),
    "sum of bool": (lambda m, r, c, k, o, d, i, b: b.sum(0) + i.sum() + b.sum(0, dtype=torch.int32), True),
    "mean": (lambda m, r, c, k, o, d, i, b: m.mean() + m.mean(0) * d.mean((0, 1)), False),
    "var": (lambda m, r, c, k, o, d, i, b: m.var() + m.var(0) + d.std((0, 1), correction=0), False),
    "norm": (lambda m, r, c, k, o, d, i, b: m.norm() + torch.linalg.vector_norm(m, dim=0), False),
    "prod": (lambda m, r, c, k, o, d, i, b: m[0].prod() + m[:, :2].prod(1).sum(), False),
    "extrema": (
        lambda m, r, c, k, o, d, i, b: m.amax(1) + m.amin((0, 1)) + m.max() - m.min() + i.max() * i.amin(),
        True,
    ),
    "any": (lambda m, r, c, k, o, d, i, b: b.any() ^ b.any(1) ^ (m > 0).all() ^ (m > -9).all(1, keepdim=True), True),
    "softmax": (lambda m, r, c, k, o, d, i, b: m.softmax(1) + d.log_softmax(0), False),
    "mm": (lambda m, r, c, k, o, d, i, b: (m @ m.t()) + (m.t().contiguous().t() @ m.t()), False),
    "mv": (lambda m, r, c, k, o, d, i, b: (m @ r) + (m.t()[:5, :5] @ c.squeeze()), False),
    "dot": (lambda m, r, c, k, o, d, i, b: (r @ r) + (r[::2] @ r[1::2]), False),
    "bmm": (lambda m, r, c, k, o, d, i, b: (d @ d.transpose(1, 2)) + torch.einsum("bij,bkj->bik", d, d), False),
    "matmul batched": (lambda m, r, c, k, o, d, i, b: (d @ m.t()) + (r @ d.transpose(1, 2)).sum(), False),
    "addmm": (lambda m, r, c, k, o, d, i, b: F.linear(m, m, c.squeeze()) + F.linear(d, m).sum(), False),
    "addmm scaled": (lambda m, r, c, k, o, d, i, b: torch.addmm(c, m, m.t(), beta=0.5, alpha=2.0), False),
    "addmv": (lambda m, r, c, k, o, d, i, b: torch.addmv(c.squeeze(), m, r), False),
    "outer": (lambda m, r, c, k, o, d, i, b: torch.outer(r, r) + torch.einsum("i,j->ij", r, r), True),
    "layer_norm": (lambda m, r, c, k, o, d, i, b: F.layer_norm(m, (6,)), False),
    "cross entropy": (lambda m, r, c, k, o, d, i, b: F.cross_entropy(m, i[:, 0], reduction="none"), False),
    "matrix infinities": (lambda m, r, c, k, o, d, i, b: (m * 0) @ torch.full((6, 2), math.inf, dtype=m.dtype), False),
}


def shapes(dtype: torch.dtype, generator: torch.Generator) -> list[Tensor]:
    floats = [torch.randn(s, generator=generator, dtype=dtype) for s in ((5, 6), (6,), (5, 1), (), (1,), (2, 5, 6))]
    i = torch.randint(0, 5, (5, 6), generator=generator)
    return [*floats, i, i > 2]


@pytest.fixture(scope="module", params=FLOATS, ids=["float32", "float64"])
def shaped(request) -> dict[str, tuple[Tensor, Tensor]]:
    state = shapes(request.param, torch.Generator().manual_seed(1))

    def step(x, t):
        after = [leaf.flip(list(range(leaf.dim()))) for leaf in x]
        return after, [f(*x) for f, _ in SHAPED.values()]

    native, reference = both(step, *state)
    return dict(zip(SHAPED, zip(native, reference, strict=False), strict=False))


@pytest.mark.parametrize("name", SHAPED)
def test_shapes(shaped, name):
    assert_same(*shaped[name], exact=SHAPED[name][1], units=128)


KERNELS = {name for name in operations.EXTERNAL if name.startswith("bdtorch.")}


@pytest.mark.filterwarnings("ignore:index_reduce")
def test_every_operation_is_exercised(monkeypatch):
    """Those of this package have tests of their own, in test_kernels and test_functions."""
    asked = set()
    known = operations.is_supported
    monkeypatch.setitem(trace.__globals__, "is_supported", lambda name, kwargs: asked.add(name) or known(name, kwargs))
    numbers = [values(torch.float32), values(torch.float32, 1), values(torch.int64), values(torch.int64, 1)]

    def elementwise(x, t):
        return x, [f(*x[p : p + arity]) for _, f, dtype, _, arity in CASES for p in (0, 2) if dtype == x[p].dtype]

    def shaped(x, t):
        return x, [f(*x) for f, _ in SHAPED.values()]

    examples: list[tuple[Step, list[Tensor]]] = [
        (elementwise, numbers),
        (shaped, shapes(torch.float32, torch.Generator().manual_seed(1))),
        (lambda x, t: (x, [step(x[0]) for step in (STEPS | ALGEBRA).values()]), [V]),
        (lambda x, t: (x, [f(x[0]) for family in FAMILIES.values() for f in family.values()]), [START]),
    ]
    for step, state in examples:
        trace(body_of(step, *state), state)
    listed = (
        operations.POINTWISE | operations.VIEWS | operations.PRODUCTS | operations.CREATIONS | {*operations.REDUCTIONS}
    )
    listed -= {*operations.FUNCTIONS.values()}
    missing = sorted((listed | operations.EXTERNAL) - KERNELS - {"full"} - asked)
    assert not missing, " ".join(missing)
