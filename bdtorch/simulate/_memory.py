"""Memory that is filled once: copied and joined without waking PyTorch's threads, in large pages where it is large."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from bdtorch.simulate._functorch import transformed

_HUGE_PAGE, _MADV_HUGEPAGE = 1 << 21, 14  # bytes; a constant of Linux


def copied(tensor: Tensor) -> Tensor:
    """A contiguous copy, made by this thread alone.

    PyTorch's threads, where they have helped with a copy, stay busy for milliseconds, waiting for more to do, on the cores
    where those of the next chunk are to run.
    """
    if tensor.is_neg() or tensor.is_conj() or not tensor.is_contiguous():
        return tensor.clone(memory_format=torch.contiguous_format)
    copy = torch.empty_like(tensor)
    ctypes.memmove(copy.data_ptr(), tensor.data_ptr(), tensor.numel() * tensor.element_size())
    return copy


def in_huge_pages(memory: Tensor) -> Tensor:
    """Ask for large pages: writing to fresh memory takes less time than the faults of its small ones."""
    size = memory.numel() * memory.element_size()
    if size >= 2 * _HUGE_PAGE and sys.platform.startswith("linux"):
        first = -(-memory.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        length = (memory.data_ptr() + size - first) // _HUGE_PAGE * _HUGE_PAGE
        # Advice only: a kernel that does not take it leaves the memory as it was.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return memory


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces of one axis, one behind the other."""
    if pieces[0].device.type != "cpu" or transformed():
        return torch.cat(list(pieces))
    return torch.cat(list(pieces), out=in_huge_pages(pieces[0].new_empty(sum(map(len, pieces)))))
