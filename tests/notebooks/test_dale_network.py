"""The numbers of the script on perceptual decisions under Dale's law."""

from __future__ import annotations

import pytest

from notebooks import dale_network

pytestmark = pytest.mark.slow


def test_decisions_follow_the_evidence_and_weights_keep_their_senders_sign() -> None:
    result = dale_network.main()
    assert result["lawful"]
    assert result["accuracy_51.2"] > 0.95
    assert result["accuracy_25.6"] > 0.9
    assert 0.6 < result["accuracy_6.4"] < 0.95
    assert 0.4 < result["accuracy_0"] < 0.6
