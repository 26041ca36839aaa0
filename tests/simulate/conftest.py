"""What tests of the inductor loop ask of its compiler."""

from __future__ import annotations

import pytest
import torch

from bdtorch.simulate.loops._direct import Tap


@pytest.fixture
def fresh() -> None:
    """Dynamo knows of nothing yet."""
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile no further than to graphs, where it is these that are counted."""
    monkeypatch.setattr(Tap, "compiler", "eager")
