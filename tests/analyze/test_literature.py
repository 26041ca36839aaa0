"""Systems of the literature and of closed forms, some in units of their own, and what must not pass in silence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor, nn

import bdtorch as bt
from bdtorch import analyze

matplotlib.use("Agg")


@pytest.mark.parametrize("a", [0.05, 0.08, 0.12])
def test_both_hopf_points_of_selkovs_glycolysis(a: float) -> None:
    """b^2 = (1 - 2 a +- sqrt(1 - 8 a)) / 2: Strogatz, Nonlinear Dynamics and Chaos, section 7.3."""

    def glycolysis(s: Any, p: Any) -> list[Any]:
        x, y = s["x"], s["y"]
        return [-x + p["a"] * y + x * x * y, p["b"] - p["a"] * y - x * x * y]

    found = analyze.continuation(
        glycolysis, parameter="b", bounds=(0.2, 1.2), parameters={"a": a}, start={"x": 0.5, "y": 1.0}, cycles=False
    )
    want = [math.sqrt(0.5 * (1 - 2 * a + sign * math.sqrt(1 - 8 * a))) for sign in (-1, 1)]
    assert [p.parameters["b"] for p in found.of("Hopf")] == pytest.approx(want, abs=1e-9)
    assert all(p.criticality == "supercritical" for p in found.of("Hopf"))


def test_a_homoclinic_bifurcation_ends_the_cycles() -> None:
    """At mu = -0.8645: Strogatz, example 8.4.1; the cycles are born at mu = -1 with the period 2 pi."""
    found = analyze.continuation(
        lambda s, p: [s["y"], p["mu"] * s["y"] + s["x"] - s["x"] ** 2 + s["x"] * s["y"]],
        parameter="mu",
        bounds=(-1.2, -0.7),
        window={"x": (-1.0, 2.0), "y": (-1.0, 1.0)},
    )
    (hopf,), (cycles,) = found.of("Hopf"), found.cycles
    assert hopf.parameters["mu"] == pytest.approx(-1.0) and hopf.coefficients["period"] == pytest.approx(2 * math.pi)
    assert float(cycles.parameter[-1]) == pytest.approx(-0.8645, abs=1e-4)
    assert "homoclinic" in cycles.reasons[1] and float(cycles.minimum[-1, 0]) == pytest.approx(0.0, abs=1e-2)


def test_the_period_beside_a_saddle_node_on_a_circle() -> None:
    """r' = r (1 - r^2), angle' = mu - sin(angle) has the period 2 pi / sqrt(mu^2 - 1)."""

    def circle(s: Any, p: Any) -> list[Any]:
        x, y = s["x"], s["y"]
        square = x * x + y * y
        turn = p["mu"] - y / square.sqrt()
        return [x * (1 - square) - turn * y, y * (1 - square) + turn * x]

    found = analyze.continuation(circle, parameter="mu", bounds=(0.2, 2.0), start={"x": 0.8, "y": 0.3})
    (cycles,) = found.cycles
    assert [p.parameters["mu"] for p in found.of("fold")] == pytest.approx([1.0])
    want = 2 * math.pi / (cycles.parameter**2 - 1).sqrt()
    torch.testing.assert_close(cycles.period, want, rtol=1e-5, atol=0.0)
    assert 1.0 < float(cycles.parameter.min()) < 1.001 and bool(cycles.stable.all())


def sodium_potassium(half: float, leak: float, volt: float = 1.0, second: float = 1.0) -> Callable[..., list[Any]]:
    """Persistent sodium and potassium (Izhikevich 2007, chapter 4), with units of mV and ms over the given ones."""

    def derivative(s: Any, p: Any) -> list[Any]:
        v, n = s["v"] * volt, s["n"]
        m, n_end = 1 / (1 + torch.exp((-20 - v) / 15)), 1 / (1 + torch.exp((half - v) / 5))
        slope = p["i"] - 8 * (v - leak) - 20 * m * (v - 60) - 10 * n * (v + 90)
        return [slope * second / volt, (n_end - n) * second]

    return derivative


@pytest.mark.parametrize(("volt", "second"), [(1.0, 1.0), (1e3, 1e3)])
def test_class_one_begins_at_the_saddle_node_of_the_book_in_any_units(volt: float, second: float) -> None:
    """The high-threshold model has a saddle-node at I = 4.51, on an invariant circle."""
    model = sodium_potassium(-25.0, -80.0, volt, second)
    found = analyze.continuation(model, parameter="i", bounds=(0.0, 60.0), start={"v": -66.0 / volt, "n": 0.0})
    assert [p.parameters["i"] for p in found.of("fold")] == pytest.approx([4.51286763], abs=1e-7)
    (cycles,) = found.cycles
    assert "saddle-node on a cycle" in cycles.reasons[0] and float(cycles.parameter[0]) == pytest.approx(
        4.513, abs=2e-3
    )
    plane = analyze.phase_plane(model, {"v": (-80 / volt, 20 / volt), "n": (-0.1, 0.8)}, parameters={"i": 10.0})
    assert [c.period * second for c in plane.cycles] == pytest.approx([7.0735141], abs=1e-5)


def test_class_two_begins_at_the_hopf_point_of_the_book() -> None:
    """The low-threshold model loses rest at I = 14.66 in a supercritical Hopf bifurcation."""
    found = analyze.continuation(
        sodium_potassium(-45.0, -78.0), parameter="i", bounds=(0.0, 60.0), start={"v": -66.0, "n": 0.0}, cycles=False
    )
    assert [p.parameters["i"] for p in found.of("Hopf")] == pytest.approx([14.66], abs=5e-3)
    assert found.of("Hopf")[0].criticality == "supercritical" and not found.of("fold")


def test_folds_and_the_cusp_of_theta_neurons_in_closed_form() -> None:
    """Montbrio, Pazo & Roxin (2015), doi:10.1103/PhysRevX.5.021028: r decides v and eta, and eta has extrema in r."""
    model = bt.rates.MontbrioPazoRoxin(1, delta=1.0, j=15.0, eta=-5.0, tau=1.0, dtype=torch.float64)

    def eta(r: float) -> float:
        return -1 / (4 * math.pi**2 * r**2) - 15.0 * r + math.pi**2 * r**2

    turns = [
        brentq(lambda r: 2 * math.pi**2 * r + 1 / (2 * math.pi**2 * r**3) - 15.0, *part)
        for part in ((0.05, 0.25), (0.3, 2))
    ]
    found = analyze.continuation(model, parameter="eta", bounds=(-10.0, 0.0), cycles=False)
    assert [p.parameters["eta"] for p in found.of("fold")] == pytest.approx(sorted(map(eta, turns)), abs=1e-9)
    plane = analyze.parameter_plane(model, {"eta": (-10.0, 0.0), "j": (5.0, 25.0)})
    (curve,), (cusp,) = plane.curves, plane.of("cusp")
    r = curve.x[:, 0]
    torch.testing.assert_close(curve.parameters[:, 1], 2 * math.pi**2 * r + 1 / (2 * math.pi**2 * r**3))
    r_cusp = 0.75**0.25 / math.pi
    j_cusp = 2 * math.pi**2 * r_cusp + 1 / (2 * math.pi**2 * r_cusp**3)
    assert cusp.parameters == pytest.approx({"eta": -math.sqrt(3.0), "j": j_cusp})


def test_a_toggle_switch_and_its_pitchfork() -> None:
    """u' = a / (1 + v^2) - u and the same for v: symmetric up to a = 2, where the states part."""
    found = analyze.continuation(
        lambda s, p: [p["a"] / (1 + s["v"] ** 2) - s["u"], p["a"] / (1 + s["u"] ** 2) - s["v"]],
        parameter="a",
        bounds=(0.5, 4.0),
        window={"u": (0.0, 5.0), "v": (0.0, 5.0)},
    )
    (point,) = found.of("branch point")
    assert point.parameters["a"] == pytest.approx(2.0) and point.x.tolist() == pytest.approx([1.0, 1.0])
    apart = found.branches[1]
    torch.testing.assert_close(apart.x.prod(1), torch.ones(len(apart.x), dtype=torch.float64))  # u v = 1, u + v = a
    torch.testing.assert_close(apart.x.sum(1), apart.parameter)


def oregonator(x: Any, z: Any, f: Any = 1.0, epsilon: float = 0.04) -> tuple[Any, Any]:
    """The Oregonator of two variables: Tyson & Fife (1980), doi:10.1063/1.440418."""
    return (x * (1 - x) - f * z * (x - 8e-4) / (x + 8e-4)) / epsilon, x - z


def oregonator_period(f: float = 1.0, epsilon: float = 0.04) -> float:
    """By SciPy."""
    run = solve_ivp(
        lambda t, y: oregonator(*y, f, epsilon),
        (0, 60),
        [0.5, 0.3],
        "LSODA",
        rtol=1e-10,
        atol=1e-12,
        events=lambda t, y: y[0] - 0.2,
    )
    return float(run.t_events[0][-1] - run.t_events[0][-3])


@pytest.mark.parametrize("epsilon", [0.04, 0.004])
def test_a_stiff_oscillator_has_the_period_that_scipy_finds(epsilon: float) -> None:
    plane = analyze.phase_plane(
        lambda s, p: oregonator(s["x"], s["z"], 1.0, epsilon), {"x": (1e-4, 1.0), "z": (0.0, 0.6)}
    )
    assert [c.period for c in plane.cycles] == pytest.approx([oregonator_period(1.0, epsilon)], rel=1e-6)


@pytest.mark.slow
def test_stiff_cycles_are_met_by_simulation_and_a_branch_that_goes_on_is_said_to() -> None:
    found = analyze.continuation(
        lambda s, p: oregonator(s["x"], s["z"], p["f"]),
        parameter="f",
        bounds=(1.4, 1.8),
        window={"x": (1e-4, 1.0), "z": (1e-4, 0.6)},
        max_cycles=3,
    )
    assert len(found.cycles) and not found.converged
    for branch in found.cycles:
        assert bool(branch.stable.all())
        period = oregonator_period(float(branch.parameter[0]))
        assert float(branch.period[0]) == pytest.approx(period, rel=1e-6)
    assert any("branch 0 of cycles goes on: 3 steps were made" in remark for remark in found.remarks)
    ax = found.plot()
    assert "goes on" in ax.get_title(loc="left")
    matplotlib.pyplot.close(ax.figure)


def test_lyapunov_spectra_of_the_literature() -> None:
    """Roessler's is (0.0714, 0, -5.39): Sprott, Chaos and Time-Series Analysis; the cat map's and the logistic's exact."""

    def roessler(x: Tensor) -> Tensor:
        a, b, c = x.unbind(-1)
        return torch.stack([-b - c, a + 0.2 * b, 0.2 + c * (a - 5.7)], -1)

    start = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    found = analyze.lyapunov_spectrum(roessler, start, duration=4000.0, transient=200.0, dt=0.02)
    assert found.exponents.tolist() == pytest.approx([0.0714, 0.0, -5.394], abs=4e-3)
    assert float(found.kaplan_yorke_dimension) == pytest.approx(2.013, abs=1e-3)
    cat = analyze.lyapunov_spectrum(
        lambda x: torch.stack([2 * x[..., 0] + x[..., 1], x[..., 0] + x[..., 1]], -1) % 1.0,
        start[:2] * 0.37,
        duration=200,
        transient=20,
        discrete=True,
    )
    golden = math.log((3 + math.sqrt(5)) / 2)
    assert cat.exponents.tolist() == pytest.approx([golden, -golden])
    logistic = analyze.lyapunov_spectrum(
        lambda x: 4 * x * (1 - x), start[:1] * 0.1234, duration=20_000, transient=10, discrete=True
    )
    assert float(logistic.exponents) == pytest.approx(math.log(2.0), abs=2e-3)


class Driven(bt.Flow):
    """FitzHugh and Nagumo's, its current held in one of several ways."""

    def __init__(self, current: Any, dtype: torch.dtype) -> None:
        super().__init__(1, dtype=dtype)
        if isinstance(current, Tensor) and not isinstance(current, nn.Parameter):
            self.register_buffer("current", current)
        else:
            self.current = current

    def init_state(self, batch_shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
        return {name: torch.zeros((*batch_shape, 1), dtype=self.dtype) for name in ("v", "w")}

    def derivative(self, state: Any, inputs: Any, t: Tensor) -> dict[str, Tensor]:
        v, w = state["v"], state["w"]
        return {"v": v - v**3 / 3 - w + self.current, "w": (v + 0.7 - 0.8 * w) / 12.5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["number", "parameter", "buffer", "vector"])
def test_numbers_parameters_and_buffers_are_varied_alike(kind: str, dtype: torch.dtype) -> None:
    value = torch.tensor(0.5, dtype=dtype)
    held = {"number": 0.5, "parameter": nn.Parameter(value), "buffer": value, "vector": nn.Parameter(value[None])}[kind]
    flow = Driven(held, dtype)
    found = analyze.continuation(flow, parameter="current", bounds=(0.0, 2.0), cycles=False)
    assert [p.parameters["current"] for p in found.of("Hopf")] == pytest.approx([0.33128134, 1.41871866], abs=1e-8)
    assert float(torch.as_tensor(flow.current).detach()) == 0.5 and getattr(flow.current, "grad", None) is None
    points = analyze.fixed_points(flow, {"v": torch.ones(3, 1, dtype=dtype), "w": torch.zeros(3, 1, dtype=dtype)})
    assert points.x.dtype == dtype and points.x.tolist()[0] == pytest.approx([-0.8048477, -0.1310597], abs=1e-6)


# Pictures that show what was found


def test_lines_change_at_the_bifurcations() -> None:
    found = analyze.continuation(bt.rates.FitzHughNagumo(1), parameter="i_ext", bounds=(0.0, 2.0))
    places = {p.kind: [] for p in (*found.points, *found.cycle_points)}
    for p in (*found.points, *found.cycle_points):
        places[p.kind].append(p.parameters["i_ext"])
    for branch, kind in ((found.branches[0], "Hopf"), (found.cycles[0], "fold of cycles")):
        marked = [i for i, p in enumerate(branch.parameter.tolist()) if min(abs(p - q) for q in places[kind]) < 1e-12]
        marked = [i for i in marked if not branch.stable[i]]
        for i, (one, two) in enumerate(itertools.pairwise(branch.stable.tolist())):
            assert one == two or i in marked or i + 1 in marked
    ax = found.plot()
    ends = [line.get_xdata()[[0, -1]] for line in ax.lines if line.get_label() == "unstable equilibria"]
    assert [sorted(e) for e in ends] == [pytest.approx(sorted(places["Hopf"]))]
    matplotlib.pyplot.close(ax.figure)


def test_a_phase_line_has_arrows_along_the_flow() -> None:
    ax = analyze.phase_plane(lambda s, p: [s["x"] * (1 - s["x"]) * (s["x"] - 0.3)], {"x": (-0.4, 1.4)}).plot()
    arrows = {float(line.get_xdata()[0]): line.get_marker() for line in ax.lines if line.get_marker() in "<>"}
    assert [arrows[x] for x in sorted(arrows)] == [">", "<", ">", "<"]
    matplotlib.pyplot.close(ax.figure)


# What must not pass in silence


def test_a_grid_that_is_too_coarse_is_said() -> None:
    fine = analyze.phase_plane(lambda s, p: [torch.sin(20 * s["x"])], {"x": (-3.1, 3.1)})
    assert len(fine.fixed_points) == 39 and not fine.remarks
    coarse = analyze.phase_plane(lambda s, p: [torch.sin(2000 * s["x"])], {"x": (0.0, 3.1)})
    assert any("raise the resolution" in remark for remark in coarse.remarks)
    island = analyze.phase_plane(
        lambda s, p: [s["x"] ** 2 + s["y"] ** 2 - 1e-5, s["y"] + 1.01],
        {"x": (-1.0, 1.0), "y": (-1.0, 1.0)},
        resolution=121,
        cycles=False,
    )
    assert any("derivative of x changes" in remark for remark in island.remarks)


class Random(bt.Flow):
    def init_state(self, batch_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.zeros((*batch_shape, 1))

    def derivative(self, state: Any, inputs: Any, t: Tensor) -> Tensor:
        return torch.randn_like(state) - state


def test_hidden_randomness_is_refused_by_scans_too() -> None:
    with pytest.raises(ValueError, match="hidden randomness"):
        analyze.scan(Random(1), parameter="inputs", values=[0.0, 1.0], dt=0.1, duration=10.0, transient=1.0)


def test_what_has_no_derivative_is_told_from_functions() -> None:
    noisy = bt.NoisyFlow(bt.rates.FitzHughNagumo(1), {"v": 0.1})
    for call in (
        lambda: analyze.continuation(noisy, parameter="flow.i_ext", bounds=(0.0, 1.0)),
        lambda: analyze.phase_plane(noisy, {"v": (-3.0, 3.0), "w": (-2.0, 2.0)}),
    ):
        with pytest.raises(TypeError, match=r"NoisyFlow, which has a step and no derivative.*its `.flow` has"):
            call()


def test_ranges_are_of_any_kind_of_numbers() -> None:
    window = {"v": (np.float32(-3), np.int64(3)), "w": torch.tensor([-2.0, 2.0])}
    assert len(analyze.phase_plane(bt.rates.FitzHughNagumo(1), window, cycles=False).fixed_points) == 1
    with pytest.raises(ValueError, match="the lower limit first"):
        analyze.phase_plane(bt.rates.FitzHughNagumo(1), {**window, "w": np.array([2.0, -2.0])})
