"""The gallery: the scripts under `notebooks/`, run by `make gallery`, as pages with what they print and draw.

    python docs/site/gallery.py [NAME ...]      # run scripts (all by default) in their quick setting

What a script prints goes to out/gallery/NAME.txt, and its pictures are those of out/ that it names.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out"
ORDER = (
    "channels", "cobahh_network", "ventral_stream", "decision_making", "evidence_accumulation", "dale_network",
    "next_generation_reservoir", "echo_state_lorenz", "wong_wang", "fitzhugh_nagumo", "bursting", "continuous_attractor",
    "speed",
)  # fmt: skip
"""The order of the BrainPy paper's experiments; scripts that are not listed come last."""


@dataclass(frozen=True)
class Script:
    """A script and what its last run left.

    Attributes:
        name: Of the file, without its ending.
        title: Its first heading.
        summary: The first sentence of its docstring.
        path: The file.
        printed: What it printed, or None where it has not been run.
        pictures: Files in out/ that it names and has drawn.
    """

    name: str
    title: str
    summary: str
    path: Path
    printed: str | None
    pictures: tuple[Path, ...]


def scripts() -> list[Script]:
    """All scripts with a jupytext header, in the order of the gallery."""
    paths = [path for path in (ROOT / "notebooks").glob("[a-z]*.py") if path.read_text().startswith("# ---\n# jupyter")]
    ranks = {name: rank for rank, name in enumerate(ORDER)}
    return [_script(path) for path in sorted(paths, key=lambda path: (ranks.get(path.stem, len(ranks)), path.stem))]


def _script(path: Path) -> Script:
    text = path.read_text()
    title, summary = re.search(r"^# # (.+)$", text, re.M), re.search(r'^"""(.+?)(?:"""|$)', text, re.M)
    if title is None or summary is None:
        raise ValueError(f"{path.name}: expected a docstring and a heading of the first rank in a markdown cell")
    printed = OUT / "gallery" / f"{path.stem}.txt"
    names = re.findall(r'_show\.keep\(\s*\w+,\s*"(\w+)"', text)
    pictures = tuple(OUT / f"{name}.png" for name in names if (OUT / f"{name}.png").exists())
    return Script(path.stem, title[1], summary[1], path, printed.read_text() if printed.exists() else None, pictures)


def index(found: list[Script]) -> str:
    """The page of all scripts."""
    cards = []
    for script in found:
        picture = f"    [![{script.title}]({script.pictures[0].name})]({script.name}.md)\n\n" if script.pictures else ""
        cards.append(f"-   **[{script.title}]({script.name}.md)**\n\n{picture}    {script.summary}\n")
    listed = "\n".join(cards)
    return (
        "# Gallery\n\nEvery picture is drawn and every number printed by a script under `notebooks/`, which tests hold to "
        "its numbers. All run in a quick setting, most of them in seconds; `--full` takes the published size. They are "
        f'notebooks as well: open them with jupytext.\n\n<div class="grid cards" markdown>\n\n{listed}\n</div>\n'
    )


def page(script: Script) -> str:
    """The page of one script: pictures, what it printed, and its cells."""
    pictures = "".join(f"![{script.title}]({picture.name})\n\n" for picture in script.pictures)
    printed = f"```text\n{script.printed}```\n\n" if script.printed else ""
    cells = []
    for cell in jupytext.read(script.path).cells:
        text = cell.source.strip()
        if cell.cell_type == "markdown":
            cells.append(re.sub(r"^# .+\n?", "", text, count=1) if not cells else text)
        elif text and not text.startswith('"""'):
            cells.append(f"```python\n{text}\n```")
    body = "\n\n".join(cells)
    return (
        f"# {script.title}\n\n{script.summary}\n\n{pictures}{printed}"
        f"    python -m notebooks.{script.name}\n\n[as a notebook]({script.name}.ipynb){{ download }}\n\n{body}\n"
    )


def notebook(script: Script) -> str:
    """The script as a Jupyter notebook."""
    return jupytext.writes(jupytext.read(script.path), fmt="ipynb")


def run(name: str) -> None:
    """Run one script from the root of the repository, and keep what it prints."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"notebooks.{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"notebooks.{name} failed:\n{done.stdout}{done.stderr}")
    (OUT / "gallery").mkdir(parents=True, exist_ok=True)
    (OUT / "gallery" / f"{name}.txt").write_text(done.stdout)
    print(f"{name:28} {time.perf_counter() - began:6.1f} s", flush=True)


if __name__ == "__main__":
    known = [script.name for script in scripts()]
    for wanted in sys.argv[1:] or known:
        if wanted not in known:
            raise SystemExit(f"`gallery.py {wanted}`: expected names among {', '.join(known)}")
        run(wanted)
