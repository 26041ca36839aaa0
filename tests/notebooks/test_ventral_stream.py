"""The numbers of the script on the ventral visual stream."""

from __future__ import annotations

import itertools
import math

import pytest

import bdtorch as bt
from notebooks import ventral_stream
from notebooks.ventral_stream import AREAS

pytestmark = pytest.mark.slow


def _shortest_way(target: str) -> float:
    """The least sum of published delays from V1 (ms), over every way through areas below: no spike can come sooner."""
    if target == "V1":
        return 0.0
    sources = AREAS[: AREAS.index(target)]
    joined = [source for source in sources if ventral_stream.PROBABILITY[target][AREAS.index(source)] > 0.0]
    return min(_shortest_way(source) + ventral_stream.DELAY[source, target] for source in joined)


def test_the_wave_climbs_the_hierarchy_and_only_after_the_pulse() -> None:
    result = ventral_stream.main()
    for kind in ("latency", "latency_strong"):
        latencies = [result[f"{kind}_{area}"] for area in AREAS]
        assert all(a < b for a, b in itertools.pairwise(latencies)), latencies
        assert latencies[0] > 0.0 and latencies[-1] < 60.0
        for area, latency in zip(AREAS, latencies, strict=True):
            assert latency - latencies[0] > _shortest_way(area) - 1.0, area  # 1 ms: bins of 0.5 ms at either end
    for area in AREAS:
        assert result[f"peak_{area}"] > 50.0
        assert result[f"before_{area}"] < 1.0
        assert result[f"peak_without_pulse_{area}"] < 1.0
        assert result[f"after_{area}"] < 1.0
    # What the text says of the published numbers: activity before any stimulus, and activity that does not end.
    assert max(result[f"before_bare_{area}"] for area in AREAS) > 50.0
    assert max(result[f"after_strong_{area}"] for area in AREAS) > 50.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_does_not_depend_on_the_wiring(seed: int) -> None:
    sol = ventral_stream.respond(ventral_stream.network(0.25, seed=seed), seed=seed)
    latencies = [ventral_stream.response(sol[area]).latency for area in AREAS]
    assert all(a < b for a, b in itertools.pairwise(latencies)), latencies


def test_without_projections_between_areas_only_v1_responds() -> None:
    sol = ventral_stream.respond(ventral_stream.network(0.25, gain=0.0))
    latencies = {area: ventral_stream.response(sol[area]).latency for area in AREAS}
    assert latencies.pop("V1") > 0.0
    assert all(math.isnan(latency) for latency in latencies.values()), latencies


def test_the_module_is_ten_populations_and_the_published_projections() -> None:
    net = ventral_stream.network(0.01)
    assert isinstance(net, bt.Network)
    assert len(net.populations) == 10
    assert len(net.routes) == 10 + sum(p > 0.0 for row in ventral_stream.PROBABILITY.values() for p in row)
    assert net.routes["TEO_E->TEpd_E+TEpd_I"] == ("TEO_E", ("TEpd_E", "TEpd_I"))
    assert net.projections["TEO_E->TEpd_E+TEpd_I"].delay is not None
