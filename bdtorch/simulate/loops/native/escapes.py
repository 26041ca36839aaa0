"""What takes the value of a tensor past the tracer, without an operation that it would see."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
_INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
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
        if func in _INDEXING and (places := self._looked_up(args[1])):
            rows, numbers = _in_front(args[0], _listed_index(args[1]), places)
            return func(rows, numbers, *args[2:]) if len(args) > 2 else func(rows, numbers).squeeze(0)
        if func is F.one_hot and self._changes(args[0]) and (count := _classes(args, kwargs or {})) > 0:
            return torch.zeros(*args[0].shape, count, dtype=torch.int64).scatter(-1, args[0].unsqueeze(-1), 1)
        result = func(*args, **(kwargs or {}))
        if func in FUNCTIONS:
            self.tracer.take_whole(FUNCTIONS[func], args[0], result)
        return result

    def _looked_up(self, index: Any) -> list[int]:
        """The places in an index of single numbers that change, of which PyTorch would ask the value."""
        parts = _listed_index(index)
        places = [k for k, x in enumerate(parts) if isinstance(x, Tensor) and self._changes(x) and not x.dim()]
        plain = all(k in places or x is None or x is ... or isinstance(x, (int, slice)) for k, x in enumerate(parts))
        integers = all(not parts[k].is_floating_point() and parts[k].dtype != torch.bool for k in places)
        return places if plain and integers else []

    def _changes(self, x: Any) -> bool:
        """Whether it is a tensor that is not the same in every step."""
        node = self.tracer.nodes.get(id(x)) if isinstance(x, Tensor) else None
        return node is not None and not is_constant(node)


def _classes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return int(args[1] if len(args) > 1 else kwargs.get("num_classes", -1))


def _listed(args: tuple[Any, ...]) -> Any:
    """The first argument where it is a list: of what is a tensor itself, functions that make tensors take a copy."""
    return args[0] if args and not isinstance(args[0], Tensor) else None


def _listed_index(index: Any) -> list[Any]:
    return list(index) if isinstance(index, tuple) else [index]


def _in_front(x: Tensor, index: list[Any], places: list[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A view with the axes in front along which an index has numbers, and these as vectors of one."""
    view = x[tuple(slice(None) if place in places else part for place, part in enumerate(index))]
    unmentioned = x.dim() - sum(part is not None and part is not ... for part in index)
    axis, axes = 0, []
    for place, part in enumerate(index):
        if place in places:
            axes.append(axis)
        axis += unmentioned if part is ... else not isinstance(part, int)
    return view.movedim(axes, list(range(len(axes)))), tuple(index[place].reshape(1) for place in places)
