"""Naming and arithmetic on pytrees."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from bdtorch import _tree as tree


class Pair(NamedTuple):
    v: Any
    w: Any


def _state() -> dict[str, Any]:
    return {
        "E": Pair(v=1, w={"Na": Pair(v=2, w=3), "m": 4}),
        "I": {"neuron": Pair(v=5, w=6), "countdown": 7},
        "E->I": {"g": 8},
        "list": [9, (10,)],
    }


def test_names_are_in_the_order_of_the_leaves() -> None:
    names, values = zip(*tree.named_leaves(_state()), strict=True)
    assert list(values) == tree.leaves(_state())
    assert names[:4] == ("E.v", "E.w.Na.v", "E.w.Na.w", "E.w.m")
    assert names[-2:] == ("list.0", "list.1.0")
    assert list(tree.named_leaves(3)) == [("", 3)] and list(tree.named_leaves(3, "x")) == [("x", 3)]
    assert list(tree.named_leaves(())) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [("E.v", 1), ("E.w.Na.v", 2), ("E.m", 4), ("E.Na.w", 3), ("I.v", 5), ("I.neuron.w", 6), ("countdown", 7),
     ("E->I.g", 8), ("g", 8), ("list.1.0", 10)],
)  # fmt: skip
def test_a_name_may_skip_levels(path: str, value: int) -> None:
    assert tree.find(_state(), path) == value


def test_a_child_wins_over_deeper_descendants() -> None:
    assert tree.find({"a": {"x": {"v": 1}, "v": 2}}, "a.v") == 2


@pytest.mark.parametrize(
    ("path", "problem"),
    [("Na.v.w", "names nothing"), ("E.q", "names nothing"), ("E.v.x", "names nothing"), ("", "names nothing"),
     ("v", "is ambiguous")],  # E.v, and I.neuron.v a level deeper
)  # fmt: skip
def test_what_cannot_be_found(path: str, problem: str) -> None:
    with pytest.raises(KeyError, match=problem) as error:
        tree.find(_state(), path)
    assert "E.w.Na.v" in str(error.value) and "E->I.g" in str(error.value)


def test_equals_at_one_level_are_ambiguous() -> None:
    with pytest.raises(KeyError, match=r"'a\.v' is ambiguous: 'v' is looked for among 'a\.x\.v', 'a\.y\.v'"):
        tree.find({"a": {"x": {"v": 1}, "y": {"v": 2}}}, "a.v")


def test_arithmetic() -> None:
    origin, direction = Pair(torch.ones(2), {"a": torch.zeros(1)}), Pair(torch.tensor([1.0, 2.0]), {"a": torch.ones(1)})
    moved = tree.axpy(0.5, direction, origin)
    assert isinstance(moved, Pair) and moved.v.tolist() == [1.5, 2.0] and moved.w["a"].tolist() == [0.5]
    assert origin.v.tolist() == [1.0, 1.0]


def test_replacing_and_filtering() -> None:
    x = torch.ones(1)
    state = Pair(1, [2, x])
    assert tree.replace_leaf(state, 1, 5) == Pair(1, [5, x])
    assert tree.tensors(state) == [x]
    flat, spec = tree.flatten(state)
    assert tree.unflatten(flat, spec) == state
