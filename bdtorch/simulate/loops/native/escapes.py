"""What takes the value of a tensor past the tracer, without an operation that it would see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from bdtorch.simulate.loops.native.graph import is_constant
from bdtorch.simulate.loops.native.operations import FUNCTIONS

_LEAVES = {
    Tensor.numpy,
    Tensor.tolist,
    Tensor.data_ptr,
    Tensor.untyped_storage,
    Tensor.__array__,
    Tensor.__dlpack__,
    Tensor.__format__,
    Tensor.__repr__,
    Tensor.__deepcopy__,
    Tensor.__reduce_ex__,
    Tensor.storage,
}  # fmt: skip
_NUMBERS = {
    Tensor.__bool__, Tensor.__complex__, Tensor.__float__, Tensor.__index__, Tensor.__int__, Tensor.item,
}  # fmt: skip
"""What makes a number of a tensor. Within torch's older constructors, such as `torch.Tensor`, no dispatch shows it."""
_MAKERS = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, Tensor.new_tensor, Tensor.new}
"""What reads numbers out of lists of tensors where no dispatch shows it; of one tensor they are copies."""

_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]


class Escapes(TorchFunctionMode):
    """Reports what would take the value of a tensor past the tracer, to come back as a constant."""

    def __init__(self, tracer: Any) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _LEAVES and self._changes(args[0]):
            raise self.tracer.error(func.__name__, "takes a tensor out of PyTorch; write the step in torch operations")
        if func in _NUMBERS and self._changes(args[0]):
            raise self.tracer.error(
                func.__name__, "needs the value of a tensor while tracing: write the choice with torch.where, and put "
                "tensors together with torch.stack or torch.cat"
            )  # fmt: skip
        if func == _SET_DATA and any(self._changes(x) for x in args):
            raise self.tracer.error(
                "data", "is set, which writes to tensors in a way that the native loop does not follow"
            )
        if func in _MAKERS and any(self._changes(x) for x in _pytree.tree_leaves((args[1:], kwargs, _listed(args)))):
            raise self.tracer.error(
                func.__name__, "makes a tensor of the values of others; use torch.stack or torch.cat"
            )
        result = func(*args, **(kwargs or {}))
        if func in FUNCTIONS:
            self.tracer.take_whole(FUNCTIONS[func], args[0], result)
        return result

    def _changes(self, x: Any) -> bool:
        """Whether it is a tensor that is not the same in every step."""
        node = self.tracer.nodes.get(id(x)) if isinstance(x, Tensor) else None
        return node is not None and not is_constant(node)


def _listed(args: tuple[Any, ...]) -> Any:
    """The first argument where it is a list: of what is a tensor itself, functions that make tensors take a copy."""
    return args[0] if args and not isinstance(args[0], Tensor) else None
