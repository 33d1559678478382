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

from tersor.graph_ir import DataError
from tersor.pipeline.build.evidence import AMPLIFIED, ONE_SAMPLE_DB, Feed, Run, amplified, enough, needed_db
from tests.support.shifted import judge, shifted
from tests.support.user_code import X


def run_of(*outputs: Any) -> Run:
    def run(_: Feed) -> list[Any]:
        return list(outputs)

    return run


@given(st.integers(1, 10_000), st.floats(-20, 80))
def test_the_factor_is_the_least_that_makes_up_for_the_samples(samples: int, close: float) -> None:
    factor = enough(samples, close)
    if factor is None:
        assert close < needed_db(samples * AMPLIFIED[-1])
        return
    assert close >= needed_db(samples * factor)
    assert all(close < needed_db(samples * smaller) for smaller in (1, *AMPLIFIED) if smaller < factor)


def test_ten_times_the_samples_are_worth_ten_decibels() -> None:
    assert needed_db(1) == ONE_SAMPLE_DB
    assert needed_db(10) == pytest.approx(ONE_SAMPLE_DB - 10)
    assert needed_db(0) == ONE_SAMPLE_DB


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


@pytest.mark.parametrize(("quantized", "accepted"), [(True, False), (False, True)])
def test_few_samples_are_no_evidence_for_a_quantized_form_that_is_not_close(
    tmp_path: Path, quantized: bool, accepted: bool
) -> None:
    original = shifted(tmp_path, 3.0, "original")
    candidate = replace(shifted(tmp_path, 4.0), quantized=quantized)
    found = judge(original, metric="mean").judge(candidate)
    assert found.accepted == accepted
    assert ("samples can vouch for" in found.reason) != accepted


def test_a_close_quantized_form_needs_few_samples(tmp_path: Path) -> None:
    original = shifted(tmp_path, 3.0, "original")
    candidate = replace(shifted(tmp_path, 3.0 + 1e-5), quantized=True)
    assert judge(original, metric="mean").judge(candidate).accepted


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("mean", ""),
        (
            "above",
            (
                "outputs are 36.0 dB close, and the metric's 2 samples vouch for that only if it bears 4 times "
                "the error; it moves by 50.00% then"
            ),
        ),
    ],
)
def test_few_samples_vouch_for_a_form_whose_error_could_be_larger(
    tmp_path: Path, metric: str, reason: str
) -> None:
    """36 dB of what varies between the feeds; two samples need 42."""
    shift = math.sqrt(0.5 * float(np.square(X).sum()) / 12 / 10**3.6)
    candidate = replace(shifted(tmp_path, 3.0 - shift), quantized=True)
    found = judge(shifted(tmp_path, 3.0, "original"), metric).judge(candidate)
    assert found.drop is not None
    assert found.drop < 0.01
    assert (found.accepted, found.reason) == (not reason, reason)
