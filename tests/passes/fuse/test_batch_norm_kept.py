# SPDX-License-Identifier: Apache-2.0
"""BatchNormalizations that must stay, and those in bodies and functions."""

from __future__ import annotations

import onnx
import pytest

from tersor.passes.fuse.batch_norm import FoldBatchNorm
from tests.support.rewriting import declined, model_of, retyped, rewrite

FOLD = FoldBatchNorm()
NORM = "float[6] s = {seed}, float[6] b = {seed}, float[6] m = {seed}, float[6] v = {1, 2, 3, 4, 5, 6}"
W = "float[6,4,3,3] w = {seed}"
X, Y = "float[1,4,7,7] x", "float[1,6,5,5] y"
CONV = "c = Conv(x, w)"


@pytest.mark.parametrize(
    ("norm", "opset", "reason"),
    [
        ("y, _a, _b = BatchNormalization<training_mode = 1>(c, s, b, m, v)", 15, "training mode"),
        ("y, _a, _b, _c, _d = BatchNormalization(c, s, b, m, v)", 9, "training mode"),
        ("y = BatchNormalization<spatial = 0>(c, s, b, m, v)", 8, "not spatial"),
        ("y = BatchNormalization(c, s, b, m, v)", 6, "training mode"),
        ("y = BatchNormalization<is_test = 1, spatial = 0>(c, s, b, m, v)", 6, "not spatial"),
    ],
)
def test_other_modes(norm: str, opset: int, reason: str) -> None:
    assert declined(FOLD, model_of(f"{CONV} {norm}", f"{W}, {NORM}", x=X, y=Y, opset=opset)) == {reason}


def test_inference_of_opset_6_folds() -> None:
    model = model_of(
        f"{CONV} y = BatchNormalization<is_test = 1>(c, s, b, m, v)", f"{W}, {NORM}", x=X, y=Y, opset=6
    )
    # onnxruntime runs opset 7 and later only; the numbers are those of the same fold at opset 7.
    assert rewrite(FOLD, model, numbers=False).ops == ["Conv"]


def test_negative_variance() -> None:
    norm = NORM.replace("{1, 2,", "{-1, 2,")
    model = model_of(f"{CONV} y = BatchNormalization(c, s, b, m, v)", f"{W}, {norm}", x=X, y=Y)
    assert declined(FOLD, model) == {"parameters are not finite"}


@pytest.mark.parametrize(
    ("weight", "scale", "reason"),
    [
        ("{60000.0, 1.0}", "{4.0, 1.0}", "folded weights overflow or underflow"),
        ("{0.001, 1.0}", "{0.0001, 1.0}", "folded weights overflow or underflow"),
    ],
)
def test_half_precision_that_would_be_damaged(weight: str, scale: str, reason: str) -> None:
    model = model_of(
        "c = Conv(x, w) y = BatchNormalization(c, s, b, b, v)",
        f"float[2,1,1,1] w = {weight}, float[2] s = {scale}, float[2] b = {{0, 0}}, float[2] v = {{1, 1}}",
        x="float[1,1,3,3] x",
        y="float[1,2,3,3] y",
    )
    assert declined(FOLD, retyped(model, onnx.TensorProto.FLOAT16)) == {reason}


def test_a_dead_channel_folds() -> None:
    model = model_of(
        "c = Conv(x, w) y = BatchNormalization(c, s, b, m, v)",
        "float[2,1,1,1] w = {1e-30, 1.0}, float[2] s = {1e-30, 1.0}, float[2] b = {0.5, 0.5},"
        " float[2] m = {0, 0}, float[2] v = {1, 1}",
        x="float[1,1,3,3] x",
        y="float[1,2,3,3] y",
    )
    assert rewrite(FOLD, model).ops == ["Conv"]


@pytest.mark.parametrize("name", ["w", "s", "v"])
def test_overridable_initializers(name: str) -> None:
    shape = "6,4,3,3" if name == "w" else "6"
    model = model_of(
        f"{CONV} y = BatchNormalization(c, s, b, m, v)",
        f"{W}, {NORM}",
        x=f"{X}, float[{shape}] {name}",
        y=Y,
    )
    declined(FOLD, model)


def test_overridable_bias() -> None:
    model = model_of(
        "c = Conv(x, w, k) y = BatchNormalization(c, s, b, m, v)",
        f"{W}, {NORM}, float[6] k = {{seed}}",
        x=f"{X}, float[6] k",
        y=Y,
    )
    declined(FOLD, model)


@pytest.mark.parametrize(
    "outputs", ["float[1,6,5,5] y, float[1,6,5,5] c", "float[1,6,5,5] c, float[1,6,5,5] y"]
)
def test_inner_result_is_an_output(outputs: str) -> None:
    model = model_of(f"{CONV} y = BatchNormalization(c, s, b, m, v)", f"{W}, {NORM}", x=X, y=outputs)
    declined(FOLD, model)


def test_inner_result_has_another_reader() -> None:
    model = model_of(
        f"{CONV} n = BatchNormalization(c, s, b, m, v) y = Add(n, c)",
        f"{W}, {NORM}",
        x=X,
        y=Y,
    )
    declined(FOLD, model)


@pytest.mark.parametrize(
    ("body", "weight", "x", "y", "reason"),
    [
        ("c = MatMul(x, w)", "4,6", "2,6,4", "2,6,6", "normalizes another axis than the operator's channels"),
        ("c = MatMul(w, x)", "6,6", "6,6", "6,6", "normalizes another axis than the operator's channels"),
        ("c = MatMul(x, w)", "6", "2,6,6", "2,6", "weight is a vector"),
    ],
)
def test_another_axis(body: str, weight: str, x: str, y: str, reason: str) -> None:
    model = model_of(
        f"{body} y = BatchNormalization(c, s, b, m, v)",
        f"float[{weight}] w = {{seed}}, {NORM}",
        x=f"float[{x}] x",
        y=f"float[{y}] y",
    )
    assert declined(FOLD, model) == {reason}


@pytest.mark.parametrize("shape", ["3,1", "3,6"])
def test_gemm_bias_by_row(shape: str) -> None:
    model = model_of(
        "c = Gemm(x, w, k) y = BatchNormalization(c, s, b, m, v)",
        f"float[4,6] w = {{seed}}, float[{shape}] k = {{seed}}, {NORM}",
        x="float[3,4] x",
        y="float[3,6] y",
    )
    assert declined(FOLD, model) == {"bias is not one value a channel"}


def test_matmul_of_unknown_rank() -> None:
    model = model_of(
        "r = Reshape(x, shape) c = MatMul(r, w) y = BatchNormalization(c, s, b, m, v)",
        f"float[4,6] w = {{seed}}, {NORM}",
        x="float[12] x, int64[K] shape",
        y="float[P,Q] y",
    )
    assert declined(FOLD, model) == {"rank is unknown"}


def test_norm_before_gemm_of_the_transpose() -> None:
    model = model_of(
        "n = BatchNormalization(x, s, b, m, v) y = Gemm<transA = 1>(n, w)",
        f"float[6,6] w = {{seed}}, {NORM}",
        x="float[6,6] x",
        y="float[6,6] y",
    )
    assert declined(FOLD, model) == {
        "normalizes another axis than the operator's channels, or the rank is unknown"
    }


def test_norm_read_by_two_convs() -> None:
    model = model_of(
        "n = BatchNormalization(x, s, b, m, v) p = Conv(n, w) q = Conv(n, w) y = Add(p, q)",
        f"float[6,6,3,3] w = {{seed}}, {NORM}",
        x="float[1,6,7,7] x",
        y=Y,
    )
    declined(FOLD, model)


def test_in_if_and_loop_bodies_with_weights_from_outside() -> None:
    inner = "c{0} = Conv(x, w) y{0} = BatchNormalization(c{0}, s, b, m, v)"
    model = model_of(
        "p = If (flag) <then_branch = yes () => (float[1,6,5,5] y1) { "
        + inner.format(1)
        + " }, else_branch = no () => (float[1,6,5,5] y2) { y2 = Identity(z) }>"
        " q = Loop (trips, flag, p) <body = again (int64 i, bool go, float[1,6,5,5] u) =>"
        " (bool on, float[1,6,5,5] t) { on = Identity(go) "
        + inner.format(3)
        + " t = Add(u, y3) }> y = Identity(q)",
        f"{W}, {NORM}, int64 trips = {{2}}",
        x=f"{X}, float[1,6,5,5] z, bool flag",
        y=Y,
    )
    done = rewrite(FOLD, model)
    assert "BatchNormalization" not in done.ops
    assert done.ops.count("Conv") == 2
    assert {"w", "w_1"} <= set(done.model.graph.initializers)


def test_in_functions_where_weights_are_constants() -> None:
    function = """<domain: "local", opset_import: ["" : 17]>
    block (a) => (r) {
      w = Constant<value = float[1,1,1,1] {2.0}>()
      one = Constant<value = float[1] {3.0}>()
      c = Conv(a, w)
      r = BatchNormalization(c, one, one, one, one)
    }"""
    model = model_of(
        "y = local.block(x)", x="float[1,1,3,3] x", y="float[1,1,3,3] y", opset=17, functions=function
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["block", "Conv"]


def test_parameters_given_to_a_function_stay() -> None:
    function = """<domain: "local", opset_import: ["" : 17]>
    block (a, w, s) => (r) { c = Conv(a, w) r = BatchNormalization(c, s, s, s, s) }"""
    model = model_of(
        "y = local.block(x, w, s)",
        "float[1,1,1,1] w = {2.0}, float[1] s = {3.0}",
        x="float[1,1,3,3] x",
        y="float[1,1,3,3] y",
        functions=function,
    )
    declined(FOLD, model)
