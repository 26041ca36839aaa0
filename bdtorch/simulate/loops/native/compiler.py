"""Compiling generated C++, with a cache on disk."""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from bdtorch._version import __version__
from bdtorch.ops import include_dir
from bdtorch.simulate.loops._loop import LoopError
from bdtorch.simulate.loops.native import cache, headers

_NATIVE = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
"""This processor and all it can do. Clang knows the one word on x86 only, or so for Apple's; gcc takes the other elsewhere."""

FLAGS = (
    "-std=c++17", "-O3", _NATIVE, "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
    "-fwrapv", "-fPIC", "-shared", "-pthread", "-w",
)  # fmt: skip
"""IEEE arithmetic, and integers that wrap: loops agree with eager PyTorch wherever the operations do."""

_OLDEST = {"g++": 9, "clang": 13}
"""Versions from which on C++17, the generated vectors and the pragmas are known to be understood."""

_VERSIONS = {
    "clang": re.compile(r"clang version (\d+)"),
    "g++": re.compile(r"^[^\n]*\) (\d+)\.\d+[^\n]*\n.*Free Software", re.S),
}
"""Where the compilers of this world print them. Others are taken as they come."""

_SEARCHED = ("CPATH", "CPLUS_INCLUDE_PATH", "GCC_EXEC_PREFIX", "COMPILER_PATH")  # variables that compilers heed
_CPUINFO = Path("/proc/cpuinfo")


def compiled(source: str) -> ctypes.CDLL:
    """The library of ``source``, from the cache or from the compiler.

    Raises:
        LoopError: there is no compiler, it fails, or what it makes can be written nowhere.
    """
    compiler = _compiler()
    key = key_of(source, compiler)
    make: cache.Make = functools.partial(_compile, compiler, source)
    if headers.includes_others(source):
        key, make = headers.library(key, functools.partial(_compile_and_list, compiler, source))
    try:
        return ctypes.CDLL(str(cache.entry(key, make)))
    except OSError:  # removed before it was loaded
        cache.forget(key)
    try:
        return ctypes.CDLL(str(cache.entry(key, make)))
    except OSError as error:
        raise LoopError(
            f"the native loop cannot load what it compiled ({error}); if programs may not be run from the folder of the "
            "cache, set BDTORCH_CACHE_DIR to another"
        ) from error


def key_of(source: str, compiler: tuple[str, ...]) -> str:
    """A name for all that shapes the machine code: source, kernel headers, flags, compiler, processor and this version."""
    parts = [source, _headers(include_dir()), *FLAGS, _identity(compiler), *(os.environ.get(x, "") for x in _SEARCHED)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def toolchain() -> tuple[str | None, ...]:
    """What of the environment chooses the compiler and what it finds."""
    return tuple([os.environ.get(name) for name in ("CXX", "PATH", *_SEARCHED)])


def _compiler() -> tuple[str, ...]:
    """The compiler's command: ``$CXX`` where it is set, or the first that is found."""
    try:
        chosen = tuple(shlex.split(os.environ.get("CXX", "")))
    except ValueError as error:
        raise LoopError(
            f"the native loop needs a C++ compiler, and $CXX is no command: {os.environ['CXX']!r} ({error})"
        ) from error
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
    version = _run([*compiler, "--version"]).stdout
    _expect_recent(compiler, version)
    program = Path(shutil.which(compiler[0]) or compiler[0]).resolve()
    status = program.stat()  # two builds of one version differ in these
    made = f"{program} {status.st_size} {status.st_mtime_ns}"
    return "\0".join([*compiler, version, made, platform.machine(), _processor(), __version__])


def _expect_recent(compiler: tuple[str, ...], version: str) -> None:
    for name, pattern in _VERSIONS.items():
        found = pattern.search(version)
        if found and int(found[1]) < _OLDEST[name]:
            raise LoopError(
                f"the native loop needs g++ {_OLDEST['g++']} or clang++ {_OLDEST['clang']}, or newer ones, and "
                f"{shlex.join(compiler)!r} says that it is {version.splitlines()[0]!r}: set $CXX to another compiler"
            )


def _processor() -> str:
    """What ``-march=native`` looks at."""
    try:
        lines = _CPUINFO.read_text().split("\n\n")[0].splitlines()  # of the first core
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


@functools.cache
def _headers(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted((folder / "bdtorch").glob("*.h")):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LoopError(f"the native loop cannot run the C++ compiler {command[0]!r}: {error}") from error


def _compile_and_list(compiler: tuple[str, ...], source: str, folder: Path) -> tuple[Path, list[str]]:
    """Compile, and say which files the compiler has read."""
    rule = folder / "loop.d"
    library = _compile((*compiler, "-MD", "-MF", str(rule)), source, folder)
    return library, headers.read_by_compiler(rule.read_text(), folder)


def _compile(compiler: tuple[str, ...], source: str, folder: Path) -> Path:
    code, library = folder / "loop.cpp", folder / "loop.so"
    code.write_text(source)
    command = [*compiler, *FLAGS, f"-I{include_dir()}", str(code), "-o", str(library)]
    done = _run(command)
    if done.returncode:
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        raise LoopError(f"the C++ compiler failed on a generated loop: {' '.join(command)}\n{done.stderr[-4000:]}")
    if not library.exists():
        raise LoopError(
            f"the native loop needs a C++ compiler, and {compiler[0]!r} makes no library: {' '.join(command)}"
        )
    return library
