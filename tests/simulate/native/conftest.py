"""What tests of the native loop look at."""

from __future__ import annotations

import pytest

from bdtorch.simulate.loops.native import compiler, made


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The C++ of the loops that a test makes, compiled as ever."""
    found: list[str] = []
    make = compiler.compiled
    monkeypatch.setattr(made, "compiled", lambda source: (found.append(source), make(source))[1])
    return found
