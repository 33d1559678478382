# SPDX-License-Identifier: Apache-2.0
"""Masks have exact counts, break ties by position, and refuse shares and patterns that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.graph_ir import UsageError
from tersor.passes.prune.masks import (
    Pattern,
    check_sparsity,
    count,
    outside_pattern,
    read_pattern,
    smallest,
    smallest_of_each_row,
)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_exactly_as_many_as_asked_and_none_larger_than_what_stays(
    values: list[int], data: st.DataObject
) -> None:
    scores = np.array(values, np.float32)
    number = data.draw(st.integers(0, len(values)))
    mask = smallest(scores, number)
    assert np.count_nonzero(mask) == number
    if 0 < number < len(values):
        assert scores[mask].max() <= scores[~mask].min()


def test_of_equal_scores_the_first_go() -> None:
    scores = np.array([[1, 0, 1, 1], [1, 1, 0, 1]], np.float32)
    assert smallest(scores, 4).astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 1, 0]]
    assert smallest_of_each_row(scores, 2).astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]


def test_the_largest_of_each_run_stay() -> None:
    scores = np.array([[4, 3, 2, 1, 5, 5, 5, 5], [0, 9, 1, 8, 1, 2, 9, 0]], np.float32)
    dropped = outside_pattern(scores, Pattern(2, 4)).astype(int)
    assert dropped.tolist() == [[0, 0, 1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0, 0, 1]]
    assert outside_pattern(scores, Pattern(1, 4)).sum(axis=1).tolist() == [6, 6]


def test_counts_are_rounded() -> None:
    assert [count(0.5, n) for n in (0, 1, 2, 3, 10)] == [0, 0, 1, 2, 5]
    assert count(0.999, 10) == 10


def test_patterns_are_read() -> None:
    assert read_pattern("2:4") == Pattern(2, 4)
    assert str(Pattern(2, 4)) == "2:4"


@pytest.mark.parametrize("text", ["4:2", "4:4", "0:4", "2", "2/4", "a:b", "2:4:8", "-2:4", ""])
def test_other_patterns_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"N of each M|N:M") as caught:
        read_pattern(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 50.0, float("nan")])
def test_a_share_is_between_zero_and_one(share: float) -> None:
    with pytest.raises(UsageError, match="is no share of weights"):
        check_sparsity(share)
