"""The benchmarks of operators: one for each family of operators, whose two sides agree, at small sizes."""

import importlib
from pathlib import Path

import pytest

from benchmarks.ops import _compare

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"random": "random_numbers", "random_counts": "random_numbers"}  # `random` is a module of Python's
NO_OPERATORS = {"csr", "selftest", "user"}


def test_there_is_a_benchmark_for_every_family() -> None:
    families = {path.stem for path in (ROOT / "bdtorch" / "ops").glob("[a-z]*.py")} - NO_OPERATORS
    assert len(families) >= 9
    for family in families:
        assert (ROOT / "benchmarks" / "ops" / f"{NAMES.get(family, family)}.py").is_file(), family


@pytest.mark.parametrize(
    "name", ["csr_order", "draw", "event_dense", "plasticity", "delay", "eligibility", "segments", "elementary"]
)
def test_both_sides_agree(name: str) -> None:
    rows = _compare.measure(importlib.import_module(f"benchmarks.ops.{name}").cases(60), rounds=1)
    assert rows and all(row["ratio"] > 0 and row["steps"] >= 0 for row in rows)
