"""Delays of every source, of every synapse, and between steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import _tree as tree
from bdtorch.connect import AllToAll, FixedProbability, OneToOne
from bdtorch.network import Delay
from bdtorch.simulate._body import Body
from bdtorch.simulate.inputs import resolve
from bdtorch.simulate.loops.native.made import generate
from bdtorch.simulate.loops.native.trace import trace

F64 = torch.float64


def _signals(steps: int, *shape: int) -> Tensor:
    return torch.randn((steps, *shape), generator=torch.Generator().manual_seed(0), dtype=F64)


def _through(line: Delay, signals: Tensor, dt: float) -> Tensor:
    state = line.init_state(signals[0], dt=dt)
    out = []
    for signal in signals:
        state, delayed = line(state, signal, dt)
        out.append(delayed)
    return torch.stack(out)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("dt", [0.1, 1 / 3])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_every_source_has_its_own(batch: tuple[int, ...], dt: float, dtype: torch.dtype) -> None:
    steps = torch.tensor([1, 7, 3, 7, 40])
    line = Delay((steps * dt).to(dtype), dtype=dtype)
    signals = _signals(90, *batch, 5).to(dtype)
    out = _through(line, signals, dt)
    for j, d in enumerate(steps.tolist()):
        assert torch.equal(out[d:, ..., j], signals[:-d, ..., j])
        assert not out[:d, ..., j].any()


@pytest.mark.parametrize("duration", [1.0, 1.3, 2.0, 2.75, 9.999, 10.0])
def test_between_steps_the_signal_is_linear(duration: float) -> None:
    """A straight line comes out as itself, shifted; any signal as its linear interpolation."""
    line = Delay(duration, interpolate=True, dtype=F64)
    ramp = torch.arange(60, dtype=F64)[:, None].expand(60, 3)
    out = _through(line, ramp, 1.0)
    torch.testing.assert_close(out[12:], ramp[12:] - duration, rtol=0.0, atol=1e-12)
    signals = _signals(60, 3)
    out = _through(line, signals, 1.0)
    near, part = math.floor(duration), duration - math.floor(duration)
    want = (1 - part) * signals[12 - near : 60 - near] + part * signals[11 - near : 59 - near]
    torch.testing.assert_close(out[12:], want, rtol=0.0, atol=1e-12)


def test_a_spike_between_steps_arrives_in_two_parts() -> None:
    spikes = torch.zeros(20, 1, dtype=torch.bool)
    spikes[4] = True
    out = _through(Delay(2.25, interpolate=True, dtype=F64), spikes, 1.0)[:, 0]
    want = torch.zeros(20, dtype=F64)
    want[6], want[7] = 0.75, 0.25
    torch.testing.assert_close(out, want, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_the_gradient_with_respect_to_the_delay(shape: tuple[int, ...]) -> None:
    signals = _signals(40, 3)

    def delayed(duration: Tensor) -> Tensor:
        line = Delay(nn.Parameter(torch.full(shape, 3.0, dtype=F64)), interpolate=True, longest=8.0, dtype=F64)
        del line.duration
        line.duration = duration
        return _through(line, signals, 1.0)

    duration = (torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=F64) * 5.0 + 1.5).requires_grad_()
    assert torch.autograd.gradcheck(delayed, duration, check_forward_ad=True)


def test_a_delay_is_learnt() -> None:
    """From a smooth signal and its copy 4.3 ms later; the optimiser is torch's own."""
    times = torch.arange(150, dtype=F64)
    signal = torch.sin(times / 9.0)[:, None]
    wanted = torch.sin((times - 4.3) / 9.0)[:, None]
    duration = nn.Parameter(torch.tensor([2.0], dtype=F64))
    line = Delay(duration, interpolate=True, longest=10.0, dtype=F64)
    optimizer = torch.optim.Adam([duration], lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        loss = (_through(line, signal, 1.0)[20:] - wanted[20:]).square().mean()
        loss.backward()
        optimizer.step()
    assert duration.item() == pytest.approx(4.3, abs=0.05)


def test_a_delay_that_leaves_its_range_makes_nan() -> None:
    duration = nn.Parameter(torch.tensor([2.0, 3.0], dtype=F64))
    line = Delay(duration, interpolate=True, longest=5.0, dtype=F64)
    state = line.init_state(torch.zeros(2, dtype=F64), dt=1.0)
    for outside in (5.1, 0.9):
        with torch.no_grad():
            duration[0] = outside
        _, delayed = line(state, torch.ones(2, dtype=F64), 1.0)
        assert delayed[0].isnan() and delayed[1] == 0.0
    with torch.no_grad():
        duration[0] = 5.0
    assert not line(state, torch.ones(2, dtype=F64), 1.0)[1].isnan().any()


def _network(rule: Any, delay: Any, weight: Any = 1.0, **slots: Any) -> bt.Network:
    cell = bt.neurons.LIF(6, tau=20.0, v_th=1e9, dtype=F64)
    populations = {"source": bt.stimuli.Poisson(6, dtype=F64), "cell": cell}
    projection = bt.Projection(rule, weight, receptor=bt.synapses.Jump(), delay=delay, **slots)
    return bt.Network(populations, {("source", "cell"): projection}, seed=2)


RATES = 300.0 + 100.0 * torch.arange(6, dtype=F64)
PATHWAY = "source->cell"


def _run(net: bt.Network, loop: Any, duration: float = 30.0, **options: Any) -> bt.Solution:
    record = {"v": bt.trace("cell.v"), "out": lambda after, out: out["source"]}
    return bt.simulate(
        net, {"source": bt.Constant(RATES)}, dt=0.1, duration=duration, record=record, loop=loop, **options
    )


def _expected(spikes: Tensor, weight: Tensor, lags: Tensor) -> Tensor:
    """The potential that arriving events make, by a loop over synapses: an event moves v at the start of its step."""
    steps = len(spikes)
    arriving = torch.zeros(steps, weight.shape[1], dtype=F64)
    for i, j in (weight != 0).nonzero().tolist():
        for k in spikes[:, i].nonzero().flatten().tolist():
            at = k + 1 + int(lags[i, j])
            if at < steps:
                arriving[at, j] += weight[i, j]
    v, out = torch.zeros(weight.shape[1], dtype=F64), []
    for k in range(steps):
        v = (v + arriving[k]) * math.exp(-0.1 / 20.0)
        out.append(v)
    return torch.stack(out)


@pytest.mark.parametrize("loop", ["reference", bt.Native(threads=1), bt.Native(threads=2)], ids=str)
@pytest.mark.parametrize("kind", ["drawn", "tensor", "matrix", "one weight"])
def test_every_synapse_has_its_own(kind: str, loop: Any) -> None:
    rule = AllToAll() if kind == "matrix" else FixedProbability(0.6)
    delay: Any = bt.init.Uniform(0.0, 2.5)
    if kind == "matrix":
        delay = torch.linspace(0.0, 2.5, 36, dtype=F64).reshape(6, 6)
    elif kind == "tensor":
        synapses = _network(rule, None).projections[PATHWAY].connect.synapses
        delay = torch.linspace(0.0, 2.5, synapses, dtype=F64)
    net = _network(rule, delay, 1.0 if kind == "one weight" else bt.init.Uniform(0.5, 1.5))
    pathway = net.projections[PATHWAY]
    sol = _run(net, loop)
    weight = pathway.connect.to_dense(pathway.weight)
    lags = pathway.connect.to_dense(torch.round(pathway.synaptic_delay.duration / 0.1))
    assert lags.max() >= 20 and len(lags.unique()) > 8
    torch.testing.assert_close(sol["v"], _expected(sol["out"], weight.to(F64), lags), rtol=1e-12, atol=1e-12)
    assert float(sol["v"].max()) > 0.5


@pytest.mark.parametrize("loop", ["reference", "native"])
@pytest.mark.parametrize("kind", ["source", "between"])
def test_sources_and_fractions_in_every_loop(kind: str, loop: str) -> None:
    duration = torch.tensor([0.1, 0.5, 0.3, 2.0, 0.7, 1.1], dtype=F64)
    exact = kind == "source"
    delay = duration if exact else Delay(duration + 0.04, interpolate=True, dtype=F64)
    sol = _run(_network(OneToOne(), delay), loop)
    lags = torch.round(duration / 0.1)[:, None].expand(6, 6)
    eye = torch.eye(6, dtype=F64)
    want = _expected(sol["out"], eye, lags)
    if not exact:
        want = 0.6 * want + 0.4 * _expected(sol["out"], eye, lags + 1)
    torch.testing.assert_close(sol["v"], want, rtol=1e-10, atol=1e-10)


def test_rings_are_written_in_place() -> None:

    for delay in (torch.full((6,), 0.7, dtype=F64), bt.init.Uniform(0.0, 3.0)):
        net = _network(FixedProbability(0.6), delay)
        state = bt.initial_state(net, dt=0.1)
        ring = state[PATHWAY]["delay"].ring.numel()
        body = Body(net, resolve(None, net), {}, state, 0.1)
        body.try_out(tree.leaves(state), 0)
        layout, _ = generate(body, trace(body, tree.leaves(state)))
        assert [buffer.role for buffer in layout.buffers if buffer.numel == ring] == ["state"]
        assert not any(buffer.numel == ring for buffer, _ in layout.copies)


def test_a_batch_is_its_samples() -> None:
    for delay in (bt.init.Uniform(0.0, 2.0), torch.linspace(0.1, 0.6, 6, dtype=F64)):
        net = _network(FixedProbability(0.6), delay)
        state = bt.initial_state(net, (2, 2), dt=0.1, seed=3)
        many = _run(net, "native", state=state)
        for index in ((0, 1), (1, 0)):
            own = torch.utils._pytree.tree_map(lambda x, index=index: x[index], state)
            assert torch.equal(many["v"][(slice(None), *index)], _run(net, "native", state=own)["v"])


def test_gradients_reach_delayed_weights() -> None:
    weight = nn.Parameter(torch.linspace(0.5, 1.5, 36, dtype=F64).reshape(6, 6))
    flat = nn.Parameter(weight.detach().flatten())
    delay = torch.linspace(0.0, 2.0, 36, dtype=F64).reshape(6, 6)
    with pytest.raises(ValueError, match=r"expected a 0-d tensor or one weight per synapse, \(36,\)"):
        _network(AllToAll(), delay, weight)
    net = _network(AllToAll(), delay, flat)
    loss = [_run(net, loop, 5.0).state["cell"].v.square().sum() for loop in ("reference", "native")]
    gradients = [torch.autograd.grad(x, flat)[0] for x in loss]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    assert float(gradients[0].abs().min()) >= 0.0 and bool((gradients[0] != 0).any())
    with torch.no_grad():
        flat[7] += 1e-6
        slope = (_run(net, "reference", 5.0).state["cell"].v.square().sum() - loss[0]) / 1e-6
    assert slope.item() == pytest.approx(gradients[0][7].item(), rel=1e-4, abs=1e-6)


def test_bad_delays_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"`Projection\(delay=...\)`: expected finite delays of at least 0 ms, got -1 ms"
    ):
        _network(FixedProbability(0.6), bt.init.Uniform(-1.0, -1.0))
    with pytest.raises(TypeError, match=r"`Projection\(delay=...\)`: expected ms, a tensor, an initialiser or a Delay"):
        bt.Projection(AllToAll(), delay="long")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected one delay, or one per source, since a rule sees"):
        _network(AllToAll(), torch.ones(6, 6, dtype=F64), plasticity=bt.plasticity.PairSTDP(0.1, 0.1))
    with pytest.raises(ValueError, match=r"`Delay\(duration=...\)`: expected one value or 6, one per source, got 5"):
        bt.initial_state(_network(AllToAll(), Delay(torch.ones(5))), dt=0.1)
    with pytest.raises(ValueError, match=r"`Delay\(duration=...\)`: expected a multiple of dt=0.1 ms, got 0.25 ms"):
        bt.initial_state(_network(AllToAll(), Delay(torch.tensor([0.1, 0.25, 0.1, 0.1, 0.1, 0.1]))), dt=0.1)
    with pytest.raises(ValueError, match=r"expected interpolate=True and a longest duration for an nn\.Parameter"):
        Delay(nn.Parameter(torch.ones(3)))
    with pytest.raises(
        ValueError, match=r"`Delay\(longest=...\)`: expected at least the largest duration, 3 ms, got 2.0"
    ):
        Delay(3.0, interpolate=True, longest=2.0)
    with pytest.raises(ValueError, match="expected a 0-d tensor or one value per source, got shape"):
        Delay(torch.ones(2, 2))
