"""Imports go one way: a layer imports only layers below it, and siblings never import one another."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

import bdtorch

ROOT = Path(bdtorch.__file__).parent
LAYERS = (
    ("_version", "_types", "_tree", "_files", "_axes", "_replaced", "units"),
    ("ops",),
    ("surrogate", "integrate"),
    ("_system", "_flow", "_noisy_flow", "_fractional_flow", "_drive", "init", "connect"),
    ("channels", "synapses", "plasticity", "rates", "reservoirs", "stimuli"),
    ("neurons",),
    ("network", "simulate"),
    ("train", "analyze", "plot"),
    ("testing", "__init__"),
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}

# The core is one room in several files: its members may import each other.
CORE = {
    "_version",
    "_types",
    "_tree",
    "_files",
    "_axes",
    "_replaced",
    "units",
    "_system",
    "_flow",
    "_noisy_flow",
    "_fractional_flow",
    "_drive",
    "init",
    "connect",
}
FILES = sorted(path for path in ROOT.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[int, str]]:
    """Line and room of everything of the package that a file imports, at any depth of its code."""
    found = []
    package = ["bdtorch", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            # `from bdtorch import _tree` names the room itself; `from bdtorch.ops import x` names it in the module.
            names = [f"{module}.{alias.name}" if module == "bdtorch" else module for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "bdtorch":
                found.append((node.lineno, parts[1] if len(parts) > 1 else "__init__"))
    return found


def test_every_room_has_a_layer() -> None:
    rooms = {_room(path) for path in FILES}
    assert rooms - set(LAYER) == set(), "give the new room a layer here"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    room = _room(path)
    for line, imported in _imports(path):
        where = f"{path.relative_to(ROOT.parent)}:{line} imports {imported}"
        assert imported in LAYER, f"{where}, which is no room"
        if imported == room or ({imported, room} <= CORE and LAYER[imported] <= LAYER[room]):
            continue
        assert LAYER[imported] < LAYER[room], f"{where}, which is not below {room}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_registered_operators_are_called_in_ops_alone(path: Path) -> None:
    # `torch.ops.aten`, which compilers name, is torch's own.
    if _room(path) == "ops":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.ops.bdtorch"):
            raise AssertionError(f"{path.relative_to(ROOT.parent)}:{node.lineno} calls {ast.unparse(node)}")


def test_rooms_do_not_import_in_circles() -> None:
    edges = {(_room(path), imported) for path in FILES for _, imported in _imports(path)}
    below: dict[str, set[str]] = {}
    for room, imported in edges:
        if room not in ("__init__", imported):
            below.setdefault(room, set()).add(imported)
    for _ in below:  # remove rooms without imports among those that remain, until none is left
        below = {room: {x for x in rooms if x in below} for room, rooms in below.items()}
        below = {room: rooms for room, rooms in below.items() if rooms}
    assert not below, f"a circle among {sorted(set(itertools.chain(below, *below.values())))}"
