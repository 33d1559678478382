# SPDX-License-Identifier: Apache-2.0
"""The rows that are cut out of a value, times the weights, are what the operator computes."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.calibration.moments import second_moments
from tersor.calibration.visit import UnobservableError
from tersor.graph_ir import constant
from tersor.passes.quantize.patches import patches_of, patches_to_observe
from tests.support.int8 import feeds_of, graph, run
from tests.support.numerics import snapshot


@pytest.mark.parametrize(
    ("body", "weights", "x"),
    [
        ("y = Conv(x, w)", "float[8,6,3,3] w = {seed}", "2,6,9,8"),
        ("y = Conv<pads=[1,0,2,1], strides=[2,1]>(x, w)", "float[8,6,3,2] w = {seed}", "2,6,9,8"),
        ("y = Conv<group=3, dilations=[1,2]>(x, w)", "float[9,2,3,3] w = {seed}", "1,6,9,8"),
        ('y = Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w)', "float[8,6,3,4] w = {seed}", "1,6,9,8"),
        ('y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(x, w)', "float[8,6,4,3] w = {seed}", "1,6,9,8"),
        ('y = Conv<auto_pad="VALID">(x, w)', "float[8,6,4,3] w = {seed}", "1,6,9,8"),
        ("y = Conv<pads=[1,1]>(x, w)", "float[8,6,3] w = {seed}", "2,6,9"),
        ("y = Gemm<transB=1>(x, w)", "float[8,6] w = {seed}", "9,6"),
        ("y = MatMul(x, w)", "float[6,8] w = {seed}", "2,9,6"),
    ],
)
def test_rows_times_weights_are_the_output(body: str, weights: str, x: str) -> None:
    model = graph(body, weights, x=x)
    node = model.graph.node(0)
    feed = feeds_of(model)[0]
    patches = patches_of(node)
    w = constant(node.inputs[1])
    assert patches is not None
    assert w is not None
    matrix = np.transpose(w) if node.op_type == "MatMul" else w.reshape(w.shape[0], -1)
    rows = patches.rows(feed["x"], 10**6, np.random.default_rng(0))
    split = matrix.reshape(patches.group, -1, patches.columns)
    found = np.einsum("grk,gok->rgo", rows, split).reshape(rows.shape[1], -1)
    want = run(snapshot(model), feed, off=True)[0]
    flat = np.moveaxis(want, 1, -1) if node.op_type == "Conv" else want
    np.testing.assert_allclose(found, flat.reshape(-1, len(matrix)), atol=1e-5)


def test_moments_are_those_of_all_rows_and_a_draw_is_repeatable() -> None:
    model = graph("y = Conv<group=2>(x, w)", "float[4,3,2,2] w = {seed}", x="1,6,8,8")
    feeds = feeds_of(model, 5)
    (patches,) = patches_to_observe(model)
    whole = second_moments(model, feeds, [patches], rows=None)[patches]
    assert whole.outer is not None
    rows = np.concatenate([patches.rows(f["x"], 10**6, np.random.default_rng(0)) for f in feeds], axis=1)
    assert whole.count == rows.shape[1] == 5 * 49
    np.testing.assert_allclose(whole.mean(), rows.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(whole.squares, np.diagonal(whole.outer, axis1=1, axis2=2), rtol=1e-12)
    np.testing.assert_allclose(whole.variance(), rows.var(axis=1), rtol=1e-9)
    shrunk = np.where(np.eye(12, dtype=bool), 1, 245 / (245 + 12))
    np.testing.assert_allclose(whole.hessian(centered=False), whole.outer / 245 * shrunk, rtol=1e-12)
    covariance = np.cov(rows[1], rowvar=False, bias=True)
    np.testing.assert_allclose(whole.hessian(centered=True)[1], covariance * shrunk, rtol=1e-9)
    draws = [second_moments(model, feeds, [patches], rows=7)[patches] for _ in range(2)]
    assert draws[0].count == 35
    np.testing.assert_array_equal(draws[0].outer, draws[1].outer)


def test_shared_inputs_are_measured_once_and_wide_layers_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a = MatMul(x, w) b = MatMul(x, v) c = MatMul(x, u) d = Add(a, b) y = Add(c, d)"
    weights = "float[6,8] w = {seed}, float[6,8] v = {seed}, float[6,8] u = {seed}"
    model = graph(text, weights, x="4,6")
    assert len(patches_to_observe(model)) == 1
    assert not patches_to_observe(model, budget=100)
    monkeypatch.setattr("tersor.passes.quantize.patches.MOST_COLUMNS", 5)
    assert not patches_to_observe(model)


def test_values_that_are_not_finite_are_told() -> None:
    model = graph("h = Mul(x, x) y = MatMul(h, w)", "float[6,8] w = {seed}", x="4,6")
    feeds = [{"x": np.full((4, 6), 1e30, np.float32)}]
    with pytest.raises(UnobservableError, match="not finite"):
        second_moments(model, feeds, patches_to_observe(model))
