"""Operators of one's own: defined in Python, and where that is too slow, given a C++ kernel for the native loop.

What torch's operations can express needs no operator: a plain function runs in every loop. `define` is for the rest: a
product with a derivative of its own, a step that must be opaque to the compiler, or a loop over events in C++.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bdtorch.ops._autograd import Backward, DifferentiableOp, Jvp
from bdtorch.ops._rules import loop_over_samples

NAMESPACE = "bdtorch_user"


@dataclass(frozen=True)
class NativeKernel:
    """The C++ of an operator, for the native loop.

    The function gets the operator's arguments in their order and then the result. A tensor is a
    ``bdtorch::View<const T>``, the result a ``bdtorch::View<T>`` (bdtorch/view.h), an int an ``int64_t``, a float a
    ``double``, a bool a ``bool``. It writes every element of the result and nothing else. The kernel headers of bdtorch
    can be included; the compiler is asked for C++17 without contraction or fast-math.

    Args:
        source: Text of the header: includes, and the function or function template. Every name in it should be in a
            namespace of its own.
        function: Its qualified name.
        shares_last_axis: Whether the function takes two more arguments, ``int64_t begin, int64_t end``, writes only
            those positions of the result's last axis, and is called by all threads at once. Otherwise one thread calls.
    """

    source: str
    function: str
    shares_last_axis: bool = False


_functions: dict[str, Callable[..., Tensor]] = {}
_kernels: dict[str, NativeKernel] = {}
_libraries: list[torch.library.Library] = []  # an operator lives as long as its library object


def define(
    signature: str,
    function: Callable[..., Tensor],
    *,
    fake: Callable[..., Tensor],
    backward: Backward | None = None,
    jvp: Jvp | None = None,
    native: NativeKernel | Literal["python"] | None = None,
) -> DifferentiableOp:
    r"""Defines an operator that runs in every loop, compiles without graph breaks, and maps over samples.

    Args:
        signature: Name and types as torch's schemas write them, one tensor out, none mutated:
            ``"threshold_sum(Tensor spikes, Tensor weights, float theta) -> Tensor"``.
        function: What it computes: a pure function that returns a new tensor, never one of its arguments. It may leave
            torch, for instance for NumPy.
        fake: Returns an empty tensor of the result's shape, dtype and device for the same arguments.
        backward: ``backward(inputs, needs_grad, grad)`` returns a gradient or None for each argument; `grad` is None
            where it is zero. Made of torch operations and defined operators it is differentiable again.
        jvp: ``jvp(inputs, tangents)`` returns the tangent of the result; a tangent of None is zero.
        native: Its kernel in the native loop; or "python" for a function of torch operations alone, which that loop
            then follows, like the model itself. None leaves models with this operator to the other loops.

    Returns:
        The operator: call it with its arguments. Without `backward`, torch warns where a gradient is asked for and
        leaves it out.

    Raises:
        ValueError: If the signature does not read as above, or the name is taken.
        TypeError: If one of `backward` and `jvp` is given without the other.
    """
    name = _name_in(signature)
    if not (native is None or native == "python" or isinstance(native, NativeKernel)):
        raise TypeError(f"`define(native=...)`: expected a NativeKernel, 'python' or None, got {native!r}")
    if (backward is None) != (jvp is None):
        raise TypeError("`define(backward=..., jvp=...)`: expected both or none of them")
    library = torch.library.Library(NAMESPACE, "FRAGMENT")
    for twin in (name, f"_{name}_raw"):
        try:
            library.define(twin + signature.strip().removeprefix(name))
        except RuntimeError as error:
            raise ValueError(f"`define(signature=...)`: expected a schema, got {signature!r}: {error}") from error
        library.impl(twin, function, "CompositeExplicitAutograd")
    _libraries.append(library)
    op = DifferentiableOp(name, NAMESPACE)
    op.register_fake(fake)
    op.register_vmap(loop_over_samples)
    if backward is not None and jvp is not None:
        op.register_autograd(backward=backward, jvp=jvp)
    for overload in (op.public, op.raw):
        if isinstance(native, NativeKernel):
            _kernels[str(overload)] = native
        elif native == "python":
            _functions[str(overload)] = function
    return op


def set_native_kernel(op: torch._ops.OpOverload, native: NativeKernel) -> None:
    """Gives the native loop a kernel for any operator of torch's registry with one tensor out, such as an extension's.

    Args:
        op: For instance ``torch.ops.my_extension.my_op.default``; no argument is mutated.
        native: Its kernel; operands that are tensors are laid out contiguously for it.

    Raises:
        ValueError: If the operator mutates an argument or returns anything but one tensor.
    """
    if op._schema.is_mutable or [str(result.type) for result in op._schema.returns] != ["Tensor"]:
        raise ValueError(f"`set_native_kernel(op=...)`: expected one tensor out and no mutation, got {op._schema}")
    _kernels[str(op)] = native


def native_kernel(name: str) -> NativeKernel | None:
    """The kernel of the operator of this name, such as ``"bdtorch_user._threshold_sum_raw.default"``, if it has one."""
    return _kernels.get(name)


def python_function(name: str) -> Callable[..., Tensor] | None:
    """What the defined operator of this name computes, if the native loop may follow it."""
    return _functions.get(name)


def _name_in(signature: str) -> str:
    match = re.fullmatch(r"\s*([A-Za-z]\w*)\s*\(.*\)\s*->\s*Tensor\s*", signature)
    if match is None:
        raise ValueError(
            f"`define(signature=...)`: expected 'name(Tensor x, ...) -> Tensor' without mutation, got {signature!r}"
        )
    if "Tensor(" in signature:
        raise ValueError(f"`define(signature=...)`: expected no mutated argument, got {signature!r}")
    if hasattr(getattr(torch.ops, NAMESPACE), match[1]):
        raise ValueError(f"`define(signature=...)`: expected a new name, {match[1]!r} is defined already")
    return match[1]
