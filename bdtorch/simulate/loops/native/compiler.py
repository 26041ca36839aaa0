"""Compiling generated C++, with a cache on disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from bdtorch._version import __version__
from bdtorch.ops import include_dir
from bdtorch.simulate.loops._loop import LoopError

FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
    "-fPIC", "-shared", "-pthread", "-w",
)  # fmt: skip
"""IEEE arithmetic: no flag changes a result, so loops agree with eager PyTorch wherever the operations do."""


def compiled(source: str) -> ctypes.CDLL:
    """The library of ``source``, from the cache or from the compiler.

    The cache lies in ``BDTORCH_CACHE_DIR``, or ``~/.cache/bdtorch``. An entry is named by everything that makes it: the
    source, the kernels' headers, the flags, the compiler, the processor and the version. Entries are written under
    another name and moved, so concurrent processes only ever see whole ones; one that is cut short is made again.

    Raises:
        LoopError: there is no compiler, it fails, or the cache cannot be written.
    """
    compiler = _compiler()
    key = hashlib.sha256("\0".join([source, _headers(), *FLAGS, _identity(compiler)]).encode()).hexdigest()[:32]
    target = cache_dir() / f"loop-{key}.so"
    if not _is_whole(target, key):
        _compile(compiler, source, target, key)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise LoopError(f"the native loop cannot load what it compiled: {error}") from error


def _is_whole(target: Path, key: str) -> bool:
    """Whether an entry ends as it was written. Loading half a library can kill the process."""
    try:
        with target.open("rb") as file:
            file.seek(-len(key), os.SEEK_END)
            return file.read() == key.encode()
    except OSError:
        return False


def cache_dir() -> Path:
    """Where compiled loops are kept."""
    chosen = os.environ.get("BDTORCH_CACHE_DIR")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bdtorch"


def _compiler() -> tuple[str, ...]:
    """The compiler's command: ``$CXX`` where it is set, or the first that is found."""
    chosen = tuple(shlex.split(os.environ.get("CXX", "")))
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise LoopError(
                f"the native loop needs a C++ compiler, and $CXX names none that can be found: {chosen[0]!r}"
            )
        return chosen
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return (path,)
    raise LoopError("the native loop needs a C++ compiler, and none was found: set $CXX, or install g++ or clang++")


@functools.cache
def _identity(compiler: tuple[str, ...]) -> str:
    """Compiler, processor and version of this package, as far as they shape the machine code."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    return "\0".join([*compiler, version, platform.machine(), _processor(), __version__])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()  # of the first core
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


@functools.cache
def _headers() -> str:
    digest = hashlib.sha256()
    for path in sorted((include_dir() / "bdtorch").glob("*.h")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _unwritable(target: Path, error: OSError) -> LoopError:
    return LoopError(
        f"the native loop cannot write its cache {target.parent} ({error}); set BDTORCH_CACHE_DIR to a writable folder"
    )


def _compile(compiler: tuple[str, ...], source: str, target: Path, key: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".build-", dir=target.parent))
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        code, library = work / "loop.cpp", work / "loop.so"
        code.write_text(source)
        command = [*compiler, *FLAGS, f"-I{include_dir()}", str(code), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoopError(f"the C++ compiler failed on a generated loop: {' '.join(command)}\n{done.stderr[-4000:]}")
        with library.open("ab") as file:
            file.write(key.encode())  # behind the end of the library proper, where loaders do not look
        os.replace(library, target)
    except OSError as error:  # such as of a disk that is full
        raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
