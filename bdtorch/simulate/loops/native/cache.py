"""The cache of compiled loops on disk: whole entries or none, whoever else writes, is killed, or runs out of room."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX system
    fcntl = None  # type: ignore[assignment]

from bdtorch.simulate.loops._loop import LoopError

Make = Callable[[Path], Path]
"""Makes a library in a folder that is empty, and says where."""

_DIGEST = 16  # bytes of the checksum at the end of an entry
_MEGABYTES = 1024.0
_STALE = 3600.0  # seconds after which what a process was building has been left behind


def cache_dir() -> Path:
    """Where compiled loops are kept."""
    chosen = os.environ.get("BDTORCH_CACHE_DIR")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bdtorch"


def path_of(key: str) -> Path:
    """Where the library of a key is kept."""
    return cache_dir() / f"loop-{key}.so"


def entry(key: str, make: Make) -> Path:
    """The library of a key: one that was made before, and is as it was written, or a new one.

    Where the folder cannot be written, a warning says so, and the library lies in a folder that this process removes.

    Args:
        key: Names everything that the library depends on.
        make: Makes it.

    Raises:
        LoopError: the library can be written nowhere, or `make` fails.
    """
    target = path_of(key)
    if is_whole(target, key):
        with contextlib.suppress(OSError):
            os.utime(target)  # which says that it is in use
        return target
    try:
        try:
            _fill(target, key, make)
        except _VanishedError:
            _fill(target, key, make)
    except OSError as error:
        own = _own_folder() / target.name
        if not is_whole(own, key):
            warnings.warn(
                f"the native loop cannot write its cache {target.parent} ({error}), and compiles for this process alone; "
                "set BDTORCH_CACHE_DIR to a writable folder",
                stacklevel=2,
            )
            _fill_own(own, key, make)
        return own
    return target


def forget(key: str) -> None:
    """Remove an entry that cannot be loaded."""
    with contextlib.suppress(OSError):
        path_of(key).unlink()


def is_whole(target: Path, key: str) -> bool:
    """Whether an entry is as it was written, to the bit. Loading a damaged library can kill the process."""
    try:
        content = target.read_bytes()
    except OSError:
        return False
    return len(content) > _DIGEST and content[-_DIGEST:] == _checksum(content[:-_DIGEST], key)


def _checksum(content: bytes, key: str) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST, key=key.encode()).digest()


class _VanishedError(OSError):
    """Somebody has deleted the cache while an entry was made."""


def _fill(target: Path, key: str, make: Make) -> None:
    """Make an entry, of which others see nothing until it is whole; of processes that want the same, one makes it."""
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, key):
        if is_whole(target, key):  # another process has made it meanwhile
            return
        work = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
        try:
            library = make(work)
            content = library.read_bytes()
            with library.open("ab") as file:  # behind the end of the library proper, where loaders do not look
                file.write(_checksum(content, key))
            os.replace(library, target)
        except (LoopError, OSError) as error:
            if work.exists():
                raise
            raise _VanishedError(f"{work} was deleted") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    limit = _limit()
    with contextlib.suppress(OSError):  # another process cleans as well
        _clean(folder, target, limit)


def _fill_own(target: Path, key: str, make: Make) -> None:
    try:
        _fill(target, key, make)
    except OSError as error:
        raise LoopError(
            f"the native loop cannot write to {target.parent} either ({error}); set BDTORCH_CACHE_DIR to a writable folder"
        ) from error


@contextlib.contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """Wait for other processes that make the same entry. It only saves work, so where there are no locks, all make it."""
    try:
        file = (folder / ".lock").open("ab") if fcntl is not None else None
    except OSError:
        file = None
    if file is None:
        yield
        return
    with file:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX, 1, int(key[:8], 16))  # one byte of one file for each entry; ends with us
        yield


@functools.cache
def _own_folder() -> Path:
    """A folder for this process where the cache cannot be written."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="bdtorch-"))
    except OSError as error:
        raise LoopError(
            f"the native loop can write neither its cache nor a temporary folder ({error}); set BDTORCH_CACHE_DIR"
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _limit() -> float:
    """Bytes that entries may take."""
    text = os.environ.get("BDTORCH_CACHE_MB", "")
    try:
        megabytes = float(text) if text else _MEGABYTES
    except ValueError:
        megabytes = -1.0
    if not megabytes >= 0.0:
        raise ValueError(f"$BDTORCH_CACHE_MB: expected a number of megabytes, at least 0, got {text!r}")
    return megabytes * 1e6


def _clean(folder: Path, newest: Path, limit: float) -> None:
    """Remove what killed processes have left, and the entries that were not used for longest where there are too many.

    Processes that use them keep what they have loaded.
    """
    now = time.time()
    found: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.name.startswith(".build-") and now - status.st_mtime > _STALE:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith("loop-") and path != newest:
                found.append((status.st_mtime, status.st_size, path))
    room = limit - newest.stat().st_size
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0:
            with contextlib.suppress(OSError):
                path.unlink()
