"""A traced function of one point, run in NumPy over many points at once.

A graph of a few dozen operations on scalars costs PyTorch microseconds an operation. Here each tensor of the graph becomes
an array with the points as trailing axes; broadcasting aligns from the right in both, so the graph's shapes stay true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

Array = np.ndarray
POINTS = 2
"""Trailing axes of every array: points, and directions at each."""


class NotLoweredError(Exception):
    """The graph holds an operation that has no counterpart here."""


def _dims(dim: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(rank))
    chosen = dim if isinstance(dim, Sequence) else (dim,)
    return tuple(d % rank if rank else 0 for d in chosen)


def _rank(x: Array) -> int:
    return x.ndim - POINTS


def _reshape(x: Array, shape: Sequence[int]) -> Array:
    return x.reshape(*shape, *x.shape[-POINTS:])


def _expand(x: Array, shape: Sequence[int], **_: Any) -> Array:
    inner = x.shape[:-POINTS]
    lead = len(shape) - len(inner)
    full = [n if n != -1 else inner[i - lead] for i, n in enumerate(shape)]
    return np.broadcast_to(x, (*full, *x.shape[-POINTS:]))


def _select(x: Array, dim: int, index: int) -> Array:
    return np.take(x, index, axis=dim % _rank(x))


def _slice(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    index: list[Any] = [slice(None)] * (dim % _rank(x))
    index.append(slice(start, end, step))
    return x[tuple(index)]


def _join(parts: Sequence[Array], dim: int = 0, *, stack: bool = False) -> Array:
    rank = _rank(parts[0]) + stack
    points = np.broadcast_shapes(*(p.shape[-POINTS:] for p in parts))
    whole = [np.broadcast_to(p, (*p.shape[:-POINTS], *points)) for p in parts]
    return (np.stack if stack else np.concatenate)(whole, axis=dim % rank)


def _sum(x: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
    return x.sum(axis=_dims(dim, _rank(x)), keepdims=keepdim) if _rank(x) else x


def _mean(x: Array, dim: Any = None, keepdim: bool = False, **_: Any) -> Array:
    return x.mean(axis=_dims(dim, _rank(x)), keepdims=keepdim) if _rank(x) else x


def _permute(x: Array, dims: Sequence[int]) -> Array:
    rank = _rank(x)
    return np.transpose(x, (*(d % rank for d in dims), *range(rank, x.ndim)))


def _matmul(a: Array, b: Array) -> Array:
    letters = {(1, 1): "i,i->", (2, 1): "ij,j->i", (1, 2): "i,ij->j", (2, 2): "ij,jk->ik", (3, 3): "nij,njk->nik"}
    left, right = letters[_rank(a), _rank(b)].split("->")
    one, two = left.split(",")
    return np.einsum(f"{one}...,{two}...->{right}...", a, b)


def _add(a: Any, b: Any, alpha: float = 1) -> Any:
    return a + b if alpha == 1 else a + alpha * b


def _sub(a: Any, b: Any, alpha: float = 1) -> Any:
    return a - b if alpha == 1 else a - alpha * b


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _power(x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)) and float(y).is_integer() and 0 <= y <= 4:
        result: Any = np.ones_like(x) if y == 0 else x
        for _ in range(int(y) - 1):
            result = result * x
        return result
    return np.power(x, y)


def _division(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    rounded: dict[str | None, Callable[..., Any]] = {None: lambda q: q, "floor": np.floor, "trunc": np.trunc}
    return rounded[rounding_mode](np.true_divide(x, y))


def _full(shape: Sequence[int], value: float, **_: Any) -> Array:
    return np.full((*shape, *[1] * POINTS), float(value))


def _same(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _copy(x: Array, *, dtype: torch.dtype | None = None, **_: Any) -> Array:
    if dtype is None or dtype == torch.float64:
        return x if x.dtype == np.float64 else x.astype(np.float64)
    if dtype == torch.bool:
        return x.astype(bool)
    if dtype == torch.float32:
        return x.astype(np.float32)
    raise NotLoweredError(str(dtype))


def _special(name: str) -> Callable[[Array], Array]:
    """A function of SciPy, which is slow to import, imported where it is called."""

    def call(x: Array) -> Array:
        from scipy import special

        return getattr(special, name)(x)

    return call


_UNARY: dict[str, Callable[..., Any]] = {
    "neg": np.negative, "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "log2": np.log2,
    "log10": np.log10, "sqrt": np.sqrt, "abs": np.abs, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "erf": _special("erf"),
    "erfc": _special("erfc"), "sigmoid": _special("expit"), "exp2": np.exp2, "isnan": np.isnan, "isinf": np.isinf,
    "logical_not": np.logical_not, "bitwise_not": np.logical_not, "round": np.round, "trunc": np.trunc,
    "reciprocal": lambda x: 1.0 / x, "rsqrt": lambda x: 1.0 / np.sqrt(x), "relu": lambda x: np.maximum(x, 0.0),
    "square": lambda x: x * x,
}  # fmt: skip

_OTHER: dict[str, Callable[..., Any]] = {
    "add": _add, "sub": _sub, "mul": np.multiply, "div": _division, "pow": _power, "maximum": np.maximum,
    "minimum": np.minimum, "atan2": np.arctan2, "fmod": np.fmod, "remainder": np.remainder, "gt": np.greater,
    "ge": np.greater_equal, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "bitwise_and": np.logical_and,
    "bitwise_or": np.logical_or, "logical_and_": np.logical_and, "where": np.where, "clamp": _clamp,
    "clamp_min": np.maximum, "clamp_max": np.minimum, "rsub": lambda a, b, alpha=1: b - alpha * a,
    "alias": _same, "clone": _same, "detach": _same, "lift_fresh_copy": _same, "view": _reshape, "reshape": _reshape,
    "_unsafe_view": _reshape, "expand": _expand, "select": _select, "slice": _slice, "cat": _join,
    "stack": lambda parts, dim=0: _join(parts, dim, stack=True), "sum": _sum, "mean": _mean,
    "unbind": lambda x, dim=0: tuple(np.moveaxis(x, dim % _rank(x), 0)),
    "unsqueeze": lambda x, dim: np.expand_dims(x, dim % (_rank(x) + 1)),
    "squeeze": lambda x, dim=None: np.squeeze(x, tuple(d for d in _dims(dim, _rank(x)) if x.shape[d] == 1)),
    "permute": _permute, "t": lambda x: _permute(x, tuple(range(_rank(x)))[::-1]), "mm": _matmul, "mv": _matmul,
    "bmm": _matmul, "dot": _matmul, "addmm": lambda c, a, b: c + _matmul(a, b), "full": _full,
    "scalar_tensor": lambda value, **_: _full((), value), "zeros": lambda shape, **_: _full(shape, 0.0),
    "ones": lambda shape, **_: _full(shape, 1.0), "zeros_like": lambda x, **_: np.zeros_like(x),
    "ones_like": lambda x, **_: np.ones_like(x), "full_like": lambda x, value, **_: np.full(x.shape, float(value)),
    "_to_copy": _copy,
}  # fmt: skip

_CALLS = {**_UNARY, **_OTHER}


class Lowered:
    """A traced function of tensors, as a function of arrays of shape ``(*shape, points, directions)``.

    Args:
        graph: What `torch.fx.experimental.proxy_tensor.make_fx` made.

    Raises:
        NotLoweredError: The graph holds an operation that has no counterpart here.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self._program: list[tuple[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self._slots: list[Any] = []
        self._inputs: list[int] = []
        slot: dict[fx.Node, int] = {}
        for node in graph.graph.nodes:
            if node.op == "output":
                self._output = self._resolve(node.args[0], slot)
                continue
            slot[node] = len(self._slots)
            self._slots.append(None)
            if node.op == "placeholder":
                self._inputs.append(slot[node])
            elif node.op == "get_attr":
                self._slots[slot[node]] = _constant(graph, str(node.target))
            else:
                self._program.append((slot[node], *self._call(node, slot)))

    def _call(self, node: fx.Node, slot: dict[fx.Node, int]) -> tuple[Callable[..., Any], tuple[Any, ...], dict]:
        if node.target is operator.getitem:
            return operator.getitem, self._resolve(node.args, slot), {}
        name = str(node.target).split(".")
        if len(name) < 2 or name[0] != "aten" or name[1] not in _CALLS:
            raise NotLoweredError(str(node.target))
        return _CALLS[name[1]], self._resolve(node.args, slot), self._resolve(node.kwargs, slot)

    def _resolve(self, value: Any, slot: dict[fx.Node, int]) -> Any:
        if isinstance(value, fx.Node):
            return _Slot(slot[value])
        if isinstance(value, (tuple, list)):
            return tuple(self._resolve(v, slot) for v in value)
        if isinstance(value, dict):
            return {key: self._resolve(v, slot) for key, v in value.items()}
        return value

    def __call__(self, *inputs: Array) -> Any:
        slots = list(self._slots)
        for index, value in zip(self._inputs, inputs, strict=True):
            slots[index] = value
        with np.errstate(all="ignore"):
            for target, call, args, options in self._program:
                slots[target] = call(*[_fetch(slots, a) for a in args], **options)
        return _fetch(slots, self._output)


class _Slot(int):
    """A place among the values of a run."""


def _fetch(slots: list[Any], value: Any) -> Any:
    if type(value) is _Slot:
        return slots[value]
    if type(value) is tuple:
        return tuple(_fetch(slots, v) for v in value)
    return value


def _constant(graph: fx.GraphModule, name: str) -> Array:
    value: Any = graph
    for part in name.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise NotLoweredError(name)
    array = value.detach().cpu().numpy()
    return array.reshape(*array.shape, *[1] * POINTS)
