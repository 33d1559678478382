# SPDX-License-Identifier: Apache-2.0
"""Tables printed without rich look as rich's do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tersor.tools import render

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
