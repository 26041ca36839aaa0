"""The numbers of the scripts on phase planes, bifurcations and bursts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import root

from notebooks import bursting, fitzhugh_nagumo, wong_wang

pytestmark = pytest.mark.slow


def _wong_wang(s: np.ndarray, coherence: float, mu: float) -> np.ndarray:
    """The equations in seconds, written out."""
    s1, s2 = s
    x = np.array(
        [
            0.3725 * s1 - 0.1137 * s2 + 0.3297 + 0.00117 * mu * (1 + coherence),
            0.3725 * s2 - 0.1137 * s1 + 0.3297 + 0.00117 * mu * (1 - coherence),
        ]
    )
    y = 270.0 * x - 108.0
    rate = y / -np.expm1(-0.154 * np.maximum(y, -1000.0))
    return -np.asarray(s) / 0.06 + (1 - np.asarray(s)) * 0.641 * rate


def _roots(coherence: float, mu: float) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for s1 in np.linspace(0.01, 0.9, 12):
        for s2 in np.linspace(0.013, 0.88, 12):
            solved = root(_wong_wang, [s1, s2], args=(coherence, mu), tol=1e-13)
            good = solved.success and (solved.x >= 0).all() and (solved.x <= 1).all()
            if good and all(np.abs(solved.x - x).max() > 1e-6 for x in found):
                found.append(solved.x)
    return sorted(found, key=tuple)


def test_wong_wang() -> None:
    result = wong_wang.main()
    points = result["points"]
    assert [kind for _, kind in points] == ["stable node", "saddle", "stable node"]
    np.testing.assert_allclose([x for x, _ in points], _roots(0.5, 20.0), atol=1e-9)
    assert result["distance"] < 1e-6
    np.testing.assert_allclose(result["from_rest"], points[2][0], atol=1e-6)
    folds = result["folds"]
    assert len(folds) == 4 and folds == pytest.approx([-x for x in folds[::-1]], abs=1e-9)
    counts = {c: len(_roots(c, 40.0)) for c in (0.0, 0.3, 0.7)}
    assert counts == {0.0: 5, 0.3: 3, 0.7: 1}
    # SciPy's roots lie on the branches.
    for coherence, count in counts.items():
        on_branches = []
        for branch in result["diagram"].branches:
            p, s = branch.parameter.numpy(), branch.x.numpy()
            for i in np.nonzero((p[1:] - coherence) * (p[:-1] - coherence) <= 0)[0]:
                part = (coherence - p[i]) / (p[i + 1] - p[i])
                on_branches.append(s[i] + part * (s[i + 1] - s[i]))
        gaps = [min(np.abs(x - y).max() for y in on_branches) for x in _roots(coherence, 40.0)]
        assert len(gaps) == count and max(gaps) < 0.02


def test_fitzhugh_nagumo() -> None:
    result = fitzhugh_nagumo.main()
    assert result["hopf"] == pytest.approx([0.33128, 1.41872], abs=1e-5)
    # The published lines are given as 0.543721, which has a rounding error of its own.
    exact = fitzhugh_nagumo.hopf_line(0.0, 1)
    assert exact == pytest.approx(0.543721, abs=5e-6)
    assert result["offsets"] == pytest.approx([-exact, exact], abs=1e-9) and result["spread"] < 1e-9
    assert result["height"] < 2e-3 and result["count"] <= 1.0
    assert len(result["folds"]) == 2 and result["folds"][0] < result["hopf"][0] < result["hopf"][1] < result["folds"][1]
    # A cycle from the middle of the stable branch, by another solver.
    (branch,) = result["diagram"].cycles
    middle = int((branch.parameter - 0.8).abs().add(10.0 * (~branch.stable)).argmin())
    cycle, current = branch.cycles[middle], float(branch.parameter[middle])

    def slope(t: float, y: np.ndarray) -> list[float]:
        v, w = y
        return [v - v**3 / 3 - w + current, (v + 0.7 - 0.8 * w) / 12.5]

    around = solve_ivp(slope, (0.0, cycle.period), cycle.x[0].numpy(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(around.y[:, -1], cycle.x[0], atol=1e-4)


def test_bursting() -> None:
    results = bursting.main()
    square, loop, elliptic = results.values()
    for result, b in ((square, 3.0), (loop, 2.5)):
        folds = sorted(float(p.x[0]) for p in result.diagram.of("fold"))
        assert folds == pytest.approx([2 * (b - 5) / 3, 0.0], abs=1e-9)
        # Trace zero: 3 x^2 - 2 b x + 1 = 0.
        x = (b - math.sqrt(b * b - 3.0)) / 3.0
        assert min(abs(float(p.x[0]) - x) for p in result.diagram.of("Hopf")) < 1e-9
    assert any("homoclinic" in c.reasons[1] for c in square.diagram.cycles)
    assert elliptic.diagram.of("fold") == ()
    (hopf,), (fold,) = elliptic.diagram.of("Hopf"), elliptic.diagram.of("fold of cycles")
    # The fast subsystem is that of FitzHugh and Nagumo with I + y for I and 1/0.08 for tau.
    assert hopf.parameters["y"] == pytest.approx(fitzhugh_nagumo.hopf_line(0.7, -1) - 0.3125, abs=1e-9)
    assert fold.parameters["y"] < hopf.parameters["y"] and hopf.criticality == "subcritical"
    for result in results.values():
        x = result.trajectory.x[:, 0].numpy()
        crossings = np.nonzero((x[1:] >= 1.0) & (x[:-1] < 1.0))[0]
        gaps = np.diff(crossings)
        assert len(gaps) >= 8 and gaps.max() > 3 * np.median(gaps)
