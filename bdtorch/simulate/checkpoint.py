"""Saving a state to disk and loading it: safetensors with a JSON header; nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bdtorch import _tree as tree
from bdtorch._files import replacing
from bdtorch._types import State

_FORMAT = "bdtorch-state-1"


def save(path: str | os.PathLike[str], state: State, *, t: float = 0.0) -> None:
    """Write a state, whole or not at all.

    Args:
        path: File to write; an existing one is replaced.
        state: A state, such as ``sol.state``.
        t: Its time, ms, such as ``sol.t_end``.

    Raises:
        TypeError: a leaf is not a tensor.
    """
    leaves = dict(tree.named_leaves(state))
    for name, leaf in leaves.items():
        if not isinstance(leaf, torch.Tensor):
            raise TypeError(f"`save(state=...)`: expected tensors only, got {type(leaf).__name__} for {name!r}")
    header = {"format": _FORMAT, "t": repr(float(t)), "leaves": json.dumps(list(leaves))}
    with replacing(path) as temporary:
        save_file(
            {name: leaf.detach().contiguous().clone() for name, leaf in leaves.items()}, temporary, metadata=header
        )


def load(path: str | os.PathLike[str], like: State) -> tuple[State, float]:
    """Read a state that `save` wrote.

    Args:
        path: File to read.
        like: A state of the same structure and shapes, for example from ``bdtorch.initial_state``; it gives the
            containers and the device.

    Returns:
        The state, and its time in ms.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no saved state, or holds variables of other names, shapes or dtypes.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"`load(path=...)`: there is no file {os.fspath(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except Exception as error:
        raise ValueError(
            f"`load(path=...)`: expected a saved state, but {os.fspath(path)!r} cannot be read: {error}"
        ) from error
    if header.get("format") != _FORMAT:
        raise ValueError(f"`load(path=...)`: expected format {_FORMAT!r}, got {header.get('format')!r}")
    names = [name for name, _ in tree.named_leaves(like)]
    if names != json.loads(header["leaves"]):
        raise ValueError(f"`load(like=...)`: expected the variables {json.loads(header['leaves'])}, got {names}")
    flat: list[Any] = []
    for name, leaf in tree.named_leaves(like):
        value = stored[name]
        if value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise ValueError(
                f"`load(like=...)`: {name!r} is {tuple(value.shape)} {value.dtype} in the file, "
                f"expected {tuple(leaf.shape)} {leaf.dtype}"
            )
        flat.append(value.to(leaf.device))
    return tree.unflatten(flat, tree.flatten(like)[1]), float(header["t"])
