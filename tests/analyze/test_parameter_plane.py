"""Curves of bifurcations in two parameters against normal forms and closed forms."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import bdtorch as bt
from bdtorch.analyze import parameter_plane

_spec = importlib.util.spec_from_file_location("analyze_systems", Path(__file__).with_name("systems.py"))
assert _spec is not None and _spec.loader is not None
systems = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(systems)

SQUARE = {"x": (-2.0, 2.0), "y": (-1.0, 1.0)}


def test_the_two_lines_of_fitzhugh_and_nagumo() -> None:
    plane = parameter_plane(bt.rates.FitzHughNagumo(1), {"i_ext": (0.0, 2.0), "a": (0.5, 1.0)})
    assert [c.kind for c in plane.curves] == ["Hopf", "Hopf"] and plane.points == () and plane.converged
    v = math.sqrt(1 - 0.8 / 12.5)
    offset = v / 0.8 - v + v**3 / 3
    for curve, sign in zip(sorted(plane.curves, key=lambda c: float(c.parameters[0, 0])), (-1.0, 1.0), strict=True):
        i, a = curve.parameters.T
        assert (i - 1.25 * a - sign * offset).abs().max() < 1e-10
        assert (float(a.min()), float(a.max())) == (0.5, 1.0)
        assert bool((curve.lyapunov > 0).all())


def test_cusp() -> None:
    def system(s: Any, p: Any) -> list[Any]:
        return [p["a"] + p["b"] * s["x"] - s["x"] ** 3]

    plane = parameter_plane(system, {"a": (-1.0, 1.0), "b": (-0.5, 1.0)}, start={"x": 0.0})
    (curve,) = plane.curves
    a, b = curve.parameters.T
    assert (4 * b**3 - 27 * a**2).abs().max() < 1e-10 and (curve.x[:, 0] ** 2 * 3 - b).abs().max() < 1e-10
    (cusp,) = plane.of("cusp")
    assert abs(cusp.parameters["a"]) < 1e-9 and abs(cusp.parameters["b"]) < 1e-9


def test_bogdanov_takens_by_both_curves_that_meet_there() -> None:
    plane = parameter_plane(systems.takens, {"a": (-0.5, 0.5), "b": (-1.0, 0.9)}, window=SQUARE)
    kinds = {c.kind: c for c in plane.curves}
    assert len(plane.curves) == 2
    a, b = kinds["fold"].parameters.T
    assert (b**2 - 4 * a).abs().max() < 1e-10
    a, b = kinds["Hopf"].parameters.T
    assert a.abs().max() < 1e-10 and float(b.max()) < 1e-9
    assert any("frequency" in reason for reason in kinds["Hopf"].reasons)
    (point,) = plane.of("Bogdanov-Takens")
    assert all(abs(v) < 1e-8 for v in point.parameters.values()) and point.eigenvalues.abs().max() < 1e-4


def test_generalised_hopf() -> None:
    plane = parameter_plane(systems.bautin, {"mu": (-0.5, 0.45), "b": (-1.0, 0.8)}, start={"x": 0.0, "y": 0.0})
    (curve,) = plane.curves
    assert curve.parameters[:, 0].abs().max() < 1e-10
    assert torch.allclose(curve.lyapunov, 2.0 * curve.parameters[:, 1], atol=1e-8)
    (point,) = plane.of("generalised Hopf")
    assert all(abs(v) < 1e-9 for v in point.parameters.values())


def test_three_variables() -> None:
    # Roessler: fold at c^2 = 4 a b, zero-Hopf on it.
    plane = parameter_plane(
        systems.roessler,
        {"c": (0.1, 2.0), "b": (0.1, 1.0)},
        parameters={"a": 0.3},
        window={"x": (-3.0, 3.0), "y": (-10.0, 10.0), "z": (-5.0, 10.0)},
    )
    fold = next(c for c in plane.curves if c.kind == "fold")
    c, b = fold.parameters.T
    assert (c**2 - 4 * 0.3 * b).abs().max() < 1e-9
    (point,) = plane.of("zero-Hopf")
    assert point.parameters == pytest.approx({"c": 0.6, "b": 0.3}, abs=1e-6)
    hopf = next(c for c in plane.curves if c.kind == "Hopf")
    for (c, b), x in zip(hopf.parameters.tolist(), hopf.x.tolist(), strict=True):
        # Trace, second and third coefficient of the characteristic polynomial: Routh-Hurwitz with equality.
        jacobian = torch.tensor([[0.0, -1.0, -1.0], [1.0, 0.3, 0.0], [x[2], 0.0, x[0] - c]], dtype=torch.float64)
        trace, det = float(jacobian.trace()), float(torch.linalg.det(jacobian))
        minors = 0.5 * (trace**2 - float((jacobian @ jacobian).trace()))
        assert trace * minors == pytest.approx(det, abs=1e-8)
        assert b > 0


def test_pictures() -> None:
    pytest.importorskip("matplotlib")
    plane = parameter_plane(systems.takens, {"a": (-0.5, 0.5), "b": (-1.0, 0.9)}, window=SQUARE)
    ax = plane.plot()
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {"fold", "Bogdanov-Takens"} <= labels and ax.get_xlabel() == "a"


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"i_ext": (0.0, 1.0)}, "two parameters"),
        ({"i_ext": (0.0, 1.0), "a": (1.0, 0.0)}, "lower limit first"),
        ({"i_ext": (0.0, 1.0), "q": (0.0, 1.0)}, "'q' is no number"),
    ],
)
def test_bad_arguments(bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_plane(bt.rates.FitzHughNagumo(1), bounds)


def test_where_nothing_bifurcates_that_is_said() -> None:
    plane = parameter_plane(
        lambda s, p: [p["a"] + p["b"] - s["x"]], {"a": (0.0, 1.0), "b": (0.0, 1.0)}, start={"x": 0.0}
    )
    assert plane.curves == () and "no fold and no Hopf point" in plane.remarks[0]


def test_the_hopf_curve_of_bazykins_predators_leaves_from_its_bogdanov_takens_point() -> None:
    # Kuznetsov (2004), section 8.5.2, with gamma = 1, epsilon = 0.01. None of the three lines meets the Hopf curve.
    def predators(s: Any, p: Any) -> list[Any]:
        eaten = s["x"] * s["y"] / (1.0 + p["alpha"] * s["x"])
        return [s["x"] - eaten - 0.01 * s["x"] ** 2, -s["y"] + eaten - p["delta"] * s["y"] ** 2]

    plane = parameter_plane(predators, {"alpha": (0.2, 0.6), "delta": (0.0, 1.0)}, start={"x": 2.0, "y": 1.0})
    (takens,) = plane.of("Bogdanov-Takens")
    assert takens.parameters["alpha"] == pytest.approx(0.4536, abs=1e-4)
    assert takens.parameters["delta"] == pytest.approx(0.1751, abs=1e-4)
    (curve,) = [c for c in plane.curves if c.kind == "Hopf"]
    (alpha, delta), (x, y) = curve.parameters.T, curve.x.T
    below = 1.0 + alpha * x
    trace = 1.0 - y / below**2 - 0.02 * x - 1.0 + x / below - 2.0 * delta * y
    assert trace.abs().max() < 1e-9 and len(x) > 5
    ends = torch.stack([alpha[[0, -1]] - takens.parameters["alpha"], delta[[0, -1]] - takens.parameters["delta"]])
    assert ends.norm(dim=0).amin() < 1e-6
