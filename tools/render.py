# SPDX-License-Identifier: Apache-2.0
"""Tables and figures for people, JSON for machines; results go to standard output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, cast

_LEAST_TEXT = 12  # columns of a terminal that text is not folded below; figures never are


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
    """Print a table; columns whose cells are all numbers are set to the right.

    A terminal's is fitted to its width; elsewhere every row is one line, however long.
    """
    texts = [[printable(cell) for cell in line] for line in (columns, *rows)]
    right = [bool(rows) and all(_is_figure(row[index]) for row in rows) for index in range(len(columns))]
    if sys.stdout.isatty():
        _print_rich(texts, right, title)
        return
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    lines = ["   ".join(map(_set, line, widths, right)).rstrip() for line in texts]
    rule = "\u2500" * (sum(widths) + 3 * (len(widths) - 1))
    print("\n".join([*([] if title is None else [title]), lines[0], rule, *lines[1:]]))


def printable(cell: object) -> str:
    """A cell as one line without anything that would move a terminal's cursor."""
    text = str(cell)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _set(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns of a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _print_rich(texts: Sequence[Sequence[str]], right: Sequence[bool], title: str | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False, show_edge=False)
    needed = 3 * (len(right) - 1)
    for column, is_right in zip(zip(*texts, strict=True), right, strict=True):
        widths = [*map(_width, column[0].split()), *map(_width, column[1:])]
        least = max([0, *widths]) if is_right else min(max([0, *widths]), _LEAST_TEXT)
        needed += least
        justify = "right" if is_right else "left"
        table.add_column(Text(column[0]), justify=justify, overflow="fold", min_width=least)
    for row in texts[1:]:
        table.add_row(*map(Text, row))
    console = Console(file=sys.stdout, highlight=False)
    console.width = max(console.width, needed)  # what is wider than a terminal it breaks itself
    console.print(table, crop=False)


def _is_figure(cell: object) -> bool:
    text = str(cell)
    word = text.partition(" ")[0]
    return word in ("", "-", "inf", "nan") or text[:1].isdigit() or (text[:1] in "+-" and text[1:2].isdigit())


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
