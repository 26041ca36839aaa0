"""Stored weights whose rows are woven in pairs while the loop runs: no result tells, however the run is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.ops.event_dense import event_dense, event_dense_t
from bdtorch.ops.plasticity import plasticity_dense
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.trace import trace
from benchmarks import stdp
from tests.simulate.native.stepping import Step, assert_same, body_of, both

ROWS, COLUMNS = 301, 365  # odd: the last row has no partner, and the last elements of rows are no whole run


def step_of(shown: bool = False, by_columns: bool = True, apart: bool = False) -> Step:
    """Both sides change the weights; the columns, or with ``apart`` others of them, deliver."""

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        w, rows, columns = x
        active_rows, active_columns = rows.sin() > 0.8, columns.sin() > 0.9
        y = event_dense_t(columns.cos() > 0.9 if apart else active_columns, w)
        z = event_dense(rows.cos() > 0.9, w) if apart else y
        if by_columns:
            w = plasticity_dense(w, active_columns, rows * 1e-2, rows * 1e-3, low=-0.25, high=0.75, columns=True)
        else:
            y = z = rows
        w = plasticity_dense(w, active_rows, columns * -1e-2, low=-0.25, high=0.75)
        return [w, rows + 0.7, columns + 0.9], (y, z, w) if shown else (y, z)

    return step


def state(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(shape, generator=generator) * 1.5 - 0.5
    sides = (torch.rand((*shape[:-2], n), generator=generator) * 6.0 for n in shape[-2:])
    wide = torch.float32 if dtype.itemsize == 2 else dtype
    return [weights.to(dtype), *(side.to(wide) for side in sides)]


def text_of(step: Step, initial: list[Tensor]) -> str:
    body = body_of(step, *initial)
    return generate(body, trace(body, initial))[1]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.float32, (ROWS, COLUMNS)),
        (torch.float64, (ROWS, COLUMNS)),
        (torch.bfloat16, (401, 403)),
        (torch.float32, (2, 190, 204)),
    ],
)
def test_no_result_tells(dtype: torch.dtype, shape: tuple[int, ...], apart: bool, threads: int) -> None:
    step, initial = step_of(apart=apart), state(dtype, shape)
    assert "weave_rows" in text_of(step, initial)
    for native, reference in zip(*both(step, *initial, steps=6, threads=threads), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize(
    "why", ["the weights are recorded", "no column is visited", "the matrix is small", "something else reads it"]
)
def test_what_is_not_woven(why: str) -> None:
    initial = state(shape=(30, 40) if "small" in why else (ROWS, COLUMNS))
    step = step_of(shown="recorded" in why, by_columns="no column" not in why)
    if "else" in why:
        inner = step

        def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
            after, y = inner(x, t)
            return [after[0], after[1] + x[0][:, 1], after[2]], y

    assert "weave_rows" not in text_of(step, initial)
    for native, reference in zip(*both(step, *initial, steps=3), strict=True):
        assert_same(native, reference, exact=True)


def test_a_run_that_is_stopped_and_resumed() -> None:
    step, initial = step_of(), state()
    whole, _ = both(step, *initial, steps=6, threads=2)
    half, _ = both(step, *initial, steps=3)
    resumed, _ = both(step, *half[-3:], steps=3, threads=3)
    for k, tensor in enumerate(resumed[-3:]):
        assert_same(tensor, whole[-3:][k], exact=True)


def test_exported_loops_which_may_be_called_step_by_step_are_not_woven(tmp_path: Path) -> None:
    rates = bt.Constant(torch.full((300,), 20.0 * stdp.RATE))
    bt.export_loop(tmp_path, stdp.build(300, 300), {"input": rates}, dt=0.1, name="large")
    assert "weave_rows(" not in (tmp_path / "large_loop.cpp").read_text()
