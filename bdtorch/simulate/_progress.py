"""A progress bar that appears once a run proves long."""

from __future__ import annotations

import sys
import time
from typing import Any


def _watched() -> bool:
    """Whether somebody sees what is printed: a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Bar:
    """A progress bar that appears once a run proves long."""

    def __init__(self, steps: int, dt: float, wanted: bool | None) -> None:
        self.steps, self.dt, self.wanted = steps, dt, wanted
        self.bar: Any = None
        self.done = 0
        self.began = time.perf_counter()

    def __enter__(self) -> Bar:
        return self

    def update(self, steps: int) -> None:
        self.done += steps
        elapsed = time.perf_counter() - self.began
        remaining = elapsed * (self.steps - self.done) / self.done
        lengthy = elapsed > 1.0 and remaining > 2.0 and _watched()
        if self.bar is None and (self.wanted or (self.wanted is None and lengthy)):
            from tqdm.auto import tqdm  # imported where a bar appears: it takes a while

            self.bar = tqdm(total=self.steps * self.dt, unit="ms", desc="simulate", initial=self.done * self.dt)
        if self.bar is not None:
            self.bar.n = self.done * self.dt
            self.bar.refresh()

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()
