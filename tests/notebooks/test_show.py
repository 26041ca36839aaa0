"""What the scripts share."""

from __future__ import annotations

import sys

import matplotlib
import pytest

import bdtorch as bt
from notebooks import _show


def test_style_is_put_on_and_taken_off() -> None:
    before = dict(matplotlib.rcParams)
    seen = []
    _show.styled(lambda: seen.append(dict(matplotlib.rcParams)))()
    assert all(seen[0][name] == value for name, value in bt.plot.STYLE.items() if name != "axes.prop_cycle")
    assert seen[0]["axes.prop_cycle"].by_key()["color"] == list(bt.plot.COLOURS)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("arguments", "variable", "quick"), [([], "0", True), (["--full"], "0", False), ([], "1", False)]
)
def test_full_is_asked_for_by_argument_or_variable(
    arguments: list[str], variable: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    monkeypatch.setenv("BDTORCH_FULL", variable)
    asked: list[bool] = []
    _show.script(asked.append)
    assert asked == [quick]


def test_arguments_of_a_kernel_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_show, "JUPYTER", True)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.delenv("BDTORCH_FULL", raising=False)
    asked: list[bool] = []
    _show.script(asked.append)
    assert asked == [True]


def test_tables_are_as_wide_as_what_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    _show.table("Title", [("a", 1.23456, None), ("longer", 2, "published text")])
    title, head, first, second = capsys.readouterr().out.splitlines()
    assert title == "Title" and head.split() == ["here", "published"]
    assert first.split() == ["a", "1.235", "-"] and second.endswith("published text")
    assert len({len(head), len(first), len(second)}) == 1
