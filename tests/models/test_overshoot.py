"""A step that overshoots the peak of an exponential upstroke leaves finite values, for every integrator and dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bdtorch as bt
from bdtorch.integrate import RK4, Euler, ExponentialEuler, Heun, Midpoint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("integrator", [Euler(), Midpoint(), Heun(), RK4(), ExponentialEuler()])
@pytest.mark.parametrize("make", [bt.neurons.AdEx, bt.neurons.ExpIF], ids=lambda make: make.__name__)
def test_high_peaks_and_coarse_steps(make: Any, integrator: Any, dtype: torch.dtype) -> None:
    peak = {"v_peak": 0.0} if make is bt.neurons.AdEx else {"v_th": 0.0}
    current = 1000.0 if make is bt.neurons.AdEx else 40.0
    cell = make(1, integrator=integrator, dtype=dtype, **peak)
    record = {"s": bt.spikes(), "v": bt.trace("v")}
    sol = bt.simulate(cell, current, dt=0.1, duration=100.0, record=record, loop="native")
    assert len(sol["s"]) >= 4  # and `simulate` would have raised at a value that is not finite
    assert float(sol["v"].max()) < 0.0
