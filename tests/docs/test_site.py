"""What the site is made of: every public name has its place, every script its page."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import bdtorch

SITE = Path(__file__).resolve().parents[2] / "docs" / "site"


def _module(name: str):
    spec = importlib.util.spec_from_file_location(f"docs_site_{name}", SITE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def api():
    return _module("api")


@pytest.fixture(scope="module")
def gallery():
    return _module("gallery")


def test_every_public_name_is_in_the_api(api):
    pages = api.pages()
    for part in api.packages():
        module = sys.modules.get(f"bdtorch.{part}") or importlib.import_module(f"bdtorch.{part}")
        public = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and callable(value) and value.__module__.startswith("bdtorch")
        ]
        assert public
        for name in public:
            assert f"::: {api.entry(api.PACKAGE / part, name)}\n" in pages[part]
    for name, value in vars(bdtorch).items():
        if not name.startswith("_") and callable(value):
            assert f"::: {api.entry(api.PACKAGE, name)}\n" in pages["bdtorch"]
    assert "[bdtorch.neurons](neurons.md)" in pages["index"]


def test_a_function_is_told_from_a_module_of_its_name(api):
    """Each entry leads to a function or class, and to the public one; the documentation reads files, and runs nothing."""
    for part in api.packages():
        for path in re.findall(r"^::: (\S+)$", api.pages()[part], re.MULTILINE):
            *parts, name = path.split(".")
            file = api.PACKAGE.parent.joinpath(*parts)
            assert not (file / f"{name}.py").exists() and not (file / name).is_dir(), path
            assert getattr(importlib.import_module(".".join(parts)), name) is getattr(
                importlib.import_module(f"bdtorch.{part}"), name
            )
    assert "::: bdtorch.analyze.phase_plane.phase_plane\n" in api.pages()["analyze"]


def test_every_script_has_a_page_with_its_cells(gallery):
    scripts = gallery.scripts()
    assert {script.name for script in scripts} >= {"channels", "cobahh_network", "dale_network"}
    assert set(gallery.ORDER) >= {"channels"} and len(set(gallery.ORDER)) == len(gallery.ORDER)
    for script in scripts:
        text = gallery.page(script)
        assert text.startswith(f"# {script.title}\n") and "```python\n" in text and "jupytext" not in text
        assert '"nbformat"' in gallery.notebook(script)
        assert f"({script.name}.md)" in gallery.index(scripts)


def test_a_picture_and_what_was_printed_stand_on_the_page(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "OUT", tmp_path)
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "channels.txt").write_text("a table\n")
    (tmp_path / "channels.png").write_bytes(b"picture")
    (script,) = [script for script in gallery.scripts() if script.name == "channels"]
    assert "```text\na table\n```" in gallery.page(script) and "(channels.png)" in gallery.page(script)


def test_names_on_the_page_for_users_of_brainpy_exist():
    text = (SITE.parent / "brainpy.md").read_text()
    paths = set(re.findall(r"\bbt((?:\.\w+)+)", text))
    assert len(paths) > 50
    for path in paths:
        value = bdtorch
        for name in path[1:].split("."):
            value = getattr(value, name)
