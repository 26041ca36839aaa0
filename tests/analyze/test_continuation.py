"""Continuation of equilibria and cycles against normal forms and published bifurcations."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import bdtorch as bt
from bdtorch.analyze import continuation

_spec = importlib.util.spec_from_file_location("analyze_systems", Path(__file__).with_name("systems.py"))
assert _spec is not None and _spec.loader is not None
systems = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(systems)

ORIGIN = {"x": 0.0, "y": 0.0}


def test_a_fold_and_its_two_branches() -> None:
    diagram = continuation(lambda s, p: [p["r"] + s["x"] ** 2], parameter="r", bounds=(-1.0, 0.7), start={"x": 0.9})
    (branch,) = diagram.branches
    (fold,) = diagram.points
    assert fold.kind == "fold" and abs(fold.parameters["r"]) < 1e-12 and abs(float(fold.x)) < 1e-10
    assert fold.coefficients["quadratic"] == pytest.approx(1.0)
    assert (branch.parameter + branch.x[:, 0] ** 2).abs().max() < 1e-12
    assert bool((branch.stable == (branch.x[:, 0] < -1e-12)).all())
    assert float(branch.x.abs().min()) < 1e-12  # the fold is one of the points, and ends the stable stretch
    assert sorted(branch.x[[0, -1], 0].tolist()) == pytest.approx([-1.0, 1.0])
    assert branch.reasons == ("r reached its lower limit",) * 2 and diagram.converged


@pytest.mark.parametrize(("power", "sign"), [(3, -1.0), (3, 1.0), (2, -1.0)])
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (-0.73, 1.0)])
def test_branch_points_lead_to_the_other_branch(power: int, sign: float, bounds: tuple[float, float]) -> None:
    def system(s: Any, p: Any) -> list[Any]:
        return [p["r"] * s["x"] + sign * s["x"] ** power]

    # From the trivial equilibrium alone, at the lower end, where that of the pitchfork to the right is the only one.
    diagram = continuation(system, parameter="r", bounds=bounds, start={"x": 0.0}, window={"x": (-0.01, 0.01)})
    assert [p.kind for p in diagram.points] == ["branch point"]
    assert abs(diagram.points[0].parameters["r"]) < 1e-10 and abs(float(diagram.points[0].x)) < 1e-10
    assert len(diagram.branches) == 2
    trivial, other = sorted(diagram.branches, key=lambda b: float(b.x.abs().max()))
    assert trivial.x.abs().max() < 1e-12 and bool((trivial.stable == (trivial.parameter < 0)).all())
    assert (other.parameter + sign * other.x[:, 0] ** (power - 1)).abs().max() < 1e-11
    if power == 3:
        assert float(other.x.min()) < -0.8 and float(other.x.max()) > 0.8
        assert bool(other.stable.float().mean() > 0.9) == (sign < 0)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_hopf_points_their_criticality_and_their_cycles(sign: float) -> None:
    parameters = {"sign": sign}
    diagram = continuation(systems.hopf, parameter="mu", bounds=(-1.0, 1.0), parameters=parameters, start=ORIGIN)
    (point,) = diagram.of("Hopf")
    assert abs(point.parameters["mu"]) < 1e-11 and point.coefficients["period"] == pytest.approx(2 * math.pi, rel=1e-10)
    assert point.coefficients["lyapunov"] == pytest.approx(2.0 * sign, rel=1e-8)
    assert point.criticality == ("supercritical" if sign < 0 else "subcritical")
    (branch,) = diagram.cycles
    radius = (-sign * branch.parameter).clamp(min=0).sqrt()
    assert (branch.maximum[:, 0] - radius).abs().max() < 2e-4  # the highest of the mesh points
    norms = [float((c.x.norm(dim=1) - r).abs().max()) for c, r in zip(branch.cycles, radius, strict=True)]
    assert max(norms) < 1e-7
    assert (branch.period - 2 * math.pi).abs().max() < 1e-8
    floquet = (-4 * math.pi * branch.parameter.abs() * -sign).exp()
    assert ((branch.multipliers[1:, 1].real / floquet[1:]) - 1).abs().max() < 1e-4
    assert bool(branch.stable.all()) == (sign < 0)
    assert branch.reasons[1].startswith("the parameter reached its") and branch.converged


def test_a_linear_centre_is_called_degenerate() -> None:
    diagram = continuation(
        lambda s, p: [p["mu"] * s["x"] - s["y"], s["x"] + p["mu"] * s["y"]],
        parameter="mu",
        bounds=(-1.0, 0.9),
        start=ORIGIN,
        cycles=False,
    )
    (point,) = diagram.of("Hopf")
    assert point.criticality == "degenerate" and abs(point.parameters["mu"]) < 1e-12


def test_fold_of_cycles_of_the_bautin_form() -> None:
    diagram = continuation(systems.bautin, parameter="mu", bounds=(-0.5, 0.5), parameters={"b": 1.0}, start=ORIGIN)
    (fold,) = diagram.of("fold of cycles")
    assert fold.parameters["mu"] == pytest.approx(-0.25, abs=1e-9)
    assert np.abs(fold.eigenvalues.numpy() - 1.0).max() < 1e-3
    (branch,) = diagram.cycles
    big = branch.maximum[:, 0] > math.sqrt(0.5) + 1e-3
    assert bool(branch.stable[big].all()) and not bool(branch.stable[1:][~big[1:]].any())


def test_lorenz_pitchfork_and_subcritical_hopf() -> None:
    start = {"x": 0.0, "y": 0.0, "z": 0.0}
    diagram = continuation(systems.lorenz, parameter="r", bounds=(0.0, 30.0), start=start, cycles=False)
    (pitchfork,) = diagram.of("branch point")
    assert pitchfork.parameters["r"] == pytest.approx(1.0, abs=1e-10) and pitchfork.x.abs().max() < 1e-8
    hopf = diagram.of("Hopf")
    assert [p.parameters["r"] for p in hopf] == pytest.approx([470.0 / 19.0] * 2, abs=1e-9)
    assert sorted(float(p.x[0]) for p in hopf) == pytest.approx(
        [-math.sqrt(8 / 3 * 451 / 19), math.sqrt(8 / 3 * 451 / 19)]
    )
    assert all(p.criticality == "subcritical" for p in hopf)


@pytest.mark.slow
def test_lorenz_cycles_end_at_the_homoclinic_orbit() -> None:
    window = {"x": (-20.0, 20.0), "y": (-20.0, 20.0), "z": (0.0, 40.0)}
    diagram = continuation(systems.lorenz, parameter="r", bounds=(0.0, 30.0), window=window)
    assert len(diagram.cycles) == 2
    for branch in diagram.cycles:
        assert "homoclinic" in branch.reasons[1] and not bool(branch.stable.any())
        assert float(branch.parameter[-1]) == pytest.approx(13.926, abs=1e-3)  # Sparrow (1982)


def test_brusselator() -> None:
    diagram = continuation(
        systems.brusselator, parameter="b", bounds=(1.0, 6.0), parameters={"a": 1.5}, start={"x": 1, "y": 1}
    )
    (point,) = diagram.points
    assert point.kind == "Hopf" and point.parameters["b"] == pytest.approx(1.0 + 1.5**2, abs=1e-10)
    assert point.criticality == "supercritical" and point.coefficients["omega"] == pytest.approx(1.5)
    (branch,) = diagram.cycles
    last = branch.cycles[-1]

    def slope(t: float, y: np.ndarray) -> list[float]:
        return [1.5 - 7.0 * y[0] + y[0] ** 2 * y[1], 6.0 * y[0] - y[0] ** 2 * y[1]]

    assert float(branch.parameter[-1]) == 6.0
    around = solve_ivp(slope, (0.0, last.period), last.x[0].numpy(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(around.y[:, -1], last.x[0], atol=1e-5)


def test_morris_lecar_between_two_hopf_points() -> None:
    diagram = continuation(bt.neurons.MorrisLecar(1), parameter="i_ext", bounds=(0.0, 300.0))
    # Rinzel & Ermentrout (1998) give 93.86 and 212, and folds of cycles at 88.3 and 217.
    assert [p.parameters["i_ext"] for p in diagram.of("Hopf")] == pytest.approx([93.8576, 212.0188], abs=1e-3)
    assert all(p.criticality == "subcritical" for p in diagram.of("Hopf"))
    assert [p.parameters["i_ext"] for p in diagram.of("fold of cycles")] == pytest.approx([88.29, 216.90], abs=0.01)
    (branch,) = diagram.cycles
    assert "shrink" in branch.reasons[1] and float(branch.parameter[-1]) == pytest.approx(212.0188, abs=1e-3)
    assert branch.converged and diagram.remarks == ()


def test_morris_lecar_on_an_invariant_circle() -> None:
    neuron = bt.neurons.MorrisLecar(1, g_ca=4.0, v3=12.0, v4=17.4, phi=1.0 / 15.0)
    diagram = continuation(neuron, parameter="i_ext", bounds=(0.0, 200.0))
    fold = min(diagram.of("fold"), key=lambda p: abs(p.parameters["i_ext"] - 39.96))
    assert fold.parameters["i_ext"] == pytest.approx(39.96315, abs=1e-4)
    (branch,) = diagram.cycles
    assert "period grew" in branch.reasons[1]
    assert fold.parameters["i_ext"] < float(branch.parameter[-1]) < fold.parameters["i_ext"] + 0.1


@pytest.mark.slow
def test_hodgkin_huxley_as_rinzel_and_miller_found_it() -> None:
    diagram = continuation(bt.neurons.HodgkinHuxley(1), parameter="inputs", bounds=(0.0, 200.0))
    assert [p.parameters["inputs"] for p in diagram.of("Hopf")] == pytest.approx([9.78, 154.5], abs=0.05)
    # Rinzel & Miller (1980), doi:10.1016/0025-5564(80)90109-1: knees at 7.92, 7.85 and 6.26 of four branches.
    assert [p.parameters["inputs"] for p in diagram.of("fold of cycles")] == pytest.approx([6.26, 7.84, 7.92], abs=0.01)
    assert len(diagram.of("period doubling")) == 2


def test_period_doubling_of_roessler() -> None:
    parameters = {"a": 0.2, "b": 0.2}
    diagram = continuation(
        systems.roessler,
        parameter="c",
        bounds=(0.3, 3.5),
        parameters=parameters,
        start={"x": 0.1, "y": -0.1, "z": 0.1},
        window={"x": (-5.0, 5.0), "y": (-5.0, 5.0), "z": (0.0, 5.0)},
    )
    # The first doubling for a = b = 0.2 is at c = 2.832.
    assert [p.parameters["c"] for p in diagram.of("period doubling")][:1] == pytest.approx([2.832], abs=2e-3)
    point = diagram.of("period doubling")[0]
    assert min(abs(complex(m) + 1.0) for m in point.eigenvalues) < 1e-6


def test_torus_bifurcation_of_uncoupled_oscillators() -> None:
    start = {"x": 0.0, "y": 0.0, "u": 0.0, "v": 0.0}
    diagram = continuation(systems.torus, parameter="mu", bounds=(-0.5, 1.9), start=start, max_step=0.05)
    assert [p.parameters["mu"] for p in diagram.of("Hopf")] == pytest.approx([0.0, 1.0], abs=1e-9)
    (point,) = diagram.of("torus")
    assert point.parameters["mu"] == pytest.approx(1.0, abs=1e-7)
    around = [m for m in point.eigenvalues.tolist() if abs(m.imag) > 0.1]
    assert len(around) == 2 and all(abs(m) == pytest.approx(1.0, abs=1e-6) for m in around)
    assert abs(math.atan2(around[0].imag, around[0].real)) == pytest.approx(2 * math.pi * 0.3, abs=1e-5)
    first = next(c for c in diagram.cycles if abs(c.origin.parameters["mu"]) < 1e-6)
    assert bool((first.stable == (first.parameter < 1.0))[1:].all())


def test_a_neuron_with_a_reset_is_analysed_without_it_and_that_is_said() -> None:
    diagram = continuation(bt.neurons.AdEx(1), parameter="inputs", bounds=(0.0, 100.0), cycles=False)
    assert diagram.remarks[0] == "the reset of AdEx takes no part in its derivative"


def test_cycles_that_no_hopf_point_gives_rise_to_are_met_by_simulation() -> None:
    def circle(s: Any, p: Any) -> list[Any]:
        """In polar coordinates r' = r (1 - r), angle' = m - cos angle: a saddle-node on the circle at m = 1."""
        r = (s["x"] ** 2 + s["y"] ** 2).sqrt()
        growth, turn = 1.0 - r, p["m"] - s["x"] / r
        return [growth * s["x"] - turn * s["y"], growth * s["y"] + turn * s["x"]]

    diagram = continuation(circle, parameter="m", bounds=(0.5, 2.0), start={"x": 0.6, "y": 0.8})
    (fold,) = [p for p in diagram.of("fold") if abs(float(p.x.norm()) - 1.0) < 1e-6]
    assert fold.parameters["m"] == pytest.approx(1.0, abs=1e-9)
    (branch,) = diagram.cycles
    assert branch.origin is None and bool(branch.stable.all())
    period = 2 * math.pi / (branch.parameter**2 - 1.0).sqrt()
    assert (branch.period / period - 1.0).abs().max() < 1e-5
    assert float(branch.parameter.max()) == 2.0 and float(branch.parameter.min()) < 1.01
    assert any("period grew" in reason for reason in branch.reasons)


def test_the_line_of_the_design() -> None:
    pytest.importorskip("matplotlib")
    diagram = continuation(bt.rates.FitzHughNagumo(1), parameter="i_ext", bounds=(0.0, 2.0))
    ax = diagram.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "Hopf (subcritical)" in labels and "fold of cycles" in labels
    assert ax.get_ylabel() == "v" and diagram.plot(variable="w").get_ylabel() == "w"
    with pytest.raises(ValueError, match="variable"):
        diagram.plot(variable="u")
    folds = [p.parameters["i_ext"] for p in diagram.of("fold of cycles")]
    assert sum(folds) == pytest.approx(1.75, abs=1e-6)  # the equations are symmetric about I = a / b


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": (1.0, 0.0)}, "lower limit first"),
        ({"bounds": (1.0, 1.0)}, "lower limit first"),
        ({"bounds": (0.0, math.nan)}, "two finite numbers"),
        ({"bounds": (0.0,)}, "two finite numbers"),
        ({"parameter": "current"}, "'current' is no number"),
        ({"start": {"v": 0.0}}, "expected values of"),
        ({"start": {"v": math.inf, "w": 0.0}}, "finite numbers"),
        ({"window": {"v": (0.0, 1.0)}}, "expected ranges of"),
        ({"max_step": 0.0}, "max_step"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        continuation(bt.rates.FitzHughNagumo(1), **{"parameter": "i_ext", "bounds": (0.0, 1.0), **options})


def test_what_cannot_be_followed_is_said() -> None:
    with pytest.raises(ValueError, match="no equilibrium was found"):
        continuation(lambda s, p: [1.0 + p["r"] ** 2 + s["x"] ** 2], parameter="r", bounds=(0.0, 1.0), start={"x": 0.0})
    with pytest.raises(ValueError, match="start or a window"):
        continuation(lambda s, p: {"x": -s["x"]}, parameter="r", bounds=(0.0, 1.0))
    few = continuation(lambda s, p: [p["r"] - s["x"]], parameter="r", bounds=(0.0, 1.0), start={"x": 0.0}, max_points=3)
    assert not few.converged and "3 steps were made" in few.branches[0].reasons
    # Beyond r = 0.5 the derivative is not a number.
    broken = continuation(
        lambda s, p: [(0.5 - p["r"]).sqrt() - s["x"]], parameter="r", bounds=(0.0, 0.9), start={"x": 0.7}, cycles=False
    )
    assert not broken.converged and any("did not converge" in r for r in broken.branches[0].reasons)
    assert float(broken.branches[0].parameter.max()) <= 0.5


def test_closed_branches_close() -> None:
    diagram = continuation(
        lambda s, p: [p["r"] ** 2 + s["x"] ** 2 - 1.0], parameter="r", bounds=(-2.0, 2.05), start={"x": 1.0}
    )
    (branch,) = diagram.branches
    assert branch.reasons == ("the curve closed",) * 2
    assert [p.parameters["r"] for p in diagram.of("fold")] == pytest.approx([-1.0, 1.0], abs=1e-10)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_branches", 0), ("max_points", 0), ("max_cycles", -1), ("intervals", 2.5), ("max_period", 0.5)],
)
def test_numbers_out_of_range_are_named(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        continuation(lambda s, p: [p["a"] - s["x"]], parameter="a", bounds=(0.0, 1.0), start={"x": 0.0}, **options)


def test_a_parameter_without_effect_is_said() -> None:
    diagram = continuation(
        lambda s, p: [1.0 - s["x"] ** 2 - 0.0 * p["a"]], parameter="b", bounds=(0.0, 1.0), start={"x": 0.5},
        parameters={"a": 1.0},
    )  # fmt: skip
    assert any("does not depend on b" in remark for remark in diagram.remarks)
    pendulum = continuation(
        lambda s, p: [s["y"], -s["x"].sin() - p["c"] * s["y"]], parameter="c", bounds=(-1.0, 1.0),
        start={"x": 0.0, "y": 0.0}, cycles=False,
    )  # fmt: skip
    assert pendulum.remarks == () and pendulum.points[0].criticality == "degenerate"
