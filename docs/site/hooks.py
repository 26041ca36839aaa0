"""Hooks of mkdocs: pages of the API and of the gallery, which are made of the sources, and formulas as MathML."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import api
import gallery

_log = logging.getLogger("mkdocs.hooks.bdtorch")


def on_config(config: Any) -> Any:
    """Put the generated pages into the navigation."""
    for section in config["nav"]:
        if "API" in section:
            section["API"] += [{name: f"api/{name}.md"} for name in api.pages() if name != "index"]
        if "Gallery" in section:
            section["Gallery"] += [f"gallery/{script.name}.md" for script in gallery.scripts()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and the pictures and notebooks that they show."""
    for name, text in api.pages().items():
        files.append(File.generated(config, f"api/{name}.md", content=text))
    scripts = gallery.scripts()
    files.append(File.generated(config, "gallery/index.md", content=gallery.index(scripts)))
    for script in scripts:
        if script.printed is None:
            _log.warning("gallery: %s has not been run; `make gallery` runs it", script.name)
        files.append(File.generated(config, f"gallery/{script.name}.md", content=gallery.page(script)))
        files.append(File.generated(config, f"gallery/{script.name}.ipynb", content=gallery.notebook(script)))
        for picture in script.pictures:
            files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw by themselves, and DOIs into links."""
    html = _linked(html)
    html = re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', _lines, html, flags=re.S)
    return re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda found: _math(found[1], "inline"), html, flags=re.S
    )


def _linked(html: str) -> str:
    """Make links of DOIs, but for those in code and in links."""
    doi = re.compile(r"\bdoi:(10\.\d{4,}/[^\s<>,;]*[^\s<>,;.):])")
    parts = re.split(r"(<(pre|code|a)\b.*?</\2>)", html, flags=re.S)  # text, element, its name, text, ...
    for place in range(0, len(parts), 3):
        parts[place] = doi.sub(r'<a href="https://doi.org/\1">doi:\1</a>', parts[place])
    return "".join(part for place, part in enumerate(parts) if place % 3 != 2)


def _lines(found: re.Match[str]) -> str:
    """Formulas that follow each other without a blank line come as one."""
    return "".join(_math(line, "block") for line in re.split(r"\$\$\s*\$\$", found[1]))


def _math(latex: str, display: str) -> str:
    plain = latex.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()
    return convert(plain, display=display)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn, which is an error in a strict build, where a page would ask another host for anything: the site works offline."""
    for asked in re.findall(r'(?:src|<link[^>]*href)="(?:https?:)?//[^"]+"', output):
        _log.warning("%s asks another host: %s", page.file.src_uri, asked)
    return output
