"""Drawn structures: equal to the plain formulas to the bit, whatever the number of threads; edges and errors."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bdtorch import ops
from bdtorch.ops._checks_connectivity import bernoulli_pairs, distinct_rows
from bdtorch.ops.draw import draw_bernoulli, draw_distinct


@pytest.mark.parametrize(
    ("n_pre", "n_post", "p"),
    [(1, 1, 0.5), (7, 5, 0.0), (7, 5, 1.0), (40, 30, 0.3), (30, 40, 0.97), (2000, 900, 0.06), (3000, 3000, 0.6),
     (90_000, 5, 0.01), (5, 90_000, 0.01), (200_000, 200_000, 1e-7), (50, 50, 1.0 - 1e-16), (1000, 1000, 1e-300)],
)  # fmt: skip
@pytest.mark.parametrize("self_offset", [None, 0, 2, -3])
def test_bernoulli_pairs_follow_the_geometric_gaps(n_pre: int, n_post: int, p: float, self_offset: int | None) -> None:
    indices, indptr = draw_bernoulli(3, n_pre, n_post, p, self_offset=self_offset)
    pairs = bernoulli_pairs(3, n_pre * n_post, p)
    pre, post = pairs // n_post, pairs % n_post
    kept = torch.ones_like(pre, dtype=torch.bool) if self_offset is None else post != pre + self_offset
    assert torch.equal(indices, post[kept].to(torch.int32))
    assert torch.equal(indptr.diff(), torch.bincount(pre[kept], minlength=n_pre)) and indptr[0] == 0
    ops.check_csr(indices, indptr, n_post, distinct=True)


@pytest.mark.parametrize(
    ("rows", "choices", "number"),
    [(5, 9, 0), (0, 9, 3), (6, 1, 0), (400, 30, 3), (400, 30, 15), (400, 30, 16), (400, 30, 29), (50, 5000, 2000),
     (3, 700_000, 5), (2000, 64, 8)],
)  # fmt: skip
@pytest.mark.parametrize("self_offset", [0, 40_000, -7])
def test_distinct_values_follow_the_rejections(rows: int, choices: int, number: int, self_offset: int) -> None:
    drawn = draw_distinct(8, rows, choices, number, self_offset=self_offset)
    assert drawn.dtype == torch.int32 and drawn.shape == (rows, number)
    assert torch.equal(drawn.long(), distinct_rows(8, rows, choices, number, self_offset))


@pytest.mark.parametrize(
    "draw",
    [lambda: draw_bernoulli(1, 900, 1000, 0.5)[0], lambda: draw_distinct(1, 900, 1000, 70),
     lambda: draw_distinct(1, 900, 1000, 700)],
)  # fmt: skip
def test_threads_do_not_matter(draw: Callable[[], Tensor]) -> None:
    before = torch.get_num_threads()
    drawn = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        drawn.append(draw())
    torch.set_num_threads(before)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


def test_schemas_and_fakes() -> None:
    key = ops.make_key(0)
    torch.library.opcheck(torch.ops.bdtorch.draw_distinct.default, (key, 5, 9, 3, 0))
    # The number of synapses is known only afterwards.
    utils = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.bdtorch.draw_bernoulli.default, (key, 0.3, 5, 9, 9), test_utils=utils)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_bernoulli(0, -1, 5, 0.5), r"draw_bernoulli\(n_pre=.*, got -1"),
        (lambda: draw_bernoulli(0, 5, 2**31, 0.5), r"draw_bernoulli\(n_post=.*, got 2147483648"),
        (lambda: draw_bernoulli(0, 5, 5, math.nan), r"draw_bernoulli\(p=.*got nan"),
        (lambda: draw_bernoulli(0, 5, 5, 1.5), r"draw_bernoulli\(p=.*got 1.5"),
        (lambda: draw_bernoulli(0, 5, 5, 0.5, self_offset=2**40), r"draw_bernoulli\(self_offset=.*got"),
        (lambda: draw_distinct(0, 5.0, 5, 2), r"draw_distinct\(rows=.*got 5.0"),
        (lambda: draw_distinct(0, 5, -5, 2), r"draw_distinct\(choices=.*got -5"),
        (lambda: draw_distinct(0, 5, 5, 6), r"draw_distinct\(number=.*\[0, 5\], got 6"),
        (lambda: draw_distinct(0, 5, 5, 5, self_offset=1), r"draw_distinct\(number=.*\[0, 4\], got 5"),
        (lambda: draw_distinct(0, 5, 5, -1), r"draw_distinct\(number=.*got -1"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_headers_are_plain_cpp17_and_stay_within_their_arrays(tmp_path: Path) -> None:
    source = Path(__file__).parent / "connectivity_kernels.cpp"
    program = tmp_path / "connectivity_kernels"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", f"-I{ops.include_dir()}"]
    flags += ["-Wno-deprecated-declarations"]  # within the C++ library of gcc 12, to clang's eyes
    subprocess.run([os.environ.get("CXX", "g++"), *flags, str(source), "-o", str(program)], check=True)
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 failures" in result.stdout
