# SPDX-License-Identifier: Apache-2.0
"""Tables and figures for people, JSON for machines; results go to standard output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, cast

_PIPE_WIDTH = 160  # columns when standard output is not a terminal


def print_json(data: object) -> None:
    """Print plain data as JSON; NaN and infinities, which JSON lacks, become strings."""
    print(json.dumps(_plain(data), indent=2))


def _plain(data: object) -> object:
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {str(k): _plain(v) for k, v in cast("dict[Any, object]", data).items()}
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[object]", data)]
    return data


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table; columns whose cells are all numbers are set to the right."""
    lines = [] if title is not None or sys.stdout.isatty() else _plain_table(columns, rows)
    if lines:
        print("\n".join(lines))
    else:
        _print_rich(columns, rows, title)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines that `_print_rich` gives for a table with nothing to wrap; rich takes a while to import."""
    texts = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    plain = all(text.isascii() and text.isprintable() for line in texts for text in line)
    width = sum(widths) + 3 * (len(widths) - 1)
    if not plain or not rows or width > _PIPE_WIDTH:
        return []
    right = [all(_is_figure(row[index]) for row in rows) for index in range(len(columns))]
    lines = [
        "   ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right, strict=True))
        for line in texts
    ]
    return [lines[0], "\u2500" * width, *lines[1:]]


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        right = bool(rows) and all(_is_figure(row[index]) for row in rows)
        table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _PIPE_WIDTH, highlight=False)
    console.print(table)


def _is_figure(cell: object) -> bool:
    text = str(cell)
    return text in ("", "-", "inf", "nan") or text[:1].isdigit() or (text[:1] in "+-" and text[1:2].isdigit())


def plural(count: int, what: str) -> str:
    """So many of something: 1 thread, 2 threads."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def size(count: float) -> str:
    """Bytes for people: 512 B, 1.50 KiB, 3.20 MiB."""
    return f"{count:.0f} B" if count < 1024 else _scaled(count, 1024, ("KiB", "MiB", "GiB", "TiB"))


def quantity(count: float) -> str:
    """A count for people: 950, 1.50 k, 3.20 M, 4.10 G."""
    return f"{count:.0f}" if count < 1000 else _scaled(count, 1000, ("k", "M", "G", "T"))


def macs(count: float, uncounted: int) -> str:
    """Multiply-accumulates, where of so many nodes they are not known."""
    if not uncounted:
        return quantity(count)
    return f"at least {quantity(count)}" if count else "unknown"


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    for unit in units:
        count /= base
        if count < base or unit == units[-1]:
            return f"{count:.2f} {unit}"
    raise AssertionError
