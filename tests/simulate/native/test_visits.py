"""Products with stored weights and changes of the same weights, in one visit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bdtorch.ops.event_dense import event_dense, event_dense_t
from bdtorch.ops.plasticity import plasticity_dense
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Step, assert_same, body_of, both

PRE, POST = 90, 70
GENERATOR = torch.Generator().manual_seed(5)
WEIGHTS = torch.rand((PRE, POST), generator=GENERATOR)
SOURCES, TARGETS = torch.linspace(0.0, 6.0, PRE), torch.linspace(-0.1, 0.1, POST)


def spiking(x: Tensor) -> Tensor:
    """Some of the neurons, others in every step; more than one group of them in the first."""
    return (x * 2.0).sin() > (0.0 if x.shape[-1] == PRE else -2.0)


def step_of(columns: bool, slope: bool, factors: bool) -> Step:
    """Sources along rows or columns; the product, then the change of what it has read."""

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        w, sources, targets = x
        spikes = spiking(sources)
        if factors:
            spikes = torch.where(spikes, sources, torch.zeros_like(sources))
        y = (event_dense_t if columns else event_dense)(spikes, w)
        change = {"low": 0.0, "high": 0.8, "columns": columns}
        after = plasticity_dense(w, spikes, targets, targets * 0.5 if slope else None, **change)
        return [after, sources + 0.7, (targets + y * 1e-3) * -0.9], y

    return step


def visits(step: Step, *state: Tensor) -> list[list[str]]:
    """The names of the operations in every kernel that visits weights."""
    body = body_of(step, *state)
    layout, _ = generate(body, trace(body, list(state)))
    names = [[node.op.split(".")[1] for node in kernel.nodes] for kernel in layout.kernels if not kernel.fused]
    return [ops for ops in names if any("dense" in op for op in ops)]


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_a_shared_visit_gives_the_bits_of_two(columns: bool, slope: bool, factors: bool) -> None:
    step = step_of(columns, slope, factors)
    weights = WEIGHTS.T.contiguous() if columns else WEIGHTS
    product = "_event_dense_t_raw" if columns else "_event_dense_raw"
    assert visits(step, weights, SOURCES, TARGETS) == [[product, "_plasticity_dense_raw"]]
    for threads in (1, 3):
        for native, reference in zip(*both(step, weights, SOURCES, TARGETS, steps=6, threads=threads), strict=True):
            assert_same(native, reference, exact=True)


@pytest.mark.parametrize("columns", [False, True])
def test_a_batch_with_weights_of_its_own(columns: bool) -> None:
    weights = (
        torch.stack([WEIGHTS, WEIGHTS * 0.5]).mT.contiguous() if columns else torch.stack([WEIGHTS, WEIGHTS * 0.5])
    )
    state = (weights, torch.stack([SOURCES, SOURCES.flip(0)]), torch.stack([TARGETS, TARGETS * 2.0]))
    step = step_of(columns, slope=True, factors=False)
    assert len(visits(step, *state)) == 1
    for native, reference in zip(*both(step, *state, steps=4, threads=2), strict=True):
        assert_same(native, reference, exact=True)


def apart(reason: str) -> Step:
    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        w, sources, targets = x
        spikes = spiking(sources)
        y = event_dense(spikes, w)
        by, rows = {
            "the change needs the product": (y * 1e-2, spikes),
            "other spikes": (targets, ~spikes),
            "the old weights are shown": (targets, spikes),
            "the other side spikes": (targets, spikes),
        }[reason]
        if reason == "the other side spikes":
            after = plasticity_dense(w, spiking(targets), sources * 1e-2, columns=True)
        else:
            after = plasticity_dense(w, rows, by)
        return [after, sources + 0.7, targets * -0.9], (y, w) if "shown" in reason else y

    return step


@pytest.mark.parametrize(
    "reason",
    ["the change needs the product", "other spikes", "the old weights are shown", "the other side spikes"],
)
def test_visits_that_cannot_be_shared(reason: str) -> None:
    step = apart(reason)
    assert visits(step, WEIGHTS, SOURCES, TARGETS) == [["_event_dense_raw"], ["_plasticity_dense_raw"]]
    for native, reference in zip(*both(step, WEIGHTS, SOURCES, TARGETS, steps=4), strict=True):
        assert_same(native, reference, exact=True)


@pytest.mark.parametrize("threshold", [2.0, 0.7, -2.0], ids=["none", "some", "all"])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(1, 1), (3, 130), (258, 67), (525, 9)])
def test_both_sides_give_the_bits_of_the_formula(n_rows: int, n_columns: int, threshold: float) -> None:
    """Also where a synapse's two neurons spike in one step, and where bounds cut: against loops over plain torch."""
    low, high = -0.25, 0.75
    a, b = torch.linspace(-0.3, 0.1, n_rows), torch.linspace(-0.1, 0.3, n_columns)

    def step(x: list[Tensor], t: Tensor) -> tuple[list[Tensor], Any]:
        w, rows, columns = x
        by_column, by_row = columns.sin() > threshold, rows.sin() > threshold
        y = event_dense_t(by_column, w)
        w = plasticity_dense(w, by_column, a, low=low, high=high, columns=True)
        w = plasticity_dense(w, by_row, b, low=low, high=high)
        return [w, rows + 0.7, columns + 0.9], y

    generator = torch.Generator().manual_seed(9)
    w = torch.rand((n_rows, n_columns), generator=generator) * 1.5 - 0.5  # some beyond the bounds, silent ones stay so
    rows, columns = (torch.rand(n, generator=generator) * 6.0 for n in (n_rows, n_columns))
    runs = [both(step, w, rows, columns, steps=5, threads=threads)[0] for threads in (1, 3)]
    for k in range(5):
        y = torch.zeros(n_rows)
        for j in (columns.sin() > threshold).nonzero().flatten():
            y = y + w[:, j]
            w[:, j] = (w[:, j] + a).clamp(low, high)
        for i in (rows.sin() > threshold).nonzero().flatten():
            w[i] = (w[i] + b).clamp(low, high)
        rows, columns = rows + 0.7, columns + 0.9
        assert all(torch.equal(run[0][k], y) for run in runs)
    assert all(torch.equal(run[1], w) for run in runs)
    if threshold < 2.0 and n_rows > 200:
        assert (w == torch.tensor(high)).any() and (w == torch.tensor(low)).any()
