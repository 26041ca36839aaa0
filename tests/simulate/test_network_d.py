"""The STDP benchmark network: its rate, its weights against plain torch, and no copy of its weights in the loop."""

from __future__ import annotations

import math

import pytest
import torch

import bdtorch as bt
from bdtorch import _tree as tree
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.trace import trace
from benchmarks.stdp import RATE, W_MAX, build

ROUTE = "input->cell"


def test_rate() -> None:
    sol = bt.simulate(build(), dt=0.1, duration=10_000.0, record={"cell": bt.spikes("cell")})
    assert 37.0 < sol["cell"].rate < 41.0
    weight = sol.state[ROUTE]["weight"]
    assert float(weight.min()) >= 0.0 and float(weight.max()) <= torch.tensor(W_MAX)


def test_equals_plain_torch() -> None:
    """Propagation by the old weights, then presynaptic events, then postsynaptic ones, as the rule is documented."""
    n_pre, n_post, dt = 60, 40, 0.1
    net = build(n_post, n_pre, seed=2).to(torch.float64)
    # Few inputs, at a higher rate and with larger weights, must make as many spikes.
    rates = bt.Constant(torch.full((n_pre,), 20.0 * RATE, dtype=torch.float64))
    state = bt.initial_state(net, dt=dt, seed=1)
    record = {"out": lambda after, out: out, "w": lambda after, out: after[ROUTE]["weight"]}
    sol = bt.simulate(net, {"input": rates}, dt=dt, duration=200.0, state=state, record=record, loop="reference")
    w = state[ROUTE]["weight"].T.clone()
    x, g = (torch.zeros(n, dtype=torch.float64) for n in (n_pre, n_post))
    y, v = torch.zeros_like(g), torch.full_like(g, -60.0)
    pre, post = torch.zeros(n_pre, dtype=torch.bool), torch.zeros(n_post, dtype=torch.bool)
    fade, total = math.exp(-dt / 20.0), 0
    for k in range(2000):
        g = g + pre.double() @ w
        for i in pre.nonzero():
            w[i] = (w[i] - 1.05 * 0.01 * W_MAX * y).clamp(0.0, W_MAX)
        x = x + pre
        for j in post.nonzero():
            w[:, j] = (w[:, j] + 0.01 * W_MAX * x[:, None]).clamp(0.0, W_MAX)
        y = y + post
        steady, rate = -74.0 / (1.0 + g), -(1.0 + g) / 10.0
        v = steady + (v - steady) * torch.exp(rate * dt)
        post = v >= -54.0
        v = torch.where(post, -60.0, v)
        x, y, g = x * fade, y * fade, g * math.exp(-dt / 5.0)
        pre = sol["out"]["input"][k]
        assert torch.equal(sol["out"]["cell"][k], post), k
        total += int(post.sum())
    torch.testing.assert_close(sol["w"][-1].T, w, rtol=1e-12, atol=1e-15)
    assert total > 100 and float((w - state[ROUTE]["weight"].T).abs().max()) > 0.1 * W_MAX


@pytest.mark.parametrize("order", ["pre", "post"])
def test_loops_agree_to_the_bit(order: str) -> None:
    net = build(50, 80, order=order)
    rates = bt.Constant(torch.full((80,), 20.0 * RATE))
    runs = [
        bt.simulate(net, {"input": rates}, dt=0.1, duration=60.0, record={"s": bt.spikes("cell")}, loop=loop)
        for loop in ("reference", bt.Native(threads=1), bt.Native(threads=2))
    ]
    assert len(runs[0]["s"].pairs) > 20
    for run in runs[1:]:
        assert torch.equal(run["s"].pairs, runs[0]["s"].pairs)
        assert torch.equal(run.state[ROUTE]["weight"], runs[0].state[ROUTE]["weight"])


def test_the_order_of_storage_changes_nothing() -> None:
    rates = {"input": bt.Constant(torch.full((80,), 20.0 * RATE))}
    by_pre, by_post = (build(50, 80, order=order) for order in ("pre", "post"))
    start = bt.initial_state(by_pre, dt=0.1)
    moved = {**start, ROUTE: {**start[ROUTE], "weight": start[ROUTE]["weight"].T.contiguous()}}
    record = {"s": bt.spikes("cell")}
    one = bt.simulate(by_pre, rates, dt=0.1, duration=60.0, state=start, record=record)
    other = bt.simulate(by_post, rates, dt=0.1, duration=60.0, state=moved, record=record)
    assert torch.equal(one["s"].pairs, other["s"].pairs)
    assert torch.equal(one.state[ROUTE]["weight"], other.state[ROUTE]["weight"].T)


@pytest.mark.parametrize("order", ["pre", "post"])
def test_the_loop_changes_weights_in_place(order: str) -> None:

    net = build(50, 80, order=order)
    state = bt.initial_state(net, dt=0.1)
    body = Body(net, resolve(None, net), {}, state, 0.1)
    body.try_out(tree.leaves(state), 0)
    layout, _ = generate(body, trace(body, tree.leaves(state)))
    large = [buffer for buffer in layout.buffers if buffer.numel == 80 * 50]
    assert [buffer.role for buffer in large] == ["state"]
    assert not any(buffer.numel == 80 * 50 for buffer, _ in layout.copies)
