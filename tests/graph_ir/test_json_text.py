# SPDX-License-Identifier: Apache-2.0
"""JSON from outside: an object, or one line on what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.graph_ir import DataError, UsageError
from tersor.graph_ir.json_text import parse_object, read_object


def test_an_object_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"ä": [1, null]}', encoding="utf-8")
    assert read_object(path) == {"ä": [1, None]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "here is not JSON: Expecting value"),
        ("{", "here is not JSON"),
        ("[" * 200_000, "here is not JSON: maximum recursion depth"),
        ("[{}]", "here holds no JSON object, but a list"),
        ("null", "here holds no JSON object, but a NoneType"),
    ],
)
def test_what_is_no_object_is_told_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        parse_object(text, "here", UsageError)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read '.*none\.json': No such file"):
        read_object(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="the plan is no text"):
        read_object(tmp_path / "bytes.json", "the plan")
