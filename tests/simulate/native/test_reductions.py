"""Sums of rows, whose order is not that of one addition after the other."""

from __future__ import annotations

import pytest
import torch

from tests.simulate.native.stepping import run

LENGTHS = (1, 63, 64, 65, 127, 128, 1000, 64 * 255 + 1, 40_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_and_means_of_rows_of_any_length_are_as_exact_as_their_dtype(dtype):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(3, n, generator=generator, dtype=dtype) for n in LENGTHS]

    def step(state, t):
        return state, torch.cat([torch.cat([x.sum(-1), x.mean(-1), x[:, : n // 2 + 1].sum(-1)])
                                 for x, n in zip(state, LENGTHS, strict=True)])  # fmt: skip

    found = run(step, *rows, loop="native", steps=1).out[0].double()
    wide = [x.double() for x in rows]
    _, want = step(wide, None)
    sizes = torch.cat([torch.cat([x.abs().sum(-1), x.abs().mean(-1), x.abs().sum(-1)]) for x in wide])
    # 64 partial sums: hundreds of additions in a row at most, where a single chain would make tens of thousands.
    assert ((found - want).abs() <= 650 * torch.finfo(dtype).eps * sizes).all()


def test_booleans_are_counted_and_columns_summed_in_order():
    generator = torch.Generator().manual_seed(1)
    flags = [torch.rand(2, n, generator=generator) < 0.7 for n in LENGTHS] + [torch.ones(2, 64 * 256, dtype=torch.bool)]
    columns = torch.randn(5, 70, generator=generator)

    def step(state, t):
        return state, (torch.cat([x.sum(-1) for x in state[:-1]]), state[-1].sum(0), state[-1].sum())

    counts, sums, total = (x[0] for x in run(step, *flags, columns, loop="native", steps=1).out)
    assert torch.equal(counts, torch.cat([x.sum(-1) for x in flags]))
    in_order = columns[0]
    for row in columns[1:]:
        in_order = in_order + row
    assert torch.equal(sums, in_order)
    torch.testing.assert_close(total, columns.sum(), rtol=1e-5, atol=1e-5)
