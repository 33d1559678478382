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


def size(count: float) -> str:
    """Bytes for people: 512 B, 1.50 KiB, 3.20 MiB."""
    return f"{count:.0f} B" if count < 1024 else _scaled(count, 1024, ("KiB", "MiB", "GiB", "TiB"))


def quantity(count: float) -> str:
    """A count for people: 950, 1.50 k, 3.20 M, 4.10 G."""
    return f"{count:.0f}" if count < 1000 else _scaled(count, 1000, ("k", "M", "G", "T"))


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    for unit in units:
        count /= base
        if count < base or unit == units[-1]:
            return f"{count:.2f} {unit}"
    raise AssertionError
