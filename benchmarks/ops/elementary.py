"""Time of the elementary functions of generated loops against torch's, on arrays that stay in cache.

    python benchmarks/ops/elementary.py [--n 4096] [--threads 1] [--json FILE]

A step is an element. Both sides take numbers of a membrane's range; torch vectorises with the same instructions.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script, this file sees only its own folder

import torch
from torch import Tensor

from bdtorch.simulate.loops.native.compiler import compiled
from benchmarks.ops._compare import Case, main

CPP = {torch.float32: "float", torch.float64: "double"}
FUNCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "exp": ("bdtorch::exp(x)", torch.exp),
    "expm1": ("bdtorch::expm1(x)", torch.expm1),
    "log": ("bdtorch::log(bdtorch::abs(x))", lambda x: x.abs().log()),
    "tanh": ("bdtorch::tanh(x)", torch.tanh),
    "sigmoid": ("bdtorch::sigmoid(x)", torch.sigmoid),
    "sin": ("bdtorch::sin(x)", torch.sin),
    "divided by 3": ("bdtorch::divided(x, T(3), HIGH, LOW)", lambda x: x / 3.0),
}
PARTS = {  # of 1/3
    torch.float32: ("0x1.555554p-2f", "0x1.555556p-26f"),
    torch.float64: ("0x1.5555555555555p-2", "0x1.5555555555555p-56"),
}
SOURCE = """#include "bdtorch/math.h"
using T = TYPE;
extern "C" void apply(const T* __restrict a, T* __restrict y, long n) {
  for (long i = 0; i < n; ++i) { const T x = a[i]; y[i] = EXPRESSION; }
}
"""


def applied(expression: str, x: Tensor) -> Callable[[], Tensor]:
    """A call of the compiled function over an array."""
    source = SOURCE.replace("TYPE", CPP[x.dtype]).replace("EXPRESSION", expression)
    for name, part in zip(("HIGH", "LOW"), PARTS[x.dtype], strict=True):
        source = source.replace(name, part)
    function, y = compiled(source).apply, torch.empty_like(x)
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]

    def call() -> Tensor:
        function(x.data_ptr(), y.data_ptr(), x.numel())
        return y

    return call


def cases(n: int) -> Iterator[Case]:
    """Each function in both precisions."""
    for dtype in CPP:
        x = torch.linspace(-6.0, 6.0, n, dtype=dtype)
        for name, (expression, theirs) in FUNCTIONS.items():
            kind = str(dtype).removeprefix("torch.")
            yield Case(f"{name}, {kind}", applied(expression, x), lambda f=theirs, x=x: f(x), n)  # type: ignore[misc]


if __name__ == "__main__":
    main(__doc__ or "", cases, n=4096)
