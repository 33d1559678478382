# SPDX-License-Identifier: Apache-2.0
"""Judging candidates: metrics of any kind, outputs of any kind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tersor.analysis.fidelity import Fidelity
from tersor.graph_ir import DataError, UsageError
from tersor.pipeline.builder.comparing import compare
from tersor.pipeline.builder.doubts import constant_db
from tersor.pipeline.builder.metric import relative_drop
from tersor.pipeline.builder.result import Judgement
from tests.support import user_code
from tests.support.odd_models import custom_op, model, port, texts, weight
from tests.support.shifted import judge, saved, shifted
from tests.support.user_code import HERE, X


def verdict(folder: Path, shift: float, reference: float = 3.0, **options: Any) -> Judgement:
    """What is said of a model whose outputs are off by some shift."""
    original = shifted(folder, reference, "original")
    return judge(original, **options).judge(shifted(folder, reference + shift))


@pytest.mark.parametrize(
    ("reference", "score", "drop"),
    [
        (0.8, 0.8, 0.0),
        (0.8, 0.4, 0.5),
        (0.8, 1.2, -0.5),
        (-2.0, -3.0, 0.5),
        (-2.0, -1.0, -0.5),
        (0.0, 0.0, 0.0),
        (0.0, 0.1, 0.0),
        (0.0, -0.1, math.inf),
        (2.0, -2.0, 2.0),
    ],
)
def test_the_drop_is_relative_to_the_size_of_the_reference(
    reference: float, score: float, drop: float
) -> None:
    found = relative_drop(reference, score)
    assert found == pytest.approx(drop)
    assert math.copysign(1.0, found) == 1.0 or found < 0  # no minus zero to print


@pytest.mark.parametrize(("shift", "accepted"), [(0.0, True), (1.0, True), (-0.02, True), (-0.1, False)])
def test_a_higher_metric_is_better(tmp_path: Path, shift: float, accepted: bool) -> None:
    found = verdict(tmp_path, shift, metric="mean")
    assert found.accepted == accepted
    assert found.metric == pytest.approx(3 + shift, rel=1e-5)
    assert found.drop == pytest.approx(-shift / 3, abs=1e-6)
    assert accepted or found.reason == "metric drops 3.33%, allowed 1.00%"


@pytest.mark.parametrize(("shift", "accepted"), [(0.02, True), (-0.02, True), (-0.1, False)])
def test_a_negative_metric_drops_downwards(tmp_path: Path, shift: float, accepted: bool) -> None:
    assert verdict(tmp_path, shift, -3.0, metric="mean").accepted == accepted


def test_of_large_outputs_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = [{"x": count * X} for count in range(5)]
    assert len(judge(shifted(tmp_path, 3.0), feeds=feeds).feeds) == 5
    monkeypatch.setattr("tersor.pipeline.builder.yardstick.MOST_JUDGED_BYTES", 0)
    found = judge(shifted(tmp_path, 3.0), feeds=feeds)
    assert len(found.feeds) == 2
    assert found.judge(shifted(tmp_path, 3.0)).accepted


def test_below_a_reference_of_zero_everything_is_lost(tmp_path: Path) -> None:
    assert verdict(tmp_path, 0.5, 0.0, metric="mean").accepted
    found = verdict(tmp_path, -0.5, 0.0, metric="mean")
    assert (found.accepted, found.drop) == (False, math.inf)


@pytest.mark.parametrize("metric", ["array", "yes"])
def test_any_single_number_is_a_metric(tmp_path: Path, metric: str) -> None:
    found = verdict(tmp_path, 0.0, metric=metric)
    assert found.accepted
    assert found.metric == pytest.approx(3.0 if metric == "array" else 1.0)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("nan", "gave nan, not a finite number"),
        ("text", "returned a str, not a number"),
        ("nothing", "returned a NoneType, not a number"),
        ("several", "returned a list, not a number"),
        ("fails", "failed: RuntimeError: no such score"),
        ("leaves", "failed: SystemExit: 0"),
    ],
)
def test_a_broken_metric_is_one_line(tmp_path: Path, metric: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        judge(shifted(tmp_path, 3.0), metric)
    assert str(caught.value) == f"metric '{HERE}:{metric}' {message}"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("wrong_feed", "needs the input 'x'; the feed has ['z']"),
        ("wrong_dtype", "input 'x' is float64, the model takes float32; convert it with astype"),
        ("flat", "input 'x' has shape [1], the model takes "),
        ("wrong_array", "input 'x' must be a numpy array, not list"),
        ("no_dict", "a feed must be a dict of input name to array, not ndarray"),
    ],
)
def test_a_metric_that_feeds_the_model_wrongly_is_told_so(tmp_path: Path, metric: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        judge(shifted(tmp_path, 3.0), metric)
    assert str(caught.value).startswith(f"metric '{HERE}:{metric}': ")
    assert message in str(caught.value)


@pytest.mark.parametrize("metric", ["missing", "not_callable"])
def test_a_metric_that_is_not_there(tmp_path: Path, metric: str) -> None:
    with pytest.raises(UsageError, match=metric):
        judge(shifted(tmp_path, 3.0), metric)


def test_a_metric_without_a_value_refuses_the_candidate_only(tmp_path: Path) -> None:
    found = verdict(tmp_path, -2.0, metric="nan_below_two")
    assert (found.accepted, found.metric, found.drop) == (False, None, None)
    assert "gave nan, not a finite number" in found.reason


def test_a_metric_that_works_only_once_is_told_so(tmp_path: Path) -> None:
    user_code.again()
    original = shifted(tmp_path, 3.0)
    found = judge(original, "once")
    with pytest.raises(DataError, match="once' failed: StopIteration"):
        found.judge(original)


def test_a_metric_that_fails_for_all_at_last_is_no_fault_of_a_candidate(tmp_path: Path) -> None:
    """It worked for the original at first; asked again, it fails there as well."""
    user_code.again()
    judging = judge(shifted(tmp_path, 3.0, "original"), "once")
    with pytest.raises(DataError, match="once' failed: StopIteration"):
        judging.judge(shifted(tmp_path, 2.999))


def test_a_metric_that_does_not_look_at_the_model_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="never ran the model that it was given"):
        judge(shifted(tmp_path, 3.0), "never_runs")


def test_a_candidate_that_does_not_open_is_refused(tmp_path: Path) -> None:
    judging = judge(shifted(tmp_path, 3.0))
    broken = saved(custom_op(), tmp_path, "broken")
    found = judging.judge(broken)
    assert not found.accepted
    assert "Frobnicate" in found.reason
    assert str(tmp_path) not in found.reason
    assert found.sqnr_db == -math.inf


def test_without_a_metric_closeness_decides(tmp_path: Path) -> None:
    signal = float(np.square(X + 3).sum() + np.square(2 * X + 3).sum())
    decibels = 10 * math.log10(signal / (12 * 0.3**2))
    found = verdict(tmp_path, 0.3, min_sqnr_db=decibels - 0.01)
    assert found.accepted
    assert found.sqnr_db == pytest.approx(decibels, abs=1e-4)
    refused = verdict(tmp_path, 0.3, min_sqnr_db=decibels + 0.01)
    assert not refused.accepted
    assert refused.reason == f"output 'y' has {decibels:.1f} dB, allowed {decibels + 0.01:.1f} dB"


def test_the_worst_output_decides(tmp_path: Path) -> None:
    original = shifted(tmp_path, 3.0, "original", ("a", "b"))
    nodes = [helper.make_node("Identity", ["h"], ["a"]), helper.make_node("Neg", ["h"], ["b"])]
    nodes.insert(0, helper.make_node("Add", ["x", "shift"], ["h"]))
    outs = [port("a", [2, 3]), port("b", [2, 3])]
    other = model(nodes, [port("x", [2, 3])], outs, {"shift": np.array(3.0, np.float32)})
    found = judge(original).judge(saved(other, tmp_path, "other"))
    assert found.fidelity["a"].sqnr_db == math.inf
    assert found.reason.startswith("output 'b' has -6.0 dB")


@pytest.mark.parametrize("metric", [None, "array"])
def test_values_that_broke_are_refused_whatever_the_metric(tmp_path: Path, metric: str | None) -> None:
    nodes = [helper.make_node("Log", ["x"], ["h"]), helper.make_node("Sum", ["h", "x"], ["y"])]
    broken = saved(model(nodes, [port("x", [2, 3])], [port("y", [2, 3])]), tmp_path, "broken")
    judging = judge(shifted(tmp_path, 3.0), None)
    found = judging.judge(broken)
    assert not found.accepted
    assert "has NaN or infinite values other than the original's" in found.reason
    assert metric is None or not judge(shifted(tmp_path, 3.0), metric).judge(broken).accepted


def test_values_that_were_broken_before_are_no_fault(tmp_path: Path) -> None:
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    original = saved(model(nodes, [port("x", [2, 3])], [port("y", [2, 3])]), tmp_path, "log")
    assert judge(original).judge(original).accepted


def test_texts_have_to_be_equal(tmp_path: Path) -> None:
    names = np.array(["one", "two"], object)
    feed = {"x": weight(4, 8, seed=9), "names": names}
    original = saved(texts(), tmp_path, "texts")
    proto = texts()
    proto.graph.node[-1].CopyFrom(helper.make_node("Gather", ["names", "swapped"], ["labels"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "swapped"))
    judging = judge(original, feeds=[feed])
    assert judging.judge(original).accepted
    found = judging.judge(saved(proto, tmp_path, "swapped"))
    assert not found.accepted
    assert found.reason == "output 'labels' has another shape, length or text than the original's"


def test_an_output_of_another_shape_is_left_to_the_metric(tmp_path: Path) -> None:
    """As the boxes of a detector are, whose number may change."""
    shape = port("y", None)
    first = model([helper.make_node("Compress", ["x", "keep"], ["y"], axis=0)], [port("x", [2, 3])], [shape],
                  {"keep": np.array([True, True])})  # fmt: skip
    second = onnx.ModelProto()
    second.CopyFrom(first)
    second.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([False, True]), "keep"))
    original, other = saved(first, tmp_path, "two"), saved(second, tmp_path, "one")
    found = judge(original).judge(other)
    assert found.reason == "output 'y' has another shape, length or text than the original's"
    assert judge(original, "mean").judge(other).accepted


A, B = np.array([1.0, 2.0], np.float32), np.array([1.0, 2.5], np.float32)


@pytest.mark.parametrize(
    ("want", "got", "numbers_only", "count"),
    [
        (A, B, True, 2),
        (np.array([True, False]), np.array([True, True]), True, 2),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), True, 2),
        ([A, A], [A, B], True, 4),
        ([A, A], [A], False, 1),
        ([{1: 0.5, 2: 0.5}], [{1: 0.5, 2: 0.25}], True, 2),
        ([{"a": 0.5}], [{"b": 0.5}], False, 1),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), True, 2),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), False, 1),
        (["a"], ["a"], True, 1),
        (A, B[:1], False, 1),
        (A, [A], False, 1),
        (A, np.array(["1.0", "2.0"], object), False, 1),
        (np.zeros((0, 3)), np.zeros((0, 3)), True, 0),
        (None, None, True, 1),
    ],
)
def test_outputs_of_any_kind_are_compared(want: object, got: object, numbers_only: bool, count: int) -> None:
    total = Fidelity()
    assert compare(total, want, got) == numbers_only
    assert total.count == count
    assert total.broken == (not numbers_only)


def test_a_difference_of_truth_values_is_a_difference() -> None:
    total = Fidelity()
    compare(total, np.array([True, False]), np.array([True, True]))
    assert total.result().sqnr_db == pytest.approx(0.0)


def test_what_is_the_same_for_every_feed_does_not_count_as_closeness(tmp_path: Path) -> None:
    found = verdict(tmp_path, 0.5, reference=100.0)
    assert found.sqnr_db > 40
    assert found.closeness_db < 15


def test_the_constant_part_of_outputs_that_cannot_be_told_apart_is_nothing() -> None:
    same = np.ones((2, 3), np.float32)
    assert constant_db([same]) == 0.0
    assert constant_db([same, same]) == 0.0
    assert constant_db([same, np.ones((1, 3), np.float32)]) == 0.0
    assert constant_db([same, 2 * same]) == pytest.approx(10 * math.log10(5 / 0.5))
