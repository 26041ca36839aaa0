"""The script on speed: that it measures what it says; how fast a machine is under test says nothing."""

from __future__ import annotations

import pytest

from notebooks import speed

pytestmark = pytest.mark.slow


def test_every_comparison_is_made() -> None:
    result = speed.main()
    assert min(result[name] for name in ("population_speedup", "network_speedup", "events_against_dense")) > 1.0
    table = result["elsewhere"]
    assert {"bdtorch", "floor", "brian2"} <= set(table["A", 4000])
    assert all(value > 0 for row in table.values() for value in row.values())
