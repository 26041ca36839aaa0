"""The numbers of the script on evidence accumulation."""

from __future__ import annotations

import pytest

from notebooks import evidence_accumulation

pytestmark = pytest.mark.slow


def test_both_ways_of_training_solve_the_whole_task() -> None:
    result = evidence_accumulation.main()
    for way in ("BPTT", "e-prop"):
        assert result[f"accuracy_{way}"] >= 0.93
        assert result[f"iterations_{way}"] <= 300
