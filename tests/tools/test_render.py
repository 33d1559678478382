# SPDX-License-Identifier: Apache-2.0
"""Tables printed without rich look as rich's do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tersor.backends.onnxruntime.audit import AuditRow
from tersor.tools import render
from tersor.tools.build_cmd import left_float

COLUMNS = ["operator", "n", "why"]


@pytest.mark.parametrize(
    "rows",
    [
        [("Conv", 12, "-"), ("BatchNormalization", 3, "+1")],
        [("a", "none", ""), ("", " lead", "trail ")],
        [("a", 1, "x" * 200)],
        [("naïve", 1, "wide 宽")],
        [],
    ],
)
@pytest.mark.parametrize("title", [None, "A title"])
def test_plain_tables_are_rich_ones(
    capsys: pytest.CaptureFixture[str], rows: Sequence[Sequence[object]], title: str | None
) -> None:
    render.print_table(COLUMNS, rows, title)
    printed = capsys.readouterr().out
    render._print_rich(COLUMNS, rows, title)  # pyright: ignore[reportPrivateUsage]
    assert printed == capsys.readouterr().out


def test_nodes_that_stay_float_for_one_reason_share_a_line() -> None:
    rows = [AuditRow(f"c{i}", "Conv", "Conv", "float", "no-q", "excluded") for i in range(5)]
    rows += [AuditRow("m", "MatMul", "MatMul", "float"), AuditRow("r", "Relu", "Relu", "float", "x", "why")]
    assert left_float(rows) == [
        "not int8: c0 (Conv), c1 (Conv), c2 (Conv) and 2 more: excluded",
        "not int8: m (MatMul): left float",
    ]
