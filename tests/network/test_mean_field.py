"""Sparse networks of integrate-and-fire cells against the mean-field theory of their rate.

Sources: Siegert (1951), doi:10.1103/PhysRev.81.617; Brunel (2000), doi:10.1023/A:1008925309027.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, optimize, special

import bdtorch as bt
from benchmarks import brunel

DT, SETTLED, DURATION = 0.1, 300.0, 1500.0  # ms
TAU, REFRACTORY, V_TH, V_RESET, DRIVE = 20.0, 2.0, 20.0, 10.0, 30.0  # ms, mV
# How much further away a barrier lies, in units of the step's deviation, for a Brownian path that is looked at in steps:
# -zeta(1/2) / sqrt(2 pi); Asmussen, Glynn & Pitman (1995), doi:10.1214/aoap/1177004597.
OF_STEPS = 0.5826


def siegert(mu: float, sigma: float) -> float:
    """Spikes per ms of a cell whose drive has mean ``mu`` and deviation ``sigma`` (both mV, of noise per time constant)."""
    barrier = V_TH + OF_STEPS * sigma * math.sqrt(DT / TAU)
    scaled = integrate.quad(lambda u: special.erfcx(-u), (V_RESET - mu) / sigma, (barrier - mu) / sigma)[0]
    return 1.0 / (REFRACTORY + TAU * math.sqrt(math.pi) * scaled)


def consistent_rate(excitatory: int, inhibitory: int, j: float, g: float) -> float:
    """The rate, Hz, at which cells fire that hear so many others, which fire at that rate."""

    def excess(rate: float) -> float:
        events = rate * 1e-3 * TAU
        mean = DRIVE + events * j * (excitatory - g * inhibitory)
        return siegert(mean, j * math.sqrt(events * (excitatory + g**2 * inhibitory))) * 1e3 - rate

    return float(optimize.brentq(excess, 0.5, 200.0))


def simulated_rate(net: bt.Network) -> float:
    sol = bt.simulate(net, DRIVE, dt=DT, duration=DURATION, record={name: bt.spikes(name) for name in "EI"})
    steps = torch.cat([sol[name].pairs[:, 0] for name in "EI"])
    neurons = sum(net.populations[name].count for name in "EI")
    return float((steps > SETTLED / DT).sum()) / neurons / (DURATION - SETTLED) * 1e3


def test_network_c_fires_at_the_rate_of_the_theory() -> None:
    # Jumps of 1.2 mV are not small beside the 10 mV from reset to threshold, and with random numbers of inputs cells
    # differ, so that the rate of a draw depends on its 2,000 inhibitory ones: 10.5 to 12.2 Hz in five draws.
    expected = consistent_rate(800, 200, 0.2, 6.0)
    assert expected == pytest.approx(11.3, abs=0.1)
    assert simulated_rate(brunel.build()) == pytest.approx(expected, rel=0.1)


def test_small_jumps_from_fixed_numbers_of_inputs() -> None:
    def cells(n: int) -> bt.DynamicalSystem:
        lif = bt.neurons.LIF(n, tau=TAU, v_rest=0.0, v_reset=V_RESET, v_th=V_TH, v_init=bt.init.Uniform(0.0, V_TH))
        return bt.neurons.Refractory(lif, period=REFRACTORY)

    def project(n: int, weight: float) -> bt.Projection:
        return bt.Projection(bt.connect.FixedNumberPost(n), weight=weight, receptor=bt.synapses.Jump(), delay=1.5)

    routes = {("E", ("E", "I")): project(800, 0.1), ("I", ("E", "I")): project(200, -0.6)}
    net = bt.Network({"E": cells(8000), "I": cells(2000)}, routes, seed=1)
    assert simulated_rate(net) == pytest.approx(consistent_rate(800, 200, 0.1, 6.0), rel=0.03)
