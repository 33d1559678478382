# SPDX-License-Identifier: Apache-2.0
"""Tables in files and pipes look as they do on terminals, but for the width."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from tersor.backends.onnxruntime.audit import AuditRow
from tersor.tools import render
from tersor.tools.build_cmd import left_float

COLUMNS = ["operator", "n", "why"]


def printed(capsys: pytest.CaptureFixture[str], *table: object) -> list[str]:
    render.print_table(*table)  # pyright: ignore[reportArgumentType]
    return re.sub("\x1b[^m]*m", "", capsys.readouterr().out).splitlines()


def loose(line: str) -> list[str]:
    return re.sub("\u2500+", "-", line).split()


@pytest.mark.parametrize("title", [None, "A title"])
@pytest.mark.parametrize(
    "rows",
    [
        [("Conv", 12, "-"), ("BatchNormalization", 3, "+1")],
        [("a", "none", ""), ("", " lead", "trail ")],
        [("naïve", 1, "wide 宽"), ("宽宽", 2, "x")],
        [],
    ],
)
def test_tables_in_files_are_those_of_terminals_without_trailing_spaces(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rows: Sequence[Sequence[object]],
    title: str | None,
) -> None:
    lines = printed(capsys, COLUMNS, rows, title)
    assert lines == [line.rstrip() for line in lines]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert lines == printed(capsys, COLUMNS, rows, title)


def test_lines_are_fitted_to_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("a", 1, "x" * 500)]
    assert "x" * 500 in printed(capsys, COLUMNS, rows)[-1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert max(map(len, printed(capsys, COLUMNS, rows))) == 40
    figures = [(f"{k}.123456", f"{k}.654321", "a remark") for k in range(3)]
    for columns in ("5", "20"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = printed(capsys, ["a", "b", "why"], figures)
        assert [line.split()[:2] for line in lines[2:]] == [list(line[:2]) for line in figures]


def test_text_is_folded_at_words_and_names_at_their_parts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    rows = [("/body/first.0/Conv_output_0:1", 64, "stays: multiples of 16"), ("fc", 8, "")]
    assert printed(capsys, ["channels", "after", "why"], rows) == [
        "channels         after   why",
        "\u2500" * 40,
        "/body/first.0/      64   stays:",
        "Conv_output_0:           multiples of 16",
        "1",
        "fc                   8",
    ]


def test_columns_move_together_before_a_terminal_breaks_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns, gap in (("23", 3), ("21", 2), ("19", 1), ("10", 1)):
        monkeypatch.setenv("COLUMNS", columns)
        assert printed(capsys, ["a", "b", "c"], [("12345", "123456", "123456")])[-1].count(" ") == 2 * gap


def test_a_line_is_folded_on_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "note: a name/that.is-never-broken and words"
    render.print_line(text)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "28")
    render.print_line(text)
    assert capsys.readouterr().out.splitlines() == [
        text,
        "note: a",
        "  name/that.is-never-broken",
        "  and words",
    ]


def test_a_cell_is_one_line_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, ["node"], [("a\nb\x1b[2J",)])[-1] == "a b [2J"


def test_infinite_figures_are_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, ["found"], [("inf dB SQNR",), ("1.5",)])[-1] == "        1.5"


def test_nodes_that_stay_float_for_one_reason_share_a_line() -> None:
    rows = [AuditRow(f"c{i}", "Conv", "Conv", "float", "no-q", "excluded") for i in range(5)]
    rows += [AuditRow("m", "MatMul", "MatMul", "float"), AuditRow("r", "Relu", "Relu", "float", "x", "why")]
    assert left_float(rows) == [
        "not int8: c0 (Conv), c1 (Conv), c2 (Conv) and 2 more: excluded",
        "not int8: m (MatMul): left float",
    ]
