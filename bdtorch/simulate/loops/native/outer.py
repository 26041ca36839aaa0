"""Sums of outer products over many steps: gradients of weight matrices."""

from __future__ import annotations

import ctypes
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from bdtorch.simulate.loops.native.compiler import compiled
from bdtorch.simulate.loops.native.pointwise import CPP

_SMALL = 1 << 22  # multiplications below which one thread does it all


def add_outer(total: Tensor, left: Tensor, right: Tensor, threads: int) -> None:
    """``total += left.T @ right``, with bits that do not depend on the number of threads.

    Args:
        total: ``(n, m)``, contiguous; changed in place.
        left: ``(rows, n)``. Where few of its entries differ from 0, only those cost time.
        right: ``(rows, m)``.
        threads: Number of threads.
    """
    left, right = left.contiguous(), right.contiguous()
    rows, n = left.shape
    m = right.shape[1]
    function = _function(total.dtype)
    pointers = (left.data_ptr(), right.data_ptr(), total.data_ptr(), rows, n, m)
    if threads == 1 or rows * n * m < _SMALL:
        function(*pointers, 0, n)
        return
    cuts = [n * thread // threads for thread in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # the call releases the interpreter's lock
        list(pool.map(lambda cut: function(*pointers, *cut), itertools.pairwise(cuts)))


@functools.cache
def _function(dtype: torch.dtype) -> Any:
    kind = CPP[dtype]
    library = compiled(f"""#include "bdtorch/dense.h"
extern "C" void bdtorch_add_outer(const {kind}* left, const {kind}* right, {kind}* total, int64_t rows, int64_t n,
                                  int64_t m, int64_t begin, int64_t end) {{
  op::add_outer(left, right, rows, n, m, begin, end, total);
}}
""")
    function = library.bdtorch_add_outer
    function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 5
    function.restype = None
    return function
