"""Loads the compiled libraries: importing this module makes ``torch.ops.bdtorch`` available."""

from __future__ import annotations

from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parents[1]


def include_dir() -> Path:
    """The directory to pass to a compiler as ``-I`` so that ``#include "bdtorch/event_csr.h"`` finds the kernels.

    Returns:
        ``bdtorch/include`` of an installed wheel, or ``csrc/include`` of a source tree installed in place.

    Raises:
        FileNotFoundError: If neither is there.
    """
    candidates = (_PACKAGE / "include", _PACKAGE.parent / "csrc" / "include")
    for directory in candidates:
        if (directory / "bdtorch").is_dir():
            return directory
    raise FileNotFoundError(f"the kernel headers of bdtorch are in none of {', '.join(map(str, candidates))}")


def _load() -> None:
    cpu = _PACKAGE / "_C.so"
    if not cpu.exists():
        raise ImportError(
            f"the compiled library {cpu} is missing. Build it with a C++ compiler on the path: "
            "`pip install -e . --no-build-isolation` in the source tree"
        )
    torch.ops.load_library(cpu)
    # A CUDA library is built for one major version of the CUDA runtime, which is in its name.
    if torch.version.cuda is not None:
        cuda = _PACKAGE / f"_C_cuda{torch.version.cuda.partition('.')[0]}.so"
        if cuda.exists():
            torch.ops.load_library(cuda)


_load()
