"""Differentiable ops: one object that an op family registers its fake, vmap and derivative rules with.

Why not `torch.library.register_autograd`: up to torch 2.14 it raises under `torch.func.grad`, `jacrev` and
`vmap(grad)`, gives zero tangents in forward mode without a word, and costs 14 to 25 microseconds a call even where no
gradient is wanted (pytorch issues 168393, 170834, 179652). It ends in `autograd.Function.apply`, which refuses the
levels of `torch.func`. But a kernel of the Autograd key already runs inside one level, with the outer levels below it
in the dispatcher. The class to derive from is therefore the one that `torch.func` itself uses for one level,
`_SingleLevelFunction`: record on this level, redispatch below autograd, and the next level sees the same op again.

This is private API of torch. The transform tests of every op family run over each supported version.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from bdtorch.ops import _library  # noqa: F401  loads the ops

Backward: TypeAlias = Callable[..., Sequence[Tensor | None]]
Jvp: TypeAlias = Callable[[Sequence[Any], Sequence[Tensor | None]], Any]


@functools.cache
def _implementations_of(namespace: str) -> torch.library.Library:
    return torch.library.Library(namespace, "IMPL")


def derivatives_possible(*args: Any) -> bool:
    """Whether a call with these arguments may be recorded, transformed or traced by the compiler."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or (torch.is_grad_enabled() and torch._C._any_requires_grad(*args))
    )


class DifferentiableOp:
    """The op ``torch.ops.<namespace>.<name>`` and its raw twin ``_<name>_raw``.

    The public op carries a Python kernel for derivatives. The raw twin has none: a compiled graph, and an eager call
    that needs no derivative, run it without Python on their way. Calling the object picks the right one.

    Tensor lists and mutated arguments are not supported.

    Args:
        name: Name of the op.
        namespace: Where it is registered.
    """

    def __init__(self, name: str, namespace: str = "bdtorch") -> None:
        self.name = name
        self.namespace = namespace
        registered = getattr(torch.ops, namespace)
        self.public = getattr(registered, name).default
        self.raw = getattr(registered, f"_{name}_raw").default

    def __call__(self, *args: Any) -> Any:
        return self.public(*args) if derivatives_possible(*args) else self.raw(*args)

    def register_fake(self, rule: Callable[..., Any]) -> None:
        """Registers shapes and dtypes: ``rule(*args)`` returns empty outputs."""
        torch.library.register_fake(self.public, rule)
        torch.library.register_fake(self.raw, rule)

    def register_vmap(self, rule: Callable[..., tuple[Any, Any]]) -> None:
        """Registers batching: ``rule(op, batch_size, in_dims, *args)`` returns outputs and their batch dimensions.

        ``op`` is the op to call with the batch dimension gone: the one that vmap met, so that derivatives taken
        outside of vmap still see it.
        """
        for op in (self.public, self.raw):
            torch.library.register_vmap(op, _bind_vmap(rule, op))

    def register_autograd(self, *, backward: Backward, jvp: Jvp) -> None:
        """Registers derivatives in reverse and forward mode; both are differentiable again if their ops are.

        Args:
            backward: ``backward(inputs, needs_grad, *grads)`` returns one gradient, or None, for each input.
                ``inputs`` are the arguments of the call, ``needs_grad`` one bool for each, ``grads`` belong to the
                outputs (None: zero).
            jvp: ``jvp(inputs, tangents)`` returns the tangents of the outputs; a tangent that is None is zero.
        """
        record = _single_level_function(self, backward, jvp).apply

        def kernel(keyset: Any, *args: Any) -> Any:
            forward_mode = forward_ad._current_level >= 0
            if not forward_mode and not (torch.is_grad_enabled() and torch._C._any_requires_grad(*args)):
                return _call_below_autograd(self, keyset, args)
            if torch._C._are_functorch_transforms_active():
                with enable_single_level_autograd_function():
                    return record(keyset, *args)
            return record(keyset, *args)

        _implementations_of(self.namespace).impl(self.name, kernel, "Autograd", with_keyset=True)


def _bind_vmap(rule: Callable[..., tuple[Any, Any]], op: Any) -> Callable[..., tuple[Any, Any]]:
    def bound(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        return rule(op, info.batch_size, in_dims, *args)

    return bound


def _call_below_autograd(op: DifferentiableOp, keyset: Any, args: Sequence[Any]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        if torch._C._are_functorch_transforms_active():
            # The outer levels must see the op that has a derivative.
            return op.public.redispatch(keyset & torch._C._after_autograd_keyset, *args)
        return op.raw(*args)


def _single_level_function(op: DifferentiableOp, backward_rule: Backward, jvp_rule: Jvp) -> Any:
    """The autograd function of one level; its first argument is the dispatcher's key set."""

    def forward(ctx: Any, keyset: Any, *args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            # `apply` turned both modes off for this level; they are still on for the outer ones.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                output = _call_below_autograd(op, keyset, args)
        else:
            output = _call_below_autograd(op, keyset, args)
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.constants = [None if isinstance(arg, Tensor) else (arg,) for arg in args]
        ctx.set_materialize_grads(False)
        return output

    def inputs_of(ctx: Any) -> list[Any]:
        tensors = iter(ctx.saved_tensors)
        return [next(tensors) if constant is None else constant[0] for constant in ctx.constants]

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, *backward_rule(inputs_of(ctx), ctx.needs_input_grad[1:], *grads))

    def jvp(ctx: Any, _keyset: None, *tangents: Tensor | None) -> Any:
        return jvp_rule(inputs_of(ctx), tangents)

    rules = {"forward": staticmethod(forward), "backward": staticmethod(backward), "jvp": staticmethod(jvp)}
    return type(f"Differentiable_{op.name}", (_SingleLevelFunction,), rules)
