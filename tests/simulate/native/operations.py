"""Random operations of PyTorch with random arguments, for the tests that compare loops on them."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[..., Tensor]
Made = tuple[str, Function]
FLOATS, WHOLE, BOOL = (torch.float32, torch.float64), (torch.int64, torch.int32, torch.uint8), (torch.bool,)
ANY = (*FLOATS, *WHOLE, *BOOL)
NUMBERS = [0, 1, 2, 3, -1, -2, 0.5, -0.5, 2.5, 1e-3, 7, -7, True, 0.0, math.inf, math.nan, 1.0, 3.0, 0.1, 1e10, 2**31]


class Rule(NamedTuple):
    """Operands by their dtypes, a choice of arguments for given operands, and whether the result has no rounding."""

    operands: tuple[tuple[torch.dtype, ...], ...]
    make: Callable[..., Made]
    exact: bool


RULES: list[Rule] = []


def rule(*operands: tuple[torch.dtype, ...], exact: bool = True, weight: int = 1) -> Callable[[Any], Any]:
    """Enter ``make(draw, *operands)``."""

    def enter(make: Callable[..., Made]) -> Callable[..., Made]:
        RULES.extend([Rule(operands, make, exact)] * weight)
        return make

    return enter


def axis_of(draw: random.Random, x: Tensor) -> int:
    return draw.randrange(-x.dim(), x.dim()) if x.dim() else draw.choice([0, -1])


def axes_of(draw: random.Random, x: Tensor) -> list[int]:
    return draw.sample(range(x.dim()), draw.randint(1, x.dim())) if x.dim() else []


def named(draw: random.Random, names: str) -> str:
    return draw.choice(names.split())


def _call(draw: random.Random, names: str, *operands: Tensor) -> Made:
    name = named(draw, names)
    return name, getattr(torch, name)


@rule(ANY, weight=2)
def _(draw: random.Random, x: Tensor) -> Made:
    return _call(draw, "abs ceil floor neg relu round sgn sign trunc isnan isinf isfinite logical_not bitwise_not square frac "
                 "positive nan_to_num signbit isposinf reciprocal sqrt")  # fmt: skip


@rule(ANY, exact=False, weight=3)
def _(draw: random.Random, x: Tensor) -> Made:
    bounded = not x.numel() or float(x.double().nan_to_num(0.0, 0.0, 0.0).abs().max()) < 1e6  # as sin and cos are
    return _call(draw, "acos acosh asin asinh atan atanh cosh erf erfc exp exp2 expm1 log log10 log1p log2 rsqrt sigmoid "
                 "sinh tanh deg2rad logit lgamma" + " cos sin tan sinc" * bounded)  # fmt: skip


EXACT = ("add sub mul div maximum minimum fmax fmin fmod remainder floor_divide eq ne lt le gt ge logical_and logical_or "
         "logical_xor bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift copysign heaviside "
         "rsub")  # fmt: skip


@rule(ANY, ANY, weight=6)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    return _call(draw, EXACT)


@rule(ANY, weight=4)
def _(draw: random.Random, x: Tensor) -> Made:
    (name, function), number = _call(draw, EXACT), draw.choice(NUMBERS)
    if draw.random() < 0.7:
        return f"{name}(x, {number})", lambda x: function(x, number)
    return f"{name}({number}, x)", lambda x: function(torch.tensor(number), x)


@rule(ANY, ANY, exact=False)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    return _call(draw, "pow atan2 hypot xlogy logaddexp")


@rule(ANY, weight=2)
def _(draw: random.Random, x: Tensor) -> Made:
    name, number = (
        named(draw, "add sub mul truediv floordiv mod lt gt eq and_ or_ xor lshift rshift"),
        draw.choice(NUMBERS),
    )
    function = getattr(operator, name)
    if draw.random() < 0.5:
        return f"x {name} {number}", lambda x: function(x, number)
    return f"{number} {name} x", lambda x: function(number, x)


@rule(ANY, exact=False)
def _(draw: random.Random, x: Tensor) -> Made:
    number, turned = draw.choice(NUMBERS), draw.random() < 0.5
    return f"pow {number} {turned}", lambda x: number**x if turned else x**number


@rule(FLOATS, exact=False)
def _(draw: random.Random, x: Tensor) -> Made:
    name = named(draw, "softplus silu gelu elu leaky_relu hardtanh selu celu mish softsign hardsigmoid hardswish "
        "logsigmoid tanhshrink softshrink hardshrink")  # fmt: skip
    function = getattr(F, name)
    return name, lambda x: function(x.nan_to_num(0.5, 100.0, -100.0))  # at infinity, PyTorch has NaN for some of them


@rule(BOOL, ANY, ANY)
def _(draw: random.Random, c: Tensor, x: Tensor, y: Tensor) -> Made:
    return "where", torch.where


@rule(BOOL, ANY)
def _(draw: random.Random, c: Tensor, x: Tensor) -> Made:
    number, turned = draw.choice(NUMBERS), draw.random() < 0.5
    return f"where {number} {turned}", lambda c, x: torch.where(c, number, x) if turned else torch.where(c, x, number)


@rule(ANY, ANY, ANY)
def _(draw: random.Random, x: Tensor, low: Tensor, high: Tensor) -> Made:
    form, number = draw.randrange(4), draw.choice(NUMBERS)
    forms: list[Function] = [
        lambda x, low, high: x.clamp(low, high), lambda x, low, high: x.clamp(max=high),
        lambda x, low, high: x.clamp(number), lambda x, low, high: x.clamp(-1, number),
    ]  # fmt: skip
    return f"clamp {form} {number}", forms[form]


@rule(ANY, ANY, ANY)
def _(draw: random.Random, x: Tensor, y: Tensor, z: Tensor) -> Made:
    name, value = draw.choice(["addcmul", "addcdiv"]), draw.choice([1, -1, 0.5, 2])
    return f"{name} {value}", lambda x, y, z: getattr(torch, name)(x, y, z, value=value)


@rule(FLOATS, FLOATS)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    weight, tensor = draw.choice([0.3, 0.7, 0.5, 1, -2]), draw.random() < 0.5
    return f"lerp {weight} {tensor}", lambda x, y: torch.lerp(x, y, x * weight if tensor else weight)


@rule(ANY, ANY)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    mode, alpha = draw.choice(["floor", "trunc", None]), draw.choice([2, -1, 0.5])
    if draw.random() < 0.5:
        return f"add {alpha}", lambda x, y: torch.add(x, y, alpha=alpha)
    return f"div {mode}", lambda x, y: torch.div(x, y, rounding_mode=mode)


@rule(ANY, weight=3)
def _(draw: random.Random, x: Tensor) -> Made:
    name = named(draw, "amax amin any all max min median argmax argmin count_nonzero nansum sum prod")
    axis, axes, kept, whole = axis_of(draw, x), axes_of(draw, x), draw.random() < 0.4, draw.random() < 0.3
    text, function = f"{name} {axis} {axes} {kept} {whole}", getattr(torch, name)
    rounds = name in ("nansum", "sum", "prod") and x.is_floating_point()
    if whole or rounds:
        return text, lambda x: function(x if not rounds else x.isnan())
    if name in ("amax", "amin"):
        return text, lambda x: function(x, axes, keepdim=kept)
    if name == "count_nonzero":
        return text, lambda x: function(x, axis)
    if name == "median":  # its index is open, where elements are equal; and PyTorch 2.13 errs for expanded tensors
        return f"{text}[0]", lambda x: function(x.contiguous(), axis, keepdim=kept)[0]
    if name in ("max", "min"):
        part = draw.randrange(2)
        return f"{text}[{part}]", lambda x: function(x, axis, keepdim=kept)[part]
    return text, lambda x: function(x, axis, keepdim=kept)


@rule(ANY, exact=False, weight=3)
def _(draw: random.Random, x: Tensor) -> Made:
    name = named(draw, "sum mean var std logsumexp norm cumsum cumprod softmax log_softmax prod")
    axis, axes, kept, dtype = (
        axis_of(draw, x),
        axes_of(draw, x),
        draw.random() < 0.4,
        draw.choice([None, None, *FLOATS, torch.int64]),
    )
    text, function = f"{name} {axis} {axes} {kept} {dtype}", getattr(torch, name)
    if name in ("sum", "mean"):
        return text, lambda x: function(x, axes, keepdim=kept, dtype=dtype)
    if name in ("var", "std"):
        correction = draw.choice([0, 1, 2, 0.5])
        return f"{text} {correction}", lambda x: function(x, axes or None, correction=correction, keepdim=kept)
    if name == "logsumexp":
        return text, lambda x: function(x, axes, keepdim=kept)
    if name == "norm":
        order = draw.choice([2, 1, 0, math.inf, -math.inf, 3, 0.5])
        return f"{text} {order}", lambda x: torch.linalg.vector_norm(x, order, axes or None, keepdim=kept)
    if name in ("softmax", "log_softmax"):
        return text, lambda x: function(x if x.is_floating_point() else x.to(torch.float32), axis)
    return text, lambda x: function(x, axis, dtype=dtype)


@rule(ANY, weight=4)
def _(draw: random.Random, x: Tensor) -> Made:
    axis, axes, n = axis_of(draw, x), axes_of(draw, x), x.numel()
    first, last, step = draw.randint(-6, 6), draw.randint(-6, 7), draw.choice([1, 1, 2, 3])
    shifts, order = [draw.randint(-4, 4) for _ in axes], draw.sample(range(x.dim()), x.dim())
    cut = (*(slice(None) for _ in range(axis % max(1, x.dim()))), slice(first, last, step))
    pads = [draw.randint(-1, 3) for _ in range(2 * draw.randint(1, max(1, x.dim())))]
    forms: list[Made] = [
        (f"{cut}", lambda x: x[cut]), (f"select {axis} {first}", lambda x: x.select(axis, first)),
        (f"permute {order}", lambda x: x.permute(order)), (f"flip {axes}", lambda x: x.flip(axes)),
        (f"roll {shifts} {axes}", lambda x: x.roll(shifts, axes)), (f"roll {first}", lambda x: x.roll(first)),
        ("expand", lambda x: x.expand(2, *x.shape)), ("repeat", lambda x: x.repeat(*[2] * max(1, x.dim()))),
        ("reshape", lambda x: x.mT.reshape(-1) if x.dim() > 1 else x.reshape(-1, 1)), (f"pad {pads}", lambda x: F.pad(x, pads)),
        ("squeeze", lambda x: x.unsqueeze(-1).squeeze(0)), ("diff", lambda x: x.diff()), ("tril", lambda x: x.tril(1)),
        ("chunk", lambda x: x.chunk(2, -1)[-1]), ("diag", torch.diag_embed), ("unfold", lambda x: x.unfold(0, min(3, n), 2)),
        (f"sort {axis}", lambda x: x.sort(axis, stable=True)[first % 2]),
        (f"argsort {axis}", lambda x: x.argsort(axis, stable=True)),
        (f"topk {axis}", lambda x: x.topk(2, axis)[0]),
        ("diagonal", lambda x: x.diagonal(offset=first % 3 - 1, dim1=-1, dim2=-2)),
    ]  # fmt: skip
    return draw.choice(forms)


@rule(ANY)
def _(draw: random.Random, x: Tensor) -> Made:
    kept = x.isfinite().all() and bool((x.double().abs() < 100).all())  # a conversion of others is undefined
    dtype = draw.choice(ANY if kept else (*FLOATS, *BOOL))
    return f"to {dtype}", lambda x: x.to(dtype)


@rule(ANY, ANY)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    axis, form = draw.randint(-2, 2), draw.randrange(3)
    return f"cat {axis} {form}", lambda x, y: (
        torch.cat([x, y, x], axis) if form == 0 else torch.stack([x, y], axis) if form == 1 else torch.cat([y[:0], y], 0)
    )  # fmt: skip


@rule(ANY, WHOLE, weight=4)
def _(draw: random.Random, x: Tensor, i: Tensor) -> Made:
    form, axis = draw.randrange(10), axis_of(draw, x)
    n = x.shape[axis] if x.dim() else 1
    place = lambda i, extent: i.long().remainder(extent)  # noqa: E731
    forms: list[Function] = [
        lambda x, i: x[i.remainder(x.shape[0])], lambda x, i: x[place(i, x.shape[0]) - x.shape[0], place(i, x.shape[1])],
        lambda x, i: x[:, place(i, x.shape[1])], lambda x, i: x[..., place(i, x.shape[-1]), :1],
        lambda x, i: x[place(i, x.shape[0]), :, place(i, x.shape[-1])], lambda x, i: x[0, place(i, x.shape[1])],
        lambda x, i: x.index_select(axis, place(i, n).reshape(-1)), lambda x, i: x.gather(axis, place(i, n)),
        lambda x, i: x[place(i, x.shape[0]).reshape(-1)[0]], lambda x, i: x.take(place(i, x.numel())),
    ]  # fmt: skip
    return f"look up {form} {axis}", forms[form]


@rule(ANY, WHOLE, weight=3)
def _(draw: random.Random, x: Tensor, i: Tensor) -> Made:
    form, axis, number = draw.randrange(8), axis_of(draw, x), draw.choice([2, -1, 3])
    n, reduce, within = (
        x.shape[axis] if x.dim() else 1,
        draw.choice(["sum", "prod", "amax", "amin"]),
        draw.random() < 0.5,
    )
    rounded = lambda i: (i.remainder(100) * number).to(x.dtype)  # noqa: E731
    place = lambda i, extent: i.long().remainder(extent)  # noqa: E731
    forms: list[Function] = [
        lambda x, i: x.scatter_add(axis, place(i, n), rounded(i)), lambda x, i: x.scatter(axis, place(i, n), number),
        lambda x, i: x.scatter_reduce(axis, place(i, n), rounded(i), reduce, include_self=within),
        lambda x, i: x.index_fill(axis, place(i, n).reshape(-1), number),
        lambda x, i: x.index_copy(axis, torch.arange(n).flip(0), x),
        lambda x, i: x.index_put((i.remainder(x.shape[0]),), torch.tensor(number, dtype=x.dtype), accumulate=False),
        lambda x, i: x.index_put((place(i, x.shape[0]), place(i, x.shape[1])), x[0, 0], accumulate=False),
        lambda x, i: x.index_put((None, place(i, x.shape[1])), x[:, :1].reshape(-1, *[1] * i.dim()), accumulate=False),
    ]  # fmt: skip
    return f"put {form} {axis} {number} {reduce} {within}", forms[form]


@rule(ANY, BOOL)
def _(draw: random.Random, x: Tensor, mask: Tensor) -> Made:
    number = draw.choice(NUMBERS)

    def put(x: Tensor, mask: Tensor) -> Tensor:
        y = x.clone()
        y[mask] = number
        return y

    return f"x[mask] = {number}", put


@rule(ANY, ANY, weight=3)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    name = named(draw, "add_ sub_ mul_ div_ copy_ remainder_ bitwise_and_ logical_or_ lt_ __ilshift__ fill_ slice pow_")

    def write(x: Tensor, y: Tensor) -> Tensor:
        z = x.clone()
        if name == "slice":
            z[::2] += z[::2].clone()
            z[-1].fill_(1)
            z.t()[..., :1].mul_(2)
            return z
        argument = y.reshape(-1)[:1].reshape(()) if name == "fill_" else y
        return getattr(z, name)(2 if name == "pow_" else argument)

    return name, write


@rule(FLOATS, FLOATS, exact=False, weight=3)
def _(draw: random.Random, x: Tensor, y: Tensor) -> Made:
    name, beta, alpha = (
        draw.choice(["matmul", "linear", "addmm", "baddbmm", "outer", "einsum", "kron", "dot"]),
        draw.choice([1, 0, 0.5]),
        draw.choice([1, -2]),
    )
    text = {1: "i,i->", 2: "ij,kj->ik", 3: "bij,bkj->bik"}.get(x.dim(), ",->")
    forms: dict[str, Function] = {
        "matmul": lambda x, y: x @ y, "linear": lambda x, y: F.linear(x, y), "outer": lambda x, y: torch.outer(x, y),
        "addmm": lambda x, y: torch.addmm(x[:, :1], x, x.mT, beta=beta, alpha=alpha), "dot": lambda x, y: x.dot(x.flip(0)),
        "baddbmm": lambda x, y: torch.baddbmm(x[0, :, :1], x, x.mT, beta=beta, alpha=alpha),
        "einsum": lambda x, y: torch.einsum(text, x, x * 0.5), "kron": lambda x, y: torch.kron(x, x),
    }  # fmt: skip
    return f"{name} {beta} {alpha}", forms[name]


@rule(FLOATS, exact=False, weight=2)
def _(draw: random.Random, x: Tensor) -> Made:
    def matrix(x: Tensor) -> Tensor:
        square = x[..., : x.shape[-2], : x.shape[-2]]
        return square.nan_to_num(0.3, 1.0, -1.0).clamp(-1.0, 1.0) + 4.0 * torch.eye(x.shape[-2], dtype=x.dtype)

    forms: dict[str, Function] = {
        "solve": lambda x: torch.linalg.solve(matrix(x), x.nan_to_num(0.0, 1.0, 1.0)),
        "det": lambda x: torch.linalg.det(matrix(x)),
        "inv": lambda x: torch.linalg.inv(matrix(x)), "cholesky": lambda x: torch.linalg.cholesky(matrix(x) @ matrix(x).mT),
        "triangular": lambda x: torch.linalg.solve_triangular(matrix(x).triu(), matrix(x), upper=True),
        "power": lambda x: torch.linalg.matrix_power(matrix(x), 3), "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
        "convolution": lambda x: F.conv1d(x.nan_to_num(0.0, 1.0, 1.0), x[:, :, :2].nan_to_num(0.0, 1.0, 1.0), padding=1),
    }  # fmt: skip
    name = draw.choice(list(forms))
    return name, forms[name]
