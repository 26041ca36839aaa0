"""The numbers of the script on the continuous attractor."""

from __future__ import annotations

import pytest

from notebooks import continuous_attractor

pytestmark = pytest.mark.slow


def test_the_slow_points_are_a_ring_with_one_mode_along_it() -> None:
    result = continuous_attractor.main()
    assert result["converged"] == 1.0
    assert result["points"] > 300 and result["largest_gap"] < 0.05
    assert result["height"] == pytest.approx(result["theory_height"], rel=1e-3)
    assert result["pair_difference"] < 0.02  # principal components of a ring come in pairs
    assert result["zero_modes"] == 1.0 and result["zero_eigenvalue"] < 1e-3
    assert result["along_ring"] > 0.999
    assert result["second_eigenvalue"] == pytest.approx(-0.5, abs=1e-3)
    assert result["third_eigenvalue"] == pytest.approx(-0.75, abs=1e-3)
    assert 0.0 < result["lag"] < 0.3 and result["jump_error"] < 0.05
