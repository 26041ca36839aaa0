"""The pages of the API: for every public package, and for the names of `bdtorch` itself, each public name."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "bdtorch"


def public_names(init: Path) -> list[str]:
    """Names that a package exports: those imported under their own name, as in ``from x import A as A``."""
    tree = ast.parse(init.read_text())
    return [
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]


def entry(package: Path, name: str) -> str:
    """The path by which the documentation finds a public name: a module of the same name would come before it."""
    path = f"bdtorch.{package.name}.{name}" if package != PACKAGE else f"bdtorch.{name}"
    if not (package / f"{name}.py").exists() and not (package / name).is_dir():
        return path
    for node in ast.parse((package / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and any(alias.asname == name for alias in node.names):
            inner = PACKAGE.parent.joinpath(*str(node.module).split("."))
            return entry(inner, name) if inner.is_dir() else f"{node.module}.{name}"
    return path


def packages() -> list[str]:
    """Public packages and modules of bdtorch, in alphabetical order."""
    inner = {path.parent.name for path in PACKAGE.glob("[a-z]*/__init__.py")}
    return sorted(inner | {path.stem for path in PACKAGE.glob("[a-z]*.py")})


def pages() -> dict[str, str]:
    """Markdown by the name of the page."""
    parts = packages()
    texts = {"index": _overview(parts), "bdtorch": _top(parts)}
    for part in parts:
        init = PACKAGE / part / "__init__.py"
        if init.exists():
            names = sorted(public_names(init), key=str.lower)
            body = "".join(f"::: {entry(PACKAGE / part, name)}\n\n" for name in names)
            texts[part] = f"# bdtorch.{part}\n\n{_summary(init)}\n\n{body}"
        else:
            texts[part] = f"# bdtorch.{part}\n\n{_summary(PACKAGE / f'{part}.py')}\n\n{_module(part)}"
    return texts


def _top(parts: list[str]) -> str:
    names = [name for name in public_names(PACKAGE / "__init__.py") if name not in parts or name == "simulate"]
    names = [name for name in sorted(names, key=str.lower) if not name.startswith("__")]
    body = "".join(f"::: {entry(PACKAGE, name)}\n\n" for name in names)
    return f"# bdtorch\n\n{_summary(PACKAGE / '__init__.py')}\n\n{body}"


def _module(part: str) -> str:
    tree = ast.parse((PACKAGE / f"{part}.py").read_text())
    names = [
        node.name
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    return "".join(f"::: bdtorch.{part}.{name}\n\n" for name in names)


def _overview(parts: list[str]) -> str:
    rows = "".join(f"| [bdtorch.{part}]({part}.md) | {_summary(_source(part))} |\n" for part in parts)
    top = _summary(PACKAGE / "__init__.py")
    return f"# API\n\n| | |\n|---|---|\n| [bdtorch](bdtorch.md) | {top} |\n{rows}"


def _source(part: str) -> Path:
    init = PACKAGE / part / "__init__.py"
    return init if init.exists() else PACKAGE / f"{part}.py"


def _summary(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())
