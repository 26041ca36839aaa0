"""Learners from outside give what the trainer gives."""

from __future__ import annotations

import pytest

from notebooks import external_training

pytestmark = pytest.mark.slow


def test_three_learners_give_the_same_losses_and_learn() -> None:
    losses = external_training.main()
    hand, lightning, bptt = losses["by hand"], losses["Lightning"], losses["train.BPTT"]
    assert hand is not None and lightning is not None, "lightning is in requirements-dev.txt"
    assert lightning == pytest.approx(hand, rel=1e-6)
    assert bptt == pytest.approx(hand, rel=1e-6)
    assert hand[-1] < 0.5 * hand[0]
