"""Memory that is filled once: copied and joined without waking PyTorch's threads, in large pages where it is large."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bdtorch.simulate._functorch import transformed

_HUGE_PAGE, _MADV_HUGEPAGE = 1 << 21, 14  # bytes; a constant of Linux
_LINE = 64  # bytes of a cache line
_MOST_ROOM = 4  # times what is kept that its memory may have; what was never written takes none of the machine's


def copied(tensor: Tensor) -> Tensor:
    """A contiguous copy, made by this thread alone.

    PyTorch's threads, where they have helped with a copy, stay busy for milliseconds, waiting for more to do, on the cores
    where those of the next chunk are to run.
    """
    if tensor.is_neg() or tensor.is_conj() or not tensor.is_contiguous():
        return tensor.clone(memory_format=torch.contiguous_format)
    copy = _room_for(tensor)
    ctypes.memmove(copy.data_ptr(), tensor.data_ptr(), tensor.numel() * tensor.element_size())
    return copy


def _room_for(tensor: Tensor) -> Tensor:
    """As much memory, which begins with a large page where it fills one."""
    if tensor.numel() * tensor.element_size() < _HUGE_PAGE:
        return torch.empty_like(tensor)
    return room(tensor.numel(), tensor.dtype).view(tensor.shape)


def room(numel: int, dtype: torch.dtype) -> Tensor:
    """Memory that is not yet written to, and begins with a large page where it fills one."""
    size = numel * dtype.itemsize
    if size < _HUGE_PAGE:
        return torch.empty(numel, dtype=dtype)
    pages = -(-size // _HUGE_PAGE) * _HUGE_PAGE
    memory = torch.empty(pages + _HUGE_PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % _HUGE_PAGE
    in_huge_pages(memory[start : start + pages])
    return _alone(memory[start : start + size]).view(dtype)


def cleared(numel: int, dtype: torch.dtype) -> Tensor:
    """Zeros that begin with a cache line. The system hands them out as such, so that no thread has to write them."""
    size = numel * dtype.itemsize
    memory = torch.from_numpy(np.zeros(size + _LINE, dtype=np.uint8))
    start = -memory.data_ptr() % _LINE
    return memory[start : start + size].view(dtype) if numel else torch.empty(0, dtype=dtype)


def in_huge_pages(memory: Tensor) -> Tensor:
    """Ask for large pages: writing to fresh memory takes less time than the faults of its small ones."""
    size = memory.numel() * memory.element_size()
    if size >= _HUGE_PAGE and sys.platform.startswith("linux"):
        first = -(-memory.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        length = (memory.data_ptr() + size - first) // _HUGE_PAGE * _HUGE_PAGE
        # Advice only: a kernel that does not take it leaves the memory as it was.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return memory


def joined(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces of one axis, one behind the other: without a copy where they lie so."""
    if pieces[0].device.type != "cpu" or transformed():
        return torch.cat(list(pieces))
    nothing = pieces[0][:0]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return nothing.clone()
    total, first = sum(map(len, pieces)), pieces[0]
    if _adjacent(pieces):
        whole = first.as_strided((total,), (1,), first.storage_offset())
        held = first.untyped_storage().nbytes() // first.element_size()
        return _alone(whole) if _MOST_ROOM * total >= held else copied(whole)
    return torch.cat(list(pieces), out=in_huge_pages(first.new_empty(total)))


def _alone(part: Tensor) -> Tensor:
    """The same memory, of which files and deep copies do not take what lies beyond the part."""
    return torch.from_numpy(part.view(torch.uint8).numpy()).view(part.dtype)


def _adjacent(pieces: Sequence[Tensor]) -> bool:
    """Whether each piece begins where the one before it ends, in the same memory."""
    storage, end = pieces[0].untyped_storage().data_ptr(), pieces[0].data_ptr()
    for piece in pieces:
        if piece.untyped_storage().data_ptr() != storage or piece.data_ptr() != end or not piece.is_contiguous():
            return False
        end += len(piece) * piece.element_size()
    return True
