"""Calling a module with other tensors in the place of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def places_of(module: nn.Module) -> dict[str, list[str]]:
    """By every name of a parameter or buffer, the attributes that hold the same tensor, each by one name.

    A tensor may have several names: as an attribute of several modules, which are several places, or where one module is a
    part of several others, which is one.
    """
    by_tensor: dict[int, list[str]] = {}
    for path, part in module.named_modules():
        for name, tensor in chain(part._parameters.items(), part._buffers.items()):
            if tensor is not None:
                by_tensor.setdefault(id(tensor), []).append(f"{path}.{name}" if path else name)
    named = chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return {name: by_tensor[id(tensor)] for name, tensor in named}


def call_with(
    module: nn.Module, replaced: Mapping[str, Tensor], arguments: tuple[Any, ...], places: dict[str, list[str]]
) -> Any:
    """`torch.func.functional_call` that leaves a module as it was where a part of it is in several places.

    Torch's own puts new tensors in once for every name, and takes those that it finds at the second for the old ones.

    Args:
        module: What to call.
        replaced: The tensors, by name.
        arguments: What to call it with.
        places: What `places_of` says of it.
    """
    whole = {place: tensor for name, tensor in replaced.items() for place in places[name]}
    return functional_call(module, whole, arguments, tie_weights=False)
