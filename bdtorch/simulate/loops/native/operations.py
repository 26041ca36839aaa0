"""Which ATen operations the native loop knows, and the C++ of those that act element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bdtorch.channels import linoid
from bdtorch.integrate.exponential import phi1
from bdtorch.ops import native_kernel

VIEWS = {
    "aten.alias.default", "aten.detach.default", "aten.expand.default", "aten.flip.default", "aten.permute.default",
    "aten.select.int", "aten.slice.Tensor", "aten.split.Tensor", "aten.split_with_sizes.default",
    "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.t.default", "aten.transpose.int",
    "aten.unbind.int", "aten.unsqueeze.default", "aten.view.default", "aten._unsafe_view.default",
}  # fmt: skip
"""Operations that only relabel memory."""

COPIES = {
    "aten.clone.default", "aten._to_copy.default",
}  # fmt: skip


def _binary(symbol: str) -> Callable[..., str]:
    return lambda a, b: f"({a} {symbol} {b})"


def _call(function: str) -> Callable[..., str]:
    return lambda *operands: f"{function}({', '.join(operands)})"


ARITHMETIC: dict[str, Callable[..., str]] = {
    "aten.abs.default": _call("op::abs"),
    "aten.acos.default": _call("op::acos"),
    "aten.acosh.default": _call("op::acosh"),
    "aten.asin.default": _call("op::asin"),
    "aten.asinh.default": _call("op::asinh"),
    "aten.atan.default": _call("op::atan"),
    "aten.atan2.default": _call("op::atan2"),
    "aten.atanh.default": _call("op::atanh"),
    "aten.ceil.default": _call("op::ceil"),
    "aten.clamp_max.default": _call("op::minimum"),
    "aten.clamp_min.default": _call("op::maximum"),
    "aten.clamp_max.Tensor": _call("op::minimum"),
    "aten.clamp_min.Tensor": _call("op::maximum"),
    "aten.copysign.Scalar": _call("bdtorch::copysign"),
    "aten.copysign.Tensor": _call("bdtorch::copysign"),
    "aten.cos.default": _call("bdtorch::cos"),
    "aten.cosh.default": _call("op::cosh"),
    "aten.digamma.default": _call("op::digamma"),
    "aten.div.Scalar": _binary("/"),
    "aten.div.Tensor": _binary("/"),
    "aten.erf.default": _call("op::erf"),
    "aten.erfc.default": _call("op::erfc"),
    "aten.erfinv.default": _call("op::erfinv"),
    "aten.exp.default": _call("bdtorch::exp"),
    "aten.exp2.default": _call("op::exp2"),
    "aten.expm1.default": _call("bdtorch::expm1"),
    "aten.floor.default": _call("op::floor"),
    "aten.fmax.default": _call("op::fmax"),
    "aten.fmin.default": _call("op::fmin"),
    "aten.fmod.Scalar": _call("op::fmod"),
    "aten.fmod.Tensor": _call("op::fmod"),
    "aten.hypot.default": _call("op::hypot"),
    "aten.i0.default": _call("op::bessel_i<0, false>"),
    "aten.lgamma.default": _call("op::lgamma"),
    "aten.log.default": _call("bdtorch::log"),
    "aten.log10.default": _call("op::log10"),
    "aten.log1p.default": _call("bdtorch::log1p"),
    "aten.log2.default": _call("op::log2"),
    "aten.maximum.default": _call("op::maximum"),
    "aten.minimum.default": _call("op::minimum"),
    "aten.mul.Scalar": _binary("*"),
    "aten.mul.Tensor": _binary("*"),
    "aten.neg.default": lambda a: f"(-{a})",
    "aten.pow.Scalar": _call("op::pow"),
    "aten.pow.Tensor_Tensor": _call("op::pow"),
    "aten.reciprocal.default": lambda a: f"(1 / {a})",
    "aten.relu.default": lambda a: f"op::maximum({a}, decltype({a})(0))",
    "aten.remainder.Scalar": _call("op::remainder"),
    "aten.remainder.Tensor": _call("op::remainder"),
    "aten.round.default": _call("op::round"),
    "aten.rsqrt.default": lambda a: f"(1 / op::sqrt({a}))",
    "aten.sgn.default": _call("op::sign"),
    "aten.sigmoid.default": _call("bdtorch::sigmoid"),
    "aten.sign.default": _call("op::sign"),
    "aten.sin.default": _call("bdtorch::sin"),
    "aten.sinh.default": _call("op::sinh"),
    "aten.special_erfcx.default": _call("op::erfcx"),
    "aten.special_i0e.default": _call("op::bessel_i<0, true>"),
    "aten.special_i1.default": _call("op::bessel_i<1, false>"),
    "aten.special_i1e.default": _call("op::bessel_i<1, true>"),
    "aten.special_zeta.default": _call("op::zeta"),
    "aten.sqrt.default": _call("op::sqrt"),
    "aten.tan.default": _call("op::tan"),
    "aten.tanh.default": _call("bdtorch::tanh"),
    "aten.trunc.default": _call("op::trunc"),
    "bdtorch.exprel": _call("bdtorch::exprel"),
    "bdtorch.linoid": _call("bdtorch::linoid"),
}
"""Operands are converted to the result's dtype, in which the operation computes."""

FUNCTIONS: dict[Callable[..., Any], str] = {phi1: "bdtorch.exprel", linoid: "bdtorch.linoid"}
"""Functions of this package that are one elementary function here, where their torch operations are many."""

COMPARISONS: dict[str, Callable[..., str]] = {
    f"aten.{name}.{overload}": _binary(symbol)
    for name, symbol in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="))
    for overload in ("Scalar", "Tensor")
} | {
    "aten.isnan.default": lambda a: f"({a} != {a})",
    "aten.isinf.default": _call("op::is_infinite"),
    "aten.isfinite.default": _call("op::is_finite"),
}
"""Operands are promoted to a common dtype; the result is boolean."""

LOGIC: dict[str, Callable[..., str]] = {
    "aten.logical_and.default": lambda a, b: f"(bool({a}) & bool({b}))",
    "aten.logical_or.default": lambda a, b: f"(bool({a}) | bool({b}))",
    "aten.logical_xor.default": lambda a, b: f"(bool({a}) ^ bool({b}))",
    "aten.logical_not.default": lambda a: f"(!bool({a}))",
}
"""Operands of any dtype; the result is boolean."""

BITWISE: dict[str, Callable[..., str]] = {
    f"aten.bitwise_{name}.{overload}": _binary(symbol)
    for name, symbol in (("and", "&"), ("or", "|"), ("xor", "^"))
    for overload in ("Scalar", "Tensor")
} | {
    f"aten.{name}.{overload}": _call(f"op::shift_{side}")
    for side, packet, operator in (("left", "bitwise_left_shift", "__lshift__"), ("right", "bitwise_right_shift", "__rshift__"))
    for name, overload in (
        (packet, "Tensor"), (packet, "Tensor_Scalar"), (packet, "Scalar_Tensor"), (operator, "Scalar"), (operator, "Tensor")
    )
}  # fmt: skip

SPECIAL = {
    "aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor", "aten.sub.Scalar", "aten.rsub.Scalar", "aten.rsub.Tensor",
    "aten.where.self", "aten.where.Scalar", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.bitwise_not.default",
    "aten.clamp.default", "aten.clamp.Tensor", "aten.pow.Tensor_Scalar", "aten.masked_fill.Scalar",
    "aten.masked_fill.Tensor", "aten.addcmul.default", "aten.addcdiv.default", "aten.lerp.Scalar", "aten.lerp.Tensor",
    "aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.floor_divide.default",
    "aten.floor_divide.Scalar",
}  # fmt: skip
"""Element-wise operations whose printing is spelled out in `pointwise`."""

DIVISIONS = {
    "aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.floor_divide.default", "aten.floor_divide.Scalar",
    "aten.fmod.Scalar", "aten.fmod.Tensor", "aten.remainder.Scalar", "aten.remainder.Tensor",
}  # fmt: skip
"""Operations that between integers raise an error where the divisor is 0."""


class LoweringError(Exception):
    """An operation, or a case of it, that the loop does not take apart; the tracer names it with the line of the model."""


DIVISOR = "bdtorch.divisor"
"""A divisor of integers that changes: itself, and where it is 0 an error, and 1."""

CREATIONS = {
    "aten.fill.Scalar", "aten.fill.Tensor", "aten.full_like.default", "aten.new_full.default", "aten.new_ones.default",
    "aten.new_zeros.default", "aten.ones_like.default", "aten.zero.default", "aten.zeros_like.default",
    "aten.copy.default", "aten.empty_like.default", "aten.new_empty.default",
}  # fmt: skip
"""Operations that take no more than the shape of an operand; the tracer replaces them by ``full`` or a copy."""

REDUCTIONS: dict[str, tuple[str, str]] = {
    "aten.sum.default": ("0", "a + b"),
    "aten.sum.dim_IntList": ("0", "a + b"),
    "aten.mean.default": ("0", "a + b"),
    "aten.mean.dim": ("0", "a + b"),
    "aten.prod.default": ("1", "a * b"),
    "aten.prod.dim_int": ("1", "a * b"),
    "aten.amax.default": ("op::lowest<T>()", "op::maximum(a, b)"),
    "aten.amin.default": ("op::highest<T>()", "op::minimum(a, b)"),
    "aten.max.default": ("op::lowest<T>()", "op::maximum(a, b)"),
    "aten.min.default": ("op::highest<T>()", "op::minimum(a, b)"),
    "aten.any.default": ("false", "a | b"),
    "aten.any.dim": ("false", "a | b"),
    "aten.all.default": ("true", "a & b"),
    "aten.all.dim": ("true", "a & b"),
}
"""Neutral element and combination."""

PRODUCTS = {
    "aten.addmm.default", "aten.addmv.default", "aten.bmm.default", "aten.dot.default", "aten.mm.default",
    "aten.mv.default",
}  # fmt: skip
"""Dense products."""

EXTERNAL = {
    "aten.argmax.default", "aten.argmin.default", "aten.cumprod.default", "aten.cumsum.default", "aten.kthvalue.default",
    "aten.max.dim", "aten.median.dim", "aten.min.dim", "aten.sort.default", "aten.sort.stable", "aten.topk.default",
    "aten._linalg_det.default", "aten._linalg_slogdet.default", "aten._linalg_solve_ex.default",
    "aten.convolution.default", "aten.cummax.default", "aten.cummin.default", "aten.logcumsumexp.default",
    "aten.linalg_cholesky_ex.default", "aten.linalg_inv_ex.default", "aten.linalg_solve_triangular.default",
    DIVISOR, "aten.cat.default", "aten.constant_pad_nd.default", "aten.gather.default",
    "aten.index.Tensor", "aten.index_select.default", "aten.scatter.src", "aten.scatter.value",
    "aten.scatter_add.default", "aten.scatter_reduce.two",
    "bdtorch._event_csr_raw.default", "bdtorch._event_csr_t_raw.default", "bdtorch._csr_outer_raw.default",
    "bdtorch._procedural_event_raw.default", "bdtorch._procedural_gather_raw.default",
    "bdtorch._event_dense_raw.default", "bdtorch._event_dense_t_raw.default",
    "bdtorch._plasticity_csr_raw.default", "bdtorch._plasticity_dense_raw.default",
    "bdtorch._event_csr_delayed_raw.default", "bdtorch._eligibility_csr_raw.default", "bdtorch._rls_update_raw.default",
    "bdtorch.random_uniform.default", "bdtorch.random_normal.default", "bdtorch.random_bernoulli.default",
    "bdtorch.random_exponential.default", "bdtorch.random_poisson.default", "bdtorch.random_binomial.default",
}  # fmt: skip
"""Operations with a kernel of their own."""

ONTO_ZEROS = {"bdtorch._event_csr_raw.default": "bdtorch._event_csr_raw.onto_zeros"}
"""Kernels that add to their output, by the name of the twin that finds it cleared by those who read it last."""

UPDATES = {
    "aten.scatter.src", "aten.scatter.value", "aten.scatter_add.default", "aten.scatter_reduce.two",
    "bdtorch._plasticity_csr_raw.default", "bdtorch._plasticity_dense_raw.default",
    "bdtorch._event_csr_delayed_raw.default", "bdtorch._eligibility_csr_raw.default", "bdtorch._rls_update_raw.default",
}  # fmt: skip
"""Operations that change parts of their first operand, and may do so in its memory where nothing else needs it."""

VISITS = {
    "bdtorch._plasticity_dense_raw.default": (
        "bdtorch._event_dense_raw.default",
        "bdtorch._event_dense_t_raw.default",
    ),
}
"""Changes of weights, and the products that visit the same ones: where rows spike, and where columns do."""

POINTWISE = set(ARITHMETIC) | set(COMPARISONS) | set(LOGIC) | set(BITWISE) | SPECIAL | COPIES | {"full"}


_KNOWN = POINTWISE | VIEWS | set(REDUCTIONS) | PRODUCTS | EXTERNAL | CREATIONS


def is_supported(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether there is a lowering for the operation."""
    if name in PRODUCTS and kwargs:
        return False  # scaled: taken apart
    return name in _KNOWN or native_kernel(name) is not None
