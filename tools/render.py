# SPDX-License-Identifier: Apache-2.0
"""Tables and figures for people, JSON for machines; results go to standard output."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, cast

_GAPS = (3, 2, 1)  # columns of a terminal between those of a table: the first with which it fits
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


def print_line(text: str) -> None:
    """Print a line, folded between words where it is wider than the terminal; elsewhere it stays one."""
    room = _room()
    if room is not None and _width(text) > room:
        text = "\n".join(
            wrap(text, room, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        )
    print(text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table; columns whose cells are all numbers are set to the right.

    A terminal's is fitted to its width; elsewhere every row is one line, however long.
    """
    texts = [[printable(cell) for cell in line] for line in (columns, *rows)]
    right = [bool(rows) and all(_is_figure(row[index]) for row in rows) for index in range(len(columns))]
    by_column = list(zip(*texts, strict=True))
    widths = [max(map(_width, column)) for column in by_column]
    room, gap = _room(), _GAPS[0]
    if room is not None:
        least = [
            max(map(_width, [*column[0].split(), *column[1:]]), default=0)
            if figures
            else min(width, _LEAST_TEXT)
            for column, width, figures in zip(by_column, widths, right, strict=True)
        ]
        between = len(widths) - 1
        gap = next((gap for gap in _GAPS if sum(least) + gap * between <= room), _GAPS[-1])
        _fit(widths, least, room - gap * between)
    rule = "\u2500" * (sum(widths) + gap * (len(widths) - 1))
    head, *others = [_lines(row, widths, right, " " * gap) for row in texts]
    print("\n".join([*([] if title is None else [title]), *head, rule, *chain.from_iterable(others)]))


def _room() -> int | None:
    """Columns of the terminal that standard output goes to; None where it is none."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def _fit(widths: list[int], least: Sequence[int], room: int) -> None:
    """Take from the widest columns, down to the least widths, until all have room or none can give."""
    for _ in range(sum(widths) - room):
        at = max(range(len(widths)), key=lambda k: (widths[k] > least[k], widths[k]))
        widths[at] = max(widths[at] - 1, least[at])


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool], gap: str) -> list[str]:
    """The lines of one row of a table."""
    cells = zip_longest(*map(_folded, row, widths), fillvalue="")
    return [gap.join(map(_set, line, widths, right)).rstrip() for line in cells]


def _folded(text: str, width: int) -> list[str]:
    """The text in lines of at most so many columns."""
    lines = [""]
    for piece in _pieces(text, width):
        if lines[-1].strip() and _width((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _pieces(text: str, width: int) -> Iterator[str]:
    """What is kept whole: words; of wider ones what a separator ends; of still wider ones, characters."""
    for word in re.findall(r"\S+\s*|\s+", text):
        if _width(word.rstrip()) <= width:
            yield word
            continue
        for part in re.findall(r"[^/._:]+[/._:]*|[/._:]+", word):
            yield from (part,) if _width(part.rstrip()) <= width else part


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
