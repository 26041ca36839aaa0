"""What every test runs in: caches of its own, one thread, and slow tests last."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
import torch

_CACHES = ("BDTORCH_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
_folder = pytest.StashKey[Path]()
_start = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--slow-minutes``."""
    parser.addoption(
        "--slow-minutes",
        type=float,
        default=float("inf"),
        help="start no slow test later than so many minutes after the beginning; those left over are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give the session fresh caches: inductor's does not notice a changed backward, and a stale loop hides a bug."""
    config.stash[_start] = time.monotonic()
    config.stash[_folder] = folder = Path(tempfile.mkdtemp(prefix="bdtorch-tests-"))
    for name in _CACHES:
        os.environ[name] = str(folder / name.lower())
    torch.set_num_threads(1)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the caches."""
    shutil.rmtree(config.stash[_folder], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests come last, in their order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a slow test for which no time is left."""
    minutes = (time.monotonic() - item.config.stash[_start]) / 60
    if item.get_closest_marker("slow") is not None and minutes > item.config.getoption("--slow-minutes"):
        pytest.skip("slow, and the time for slow tests is used up")
