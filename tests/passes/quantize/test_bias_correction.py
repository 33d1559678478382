# SPDX-License-Identifier: Apache-2.0
"""Corrected biases take the mean error of rounded weights off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.calibration import survey
from tersor.graph_ir import Model
from tersor.graph_ir.numerics import weight_params
from tersor.passes.quantize.bias_correction import corrected_bias, values_for_means
from tersor.passes.quantize.insert_qdq import InsertQdq
from tests.support.int8 import Feed, feeds_of, graph, quantised, ranges_of, run


def shifted(model: Model) -> list[Feed]:
    """Feeds whose mean is far from zero, so that rounded weights shift the outputs."""
    return [{k: (v * 0.2 + 2).astype(np.float32) for k, v in feed.items()} for feed in feeds_of(model, 8)]


@pytest.mark.parametrize(
    ("body", "weights", "x"),
    [
        ("y = Conv(x, w, b)", "float[8,6,3,3] w = {seed}, float[8] b = {seed}", "1,6,9,9"),
        ("y = Conv<group=2>(x, w)", "float[8,3,3,3] w = {seed}", "1,6,9,9"),
        ("y = Gemm<transB=1>(x, w, b)", "float[8,24] w = {seed}, float[8] b = {seed}", "16,24"),
        ("m = MatMul(x, w) y = Add(m, b)", "float[24,8] w = {seed}, float[8] b = {seed}", "2,5,24"),
    ],
)
def test_the_mean_error_of_each_channel_shrinks(body: str, weights: str, x: str) -> None:
    axis = -1 if "MatMul" in body else 1

    def error(**facts: Any) -> float:
        model = graph(body, weights, x=x)
        feeds = shifted(model)
        spans = ranges_of(model, feeds)
        options = InsertQdq("u8s8-reduced", float_stem=False)
        before, after, _ = quantised(model, options, spans=spans, **facts)
        per_channel = [_mean(run(after, f, off=True)[0] - run(before, f, off=True)[0], axis) for f in feeds]
        return float(np.abs(np.mean(per_channel, 0)).mean())

    model = graph(body, weights, x=x)
    assert values_for_means(model) == {"x": axis}
    _, means = survey(model, shifted(model), (), values_for_means(model))
    np.testing.assert_allclose(means["x"], np.mean([_mean(f["x"], axis) for f in shifted(model)], 0), 1e-6)
    assert error(**{"channel-means": means}) < 0.7 * error()


def _mean(array: NDArray[Any], axis: int) -> NDArray[Any]:
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1).mean(axis=1)


def test_a_value_read_along_two_axes_has_no_means() -> None:
    body = "c = Conv(x, w) m = MatMul(x, v) y = Add(c, m)"
    model = graph(body, "float[6,6,1] w = {seed}, float[6,6] v = {seed}", x="2,6,6")
    assert values_for_means(model) == {}


def test_means_that_do_not_fit_change_nothing() -> None:
    node = graph("y = Conv(x, w)", "float[8,6,1,1] w = {seed}", x="1,6,4,4").graph.node(0)
    w = np.ones((8, 6, 1, 1), np.float32)
    params = weight_params(w, 0)
    assert corrected_bias(node, w, params, None, np.zeros(5)) is None
    bias = np.ones(8, np.float32)
    assert corrected_bias(node, w, params, bias, np.full(6, np.nan)) is bias
