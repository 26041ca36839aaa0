"""The C++ expression of one element-wise operation."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any

import torch

from bdtorch.ops.csr import TWO_BYTES
from bdtorch.simulate.loops.native.graph import Node
from bdtorch.simulate.loops.native.operations import ARITHMETIC, BITWISE, COMPARISONS, COPIES, LOGIC
from bdtorch.simulate.loops.native.reciprocal import known_divisor
from bdtorch.simulate.loops.native.stages import STAGES

CPP = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
    torch.bfloat16: "bdtorch::BFloat16",
    torch.float16: "bdtorch::Float16",
}
"""C++ type in memory of every dtype that the native loop handles."""

_AS_IT_IS = {
    "aten.mul.Tensor": (0, 1),
    "aten.mul.Scalar": (1,),
    "aten.div.Tensor": (1,),
    "aten.div.Scalar": (1,),
    "aten.lerp.Scalar": (2,),
}
"""Operands that operations on numbers of two bytes take as they are where they are single numbers; others are rounded."""

_CHOICES = {
    "aten.where.self", "aten.where.Scalar", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.masked_fill.Scalar",
    "aten.masked_fill.Tensor", "aten.neg.default", "aten.abs.default", "aten.relu.default", "aten.maximum.default",
    "aten.minimum.default", "aten.clamp.default", "aten.clamp.Tensor",
}  # fmt: skip
"""Operations whose results need no rounding."""


def computed(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a value at work: numbers of two bytes are floats there, rounded after every operation."""
    return torch.float32 if dtype in TWO_BYTES else dtype


def literal(value: float | int | bool, dtype: torch.dtype) -> str:
    """A Python number as a C++ constant of a dtype, or of the dtype that it is computed in; exact to the bit."""
    if dtype in TWO_BYTES:
        return literal(torch.tensor(value, dtype=dtype).item(), torch.float32)
    if dtype == torch.bool:
        return "true" if value else "false"
    if not dtype.is_floating_point:
        return f"{CPP[dtype]}(INT64_C({int(value)}))" if value != -(2**63) else "INT64_MIN"
    suffix = "f" if dtype == torch.float32 else ""
    rounded = ctypes.c_float(value).value if suffix else float(value)
    if math.isnan(rounded):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(rounded):
        return f"{'-' if rounded < 0 else ''}__builtin_inf{suffix}()"
    return f"({rounded.hex()}{suffix})" if rounded < 0 else f"{rounded.hex()}{suffix}"


def cast(text: str, have: torch.dtype, want: torch.dtype) -> str:
    """Convert an expression between dtypes as ATen does."""
    if have == want:
        return text
    if want in TWO_BYTES:
        return rounded(cast(text, have, torch.float32), want)
    if have in TWO_BYTES:
        return cast(text, torch.float32, want)
    if want == torch.bool:
        return f"({text} != 0)"
    if have == torch.bool and want.is_floating_point:  # gcc vectorises the choice, and not the conversion
        return f"({text} ? {literal(1, want)} : {literal(0, want)})"
    return f"{CPP[want]}({text})"


def rounded(text: str, dtype: torch.dtype) -> str:
    """A float, rounded to what a dtype of two bytes has of it."""
    return f"bdtorch::rounded<{CPP[dtype]}>({text})"


def expression(node: Node, names: dict[Node, str]) -> str:
    """The value of ``node``, of the C++ type of its computed dtype, given the names of its operands."""
    if node.dtype not in TWO_BYTES:
        return _expression(node, names, node.dtype)
    text = _expression(replace(node, dtype=torch.float32), names, node.dtype)
    return text if node.op in _CHOICES or node.op in COPIES or node.op == "full" else rounded(text, node.dtype)


def _expression(node: Node, names: dict[Node, str], stored: torch.dtype) -> str:
    """The value of ``node`` before rounding to the dtype in which it is ``stored``."""

    def operand(value: Any, dtype: torch.dtype) -> str:
        if dtype == node.dtype and not any(value is x for x in as_they_are):
            dtype = stored
        if isinstance(value, Node) and value.op == "full":
            return cast(literal(value.args[0], value.dtype), value.dtype, dtype)
        if isinstance(value, Node):
            return cast(names[value], value.dtype, dtype)
        return literal(value, dtype)

    op, args, dtype = node.op, node.args, node.dtype
    places = _AS_IT_IS.get(op, ())
    as_they_are = [args[k] for k in places if not isinstance(args[k], Node) or not args[k].shape]
    if stored == dtype and (known := known_divisor(node)):
        return f"bdtorch::divided({operand(args[0], dtype)}, {', '.join(literal(x, dtype) for x in known)})"
    if op in STAGES:
        return f"{STAGES[op]}({', '.join(operand(x, dtype) for x in args)})"
    if op in ARITHMETIC:
        values = [operand(x, dtype) for x in args]
        if dtype == torch.bool:  # which is loaded as a byte
            values = [f"bool({value})" for value in values]
        return f"{CPP[dtype]}({ARITHMETIC[op](*values)})"
    if op in COMPARISONS:
        common = node.compute or dtype
        return COMPARISONS[op](*(operand(x, common) for x in args))
    if op in LOGIC:
        return LOGIC[op](*(operand(x, torch.bool) for x in args))
    if op in BITWISE:
        return f"{CPP[dtype]}({BITWISE[op](*(operand(x, dtype) for x in args))})"
    if op in COPIES:
        return operand(args[0], dtype)
    if op == "full":
        return literal(args[0], stored)
    return _special(node, operand, stored)


def _special(node: Node, operand: Any, stored: torch.dtype) -> str:
    op, args, kwargs, dtype = node.op, node.args, node.kwargs, node.dtype
    name = op.split(".")[1]
    if name in ("add", "sub", "rsub"):
        first, second = (args[1], args[0]) if name == "rsub" else (args[0], args[1])
        alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
        right = operand(second, dtype)
        if alpha != 1:
            right = f"{literal(alpha, dtype)} * {right}"
        return f"{CPP[dtype]}({operand(first, dtype)} {'+' if name == 'add' else '-'} {right})"
    if name == "where":
        return f"({operand(args[0], torch.bool)} ? {operand(args[1], dtype)} : {operand(args[2], dtype)})"
    if name == "masked_fill":
        return f"({operand(args[1], torch.bool)} ? {operand(args[2], dtype)} : {operand(args[0], dtype)})"
    if name == "bitwise_not":
        return f"(!{operand(args[0], dtype)})" if dtype == torch.bool else f"{CPP[dtype]}(~{operand(args[0], dtype)})"
    if name == "clamp":
        return _clamped(node, operand)
    if name == "pow":
        return _power(operand(args[0], dtype), float(args[1]), stored)
    if name in ("addcmul", "addcdiv"):
        value = literal(kwargs.get("value", 1), dtype)
        a, b, c = (operand(x, dtype) for x in args[:3])
        return f"({a} + {value} * {b} {'*' if name == 'addcmul' else '/'} {c})"
    if name == "lerp":
        return f"op::lerp({operand(args[0], dtype)}, {operand(args[1], dtype)}, {operand(args[2], dtype)})"
    if name in ("div", "floor_divide"):
        mode = "floor" if name == "floor_divide" else kwargs.get("rounding_mode")
        a, b = operand(args[0], dtype), operand(args[1], dtype)
        return f"({a} / {b})" if mode is None else f"op::divide_{mode}({a}, {b})"
    raise AssertionError(f"{op} is listed as element-wise but has no expression")


def _clamped(node: Node, operand: Any) -> str:
    bounds = [*node.args[1:], None, None][:2]
    low, high = node.kwargs.get("min", bounds[0]), node.kwargs.get("max", bounds[1])
    text = operand(node.args[0], node.dtype)
    if low is not None:
        text = f"op::maximum({text}, {operand(low, node.dtype)})"
    if high is not None:
        text = f"op::minimum({text}, {operand(high, node.dtype)})"
    return str(text)


def _power(base: str, exponent: float, dtype: torch.dtype) -> str:
    """As ATen takes powers: of bfloat16 with the parts rounded, and square roots of float16 as any power."""
    one = literal(1, dtype)

    def part(text: str) -> str:
        return rounded(text, dtype) if dtype == torch.bfloat16 else text

    forms = {
        0.0: one,
        0.5: f"op::sqrt({base})",
        1.0: base,
        2.0: f"({base} * {base})",
        3.0: f"({part(f'{base} * {base}')} * {base})",
        -0.5: f"({one} / op::sqrt({base}))",
        -1.0: f"({one} / {base})",
        -2.0: f"({one} / {part(f'({base} * {base})')})",
    }
    if dtype == torch.float16:
        del forms[0.5], forms[-0.5]
    return forms.get(exponent) or f"op::pow({base}, {literal(exponent, dtype)})"
