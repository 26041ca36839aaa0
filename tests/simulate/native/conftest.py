"""What tests of the native loop look at."""

from __future__ import annotations

import pytest

from bdtorch.simulate.loops.native import compiler, made


@pytest.fixture
def compiled_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops are compiled with less optimisation, where what they mean is on trial."""
    monkeypatch.setattr(compiler, "FLAGS", tuple("-O1" if flag == "-O3" else flag for flag in compiler.FLAGS))


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The C++ of the loops that a test makes, compiled as ever."""
    found: list[str] = []
    make = compiler.compiled
    monkeypatch.setattr(made, "compiled", lambda source: (found.append(source), make(source))[1])
    return found
