# SPDX-License-Identifier: Apache-2.0
"""Data and metrics that tell little are said to."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.pipeline.build.doubts import FEW_SAMPLES, constant_db, doubts, steadiness
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


def test_without_a_metric_closeness_is_of_the_samples_of_the_ranges() -> None:
    (note,) = doubts(feeds(FEW_SAMPLES), True, None)
    assert "tersor compare" in note


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
    part, whole = np.array([1.0, np.nan, -np.inf]), np.full(2, np.nan)
    answers = {"fine": [part[:1], part[:1] + 1], "part": [part, part + 1], "whole": [whole, whole]}
    assert [note for note in steadiness(answers, dict.fromkeys(answers, 0.0)) if "NaN" in note] == [
        "output 'part' is NaN or infinite in 4 of 6 values; only the rest is compared",
        "output 'whole' is NaN or infinite in 4 of 4 values; only the rest is compared",
    ]


def test_outputs_of_samples_that_are_the_same_are_not_doubted_themselves() -> None:
    said = ["output 'y' is the same for all samples"]
    assert said[0] in doubts(feeds(FEW_SAMPLES), True, 0.5, said)
    (note,) = doubts(feeds(1) * FEW_SAMPLES, True, 0.5, said)
    assert note.startswith("input 'x'")
