"""Numbers that meet tensors in every step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def scalars(like: Tensor) -> Callable[[float], Any]:
    """What makes numbers fit to be combined with ``like``: where PyTorch runs operation by operation, tensors.

    There an operation with a Python number takes twice the time of one with a tensor, and for small states that is nearly
    all the time there is. Loops that write the operations down, and transforms, get the number, which they see as a constant.
    """
    plain = like.dtype in (torch.float32, torch.float64) and like.device.type == "cpu"
    hidden = torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    if not plain or hidden or torch.compiler.is_compiling():
        return _itself
    return functools.partial(_tensor, like.dtype)


def _itself(value: float) -> float:
    return value


@functools.lru_cache(maxsize=1024)
def _tensor(dtype: torch.dtype, value: float) -> Tensor:
    with torch.inference_mode(False):  # one made within could not be used where gradients are wanted
        return torch.tensor(value, dtype=dtype, device="cpu")
