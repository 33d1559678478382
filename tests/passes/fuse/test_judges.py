# SPDX-License-Identifier: Apache-2.0
"""The judges themselves: what they must accept, and what they must catch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tersor.graph_ir import Model
from tests.support.numerics import assert_bitwise, assert_rounding, feeds_for, run_double, run_onnxruntime
from tests.support.rewriting import model_of, retyped


def normed(attributes: str = "", body: str = "") -> Model:
    return model_of(
        f"c = Conv(x, w) {body or f'y = BatchNormalization{attributes}(c, s, b, m, v)'}",
        "float[3,4,3,3] w = {seed}, float[3] s = {seed}, float[3] b = {seed}, float[3] m = {seed},"
        " float[3] v = {0.5, 1.5, 2.5}",
        x="float[2,4,6,6] x",
        y="float[2,3,4,4] y",
    )


def test_rounding_catches_an_epsilon_a_fifth_too_large() -> None:
    with pytest.raises(AssertionError, match="became"):
        assert_rounding(normed(), normed("<epsilon = 0.000012>"), feeds_for(normed()))


@pytest.mark.parametrize("dtype", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_rounding_catches_a_change_of_a_percent(dtype: onnx.TensorProto.DataType) -> None:
    before = retyped(normed(), dtype)
    after = retyped(normed("<epsilon = 0.01>"), dtype)
    with pytest.raises(AssertionError, match="became"):
        assert_rounding(before, after, feeds_for(before))


def test_rounding_accepts_another_order_of_sums_and_bitwise_does_not() -> None:
    def summed(body: str) -> Model:
        return model_of(body, x="float[50] x, float[50] a, float[50] b", y="float[50] y")

    before, after = summed("p = Add(x, a) y = Add(p, b)"), summed("p = Add(a, b) y = Add(x, p)")
    assert_rounding(before, after, [feeds_for(before, seed) for seed in range(3)])
    with pytest.raises(AssertionError, match="bits differ"):
        assert_bitwise(before, after, feeds_for(before))
    assert_bitwise(before, before, feeds_for(before))


def test_bitwise_tells_signs_of_zero_apart() -> None:
    plus = model_of("y = Add(x, c)", "float c = {0.0}", x="float[1] x", y="float[1] y")
    minus = model_of("y = Sub(x, c)", "float c = {0.0}", x="float[1] x", y="float[1] y")
    assert_bitwise(plus, minus, {"x": np.array([1.0], np.float32)})
    with pytest.raises(AssertionError, match="bits differ"):
        assert_bitwise(plus, minus, {"x": np.array([-0.0], np.float32)})


def test_infinities_must_stay_where_they_are() -> None:
    whole = model_of(
        "p = Mul(x, c) y = Mul(p, d)", "float c = {1e30}, float d = {1e-30}", x="float[2] x", y="float[2] y"
    )
    folded = model_of("y = Identity(x)", x="float[2] x", y="float[2] y")
    assert_rounding(whole, folded, {"x": np.array([1.0, 2.0], np.float32)})
    with pytest.raises(AssertionError, match="infinite or NaN in other places"):
        assert_rounding(whole, folded, {"x": np.array([1.0, 1e20], np.float32)})


def test_truth_is_float64_through_casts_constants_and_bodies() -> None:
    model = model_of(
        "h = Cast<to = 10>(x) k = Constant<value_float = 0.1>() f = Cast<to = 1>(h) p = Mul(f, k)"
        " y = If (flag) <then_branch = a () => (float[3] r) { r = Add(p, k) },"
        " else_branch = b () => (float[3] q) { q = Sub(p, k) }>",
        x="float[3] x, bool flag",
        y="float[3] y",
    )
    feed = {"x": np.array([1 / 3, 1, 3], np.float32), "flag": np.array(True)}
    (truth,) = run_double(model, feed)
    third, tenth = np.float64(np.float32(1 / 3)), np.float64(np.float32(0.1))
    assert truth.dtype == np.float64
    np.testing.assert_array_equal(truth, np.array([third, 1, 3]) * tenth + tenth)


def test_models_without_kernels_are_left_to_the_reference() -> None:
    model = retyped(normed(), onnx.TensorProto.DOUBLE)
    feed = feeds_for(model)
    assert run_onnxruntime(model, feed) is None
    assert_bitwise(model, model, feed)
