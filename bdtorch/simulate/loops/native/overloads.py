"""What is to be known about ATen's overloads, and the plain form of a call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Facts(NamedTuple):
    """What matters here about an operation, whatever its arguments."""

    name: str
    draws: bool
    """Whether it draws from torch's global generators."""
    writes: bool
    """Whether it writes to an argument."""
    makes: bool
    """Whether any of its results is a tensor."""


@functools.cache
def facts_of(func: Any) -> Facts:
    """The facts of an overload, which has them for good."""
    makes = any("Tensor" in str(result.type) for result in func._schema.returns)
    return Facts(str(func), torch.Tag.nondeterministic_seeded in func.tags, func._schema.is_mutable, makes)


_FILLED: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "aten.fill.Scalar": lambda args: args[1],
    "aten.full_like.default": lambda args: args[1],
    "aten.new_full.default": lambda args: args[2],
    "aten.new_ones.default": lambda args: 1,
    "aten.new_zeros.default": lambda args: 0,
    "aten.ones_like.default": lambda args: 1,
    "aten.zero.default": lambda args: 0,
    "aten.zeros_like.default": lambda args: 0,
}


def simplified(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Without the operands of which an operation only takes the shape."""
    if name in _FILLED:
        return "full", (_FILLED[name](args),), {}
    if name in ("aten.copy.default", "aten.fill.Tensor"):
        return "aten.clone.default", (args[1],), {}
    return name, args, kwargs


def promoted(args: tuple[Any, ...]) -> torch.dtype | None:
    """The dtype in which an element-wise operation computes."""
    operands = [x for x in args if isinstance(x, (Tensor, int, float, bool))]
    if len(operands) == 2 and any(isinstance(x, Tensor) for x in operands):
        return torch.result_type(operands[0], operands[1])
    tensors = [x for x in operands if isinstance(x, Tensor)]
    return tensors[0].dtype if tensors else None


def functional_twin(func: Any) -> Any:
    """The functional twin of an in-place ATen overload, or None."""
    namespace, _, packet = func._schema.name.partition("::")
    if namespace != "aten":
        return None
    if packet == "pow_":  # the one whose overloads have other names
        return getattr(torch.ops.aten.pow, f"Tensor_{func._overloadname}")
    if packet == "transpose_":
        return torch.ops.aten.transpose.int
    if packet.startswith("__i"):  # of `<<=` and its like
        name = f"__{packet[3:]}"
    elif packet.endswith("_"):
        name = packet[:-1]
    else:
        return None
    twin = getattr(torch.ops.aten, name, None)
    return getattr(twin, func._overloadname, None) or getattr(twin, "default", None) if twin is not None else None
