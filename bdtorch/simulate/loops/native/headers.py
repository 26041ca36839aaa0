"""Headers of users' operators, which are part of what a loop is compiled from.

Which files the compiler reads is known once it has read them. So the cache keeps, beside the loops, a list of these files for
each source, and the key of such a loop is made of their contents as they are now. A header that was changed, and changed
back, finds either loop again. A new file that hides one of them on the compiler's search path is not noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from bdtorch.ops import include_dir
from bdtorch.simulate.loops.native import cache

_TRIALS = 3  # compilations, where files change meanwhile

Compile = Callable[[Path], tuple[Path, list[str]]]
"""Makes a library in a folder, and says where it is, and which files were read."""


def includes_others(source: str) -> bool:
    """Whether a source may include headers, or other files, that are no part of this package."""
    rest = re.sub(r'^#include "bdtorch/[\w.]+"$', "", source.replace("\\\n", ""), flags=re.MULTILINE)
    return any(word in rest for word in ("include", "import", "embed"))


def library(key: str, compile_in: Compile) -> tuple[str, cache.Make]:
    """The key of a source together with the files that it includes, and what makes its library.

    Args:
        key: Names everything else that the library depends on.
        compile_in: Compiles the source.
    """
    listed = cache.cache_dir() / f"loop-{key}.json"
    files = _listed(listed)
    if files is not None and cache.is_whole(cache.path_of(found := _with_contents(key, files)), found):
        with contextlib.suppress(OSError):
            os.utime(listed)  # which says that it is in use
        return found, _absent
    with tempfile.TemporaryDirectory(prefix="bdtorch-") as folder:
        content, whole, files = _compiled(Path(folder), compile_in)
    if not whole:  # nobody knows what of
        return _with_contents(key + uuid.uuid4().hex, files), _holding(content)
    _note(listed, files)
    return _with_contents(key, files), _holding(content)


def _absent(folder: Path) -> Path:
    raise FileNotFoundError("the entry was removed before it was loaded")


def _holding(content: bytes) -> cache.Make:
    def make(folder: Path) -> Path:
        (folder / "loop.so").write_bytes(content)
        return folder / "loop.so"

    return make


def _compiled(folder: Path, compile_in: Compile) -> tuple[bytes, bool, list[str]]:
    """A library, whether no file changed while it was compiled, and the files."""
    for _ in range(_TRIALS):
        began = time.time()
        path, files = compile_in(folder)
        whole = all(os.path.getmtime(name) < began for name in files if os.path.exists(name))
        if whole:
            break
    return path.read_bytes(), whole, files


def _with_contents(key: str, files: list[str]) -> str:
    digest = hashlib.sha256(key.encode())
    for name in files:
        digest.update(f"\0{name}\0".encode())
        with contextlib.suppress(OSError):  # a file that is gone differs from what it was
            digest.update(hashlib.sha256(Path(name).read_bytes()).digest())
    return digest.hexdigest()[:32]


def _listed(path: Path) -> list[str] | None:
    """The files that were read when a source was compiled; None where that is not known."""
    try:
        files = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return files if isinstance(files, list) and all(isinstance(name, str) for name in files) else None


def _note(path: Path, files: list[str]) -> None:
    """Keep the list of files; where that cannot be written, the next process compiles again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".list-")
        with os.fdopen(handle, "w") as file:
            json.dump(files, file)
        os.replace(temporary, path)


def read_by_compiler(rule: str, folder: Path) -> list[str]:
    """The files of a rule as compilers write it for ``make``, without those of a folder and of this package."""
    _, _, files = rule.replace("\\\n", " ").partition(": ")
    names = [re.sub(r"\\(.)", r"\1", name).replace("$$", "$") for name in re.findall(r"(?:\\.|[^\s\\])+", files)]
    paths = [os.path.abspath(name) for name in names]
    own = (os.path.abspath(folder) + os.sep, os.path.abspath(include_dir()) + os.sep)
    return sorted({path for path in paths if not path.startswith(own)})
