"""The numbers of the script on evidence accumulation."""

from __future__ import annotations

import pytest

from notebooks import evidence_accumulation

pytestmark = pytest.mark.slow


def test_both_ways_of_training_learn_to_remember() -> None:
    result = evidence_accumulation.main()
    assert result["accuracy_BPTT"] >= 0.93  # of the whole task
    assert result["iterations_BPTT"] <= 300
    assert result["accuracy_e-prop"] >= 0.9  # of the shorter one
