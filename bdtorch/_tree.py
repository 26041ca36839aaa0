"""Arithmetic and naming on pytrees of tensors: a thin layer over `torch.utils._pytree`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import debug_unwrap
from torch.utils import _pytree

flatten = _pytree.tree_flatten
unflatten = _pytree.tree_unflatten
map = _pytree.tree_map
leaves = _pytree.tree_leaves


def children(node: Any) -> list[tuple[str, Any]] | None:
    """The named children of a container, or None for a leaf."""
    if isinstance(node, Tensor) or _pytree.tree_is_leaf(node):
        return None
    if isinstance(node, Mapping):
        return [(str(key), value) for key, value in node.items()]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, (tuple, list)):
        return [(str(index), value) for index, value in enumerate(node)]
    below = _pytree.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]  # such as a dataclass
    return [(_key_name(path[0]), value) for path, value in below]


def _key_name(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("name", "key", "idx") if hasattr(key, kind)))


def named_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("E.neuron.v", tensor)`` for every leaf, in the order of `flatten`."""
    below = children(tree)
    if below is None:
        yield prefix, tree
        return
    for name, child in below:
        yield from named_leaves(child, f"{prefix}.{name}" if prefix else name)


def find(tree: Any, path: str) -> Any:
    """Look up ``path`` ("E.v"); a name may skip levels where only one descendant bears it.

    Raises:
        KeyError: no node, or more than one, answers to a name; the message lists the candidates.
    """
    node = tree
    for name in path.split("."):
        node = _descend(node, name, path, tree)
    return node


def _descend(node: Any, name: str, path: str, tree: Any) -> Any:
    """The child of that name, or else the only descendant of that name."""
    for key, child in children(node) or ():
        if key == name:
            return child
    found = list(_bearers(node, name))
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(leaf) for leaf, _ in named_leaves(tree))
    problem = "is ambiguous" if found else "names nothing"
    raise KeyError(f"{path!r} {problem}: {name!r} is looked for among {names}")


def _bearers(node: Any, name: str) -> Iterator[Any]:
    for key, child in children(node) or ():
        if key == name:
            yield child
        else:
            yield from _bearers(child, name)


def axpy(scale: float, direction: Any, origin: Any) -> Any:
    """``origin + scale * direction``, leaf by leaf."""
    return map(lambda d, o: o + scale * d, direction, origin)


def tensors(tree: Any) -> list[Tensor]:
    """The leaves that are tensors."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def aligned(value: Any, like: Any) -> Any:
    """``value`` with the keys of its dicts in the order of those of ``like``, on which the order of leaves depends."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict) and isinstance(like, dict):
        if value.keys() != like.keys():
            return value
        ordered = like.copy()
        ordered.update({key: aligned(value[key], child) for key, child in like.items()})
        return ordered
    if type(value) is type(like) and isinstance(value, (tuple, list)) and len(value) == len(like):
        below = [aligned(child, other) for child, other in zip(value, like, strict=True)]
        if all(new is old for new, old in zip(below, value, strict=True)):
            return value
        return type(value)(*below) if hasattr(value, "_fields") else type(value)(below)
    return value


def replace_leaf(tree: Any, index: int, value: Any) -> Any:
    """The same tree with leaf number ``index`` exchanged."""
    flat, spec = flatten(tree)
    return unflatten([*flat[:index], value, *flat[index + 1 :]], spec)


def marks(flat: Sequence[Tensor]) -> list[Any]:
    """What tells of each tensor, later, whether it has been written to: see `written`."""
    return [debug_unwrap(leaf).clone() if leaf.is_inference() else leaf._version for leaf in flat]


def written(flat: Sequence[Tensor], before: list[Any]) -> list[bool]:
    """Which tensors have been written to since their `marks` were taken.

    Those made under `torch.inference_mode` count no writes, and are compared by their values, among which NaN is none.
    """

    def differs(leaf: Tensor, mark: Any) -> bool:
        if not isinstance(mark, Tensor):
            return bool(leaf._version != mark)
        return not torch.equal(debug_unwrap(leaf).nan_to_num(), mark.nan_to_num())

    return [differs(leaf, mark) for leaf, mark in zip(flat, before, strict=True)]
