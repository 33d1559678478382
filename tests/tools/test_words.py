# SPDX-License-Identifier: Apache-2.0
"""Shares and times as the command line writes them."""

from __future__ import annotations

import pytest

from tersor.graph_ir import UsageError
from tersor.tools.build_cmd import seconds, share


@pytest.mark.parametrize(
    ("given", "part"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("0.5 %", 0.005), ("12.5%", 0.125)]
)
def test_shares(given: str, part: float) -> None:
    assert share(given) == pytest.approx(part)


@pytest.mark.parametrize("given", ["", "%", "one", "1%%", "1,5%"])
def test_what_is_no_share(given: str) -> None:
    with pytest.raises(UsageError, match="is no share; write 1% or"):
        share(given)


@pytest.mark.parametrize(
    ("given", "long"),
    [
        ("90", 90),
        ("90s", 90),
        ("2m", 120),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("2m30", 150),
    ],
)
def test_times(given: str, long: float) -> None:
    assert seconds(given) == long


@pytest.mark.parametrize("given", ["", "s", "soon", "1d", "30m1h", "-2m", "1e3", "nan", "1h 30x"])
def test_what_is_no_time(given: str) -> None:
    with pytest.raises(UsageError, match="is no time; write 90s, 2m or 1h30m"):
        seconds(given)
