"""Ctrl-C as a request to stop between steps."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType
from typing import Any, ClassVar

_SOON = 1.0  # seconds after one Ctrl-C in which another is meant for the program


class Interrupt:
    """While active, the first Ctrl-C sets a flag, and one soon after it raises KeyboardInterrupt as usual.

    So a program that runs one simulation after the other can be stopped: the first ends a run, the second the program.

    Only the main thread can take signals; elsewhere the flag is never set, and neither is it where the process ignores
    Ctrl-C, as shells let their background jobs do, or where a program that embeds Python takes it.
    """

    last: ClassVar[float] = -math.inf
    """When Ctrl-C was last pressed while any run was active, s, as `time.monotonic` has it."""

    def __init__(self) -> None:
        self._requested = False
        self._passed_on = False
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
        if self._passed_on and not any(error):
            signal.raise_signal(signal.SIGINT)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before, Interrupt.last = Interrupt.last, time.monotonic()
        if self._requested or Interrupt.last - before < _SOON:
            raise KeyboardInterrupt
        self._requested = True

    def requested(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._requested

    def pass_on(self) -> None:
        """At the end, hand a Ctrl-C that found nothing to stop to whoever takes them otherwise."""
        self._passed_on = self._requested
