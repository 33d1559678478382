# SPDX-License-Identifier: Apache-2.0
"""Shares, times and counts as people write them."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import UsageError
from tersor.pipeline.amounts import beyond, figure, seconds, share, whole, within


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("1%", 0.01),
        ("0.01", 0.01),
        ("0", 0.0),
        ("0.5 %", 0.005),
        ("12.5%", 0.125),
        (0.5, 0.5),
        (1, 1.0),
        (np.float32(0.5), 0.5),
    ],
)
def test_shares(given: object, part: float) -> None:
    assert share(given) == pytest.approx(part)


def test_a_share_beyond_a_limit_does_not_look_like_it() -> None:
    assert (beyond(0.0161, 0.01), beyond(0.010004, 0.01)) == ("1.61%", "1.000400%")


@pytest.mark.parametrize("given", ["", "%", "one", "1%%", "1,5%", True, None, [1]])
def test_what_is_no_share(given: object) -> None:
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
        (90, 90),
    ],
)
def test_times(given: object, long: float) -> None:
    assert seconds(given) == long


@pytest.mark.parametrize("given", ["", "s", "soon", "1d", "30m1h", "-2m", "1e3", "nan", "1h 30x", True, []])
def test_what_is_no_time(given: object) -> None:
    with pytest.raises(UsageError, match="is no time; write 90s, 2m or 1h30m"):
        seconds(given)


def test_numbers() -> None:
    assert (figure(20), figure(1.5), whole(3), whole(np.int64(4))) == (20.0, 1.5, 3, 4)


@pytest.mark.parametrize("given", [True, "3", None, [3]])
def test_truth_values_and_text_are_no_numbers(given: object) -> None:
    with pytest.raises(UsageError, match="is no number"):
        figure(given)
    with pytest.raises(UsageError, match="is no whole number"):
        whole(given)


def test_what_has_a_fraction_is_no_whole_number() -> None:
    with pytest.raises(UsageError, match=r"^1\.5 is no whole number"):
        whole(1.5)


def test_a_tie_keeps_the_limit_whatever_rounding_made_of_it() -> None:
    lost = (0.9 - 0.891) / 0.9
    assert lost > 0.01
    assert within(lost, 0.01)
    assert within(float(np.float32(lost)), 0.01)
    assert not within(0.0101, 0.01)
    assert not within(float("nan"), 0.01)
