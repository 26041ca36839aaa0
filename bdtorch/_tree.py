"""Arithmetic and naming on pytrees of tensors: a thin layer over `torch.utils._pytree`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree

flatten = _pytree.tree_flatten
unflatten = _pytree.tree_unflatten
map = _pytree.tree_map
leaves = _pytree.tree_leaves


def children(node: Any) -> list[tuple[str, Any]] | None:
    """The named children of a container, or None for a leaf."""
    if isinstance(node, Mapping):
        return [(str(key), value) for key, value in node.items()]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, (tuple, list)):
        return [(str(index), value) for index, value in enumerate(node)]
    return None


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


def replace_leaf(tree: Any, index: int, value: Any) -> Any:
    """The same tree with leaf number ``index`` exchanged."""
    flat, spec = flatten(tree)
    return unflatten([*flat[:index], value, *flat[index + 1 :]], spec)
