"""LIF: closed forms and published traces."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import bdtorch as bt
from bdtorch.neurons import LIF, Refractory


def _cell(**options: Any) -> LIF:
    """C = 250 pF and tau = 10 ms: a resistance of 0.04 GOhm, so 1000 pA settle at 40 mV above rest."""
    return LIF(1, tau=10.0, v_rest=-70.0, v_reset=-70.0, v_th=-55.0, r=0.04, dtype=torch.float64, **options)


def _relative(**options: Any) -> LIF:
    return LIF(1, **{"tau": 10.0, "v_reset": 0.0, "v_th": 15.0, "r": 0.04, **options}, dtype=torch.float64)


def test_constant_current_gives_the_trace_of_nest() -> None:
    # NEST, testsuite/pytests/test_iaf_psc_alpha.py: 1000 pA from t = 0, dt 0.1 ms, refractory for 2 ms.
    record = {"v": bt.trace("v"), "spikes": bt.spikes()}
    sol = bt.simulate(Refractory(_cell(), 2.0), 1000.0, dt=0.1, duration=8.0, record=record, loop="reference")
    v = sol["v"][:, 0]
    want = torch.tensor([-69.602, -69.2079, -68.8178, -68.4316, -68.0492], dtype=torch.float64)
    torch.testing.assert_close(v[:5], want, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(v[46], torch.tensor(-55.0001, dtype=torch.float64), rtol=1e-6, atol=0.0)
    assert sol["spikes"].step.tolist() == [48]  # 4.8 ms
    assert (v[47:68] == -70.0).all() and v[68] > -70.0  # reset, 20 steps of refractoriness, and off again
    torch.testing.assert_close(v[68:73], want, rtol=1e-6, atol=0.0)


class _Source(bt.DynamicalSystem):
    """Puts out its input: a current generator."""

    def __init__(self, n: int) -> None:
        super().__init__(n, dtype=torch.float64)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Any:
        return {}

    def step(self, state: Any, inputs: Any, t: torch.Tensor, dt: float) -> tuple[Any, torch.Tensor]:
        return state, inputs.current.expand(self.size)


@pytest.mark.parametrize("chunks", [1, 21])
def test_current_through_a_delay_gives_the_trace_of_nest(chunks: int) -> None:
    # NEST, testsuite/pytests/test_iaf_psc_alpha_mindelay.py: 1000 pA through a delay of 2 ms. A step that reads the
    # output of the last one and a delay of 20 steps make the current act from 2.1 ms on.
    net = bt.Network(
        {"source": _Source(1), "cell": Refractory(_cell(), 2.0)},
        {("source", "cell"): bt.Projection(bt.connect.OneToOne(), 1.0, delay=2.0)},
    )
    state, v = None, []
    for k in range(chunks):
        sol = bt.simulate(
            net, {"source": 1000.0}, dt=0.1, t0=k * 10.5 / chunks, duration=10.5 / chunks, state=state,
            record={"v": bt.trace("cell.v")}, loop="reference",
        )  # fmt: skip
        state = sol.state
        v.append(sol["v"][:, 0])
    trace = torch.cat(v)
    assert trace.numel() == 105
    want = {3: -66.55725, 4: -63.07837, 5: -59.93054, 6: -57.08228, 9: -69.60199, 10: -65.83337}
    for ms, value in want.items():
        assert float(trace[10 * ms - 1]) == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("exponent", range(14))
def test_the_trace_does_not_depend_on_the_step(exponent: int) -> None:
    # NEST, testsuite/pytests/test_iaf_ps_dc_accuracy.py: V(5 ms) and V(500 ms) for steps of 2^0 ... 2^-13 ms.
    dt = 2.0**-exponent
    calm = _relative(v_th=1e3)
    sol = bt.simulate(calm, 1000.0, dt=dt, duration=5.0, record={}, loop="native")
    assert float(sol.state.v[0]) == pytest.approx(15.738773611494663, abs=1e-13)  # 40 (1 - e^-1/2)
    sol = bt.simulate(calm, 1000.0, dt=dt, duration=500.0, record={}, loop="native")
    assert float(sol.state.v[0]) == pytest.approx(40.0, abs=1e-9)  # after up to four million steps
    spikes = bt.simulate(_relative(), 1000.0, dt=dt, duration=5.0, record={"s": bt.spikes()}, loop="native")["s"]
    assert spikes.step[:1].tolist() == [math.ceil(4.700036292457356 / dt)]


def test_first_spikes_of_many_currents() -> None:
    # PyNN, test/system/scenarios: t = 25 + 20 ln(20 I / (20 I - 10)) ms for 20 MOhm, 20 ms, 10 mV, from 25 ms on.
    current = torch.linspace(0.51, 3.0, 83, dtype=torch.float64)
    cells = LIF(83, tau=20.0, v_rest=-65.0, v_reset=-65.0, v_th=-55.0, r=20.0, dtype=torch.float64)
    stimulus = bt.stimuli.Step(current, start=25.0)
    spikes = bt.simulate(cells, stimulus, dt=0.05, duration=150.0, record={"s": bt.spikes()}, loop="reference")["s"]
    first = torch.full((83,), torch.inf, dtype=torch.float64)
    first = first.scatter_reduce(0, spikes.index, spikes.times, "amin")
    want = 25.0 + 20.0 * torch.log(20.0 * current / (20.0 * current - 10.0))
    assert float(((first - want).abs() / want).max()) < 0.005
    assert bool((first >= want).all()) and bool((first <= want + 0.05 + 1e-9).all())  # the next point of the grid


def test_conductance_and_current_relax_to_their_equilibrium() -> None:
    # tau v' = -v + I - g v: v(t) = I / (1 + g) (1 - exp(-(1 + g) t / tau)).
    drive = bt.Drive(torch.tensor(8.0, dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64))
    sol = bt.simulate(_relative(r=1.0), drive, dt=0.5, duration=20.0, record={"v": bt.trace("v")}, loop="reference")
    want = 8.0 / 2.5 * -torch.expm1(-2.5 * sol.t / 10.0)
    torch.testing.assert_close(sol["v"][:, 0], want, rtol=1e-13, atol=0.0)


def test_a_jump_acts_at_the_start_of_the_step() -> None:
    drive = bt.Drive(jump=torch.tensor(10.0, dtype=torch.float64))
    cell = _relative()
    state, spike = cell.step(cell.init_state(), drive, torch.zeros((), dtype=torch.float64), 1.0)
    assert float(state.v[0]) == pytest.approx(10.0 * math.exp(-0.1), rel=1e-14)
    assert not spike


def test_surrogate_spikes_have_the_values_of_boolean_ones() -> None:
    drive = 50.0 + 40.0 * torch.sin(torch.arange(400.0))[:, None].expand(400, 3)
    plain = bt.simulate(LIF(3), drive, dt=0.5, loop="reference").out
    smooth = bt.simulate(LIF(3, surrogate=bt.surrogate.Arctan()), drive, dt=0.5, loop="reference").out
    assert plain.dtype == torch.bool and plain.any()
    assert smooth.dtype == torch.float32 and torch.equal(smooth != 0, plain) and torch.equal(smooth, plain.float())


def test_gradient_of_the_drive_flows_through_spikes() -> None:
    drive = torch.full((60, 2), 40.0, requires_grad=True)
    out = bt.simulate(LIF(2, surrogate=bt.surrogate.Arctan()), drive, dt=0.5).out
    out.sum().backward()
    assert out.sum() > 0 and drive.grad is not None and bool((drive.grad[:10] > 0).all())
