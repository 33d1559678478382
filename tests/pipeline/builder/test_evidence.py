# SPDX-License-Identifier: Apache-2.0
"""What few samples can vouch for: errors made larger on purpose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tersor.backends.base import BackendError, Feed
from tersor.graph_ir import DataError, TersorError
from tersor.pipeline.builder.evidence import (
    FORWARD,
    MIRRORED,
    ONE_SAMPLE_DB,
    Answers,
    Ranges,
    Run,
    amplified,
    expected_drop,
    needed_db,
)
from tersor.pipeline.builder.result import Judgement
from tests.support.shifted import judge, shifted


def run_of(*outputs: Any) -> Run:
    def run(_: Feed) -> list[Any]:
        return list(outputs)

    return run


def restricted(ranges: Ranges, array: Any) -> Any:
    kept = array.astype(np.float64)
    ranges.restrict(0, kept)
    return kept


def test_ten_times_the_samples_are_worth_ten_decibels() -> None:
    assert needed_db(1) == ONE_SAMPLE_DB
    assert needed_db(10) == pytest.approx(ONE_SAMPLE_DB - 10)
    assert needed_db(0) == ONE_SAMPLE_DB


@given(st.floats(1e-4, 0.05), st.sampled_from([1.0, 1.5, 2.0]))
def test_a_smooth_metric_is_taken_at_its_word(drop: float, power: float) -> None:
    forward = [drop * k**power for k in FORWARD]
    assume(abs(20 * drop - round(20 * drop)) > 0.01)
    assert expected_drop(forward, [0.0] * 4, 20) == (drop, drop)


def test_whole_answers_are_no_smooth_metric() -> None:
    """1, 2, 4 and 8 answers of 90 right ones among 100 double as a smooth error does, by chance."""
    forward = [k / 90 for k in FORWARD]
    assert expected_drop(forward, [0.0] * 4, 100, 0.9)[0] == pytest.approx((15 / 90 + 0.005) / 30)


def test_a_smooth_metric_may_be_of_small_numbers() -> None:
    """A mean squared error of 0.00001 moves by less than a thousandth of an answer."""
    forward = [0.001 * k**2 for k in FORWARD]
    assert expected_drop(forward, [0.0] * 4, 32, -1e-5) == (0.001, 0.001)


def test_a_metric_of_zero_that_falls_loses_all() -> None:
    """A correlation of 0 that the error leaves alone, and twice the error makes negative."""
    assert expected_drop([0.0, math.inf, math.inf, math.inf], [0.0] * 4, 32, 0.0) == (math.inf, math.inf)
    assert expected_drop([math.inf] * 4, [0.0] * 4, 32, 0.0) == (math.inf, math.inf)


def test_answers_that_tip_over_are_counted_at_every_factor() -> None:
    """Twenty samples: one has tipped at twice the error, two at eight times, and one turned round."""
    found, high = expected_drop([0.0, 0.05, 0.05, 0.1], [0.0, 0.0, 0.0, 0.05], 20)
    assert found == pytest.approx(0.006451 + 0.5 / 20 / 30, rel=1e-3)  # a = 0.0060, q = 0.00037
    assert high == pytest.approx((0.25 + 0.5 / 20) / 30 + math.sqrt(37 / 15 * 5) / 20 / 30)


@given(st.floats(1e-4, 2e-3), st.floats(0.0, 2e-3))
def test_what_grows_faster_than_the_error_is_small_at_first(line: float, square: float) -> None:
    found, high = expected_drop([0.0] * 4, [2 * (line * k + square * k**2) for k in FORWARD], 10**6)
    assert found == pytest.approx(line + square, abs=1e-6)
    assert high > found


@pytest.mark.parametrize(
    ("moves", "expected"),
    [([0.01, 0.015, 0.02, 0.03], 0.075 / 15), ([0.0, 0.01, 0.07, 0.38], (2 * 0.01 + 4 * 0.07) / 73)],
)
def test_beyond_the_line_and_the_square_it_is_these(moves: list[float], expected: float) -> None:
    assert expected_drop(moves, moves, 10**6)[0] == pytest.approx(expected, abs=1e-6)


def test_what_breaks_a_model_says_nothing_of_small_errors() -> None:
    """A decoder that reads nothing at all under four times the error reads nearly all under twice."""
    still = [0.0] * 4
    assert expected_drop([0.01, 0.02, 0.8, 1.0], still, 50)[0] == pytest.approx((0.03 + 0.01) / 6)
    assert expected_drop([0.01, 0.02, 0.04, 1.0], still, 50)[0] == pytest.approx((0.07 + 0.01) / 14)
    assert expected_drop([0.4, 0.8, 0.9, 1.0], still, 50)[0] == pytest.approx((1.2 + 0.01) / 6)


def test_a_metric_that_rises_has_tipped_as_well() -> None:
    still = [0.0] * 4
    risen = expected_drop([0.0, -0.05, 0.05, 0.1], still, 20)
    assert risen == expected_drop([0.0, 0.05, 0.05, 0.1], still, 20)
    assert expected_drop(still, [0, 0.05, 0.05, -0.1], 20) == risen


@given(st.integers(1, 1000))
def test_where_nothing_tips_more_samples_say_more(samples: int) -> None:
    found, high = expected_drop([0.0] * 4, [0.0] * 4, samples)
    assert 0 < found == high == pytest.approx(0.5 / samples / 30)


@given(st.floats(0.001, 0.02), st.integers(50, 2000), st.integers(0, 2**32 - 1))
def test_the_estimate_is_near_what_tips(rate: float, samples: int, seed: int) -> None:
    """Answers whose distance from tipping is drawn evenly, on either side; each that tips is lost."""
    rng = np.random.default_rng(seed)
    distance = (2 * rng.random(samples) - 1) / (2 * rate)  # in errors
    forward = [float(((distance >= 0) & (distance < k)).mean()) for k in FORWARD]
    mirrored = [float(((distance < 0) & (distance > k)).mean()) for k in MIRRORED]
    # Counts at several factors overlap; their sum over 30 has at most this standard deviation.
    found, _ = expected_drop(forward, mirrored, samples)
    assert abs(found - rate) < 5 * math.sqrt(rate / samples) + 1 / samples


@pytest.mark.parametrize(("samples", "rate"), [(22, 0.009), (100, 0.008), (500, 0.005)])
def test_five_times_of_six_no_more_is_lost_than_the_upper_end(samples: int, rate: float) -> None:
    rng = np.random.default_rng(7)
    draws = (2 * rng.random((2000, samples)) - 1) / (2 * rate)
    forward = [((draws >= 0) & (draws < k)).mean(axis=1) for k in FORWARD]
    mirrored = [((draws < 0) & (draws > k)).mean(axis=1) for k in MIRRORED]
    found = [
        expected_drop([float(move) for move in ahead], [float(move) for move in back], samples)[1]
        for ahead, back in zip(zip(*forward, strict=True), zip(*mirrored, strict=True), strict=True)
    ]
    assert 0.78 < np.mean(np.array(found) >= rate) < 0.92


def test_the_error_and_nothing_else_is_scaled() -> None:
    want, got = np.array([1.0, -2.0, 4.0], np.float32), np.array([1.5, -2.0, 3.0], np.float32)
    (found,) = amplified(run_of(want), run_of(got), 4, Ranges())({})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([3.0, -2.0, 0.0], np.float32))


def test_equal_infinities_have_no_error() -> None:
    want = np.array([-math.inf, 1.0], np.float32)
    (found,) = amplified(run_of(want), run_of(want.copy()), 2, Ranges())({})
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
        amplified(run_of(want), run_of(got), 2, Ranges())({})


def test_scores_stay_in_the_range_they_have() -> None:
    """Twice the error would make a probability of 0.1 negative, and move one of 0.9 beyond one."""
    want, got = (np.tile(np.array(row, np.float32), 300) for row in ([0, 0.1, 0.9, 1], [0, 0.02, 0.98, 1]))
    ranges = Ranges()
    seen = ranges.of(run_of(want))
    (beyond,) = amplified(seen, run_of(got), 2, Ranges())({})
    assert beyond.min() < 0
    (found,) = amplified(seen, run_of(got), 2, ranges)({})
    np.testing.assert_array_equal(found, np.tile(np.array([0, 0, 1, 1], np.float32), 300))


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 2, 4000), (1, 4000, 2), (2, 1500, 2)]))
def test_parts_of_an_output_keep_their_own_ranges(seed: int, shape: tuple[int, ...]) -> None:
    """Scores beside coordinates, in one tensor: what has seen enough values is held to them."""
    rng, axis = np.random.default_rng(seed), shape.index(2, 1)
    scale = np.array([1.0, 100.0]).reshape([2 if a == axis else 1 for a in range(3)])
    feeds = [(rng.random(shape) * scale).astype(np.float32) for _ in range(3)]
    ranges = Ranges()
    for feed in feeds:
        np.testing.assert_array_equal(ranges.of(run_of(feed))({})[0], feed)
        np.testing.assert_array_equal(restricted(ranges, feed), feed)
    far = restricted(ranges, np.full(shape, 1000.0))
    others = tuple({0, 1, 2} - {axis})
    np.testing.assert_array_equal(far.max(axis=others), np.max(feeds, axis=0).max(axis=others))


def test_changing_lengths_tell_no_range_of_their_own() -> None:
    ranges = Ranges()
    for length in (3000, 5000):
        ranges.of(run_of(np.arange(2 * length, dtype=np.float32).reshape(1, 2, length)))({})
    far = np.full((1, 2, 5000), 20000.0)
    np.testing.assert_array_equal(restricted(ranges, far).max(axis=2)[0], [4999.0, 9999.0])  # not by column


def test_few_values_tell_no_range() -> None:
    ranges = Ranges()
    ranges.of(run_of(np.arange(20, dtype=np.float32)))({})
    np.testing.assert_array_equal(restricted(ranges, np.array([-1.0, 30.0])), [-1.0, 30.0])


def test_answers_are_asked_for_once_and_kept_from_harm() -> None:
    asked = list[Feed]()

    def run(feed: Feed) -> list[Any]:
        asked.append(feed)
        return [feed["x"] * 2]

    first = Answers().of(run)
    for _ in range(2):
        for value in (1.0, 2.0):
            (found,) = first({"x": np.array([value])})
            assert found == 2 * value
            found += 7  # what a metric may do to what it is given
    assert len(asked) == 2


def test_texts_are_told_apart_by_what_they_say() -> None:
    """Regression: they were told apart by where they lay, which the next text may share."""
    known = Answers().of(lambda feed: [np.array([len(feed["x"][0])])])
    for length in range(1, 200):
        feed = {"x": np.array(["a" * length], object)}
        assert known(feed)[0] == length
        del feed


def test_the_batch_and_what_is_no_number_tell_no_range() -> None:
    ranges = Ranges()
    ranges.of(run_of(np.arange(4000, dtype=np.float32).reshape(2, 2000), np.full(2000, np.nan, np.float32)))(
        {}
    )
    np.testing.assert_array_equal(restricted(ranges, np.full((2, 2000), 1e9)).max(axis=1), [3999.0, 3999.0])
    kept = np.ones(2000)
    ranges.restrict(1, kept)
    assert (kept == 1).all()


def test_what_is_too_much_to_remember_is_asked_again() -> None:
    asked = list[Feed]()

    def run(feed: Feed) -> list[Any]:
        asked.append(feed)
        return [feed["x"]]

    known = Answers(most_bytes=24).of(run)
    for length in (2, 4, 2, 4, 1, 1):
        known({"x": np.zeros(length)})
    assert [feed["x"].size for feed in asked] == [2, 4, 4, 1]


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
    """2.99 is reached with twice the error, and half of the metric is lost there; turned round, nothing."""
    assert vouched(tmp_path, 0.006, "above").expected == pytest.approx(0.5 / 9 + 0.25 / 6)


@pytest.mark.parametrize("failure", [DataError, BackendError])
def test_outputs_that_cannot_be_scaled_are_no_evidence(
    failure: type[TersorError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Run:
        raise failure("an output is no tensor")

    monkeypatch.setattr("tersor.pipeline.builder.accuracy.amplified", never)
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
