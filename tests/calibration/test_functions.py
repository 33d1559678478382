# SPDX-License-Identifier: Apache-2.0
"""Code of users: what it raises is one line, what it prints does not mix with results."""

from __future__ import annotations

import sys

import pytest

from tersor.calibration.functions import user_code
from tersor.graph_ir import DataError


def test_what_user_code_prints_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with user_code("metric 'm:f'"):
        sys.stdout.write("hello\n")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"


def test_what_user_code_raises_names_it() -> None:
    with pytest.raises(DataError, match="metric 'm:f' failed: ValueError: no"), user_code("metric 'm:f'"):
        raise ValueError("no")
