"""Synapses and receptors against closed forms, on any grid."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from scipy.special import lambertw
from torch import Tensor

import bdtorch as bt
from bdtorch.synapses import Alpha, Conductance, Current, DualExponential, Exponential, Jump, MagnesiumBlock


def _exponential(t: Tensor) -> Tensor:
    return torch.exp(-t / 5.0)


def _alpha(t: Tensor) -> Tensor:
    return t / 2.0 * torch.exp(1.0 - t / 2.0)


def _dual(t: Tensor) -> Tensor:
    peak = 1.5 * 6.0 / 4.5 * math.log(6.0 / 1.5)
    return (torch.exp(-t / 6.0) - torch.exp(-t / 1.5)) / (math.exp(-peak / 6.0) - math.exp(-peak / 1.5))


SYNAPSES = [
    pytest.param(lambda **o: Exponential(5.0, **o), _exponential, id="Exponential"),
    pytest.param(lambda **o: Alpha(2.0, **o), _alpha, id="Alpha"),
    pytest.param(lambda **o: DualExponential(1.5, 6.0, **o), _dual, id="DualExponential"),
]


def _course(make: Any, events: Tensor, dt: float) -> Tensor:
    """``g`` at the start of each step, for events ``(time,)`` at the starts of steps."""
    sol = bt.simulate(make(dtype=torch.float64), events[:, None], dt=dt, batch_shape=(1,), loop="reference")
    return sol.out[:, 0]


@pytest.mark.parametrize(("make", "kernel"), SYNAPSES)
@pytest.mark.parametrize("dt", [0.1, 0.25, 1.0, 3.0])
def test_one_event_gives_the_closed_form_for_any_step(make: Any, kernel: Any, dt: float) -> None:
    steps = round(30.0 / dt)
    events = torch.zeros(steps, dtype=torch.float64)
    events[0] = 0.7
    times = torch.arange(steps, dtype=torch.float64) * dt
    torch.testing.assert_close(_course(make, events, dt), 0.7 * kernel(times), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("make", "kernel"), SYNAPSES)
def test_events_add(make: Any, kernel: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    events = torch.randn(60, generator=generator, dtype=torch.float64)
    times = torch.arange(60, dtype=torch.float64) * 0.4
    lags = times[:, None] - times[None, :]
    want = torch.where(lags >= 0, kernel(lags.clamp(min=0.0)), 0.0) @ events
    torch.testing.assert_close(_course(make, events, 0.4), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "peak"),
    [(lambda: Alpha(2.0, dtype=torch.float64), 2.0),
     (lambda: DualExponential(1.5, 6.0, dtype=torch.float64), 2.0 * math.log(4.0))],
    ids=["Alpha", "DualExponential"],
)  # fmt: skip
def test_a_single_event_peaks_at_its_weight(make: Any, peak: float) -> None:
    # One step of exactly the time to the peak.
    synapse = make()
    t = torch.zeros((), dtype=torch.float64)
    state, _ = synapse.step(synapse.init_state((1,)), torch.tensor([0.3], dtype=torch.float64), t, peak)
    _, g = synapse.step(state, torch.zeros(1, dtype=torch.float64), t, 1.0)
    assert float(g) == pytest.approx(0.3, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_time_constants_may_differ_and_be_trained(dtype: torch.dtype) -> None:
    tau = torch.nn.Parameter(torch.tensor([2.0, 5.0], dtype=dtype))
    synapse = DualExponential(torch.tensor([1.0, 4.9], dtype=dtype), tau, dtype=dtype)
    drive = torch.zeros(20, 2, dtype=dtype)
    drive[0] = 1.0
    out = bt.simulate(synapse, drive, dt=0.5, batch_shape=(2,)).out
    for column, (rise, fall) in enumerate([(1.0, 2.0), (4.9, 5.0)]):
        alone = DualExponential(rise, fall, dtype=dtype)
        want = bt.simulate(alone, drive[:, :1], dt=0.5, batch_shape=(1,), loop="reference").out[:, 0]
        torch.testing.assert_close(
            out[:, column].detach(), want, rtol=1e-3 if dtype == torch.float32 else 1e-10, atol=1e-6
        )
    (gradient,) = torch.autograd.grad(out.sum(), tau)
    assert gradient.isfinite().all() and (gradient != 0).all()


class _Membrane(bt.Flow):
    """An alpha current into a passive membrane, as one flow: tau 20 and 0.5 ms."""

    class State(NamedTuple):
        v: Tensor
        g: Tensor
        h: Tensor

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(*(self.fill(batch_shape, value) for value in (0.0, 0.0, math.e / 0.5)))

    def derivative(self, state: State, inputs: Any, t: Tensor) -> State:
        v, g, h = state
        return self.State(v=-v / 20.0 + g, g=h - g / 0.5, h=-h / 0.5)


def test_the_alpha_potential_peaks_where_lambert_says() -> None:
    # NEST, testsuite/pytests/test_iaf_psp_peak.py: 2.756585476770 ms for tau_m 20 and tau_syn 0.5 ms.
    gap = 1.0 / 0.5 - 1.0 / 20.0
    closed = -(lambertw(-math.exp(-0.5 / 20.0) / 20.0 * 0.5, -1).real + 0.5 / 20.0) / gap
    assert closed == pytest.approx(2.756585476770, abs=1e-10)
    flow = _Membrane(1, integrator=bt.integrate.RK4(), dtype=torch.float64)
    sol = bt.simulate(flow, dt=1 / 1024, duration=2.75, record={}, loop="native")

    def slope(ahead: float) -> float:
        t = torch.tensor(2.75, dtype=torch.float64)
        state, _ = flow.step(sol.state, None, t, ahead)
        return float(flow.derivative(state, None, t).v)

    low, high = 0.0, 0.02
    assert slope(low) > 0 > slope(high)
    while high - low > 1e-13:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    assert 2.75 + low == pytest.approx(closed, abs=1e-10)


@pytest.mark.parametrize(
    "synapse", [Exponential(5.0), Alpha(2.0), DualExponential(1.5, 6.0)], ids=lambda s: type(s).__name__
)
def test_an_event_moves_a_membrane_by_its_charge(synapse: Any) -> None:
    # The area under the potential of a passive membrane is R times the charge, whatever the time course; a synapse that
    # lags by a step, or loses an event, fails.
    area = {
        "Exponential": 5.0,
        "Alpha": math.e * 2.0,
        "DualExponential": float(_dual(torch.arange(0, 200, 1e-3)).sum() * 1e-3),
    }
    dt = 0.02
    net = bt.Network(
        {"source": bt.stimuli.Poisson(1), "cell": bt.neurons.LIF(1, tau=10.0, v_th=1e6)},
        {("source", "cell"): bt.Projection(bt.connect.OneToOne(), 3.0, synapse)},
    ).to(torch.float64)
    rates = torch.zeros(10_000, 1, dtype=torch.float64)
    rates[5] = 1000.0 / dt  # a spike with certainty
    sol = bt.simulate(net, {"source": rates}, dt=dt, record={"v": bt.trace("cell.v")}, loop="native")
    got = float(sol["v"].sum()) * dt
    assert got == pytest.approx(3.0 * area[type(synapse).__name__], rel=dt)
    assert (sol["v"][:6] == 0).all() and sol["v"][7] > 0


def test_receptors() -> None:
    g, v = torch.tensor([2.0, 0.5]), torch.tensor([-60.0, -40.0])
    assert Current()(g).at(v).tolist() == [2.0, 0.5]
    assert Jump()(g).jump.tolist() == [2.0, 0.5] and Jump()(g).at(v) == 0.0
    torch.testing.assert_close(Conductance(-80.0)(g).at(v), g * (-80.0 - v))
    block = 1.0 / (1.0 + 1.2 / 3.57 * torch.exp(-0.062 * v))
    torch.testing.assert_close(MagnesiumBlock(5.0, mg=1.2)(g, v).at(v), g * block * (5.0 - v))
    torch.testing.assert_close(MagnesiumBlock(5.0, mg=0.0)(g, v).at(v), g * (5.0 - v))
    with pytest.raises(ValueError, match=r"`MagnesiumBlock\(v=...\)`: expected the postsynaptic potential, got None"):
        MagnesiumBlock()(g)


def test_drives_add_and_are_affine() -> None:
    v = torch.tensor([-60.0, -40.0])
    one, other = (
        bt.Drive(torch.tensor(3.0), torch.tensor(0.5)),
        bt.Drive(conductance=torch.tensor(0.25), jump=torch.tensor(1.0)),
    )
    both = one.plus(other)
    torch.testing.assert_close(both.at(v), 3.0 - 0.75 * v)
    assert both.slope == -0.75 and both.jump == 1.0
    assert bt.Drive().at(v) == 0.0 and bt.Drive().slope == 0.0 and bt.Drive.of(None) == bt.Drive()
    assert bt.Drive.of(both) is both
