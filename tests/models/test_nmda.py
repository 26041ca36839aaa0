"""The saturating NMDA synapse against its equations, solved by SciPy between spikes; and in a network, against dense sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import bdtorch as bt

TAU_RISE, TAU_DECAY, ALPHA = 2.0, 100.0, 0.5


def _solved(spikes: list[float], until: float) -> tuple[float, float]:
    """x and s at ``until``, by an adaptive method that is started anew at every spike."""
    x, s, now = 0.0, 0.0, 0.0
    for stop in [*spikes, until]:
        if stop > now:
            found = solve_ivp(
                lambda _, y: [-y[0] / TAU_RISE, -y[1] / TAU_DECAY + ALPHA * y[0] * (1.0 - y[1])],
                (now, stop), [x, s], rtol=1e-11, atol=1e-13,
            )  # fmt: skip
            x, s = found.y[:, -1]
        now = stop
        x += float(stop in spikes and stop != until)
    return x, s


def _simulated(spikes: list[float], until: float, dt: float) -> bt.synapses.NMDA.State:
    train = torch.zeros(round(until / dt), 1, dtype=torch.bool)
    train[[round(time / dt) for time in spikes]] = True
    gate = bt.synapses.NMDA(TAU_RISE, TAU_DECAY, alpha=ALPHA, dtype=torch.float64)
    return bt.simulate(gate, train, dt=dt, batch_shape=(1,), progress=False).state


def test_gates_follow_their_equations_to_second_order() -> None:
    spikes, until = [1.0, 4.0, 5.0, 30.0, 31.0], 60.0
    x, s = _solved(spikes, until)
    errors = []
    for dt in (0.5, 0.25, 0.125):
        state = _simulated(spikes, until, dt)
        assert float(state.x) == pytest.approx(x, rel=1e-12)  # exact
        errors.append(abs(float(state.s) - s))
    assert errors[-1] < 2e-5
    slopes = np.diff(np.log2(errors))
    assert (slopes < -1.8).all()


def test_one_spike_opens_what_the_integral_of_its_drive_says() -> None:
    """Where decay is slow, ``1 - s`` falls by the factor ``exp(-alpha tau_rise)``."""
    gate = bt.synapses.NMDA(TAU_RISE, 1e9, alpha=ALPHA, dtype=torch.float64)
    train = torch.zeros(400, 1, dtype=torch.float64)
    train[0] = 1.0
    state = bt.simulate(gate, train, dt=0.1, batch_shape=(1,), progress=False).state
    assert float(state.s) == pytest.approx(1.0 - math.exp(-ALPHA * TAU_RISE), rel=1e-6)


def test_gates_saturate_and_stay_fractions() -> None:
    gate = bt.synapses.NMDA(TAU_RISE, TAU_DECAY, alpha=ALPHA, dtype=torch.float64)
    s = bt.simulate(gate, torch.ones(3000, 1, dtype=torch.float64), dt=0.5, batch_shape=(1,), progress=False).out
    assert 0.99 < float(s[-1]) < 1.0
    assert bool((s >= 0).all() and (s <= 1).all())


def test_output_is_the_gate_before_its_spike_acts() -> None:
    gate = bt.synapses.NMDA()
    state, out = gate.step(gate.init_state((1,)), torch.ones(1, dtype=torch.bool), torch.zeros(()), 0.1)
    assert float(out) == 0.0
    assert float(state.s) > 0.0


def test_a_projection_sums_gates_over_groups() -> None:
    """Against gates of the spikes by themselves, and a dense matrix."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    connect = bt.connect.Groups((2, 3), (1, 2))
    projection = bt.Projection(connect, weight, presynaptic=bt.synapses.NMDA(), delay=0.3)
    network = bt.Network(
        {"P": bt.stimuli.Poisson(5, 800.0, dtype=torch.float64), "E": bt.neurons.LIF(3, v_th=1e9, dtype=torch.float64)},
        {("P", "E"): projection},
    )
    record = {"p": lambda state, out: out["P"], "s": bt.trace("P->E.presynaptic.s"), "v": bt.trace("E.v")}
    sol = bt.simulate(network, dt=0.1, duration=20.0, record=record, progress=False)
    shifted = torch.cat([torch.zeros(4, 5, dtype=torch.bool), sol["p"][:-4]])  # a step, and three of the delay
    gate = bt.synapses.NMDA(dtype=torch.float64)
    s = bt.simulate(gate, shifted, dt=0.1, batch_shape=(5,), record={"s": bt.trace("s")}, progress=False, keep_out=True)
    torch.testing.assert_close(sol["s"], s["s"])
    drive = s.out @ connect.to_dense(weight)
    neuron = bt.neurons.LIF(3, v_th=1e9, dtype=torch.float64)
    v = bt.simulate(neuron, drive, dt=0.1, record={"v": bt.trace("v")}, progress=False)["v"]
    torch.testing.assert_close(sol["v"], v)


@pytest.mark.parametrize("argument", ["tau_rise", "tau_decay", "alpha"])
def test_constants_are_positive(argument: str) -> None:
    with pytest.raises(ValueError, match=rf"`NMDA\({argument}=...\)`"):
        bt.synapses.NMDA(**{argument: -1.0})


def test_the_slot_takes_presynaptic_dynamics_only() -> None:
    with pytest.raises(TypeError, match=r"`Projection\(presynaptic=...\)`: expected a Presynaptic object"):
        bt.Projection(bt.connect.AllToAll(), presynaptic=bt.synapses.Exponential(5.0))  # type: ignore[arg-type]
