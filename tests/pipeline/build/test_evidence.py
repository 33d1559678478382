# SPDX-License-Identifier: Apache-2.0
"""What few samples can vouch for: errors made larger on purpose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.backends.base import Feed
from tersor.graph_ir import DataError
from tersor.pipeline.build.evidence import (
    FACTORS,
    ONE_SAMPLE_DB,
    Run,
    amplified,
    expected_drop,
    needed_db,
)
from tersor.pipeline.build.result import Judgement
from tests.support.shifted import judge, shifted


def run_of(*outputs: Any) -> Run:
    def run(_: Feed) -> list[Any]:
        return list(outputs)

    return run


def test_ten_times_the_samples_are_worth_ten_decibels() -> None:
    assert needed_db(1) == ONE_SAMPLE_DB
    assert needed_db(10) == pytest.approx(ONE_SAMPLE_DB - 10)
    assert needed_db(0) == ONE_SAMPLE_DB


@given(st.floats(1e-4, 0.05), st.sampled_from([1.0, 1.5, 2.0]))
def test_a_smooth_metric_is_taken_at_its_word(drop: float, power: float) -> None:
    moves = [drop * k**power for k in (1, *FACTORS)]
    assert expected_drop(moves, 20) == drop


def test_answers_that_tip_over_are_counted_at_every_factor() -> None:
    """Twenty samples of which one has tipped at twice the error and two at eight times."""
    assert expected_drop([0.0, 0.05, 0.05, 0.1], 20) == pytest.approx((0.2 + 0.5 / 20) / 15)


def test_a_metric_that_rises_has_tipped_as_well() -> None:
    assert expected_drop([0.0, -0.05, 0.05, 0.1], 20) == expected_drop([0.0, 0.05, 0.05, 0.1], 20)


@given(st.integers(1, 1000))
def test_where_nothing_tips_more_samples_say_more(samples: int) -> None:
    found = expected_drop([0.0] * 4, samples)
    assert 0 < found == pytest.approx(0.5 / samples / 15)


@given(st.floats(0.001, 0.02), st.integers(50, 2000), st.integers(0, 2**32 - 1))
def test_the_estimate_is_near_what_tips(rate: float, samples: int, seed: int) -> None:
    """Answers whose distance from tipping is drawn evenly; each that tips is lost."""
    rng = np.random.default_rng(seed)
    distance = rng.random(samples) / rate  # in errors
    moves = [float((distance < k).mean()) for k in (1, *FACTORS)]
    # Counts at several factors overlap; their sum over 15 has at most this standard deviation.
    assert abs(expected_drop(moves, samples) - rate) < 5 * math.sqrt(rate / samples) + 1 / samples


def test_the_error_and_nothing_else_is_scaled() -> None:
    want, got = np.array([1.0, -2.0, 4.0], np.float32), np.array([1.5, -2.0, 3.0], np.float32)
    (found,) = amplified(run_of(want), run_of(got), 4)({})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([3.0, -2.0, 0.0], np.float32))


def test_equal_infinities_have_no_error() -> None:
    want = np.array([-math.inf, 1.0], np.float32)
    (found,) = amplified(run_of(want), run_of(want.copy()), 2)({})
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(
    ("want", "got"),
    [
        (np.array([1]), np.array([2])),
        (np.zeros(2, np.float32), np.zeros(3, np.float32)),
        ([np.zeros(2, np.float32)], [np.zeros(2, np.float32)]),
    ],
)
def test_what_has_no_distance_is_no_evidence(want: Any, got: Any) -> None:
    with pytest.raises(DataError, match="cannot be scaled"):
        amplified(run_of(want), run_of(got), 2)({})


def vouched(folder: Path, shift: float, metric: str, *, quantized: bool = True) -> Judgement:
    """What is said of a model that answers lower by a shift, to a metric of two samples."""
    judging = judge(shifted(folder, 3.0, "original"), metric)
    candidate = replace(shifted(folder, 3.0 - shift), quantized=quantized)
    found = judging.judge(candidate)
    assert found.accepted
    assert not found.vouched
    return judging.vouch(candidate, found)


def test_a_smooth_metric_is_expected_to_drop_as_it_did(tmp_path: Path) -> None:
    found = vouched(tmp_path, 0.01, "mean")
    assert found.vouched
    assert found.expected == found.drop == pytest.approx(0.01 / 3, rel=1e-3)


def test_an_answer_that_tips_under_a_larger_error_is_counted(tmp_path: Path) -> None:
    """2.99 is reached with twice the error, and half of the metric is lost there."""
    assert vouched(tmp_path, 0.006, "above").expected == pytest.approx((3 * 0.5 + 0.25) / 15)


def test_outputs_that_cannot_be_scaled_are_no_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Run:
        raise DataError("an output is no tensor")

    monkeypatch.setattr("tersor.pipeline.build.accuracy.amplified", never)
    found = vouched(tmp_path, 0.006, "above")
    assert not found.accepted
    assert found.reason.endswith("samples vouch for 52.0 dB: an output is no tensor")


@pytest.mark.parametrize(("shift", "quantized"), [(1e-5, True), (0.006, False)])
def test_what_is_close_or_not_quantized_needs_no_evidence(
    tmp_path: Path, shift: float, quantized: bool
) -> None:
    found = vouched(tmp_path, shift, "above", quantized=quantized)
    assert found.accepted
    assert found.expected is None
