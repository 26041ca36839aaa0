"""`torch.autocast` around a run: a step is traced with its casts, which must be its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def casts_anew() -> Iterator[None]:
    """Let autocast cast parameters where they are used, and not hand out a cast that was made outside of the trace."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
