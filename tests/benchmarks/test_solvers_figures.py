"""The page about solvers: its table is that of `methods`, and its figures show errors that fall with work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdtorch import integrate
from benchmarks import solvers_figures as figures
from benchmarks import solvers_standard as standard

PAGE = Path(__file__).resolve().parents[2] / "docs" / "solvers.md"


def test_the_page_lists_every_method() -> None:
    text = PAGE.read_text()
    inside = text[text.index(figures.BEGIN) + len(figures.BEGIN) : text.index(figures.END)].strip()
    assert inside == figures.table(), "run benchmarks/solvers_figures.py --page docs/solvers.md"
    assert all(f"`{entry.name}`" in inside for family in ("ODE", "SDE", "FDE") for entry in integrate.methods(family))


def test_the_page_shows_every_figure() -> None:
    text = PAGE.read_text()
    for name in figures.FIGURES:
        assert f"(images/{name}.png)" in text and (PAGE.parent / "images" / f"{name}.png").exists()


def test_the_page_lists_every_standard_problem() -> None:
    text = PAGE.read_text()
    inside = text[text.index(standard.BEGIN) : text.index(standard.END)]
    assert all(f"\n| {name} | " in inside for name in (*standard.DETEST, *standard.STIFF))


@pytest.mark.parametrize("curves", [figures.fixed, figures.delayed, figures.fractional], ids=lambda f: f.__name__)
def test_errors_fall_with_work(curves: object) -> None:
    for name, points in curves().items():  # type: ignore[operator]
        assert points[-1][0] > points[0][0] and points[-1][1] < 0.3 * points[0][1], name
