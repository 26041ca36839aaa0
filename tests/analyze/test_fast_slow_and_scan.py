"""Fast-slow analysis, and scans by simulation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import bdtorch as bt
from bdtorch.analyze import fast_slow, scan


@pytest.fixture(scope="module")
def square_wave() -> Any:
    neuron = bt.neurons.HindmarshRose(1, b=2.5, i_ext=1.5, r=0.005, dtype=torch.float64)
    return fast_slow(neuron, slow="z", duration=1200.0, skip=200.0, dt=0.05, bounds=(-0.5, 3.0))


def test_the_fast_subsystem_folds_where_the_cubic_does(square_wave: Any) -> None:
    folds = square_wave.diagram.of("fold")
    assert sorted(float(p.x[0]) for p in folds) == pytest.approx([-5.0 / 3.0, 0.0], abs=1e-9)
    # z = c - a x^3 + (b - d) x^2 + I along the equilibria.
    for branch, drift in zip(square_wave.diagram.branches, square_wave.drift, strict=True):
        x, z = branch.x[:, 0], branch.parameter
        assert (z - (1.0 - x**3 - 2.5 * x**2 + 1.5)).abs().max() < 1e-9
        assert torch.allclose(drift, 0.005 * (4.0 * (x + 1.6) - z), atol=1e-12)


def test_the_trajectory_goes_round_between_the_folds(square_wave: Any) -> None:
    assert square_wave.names == ("x", "y", "z") and square_wave.ratio > 0.1
    z = square_wave.trajectory.x[:, 2]
    assert float(z.min()) < 0.3 and float(z.max()) > 2.4
    assert float(square_wave.trajectory.t[0]) > 200.0
    # While silent it stays by the lower branch of the fast subsystem.
    x = square_wave.trajectory.x[:, 0]
    silent = (x < -2.0) & (z > 0.5) & (z < 2.0)
    assert int(silent.sum()) > 100
    assert (z - (2.5 - x**3 - 2.5 * x**2))[silent].abs().max() < 0.15


def test_solved_and_simulated_trajectories_agree() -> None:
    options: dict[str, Any] = {"slow": "y", "duration": 30.0, "cycles": False}
    neuron = bt.neurons.FitzHughRinzel(1, mu=0.01, dtype=torch.float64)
    solved = fast_slow(neuron, samples=601, **options).trajectory
    simulated = fast_slow(neuron, dt=0.05, **options).trajectory
    assert (solved.x[1:] - simulated.x).abs().max() < 1e-5


def test_pictures(square_wave: Any) -> None:
    pytest.importorskip("matplotlib")
    ax = square_wave.plot(variable="y")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z", "y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slow": "q"}, "expected one of the variables"),
        ({"duration": 0.0}, "duration"),
        ({"skip": 60.0}, "within the duration"),
        ({"samples": 0}, "samples"),
        ({"bounds": (1.0, 0.0)}, "lower limit first"),
        ({"start": {"x": 0.0}}, "expected values of"),
        ({"dt": 0.1, "parameters": {"r": 0.01}}, "leave dt out"),
    ],
)
def test_bad_arguments_of_fast_slow(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fast_slow(bt.neurons.HindmarshRose(1), **{"slow": "z", "duration": 50.0, **options})


class Logistic(bt.DynamicalSystem):
    """x -> r x (1 - x): no derivative."""

    class State(NamedTuple):
        x: Tensor

    def __init__(self, size: int, r: float = 3.0) -> None:
        super().__init__(size, dtype=torch.float64)
        self.declare("r", r)

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        return self.State(x=self.fill(batch_shape, 0.3))

    def step(self, state: State, inputs: Any, t: Tensor, dt: float) -> tuple[State, Tensor]:
        x = self.r * state.x * (1.0 - state.x)
        return self.State(x=x), x


def test_scan_of_a_map() -> None:
    system = Logistic(1)
    result = scan(system, parameter="r", values=[2.5, 3.2, 3.5, 3.9], dt=1.0, duration=64.0, transient=4000.0)
    assert result.names == ("x",) and system.r == 3.0
    r = 3.2
    two = [(r + 1 + sign * math.sqrt((r - 3) * (r + 1))) / (2 * r) for sign in (-1, 1)]
    assert [float(result.minimum[1]), float(result.maximum[1])] == pytest.approx(two, abs=1e-12)
    assert float(result.minimum[0]) == pytest.approx(0.6, abs=1e-12) and len(result.peaks["x"][0]) == 0
    assert len(result.peaks["x"][2].mul(1e9).round().unique()) == 2  # of the cycle of four
    assert result.settled.tolist()[:3] == [True] * 3 and bool(result.finite.all())
    blown = scan(system, parameter="r", values=[2.5, 4.5], dt=1.0, duration=64.0, transient=400.0)
    assert blown.finite.tolist() == [True, False] and not bool(blown.settled[1]) and bool(blown.maximum[1].isnan())


def test_scan_agrees_with_the_cycles_that_continuation_finds() -> None:
    neuron = bt.rates.FitzHughNagumo(1, dtype=torch.float64)
    result = scan(neuron, parameter="inputs", values=[0.2, 0.7, 1.0], dt=0.05, duration=200.0, transient=400.0)
    diagram = bt.analyze.continuation(neuron, parameter="inputs", bounds=(0.0, 1.1))
    (branch,) = diagram.cycles
    stable = branch.stable.numpy()
    order = branch.parameter[stable].argsort()
    for value, top in zip((0.7, 1.0), result.maximum[1:, 0].tolist(), strict=True):
        p, high = branch.parameter[stable][order], branch.maximum[stable, 0][order]
        at = int(torch.searchsorted(p, value))
        near = sorted(high[at - 1 : at + 1].tolist())
        assert near[0] - 2e-3 < top < near[1] + 2e-3
    assert float(result.maximum[0, 0] - result.minimum[0, 0]) < 1e-6
    assert result.plot().get_xlabel() == "inputs"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"values": [1.0, 0.0]}, ValueError, "rise"),
        ({"values": []}, ValueError, "rise"),
        ({"values": [math.nan]}, ValueError, "rise"),
        ({"parameter": "q"}, ValueError, "'q' is no number"),
        ({"dt": 0.0}, ValueError, "dt"),
        ({"transient": -1.0}, ValueError, "transient"),
        ({"system": 3}, TypeError, "DynamicalSystem"),
        (
            {"system": bt.neurons.Refractory(bt.neurons.LIF(1), 1.0), "parameter": "neuron.tau"},
            TypeError,
            "expected floats",
        ),
    ],
)
def test_bad_arguments_of_scan(options: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"system": Logistic(1), "parameter": "r", "values": [1.0], "dt": 1.0, "duration": 8.0, "transient": 8.0}
    with pytest.raises(error, match=message):
        scan(**{**good, **options})
