"""PyTorch's operations in the calling thread alone, and where its threads are lost."""

from __future__ import annotations

import contextlib
import ctypes
import os
import warnings
from collections.abc import Iterator

import torch

_PROCESS = os.getpid()  # that has imported this
_MOST_ELEMENTS = 1 << 20  # of which several threads save no more than they cost


@contextlib.contextmanager
def in_this_thread(elements: int) -> Iterator[None]:
    """Let operations of this thread on so many elements wake no others, unless these are too many for one thread.

    Other threads of the program work with as many as before.

    OpenMP's threads, where they have helped, stay busy for milliseconds, waiting for more to do, on the cores where those
    of a loop are to run; where a core has other work, an operation waits milliseconds for each of them. Where PyTorch is
    built without OpenMP, nothing changes.
    """
    openmp = ctypes.CDLL(None)  # `torch.set_num_threads` would decide for threads that other code begins meanwhile
    if elements > _MOST_ELEMENTS or not hasattr(openmp, "omp_set_num_threads"):
        yield
        return
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(1)
    try:
        yield
    finally:
        openmp.omp_set_num_threads(before)


def warn_where_forked() -> None:
    """Say why operations may never end: threads do not outlast a fork, and those of PyTorch are then waited for."""
    if os.getpid() != _PROCESS and torch.get_num_threads() > 1:
        warnings.warn(
            "this process was forked, and PyTorch waits forever for threads that it began before; call "
            "torch.set_num_threads(1) in the forked process, or start processes with the method 'spawn'",
            stacklevel=3,
        )
