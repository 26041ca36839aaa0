"""Rows of `networks.py` for reading: as text, and as a table; and tables put into a page."""

from __future__ import annotations

import datetime
import itertools
import platform
from pathlib import Path
from typing import Any

COLUMNS = (  # heading, key, width, digits
    ("us/step", "us_per_step", 9, 2),
    ("s per bio s", "seconds_per_biological_second", 11, 4),
    ("ratio", "ratio", 6, 2),
    ("rate Hz", "rate_hz", 8, 2),
    ("import s", "import_s", 8, 2),
    ("compile s", "compile_s", 9, 2),
    ("first cold", "first_result_s", 10, 2),
    ("warm", "first_result_warm_s", 7, 2),
    ("peak MB", "peak_mb", 8, 0),
    ("above import", "peak_above_import_mb", 12, 0),
)


def _cell(row: dict[str, Any], key: str, digits: int) -> str:
    return "-" if row[key] is None else f"{row[key]:.{digits}f}"


def text(rows: list[dict[str, Any]]) -> str:
    """One comparison for the terminal."""
    lines = [
        f"network {rows[0]['network']}: {rows[0]['neurons']} neurons, {rows[0]['synapses']} synapses",
        " ".join([f"{'simulator':15} {'threads':>7}", *(f"{head:>{width}}" for head, _, width, _ in COLUMNS)]),
    ]
    for row in rows:
        cells = (f"{_cell(row, key, digits):>{width}}" for _, key, width, digits in COLUMNS)
        lines.append(" ".join([f"{row['simulator']:15} {row['threads']:7}", *cells]))
    return "\n".join(lines)


def markdown(rows: list[dict[str, Any]]) -> str:
    """All comparisons in one table, in the order in which they were made."""
    heads = ["network", "neurons", "synapses", "threads", "simulator", *(head for head, *_ in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for _, group in itertools.groupby(rows, key=lambda row: (row["network"], row["neurons"], row["comparison"])):
        for number, row in enumerate(group):
            names = [row["network"], f"{row['neurons']:,}", f"{row['synapses']:,}", str(row["threads"])]
            names = ["", "", "", *names[3:]] if number else names
            cells = [*names, row["simulator"], *(_cell(row, key, digits) for _, key, _, digits in COLUMNS)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_page(table: str, page: Path, mark: str = "networks") -> None:
    """Write a table anew between the marks of a page, with day and machine."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    when = datetime.datetime.now(datetime.timezone.utc).date()
    written = page.read_text()
    before, after = written[: written.index(begin) + len(begin)], written[written.index(end) :]
    page.write_text(f"{before}\n\nMeasured on {when:%d %B %Y}, {processor()}.\n\n{table}\n\n{after}")


def processor() -> str:
    """The name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
