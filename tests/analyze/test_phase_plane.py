"""Phase planes against closed forms and published values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import root

import bdtorch as bt
from bdtorch.analyze import equilibrium_type, phase_plane

SQUARE = {"x": (-2.0, 2.0), "y": (-2.0, 2.0)}


def _bautin(s: Any, p: Any) -> dict[str, Any]:
    """In polar coordinates r' = r (a + 2 r^2 - r^4), angle' = 2."""
    x, y = s["x"], s["y"]
    square = x * x + y * y
    growth = p["a"] + 2.0 * square - square**2
    return {"x": growth * x - 2.0 * y, "y": growth * y + 2.0 * x}


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        ([[-1.0]], "stable"), ([[2.0]], "unstable"), ([[0.0]], "saddle-node"), ([[-1, 0], [0, -2]], "stable node"),
        ([[1, 0], [0, 2]], "unstable node"), ([[1, 0], [0, -2]], "saddle"), ([[-1, 3], [-3, -1]], "stable focus"),
        ([[1, 3], [-3, 1]], "unstable focus"), ([[0, 3], [-3, 0]], "centre"), ([[-2, 0], [0, -2]], "stable star"),
        ([[1, 1], [0, 1]], "unstable degenerate node"), ([[0, 0], [0, -1]], "saddle-node"),
        ([[0, 1], [0, 0]], "non-hyperbolic"), ([[1, 0, 0], [0, -1, 4], [0, -4, -1]], "saddle-focus"),
        ([[-3, 0, 0], [0, -1, 4], [0, -4, -1]], "stable focus"), ([[0, 1, 0], [-1, 0, 0], [0, 0, -1]], "non-hyperbolic"),
    ],
)  # fmt: skip
def test_types(matrix: list[list[float]], kind: str) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((len(matrix), len(matrix))))[0]
    for scale in (1e-4, 1.0, 1e4):
        assert equilibrium_type(torch.tensor(scale * turn.T @ np.array(matrix, dtype=float) @ turn)) == kind


def test_one_variable_and_the_root_at_a_bifurcation() -> None:
    cubic = phase_plane(lambda s, p: [s["x"] - s["x"] ** 3], {"x": (-2.0, 2.0)})
    assert [(round(float(f.x), 12), f.type) for f in cubic.fixed_points] == [
        (-1, "stable"),
        (0, "unstable"),
        (1, "stable"),
    ]
    fold = phase_plane(lambda s, p: [s["x"] ** 2], {"x": (-1.0, 1.3)})
    assert [f.type for f in fold.fixed_points] == ["saddle-node"]
    assert phase_plane(lambda s, p: [1.0 + s["x"] ** 2], {"x": (-1.0, 1.0)}).fixed_points == ()


def test_nullclines_lie_on_their_curves_horizontal_and_vertical_ones_too() -> None:
    plane = phase_plane(lambda s, p: (s["y"], s["x"] * (s["x"] - 1.0)), SQUARE, cycles=False)
    (flat,) = plane.nullclines["x"]
    assert flat[:, 1].abs().max() < 1e-15 and flat[:, 0].amin() == -2.0 and flat[:, 0].amax() == 2.0
    upright = sorted(round(float(c[:, 0].mean()), 12) for c in plane.nullclines["y"])
    assert upright == [0.0, 1.0]
    assert [f.type for f in plane.fixed_points] == ["centre", "saddle"]
    circle = phase_plane(lambda s, p: (s["x"] ** 2 + s["y"] ** 2 - 1.0, s["x"]), SQUARE, cycles=False)
    (ring,) = circle.nullclines["x"]
    assert torch.equal(ring[0], ring[-1]) and (ring.norm(dim=1) - 1.0).abs().max() < 1e-12


def test_a_pole_is_no_nullcline() -> None:
    plane = phase_plane(lambda s, p: (1.0 / (s["x"] - 0.013), s["x"] - s["y"]), SQUARE, cycles=False)
    assert plane.nullclines["x"] == () and plane.fixed_points == ()


def test_the_period_of_van_der_pol() -> None:
    def oscillator(s: Any, p: Any) -> tuple[Any, Any]:
        return s["y"], p["mu"] * (1.0 - s["x"] ** 2) * s["y"] - s["x"]

    plane = phase_plane(oscillator, {"x": (-3.0, 3.0), "y": (-4.0, 4.0)}, parameters={"mu": 1.0})
    (cycle,) = plane.cycles
    assert cycle.period == pytest.approx(6.6632868593231301896996820305, rel=1e-10)  # Andersen & Geer (1982)
    assert cycle.stable and abs(complex(cycle.multipliers[0]) - 1.0) < 1e-8
    assert float(cycle.x[:, 0].amax()) == pytest.approx(2.0086, abs=2e-3)
    assert [f.type for f in plane.fixed_points] == ["unstable focus"]


def test_stable_and_unstable_cycles_with_their_multipliers() -> None:
    a = -0.5
    plane = phase_plane(_bautin, SQUARE, parameters={"a": a})
    found = {c.stable: c for c in plane.cycles}
    assert set(found) == {True, False} and len(plane.cycles) == 2
    for stable, cycle in found.items():
        square = 1.0 + (1.0 if stable else -1.0) * math.sqrt(1.0 + a)
        assert (cycle.x.norm(dim=1) - math.sqrt(square)).abs().max() < 1e-8
        assert cycle.period == pytest.approx(math.pi, rel=1e-10)
        floquet = math.exp(math.pi * (4.0 * square - 4.0 * square**2))
        assert float(cycle.multipliers[1].real) == pytest.approx(floquet, rel=1e-5, abs=1e-7)


def test_wilson_cowan_against_scipy() -> None:
    # Bistable: three equilibria (Wilson & Cowan 1972, figure 4).
    weights = {"w_ee": 12.0, "w_ei": 4.0, "w_ie": 13.0, "w_ii": 11.0}
    system = bt.rates.WilsonCowan(1, **weights)
    plane = phase_plane(system, {"e": (-0.05, 0.55), "i": (-0.05, 0.4)})

    def slope(y: np.ndarray) -> list[float]:
        def response(x: float, a: float, theta: float) -> float:
            return 1 / (1 + np.exp(-a * (x - theta))) - 1 / (1 + np.exp(a * theta))

        e, i = y
        return [(1 - e) * response(12 * e - 4 * i, 1.2, 2.8) - e, (1 - i) * response(13 * e - 11 * i, 1.0, 4.0) - i]

    wanted: list[np.ndarray] = []
    for start in np.random.default_rng(0).uniform(0.0, 0.5, (200, 2)):
        solved = root(slope, start, tol=1e-13)
        if solved.success and all(np.abs(solved.x - w).max() > 1e-6 for w in wanted):
            wanted.append(solved.x)
    wanted.sort(key=tuple)
    assert len(wanted) == len(plane.fixed_points) == 3
    np.testing.assert_allclose(np.stack([f.x for f in plane.fixed_points]), wanted, atol=1e-10)
    assert [f.stable for f in plane.fixed_points] == [True, False, True]
    assert plane.fixed_points[1].type == "saddle"


def test_trajectories_and_pictures() -> None:
    pytest.importorskip("matplotlib")
    plane = phase_plane(_bautin, SQUARE, parameters={"a": -0.5}, starts=[{"x": 1.0, "y": 0.0}], duration=40.0)
    assert float(plane.trajectories[0].x[-1].norm()) == pytest.approx(math.sqrt(1.0 + math.sqrt(0.5)), rel=1e-6)
    ax = plane.plot()
    assert ax.get_xlabel() == "x" and len(ax.lines) >= 6
    with pytest.raises(TypeError, match="axes"):
        plane.plot(ax=3)  # type: ignore[arg-type]
    line = phase_plane(lambda s, p: [-s["x"]], {"x": (-1.0, 1.0)})
    assert line.plot().get_ylabel() == "dx/dt"


@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        ({"x": (1.0, -1.0), "y": (0.0, 1.0)}, {}, "lower limit first"),
        ({"x": (1.0, 1.0), "y": (0.0, 1.0)}, {}, "lower limit first"),
        ({"x": (float("nan"), 1.0), "y": (0.0, 1.0)}, {}, "lower limit first"),
        ({"x": 3.0, "y": (0.0, 1.0)}, {}, "lower limit first"),
        ({"x": ("a", "b"), "y": (0.0, 1.0)}, {}, "lower limit first"),
        ({**SQUARE, "z": (0.0, 1.0)}, {}, r"fixed=\{'z': 0.0\}"),
        (SQUARE, {"duration": 0.0}, "duration"),
        (SQUARE, {"resolution": 1}, "resolution"),
        (SQUARE, {"starts": [{"x": 1.0}]}, "starts"),
    ],
)
def test_bad_arguments(window: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        phase_plane(lambda s, p: {k: -v for k, v in s.items()}, window, **options)


def test_more_than_two_variables_need_others_held() -> None:
    neuron = bt.neurons.HindmarshRose(1)
    with pytest.raises(ValueError, match="fixed="):
        phase_plane(neuron, {"x": (-2.0, 2.0), "y": (-15.0, 2.0)})
    plane = phase_plane(neuron, {"x": (-2.0, 2.0), "y": (-15.0, 2.0)}, fixed={"z": 0.0}, cycles=False)
    # x^3 + 2 x^2 = 1 has the root -1 and (-1 +- sqrt 5) / 2.
    roots = sorted([-1.0, (-1 - 5**0.5) / 2, (-1 + 5**0.5) / 2])
    np.testing.assert_allclose([float(f.x[0]) for f in plane.fixed_points], roots, atol=1e-10)


def test_what_is_not_finite_in_the_window_is_said() -> None:
    with pytest.raises(ValueError, match="not finite at x="):
        phase_plane(lambda s, p: (s["x"].log(), s["y"]), {"x": (-1.0, 3.0), "y": (0.0, 1.0)})
    with pytest.raises(ValueError, match="derivative of y is zero everywhere"):
        phase_plane(lambda s, p: (s["x"], 0.0), {"x": (-1.0, 3.0), "y": (0.0, 1.0)})


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_neither_units_nor_time_scales_change_the_picture(unit: float) -> None:
    def oscillator(s: Any, p: Any) -> tuple[Any, Any]:
        x, y = s["x"] / unit, s["y"] * unit
        return 1e3 * unit * y, 1e3 * ((1.0 - x**2) * y - x) / unit

    plane = phase_plane(oscillator, {"x": (-3.0 * unit, 3.0 * unit), "y": (-4.0 / unit, 4.0 / unit)})
    (cycle,) = plane.cycles
    assert cycle.period == pytest.approx(6.6632868593231301897e-3, rel=1e-9)
    assert abs(complex(cycle.multipliers[0]) - 1.0) < 1e-8
    assert [f.type for f in plane.fixed_points] == ["unstable focus"]


def test_equilibria_of_slow_and_of_widely_spread_fields_have_their_types() -> None:
    slow = phase_plane(lambda s, p: [1e-9 * (s["x"] - s["x"] ** 3)], {"x": (-2.0, 2.0)})
    assert [f.type for f in slow.fixed_points] == ["stable", "unstable", "stable"]
    spread = phase_plane(
        lambda s, p: [(s["x"] / 1e-6) ** 2 - 0.25, -s["y"]], {"x": (-1e-6, 1e-6), "y": (-1.0, 1.0)}, cycles=False
    )
    assert [f.type for f in spread.fixed_points] == ["stable node", "saddle"]
    monkey = phase_plane(lambda s, p: [s["x"] ** 2 - s["y"] ** 2, -2.0 * s["x"] * s["y"]], SQUARE, cycles=False)
    assert [f.type for f in monkey.fixed_points] == ["non-hyperbolic"]


@pytest.mark.parametrize("mu", [10.0, 50.0])
def test_relaxation_oscillations_are_found(mu: float) -> None:
    def oscillator(s: Any, p: Any) -> tuple[Any, Any]:
        return s["y"], mu * (1.0 - s["x"] ** 2) * s["y"] - s["x"]

    (cycle,) = phase_plane(oscillator, {"x": (-3.0, 3.0), "y": (-1.6 * mu, 1.6 * mu)}).cycles

    def upward(t: float, y: np.ndarray) -> float:
        return float(y[0])

    upward.direction = 1.0  # type: ignore[attr-defined]
    solved = solve_ivp(
        lambda t, y: oscillator({"x": y[0], "y": y[1]}, {}), (0.0, 5.0 * mu), (2.0, 0.0), method="LSODA", rtol=1e-10,
        atol=1e-12, events=upward,
    )  # fmt: skip
    assert cycle.period == pytest.approx(solved.t_events[0][-1] - solved.t_events[0][-2], rel=1e-6)
    assert cycle.stable and float(cycle.multipliers[1].abs()) < 1e-100


def test_a_nest_of_cycles_is_found_from_one_to_the_next() -> None:
    def nest(s: Any, p: Any) -> list[Any]:
        square = s["x"] ** 2 + s["y"] ** 2
        growth = -5.0 * (square - 1.0) * (square - 1.21) * (square - 1.44)
        return [s["x"] * growth - s["y"], s["y"] * growth + s["x"]]

    cycles = sorted(phase_plane(nest, SQUARE).cycles, key=lambda c: float(c.amplitude[0]))
    assert [c.stable for c in cycles] == [True, False, True]
    for cycle, radius in zip(cycles, (1.0, 1.1, 1.2), strict=True):
        assert (cycle.x.norm(dim=1) - radius).abs().max() < 1e-8


def test_what_is_not_isolated_is_said() -> None:
    def remarks(function: Any, **options: Any) -> str:
        return " ".join(phase_plane(function, SQUARE, **options).remarks)

    def one_sided(s: Any, p: Any) -> list[Any]:
        growth = (1.0 - s["x"] ** 2 - s["y"] ** 2) ** 2
        return [s["x"] * growth - s["y"], s["y"] * growth + s["x"]]

    assert "stable on one side only" in remarks(one_sided)
    assert "form a curve" in remarks(lambda s, p: [s["y"] - s["x"], s["x"] - s["y"]], cycles=False)
    assert "form a curve" in remarks(lambda s, p: [-s["x"], s["x"] * s["y"]], cycles=False)


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (lambda s, p: [math.sin(s["y"].item()), -s["x"]], {}, ValueError, "torch operations all the way"),
        (lambda s, p: [s["y"] * 1j, -s["x"]], {}, TypeError, "complex"),
        (lambda s, p: [s["y"] * p["k"], -s["x"]], {}, ValueError, "asks for 'k'"),
        (lambda s, p: [s["y"], -s["x"]], {"starts": [{"x": math.nan, "y": 0.0}]}, ValueError, "finite"),
    ],
)
def test_fields_that_cannot_be_analysed(function: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        phase_plane(function, SQUARE, cycles=False, **options)
