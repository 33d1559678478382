# SPDX-License-Identifier: Apache-2.0
"""Data and metrics that tell little are said to."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.fidelity import Closeness, Fidelity
from tersor.pipeline.builder.doubts import (
    FEW_SAMPLES,
    constant_db,
    doubts,
    failing,
    metric_doubts,
    steadiness,
    voids,
)
from tersor.pipeline.builder.result import Judgement
from tests.support.user_code import Feed


def feeds(count: int, batch: int = 1) -> list[Feed]:
    rng = np.random.default_rng(0)
    lengths = np.full(batch, 7)
    return [{"x": rng.random((batch, 3)).astype(np.float32), "length": lengths} for _ in range(count)]


def test_good_data_is_not_doubted() -> None:
    assert doubts(feeds(FEW_SAMPLES), True, 0.5) == []
    assert doubts(feeds(2, batch=FEW_SAMPLES), True, 0.5) == []
    assert doubts(feeds(3), False, 0.5) == []  # there are more than these


@pytest.mark.parametrize(("count", "said"), [(1, "has 1 sample;"), (15, "has 15 samples;")])
def test_few_samples(count: int, said: str) -> None:
    (note,) = doubts(feeds(count), True, 0.5)
    assert said in note


def test_the_same_sample_again_and_again() -> None:
    (note,) = doubts(feeds(1) * 20, True, 0.5)
    assert note.startswith("input 'x' is the same in all samples")


@pytest.mark.parametrize("scales", [[0.0] * 20, [float(i) for i in range(20)]])
def test_samples_without_content(scales: list[float]) -> None:
    (note,) = doubts([{"x": np.full((1, 3), scale, np.float32)} for scale in scales], True, 0.5)
    assert note.startswith("input 'x' is constant")


def test_no_data_is_not_doubted_but_a_metric_of_nothing_is() -> None:
    (note,) = doubts([], True, 0.0)
    assert note.startswith("the metric is 0 for the original")


def test_an_input_of_one_number_is_doubted_only_when_it_never_changes() -> None:
    moving = [{"t": np.full((1,), step, np.float32)} for step in range(20)]
    assert doubts(moving, True, 0.5) == []
    (note,) = doubts(moving[:1] * 20, True, 0.5)
    assert note.startswith("input 't' is the same in all samples")


def test_outputs_that_hardly_depend_on_the_feeds_are_named_and_those_that_do_are_not() -> None:
    moving = [np.full((1, 2), step, np.float32) for step in range(3)]
    answers = {"much": moving, "little": [1000 + each for each in moving], "none": [moving[1]] * 3}
    hardly, never = steadiness(answers, {name: constant_db(given) for name, given in answers.items()})
    assert hardly.startswith("output 'little' hardly depends on the input (7e-05% of its power varies)")
    assert never == "output 'none' is the same for all samples: how close it is says little"
    assert steadiness({"one": moving[:1]}, {"one": 0.0}) == [], "one sample tells nothing of that"


def test_outputs_that_are_no_numbers_are_named() -> None:
    def itself(*values: float) -> Closeness:
        total = Fidelity()
        total.update(np.array(values), np.array(values))
        return total.result()

    nan, inf = float("nan"), float("inf")
    assert voids({"fine": itself(1.0), "part": itself(1.0, nan, -inf), "whole": itself(nan, nan)}) == [
        "output 'part' is NaN or infinite in 2 of 3 values; the rest is compared",
        "output 'whole' is NaN or infinite in 2 of 2 values; the rest is compared",
    ]


def test_a_metric_that_is_random_or_blind_is_doubted_by_scores_already_taken() -> None:
    def never() -> float:
        raise AssertionError("a metric that differs between models need not be asked again")

    assert metric_doubts(None, {"original": None}, never) == []
    assert metric_doubts(0.5, {"original": 0.5, "a": 0.4, "b": None}, never) == []
    assert metric_doubts(0.5, {"original": 0.5 + 1e-7, "a": 0.4}, never) == [], "threads add up otherwise"
    (random,) = metric_doubts(0.5, {"original": 0.51, "a": 0.5}, never)
    assert random.startswith("the metric is not the same each time (0.5 and 0.51 for the original)")
    same = {"original": 0.5, "a": 0.5, "b": None}
    assert metric_doubts(0.5, same, lambda: 0.1) == metric_doubts(0.5, same, lambda: None) == []
    (blind,) = metric_doubts(0.5, same, lambda: 0.5)
    assert blind.startswith("the metric is 0.5 for outputs of zeros, too")


def test_a_metric_that_fails_on_every_candidate_is_told_of() -> None:
    gone = Judgement(False, "metric 'm:f' gave nan, not a finite number", None, None, {}, failed=True)
    broken = Judgement(False, "onnxruntime does not load it", None, None, {}, failed=True)
    assert failing("m:f", [gone, gone]) == f"no candidate can be scored: {gone.reason}"
    for none in ([], [gone, broken], [gone, Judgement(True, "", 0.5, 0.0, {})]):
        assert failing("m:f", none) == ""
    assert failing(None, [broken]) == ""


def test_outputs_of_samples_that_are_the_same_are_not_doubted_themselves() -> None:
    said = ["output 'y' is the same for all samples"]
    assert said[0] in doubts(feeds(FEW_SAMPLES), True, 0.5, said)
    (note,) = doubts(feeds(1) * FEW_SAMPLES, True, 0.5, said)
    assert note.startswith("input 'x'")
