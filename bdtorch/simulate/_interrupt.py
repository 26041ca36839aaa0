"""Ctrl-C as a request to stop between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While active, the first Ctrl-C sets a flag and the second raises KeyboardInterrupt as usual.

    Only the main thread can take signals; elsewhere the flag is never set, and neither is it where the process ignores
    Ctrl-C, as shells let their background jobs do, or where a program that embeds Python takes it.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: Any = None
        self._active = False

    def __enter__(self) -> Interrupt:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._active = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True

    def requested(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._requested
