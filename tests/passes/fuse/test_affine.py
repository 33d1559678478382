# SPDX-License-Identifier: Apache-2.0
"""Folding of constants beside linear operators: what it does, and where it must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tersor.graph_ir import Model
from tersor.passes.fuse.affine import FoldAffine
from tests.support.rewriting import declined, model_of, retyped, rewrite, with_array

FOLD = FoldAffine()
W = "float[6,4,3,3] w = {seed}, float[6] k = {seed}"
GROWS = "operand is not one value a channel, or may enlarge the result"


def after_conv(body: str, c: str, *, y: str = "1,6,5,5", weights: str = W, opset: int = 17) -> Model:
    return model_of(
        f"n = Conv(x, w, k) {body}",
        f"{weights}, float[{c}] c = {{seed}}",
        x="float[1,4,7,7] x",
        y=f"float[{y}] y",
        opset=opset,
    )


@pytest.mark.parametrize("c", ["6,1,1", "1,6,1,1", "1", "1,1", "1,1,1,1"])
@pytest.mark.parametrize(
    "op", ["Mul(n, c)", "Mul(c, n)", "Div(n, c)", "Add(n, c)", "Add(c, n)", "Sub(n, c)", "Sub(c, n)"]
)
def test_behind_a_conv(op: str, c: str) -> None:
    assert rewrite(FOLD, after_conv(f"y = {op}", c)).ops == ["Conv"]


@pytest.mark.parametrize("opset", [7, 9, 13, 20])
def test_scalars_of_every_opset(opset: int) -> None:
    model = model_of(
        "n = Conv(x, w) p = Mul(n, c) y = Sub(p, c)",
        "float[6,4,3,3] w = {seed}, float c = {3.0}",
        x="float[1,4,7,7] x",
        y="float[1,6,5,5] y",
        opset=opset,
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["Conv"]
    assert done.context.counters["AffineAfter"] == 2


@pytest.mark.parametrize(
    ("c", "y", "reason"),
    [
        ("5", "1,6,5,5", GROWS),
        ("6,5,5", "1,6,5,5", GROWS),
        ("6,1,5", "1,6,5,5", GROWS),
        ("2,1,1,1", "2,6,5,5", GROWS),
        ("1,1,6,1,1", "1,1,6,5,5", GROWS),
        ("1,1,1,1,1", "1,1,6,5,5", GROWS),
    ],
)
def test_operands_that_are_no_channel_vector(c: str, y: str, reason: str) -> None:
    assert declined(FOLD, after_conv("y = Mul(n, c)", c, y=y)) == {reason}


def test_one_channel_that_would_become_many() -> None:
    model = after_conv("y = Add(n, c)", "6,1,1", weights="float[1,4,3,3] w = {seed}, float[1] k = {seed}")
    assert declined(FOLD, model) == {GROWS}


def test_constant_over_result_is_not_linear() -> None:
    assert declined(FOLD, after_conv("y = Div(c, n)", "1")) == {"constant is the dividend"}


@pytest.mark.parametrize(
    ("c", "op", "reason"),
    [
        ("{0.0}", "Div", "division by zero"),
        ("{3e38}", "Mul", "folded weights overflow or underflow"),
        ("{1.2e-38}", "Mul", "folded weights overflow or underflow"),
    ],
)
def test_weights_that_would_be_damaged(c: str, op: str, reason: str) -> None:
    model = model_of(
        f"n = Conv(x, w) y = {op}(n, c)",
        f"float[2,1,1,1] w = {{2.0, 0.001}}, float[1] c = {c}",
        x="float[1,1,2,2] x",
        y="float[1,2,2,2] y",
    )
    assert declined(FOLD, model) == {reason}


def test_infinite_constant() -> None:
    model = with_array(after_conv("y = Mul(n, c)", "1"), "c", np.array([np.inf], np.float32))
    assert declined(FOLD, model) == {"folded weights are not finite"}


@pytest.mark.parametrize(
    ("body", "weights", "x", "y", "ops"),
    [
        ("n = Gemm(x, w, k) y = Mul(n, c)", "float[4,6] w, float[6] k, float[6] c", "3,4", "3,6", ["Gemm"]),
        ("n = Gemm(x, w) y = Add(n, c)", "float[4,6] w, float[1,6] c", "3,4", "3,6", ["Gemm"]),
        (
            "n = Gemm<alpha = 0.5, beta = 2.0, transA = 1, transB = 1>(x, w, k) y = Div(n, c)",
            "float[6,4] w, float[1] k, float[6] c",
            "4,3",
            "3,6",
            ["Gemm"],
        ),
        ("n = MatMul(x, w) y = Mul(n, c)", "float[4,6] w, float[6] c", "2,3,4", "2,3,6", ["MatMul"]),
        ("n = MatMul(x, w) y = Mul(c, n)", "float[2,4,6] w, float[1,6] c", "3,4", "2,3,6", ["MatMul"]),
        ("n = MatMul(w, x) y = Mul(n, c)", "float[6,4] w, float[6,1] c", "2,4,3", "2,6,3", ["MatMul"]),
        (
            "n = MatMul(x, w) p = Add(k, n) y = Mul(p, c)",
            "float[4,6] w, float[6] k, float[6] c",
            "2,3,4",
            "2,3,6",
            ["MatMul", "Add"],
        ),
        (
            "n = MatMul(x, w) p = Add(n, k) y = Sub(c, p)",
            "float[4,6] w, float[1,1,6] k, float[1] c",
            "2,3,4",
            "2,3,6",
            ["MatMul", "Add"],
        ),
        (
            "n = ConvTranspose<group = 2>(x, w) y = Mul(n, c)",
            "float[4,3,3] w, float[6,1] c",
            "1,4,5",
            "1,6,7",
            ["ConvTranspose"],
        ),
    ],
)
def test_behind_the_others(body: str, weights: str, x: str, y: str, ops: list[str]) -> None:
    seeded = ", ".join(f"{w} = {{seed}}" for w in weights.split(", "))
    model = model_of(body, seeded, x=f"float[{x}] x", y=f"float[{y}] y")
    assert rewrite(FOLD, model).ops == ops


@pytest.mark.parametrize(
    ("body", "weights", "x", "y", "reason"),
    [
        ("n = Gemm(x, w) y = Mul(n, c)", "float[4,6] w, float[3,1] c", "3,4", "3,6", GROWS),
        ("n = Gemm(x, w) y = Mul(n, c)", "float[4,6] w, float[2,1,1] c", "3,4", "2,3,6", GROWS),
        ("n = Gemm(x, w) y = Mul(n, c)", "float[4,1] w, float[6] c", "3,4", "3,6", GROWS),
        ("n = MatMul(x, w) y = Mul(n, c)", "float[4,6] w, float[1,1,6] c", "3,4", "1,3,6", GROWS),
        ("n = MatMul(x, w) y = Mul(n, c)", "float[4,6] w, float[1,6] c", "4", "1,6", GROWS),
        ("n = MatMul(w, x) y = Mul(n, c)", "float[6,4] w, float[3] c", "4,3", "6,3", GROWS),
        (
            "n = MatMul(w, x) y = Mul(n, c)",
            "float[6,4] w, float[6] c",
            "4",
            "6",
            "rank of the right operand is unknown or one",
        ),
        (
            "n = MatMul(x, w) y = Add(n, c)",
            "float[4,6] w, float[6] c",
            "3,4",
            "3,6",
            "is the product's bias already",
        ),
        (
            "n = MatMul(x, w) p = Add(n, k) y = Mul(p, c)",
            "float[4,6] w, float[2,1,6] k, float[6] c",
            "3,4",
            "2,3,6",
            "bias is not one value a channel",
        ),
    ],
)
def test_shapes_that_must_stay(body: str, weights: str, x: str, y: str, reason: str) -> None:
    seeded = ", ".join(f"{w} = {{seed}}" for w in weights.split(", "))
    model = model_of(body, seeded, x=f"float[{x}] x", y=f"float[{y}] y")
    assert reason in declined(FOLD, model)


def test_integers_stay() -> None:
    model = model_of(
        "n = MatMul(x, w) y = Mul(n, c)",
        "int32[4,6] w = {seed}, int32[6] c = {seed}",
        x="int32[3,4] x",
        y="int32[3,6] y",
    )
    assert declined(FOLD, model) == {"weight is not a float constant"}


def test_old_broadcasting_stays() -> None:
    model = after_conv("y = Mul<broadcast = 1, axis = 1>(n, c)", "6", opset=6)
    assert declined(FOLD, model) == {"opset below 7"}


@pytest.mark.parametrize("dtype", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_other_floats(dtype: onnx.TensorProto.DataType) -> None:
    model = after_conv("p = Mul(n, c) y = Add(c, p)", "6,1,1")
    assert rewrite(FOLD, retyped(model, dtype)).ops == ["Conv"]


def test_overridable_operand_stays() -> None:
    model = model_of(
        "n = Conv(x, w, k) y = Mul(n, c)",
        f"{W}, float[1] c = {{2.0}}",
        x="float[1,4,7,7] x, float[1] c",
        y="float[1,6,5,5] y",
    )
    declined(FOLD, model)


def test_shared_constant_and_result_read_twice() -> None:
    model = model_of(
        "n = Conv(x, w, k) p = Mul(n, c) q = Clip(p, c, d) y = Add(p, q)",
        f"{W}, float c = {{0.5}}, float d = {{2.0}}",
        x="float[1,4,7,7] x",
        y="float[1,6,5,5] y",
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["Conv", "Clip", "Add"]
    assert "c" in done.model.graph.initializers
