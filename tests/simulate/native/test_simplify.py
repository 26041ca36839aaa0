"""Slices of a `cat` are its parts, truth values are counted, and what is made of a value moves with it; no bit changes."""

from __future__ import annotations

import pytest
import torch

from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops.native import simplify
from bdtorch.simulate.loops.native.made import generate, prepared
from bdtorch.simulate.loops.native.plan import Plan
from bdtorch.simulate.loops.native.trace import trace
from tests.simulate.native.stepping import Step, Stepping, assert_same, both

N = 200
X = torch.linspace(-1.0, 2.0, N).repeat(3, 1)


def expanded(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[:, :1].expand(3, 120), x[:, 1:2].expand(3, 30), x[:, 2:3].expand(3, 50)]


STEPS: dict[str, Step] = {
    "one part": lambda x, t: ([x[0] * 0.9, x[1]], torch.cat(expanded(x[1]), 1)[:, 120:150] * 2.0),
    "several parts": lambda x, t: (
        [torch.cat([x[0][:, :120] + (whole := torch.cat(expanded(x[1]), 1))[:, :120], x[0][:, 120:] * whole[:, 120:]], 1), x[1]],
        whole[:, 150:].sum(1),
    ),
    "the whole too": lambda x, t: (
        [x[0] - (whole := torch.cat(expanded(x[1]), 1)), x[1]],
        (whole[:, :150] + 1.0, whole),
    ),
    "across parts": lambda x, t: ([x[0], x[1]], torch.cat(expanded(x[1]), 1)[:, 100:160] * 3.0),
    "along the other axis": lambda x, t: ([x[0], x[1]], torch.cat([x[0], x[1] + 1.0], 1)[1:] * 2.0),
    "parts of another dtype": lambda x, t: ([x[0], x[1]], torch.cat([x[0][:, :9] > 0.5, x[1]], 1)[:, :9] + 1.0),
    "split evenly": lambda x, t: ([x[1], x[0]], [part * 2.0 for part in torch.cat([x[0] + 1.0, x[1]], 1).split(200, 1)]),
    "counts": lambda x, t: ([x[0] * 1.1, x[1]], [part.float().sum(1, keepdim=True) for part in (x[0] > 0.7).split(50, 1)]),
    "counts of views": lambda x, t: ([x[0], x[1]], (x[0] > x[1] * t).double().t()[10:, 1:].sum(0)),
    "counts of all": lambda x, t: ([x[0] * 0.8, x[1]], ((flags := (x[0] > 0.1).float()).sum(), flags * 2.0)),
    "what is made of a value": lambda x, t: (
        [(grown := x[0] + x[1]) * 0.95, x[1] * 0.5 + (grown - x[0].sum(1, keepdim=True)).exp()],
        x[0].sum(1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_no_bit_changes(name, threads):
    exact = "what" not in name and "several" not in name  # no exponential, and no sum of anything but ones
    for native, reference in zip(*both(STEPS[name], X.clone(), X.flip(1), steps=5, threads=threads), strict=True):
        assert_same(native, reference, exact=exact)


def planned(step: Step) -> tuple[Plan, str]:
    system = Stepping(step, X, X)
    body = Body(system, resolve(None, system), {}, system.init_state(), 0.1)
    return generate(body, prepared(trace(body, [X, X])))


def test_ones_are_counted(monkeypatch):
    step: Step = lambda x, t: ([x[0] + (x[1] > 0.3).float()[:, 50:].sum(1, keepdim=True), x[1]], None)  # noqa: E731
    text = planned(step)[1]
    assert "bdtorch::count" in text and "bdtorch::sum(" not in text
    monkeypatch.setitem(simplify._EXACT, torch.float32, 149)  # rows of 150
    assert "bdtorch::sum(" in planned(step)[1]


def test_a_part_that_is_one_number_fills_no_memory():
    def step(x, t):
        given = torch.cat(expanded(x[0]), 1)
        return [x[0], torch.cat([x[1][:, :120] * given[:, :120], x[1][:, 120:] * 2.0], 1)], None

    plan, _ = planned(step)
    assert not any(buffer.role == "temporary" for buffer in plan.buffers)


def test_a_value_and_what_is_made_of_it_stay_in_registers():
    """``grown`` waits for a sum of what it is not made of, and so does the new state that is made of it."""

    def step(x, t):
        grown = x[0] + x[1]
        later = (x[1] * 2.0).exp().sum(1, keepdim=True)
        return [grown * 0.95, x[1] * 0.5 + (grown - later)], None

    plan, _ = planned(step)
    (only,) = [kernel for kernel in plan.kernels if kernel.fused and len(kernel.nodes) > 2]
    assert len(only.stores) == 2 and not plan.copies
