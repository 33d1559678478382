# SPDX-License-Identifier: Apache-2.0
"""Negatives, constants behind a reshape, and constants one behind the other."""

from __future__ import annotations

import pytest

from tersor.graph_ir import DataType
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.fuse.affine import FoldAffine
from tests.support.rewriting import declined, model_of, rewrite

FOLD = FoldAffine()
W = "float[6,4,3,3] w = {seed}, float[6] k = {seed}, float[4,6] m = {seed}"


@pytest.mark.parametrize(
    ("body", "x", "y", "ops"),
    [
        ("n = Conv(x, w, k) y = Neg(n)", "1,4,5,5", "1,6,3,3", ["Conv"]),
        ("n = Neg(x) y = Conv<pads = [1,1,1,1]>(n, w, k)", "1,4,5,5", "1,6,5,5", ["Conv"]),
        ("n = Gemm(x, m, k) y = Neg(n)", "3,4", "3,6", ["Gemm"]),
        ("n = MatMul(x, m) b = Add(n, k) y = Neg(b)", "2,3,4", "2,3,6", ["MatMul", "Add"]),
        ("n = Neg(x) y = MatMul(n, m)", "2,3,4", "2,3,6", ["MatMul"]),
    ],
)
def test_negatives_go_into_weights(body: str, x: str, y: str, ops: list[str]) -> None:
    assert rewrite(FOLD, model_of(body, W, x=f"float[{x}] x", y=f"float[{y}] y")).ops == ops


def test_a_negative_that_is_read_elsewhere_stays() -> None:
    model = model_of("n = Neg(x) p = MatMul(n, m) y = Add(p, n)", "float[4,4] m = {seed}", x="float[2,4] x")
    assert not rewrite(FOLD, model).changed


@pytest.mark.parametrize("move", ["Flatten(d)", "Reshape(d, s)", "Squeeze(d, ax)"])
def test_the_normalisation_of_a_picture_goes_through_its_flattening(move: str) -> None:
    model = model_of(
        f"e = Sub(x, mean) d = Div(e, std) f = {move} y = Gemm(f, m, k)",
        W + ", float mean = {0.1307}, float[1] std = {0.3081}, int64[2] s = {0, -1}, int64[1] ax = {1}",
        x="float[3,1,4] x",
        y="float[3,6] y",
    )
    assert rewrite((InferShapes(), FOLD), model).ops == [move.split("(", 1)[0], "Gemm"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "d = Mul(x, v) f = Flatten(d) y = Gemm(f, m, k)",
            "operand is not one number, or may enlarge the input",
        ),
        (
            "d = Mul(x, r) f = Flatten(d) y = Gemm(f, m, k)",
            "operand is not one number, or may enlarge the input",
        ),
        ("d = Div(one, x) f = Flatten(d) y = Gemm(f, m, k)", "constant is the dividend"),
    ],
)
def test_what_does_not_pass_a_reshape(body: str, reason: str) -> None:
    model = model_of(
        body,
        W + ", float[4] v = {seed}, float[1,1,1,1] r = {2.0}, float one = {1.0}",
        x="float[3,1,4] x",
        y="float[3,6] y",
    )
    assert reason in declined(FOLD, model)


def test_a_shift_does_not_pass_to_a_padded_convolution() -> None:
    model = model_of(
        "d = Add(x, c) f = Transpose<perm = [0, 3, 1, 2]>(d) y = Conv<pads = [1,1,1,1]>(f, w)",
        W + ", float c = {0.5}",
        x="float[1,5,5,4] x",
        y="float[1,6,5,5] y",
    )
    assert declined(FOLD, model) == {"padding: a shift before it would not reach the border"}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("n = Mul(x, c) y = Mul(d, n)", "Mul"),
        ("n = Div(x, c) y = Mul(n, d)", "Mul"),
        ("n = Mul(c, x) y = Div(n, d)", "Mul"),
        ("n = Add(x, c) y = Add(n, d)", "Add"),
        ("n = Sub(x, c) t = Sub(n, d) y = Sub(t, d)", "Add"),
        ("n = Mul(x, v) y = Mul(n, d)", "Mul"),
    ],
)
def test_constants_one_behind_the_other_become_one(body: str, left: str) -> None:
    weights = "float c = {3.0}, float[1] d = {0.7}, float[4] v = {seed}"
    model = model_of(body, weights, x="float[2,4] x", y="float[2,4] y")
    assert rewrite(FOLD, model).ops == [left]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("n = Add(x, big) y = Sub(n, big)", "addends of opposite signs, which may be there to round"),
        ("n = Mul(x, c) y = Add(n, d)", "a factor and an addend"),
        ("n = Div(c, x) y = Mul(n, d)", "a constant divided, or a division by zero"),
        ("n = Sub(c, x) y = Add(n, d)", "x is subtracted"),
        ("n = Mul(x, row) y = Mul(n, column)", "both constants together are larger"),
        ("n = Mul(x, huge) y = Mul(n, huge)", "the constants overflow or underflow"),
    ],
)
def test_constants_that_stay_two(body: str, reason: str) -> None:
    weights = """float c = {3.0}, float[1] d = {0.7}, float big = {8388608.0}, float huge = {1e30},
        float[1,4] row = {seed}, float[2,1] column = {seed}"""
    assert declined(FOLD, model_of(body, weights, x="float[2,4] x")) == {reason}


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("total", ["Add(n, zero)", "Add(zero, n)", "Add(n, one_zero)"])
def test_an_addend_of_zero_goes(total: str, opset: int) -> None:
    """As Paddle writes the scale of queries."""
    body = f"n = Mul(x, c) s = {total} y = MatMul(s, z)"
    weights = "float c = {0.35}, float zero = {0.0}, float[1] one_zero = {-0.0}"
    model = model_of(body, weights, x="float[2,3,4] x, float[2,4,3] z", y="float[2,3,3] y", opset=opset)
    assert rewrite((InferShapes(), FOLD), model).ops == ["Mul", "MatMul"]


def test_zero_added_to_a_value_of_unknown_rank_goes_if_it_is_a_scalar() -> None:
    def left(zero: str) -> list[str]:
        model = model_of("a = Relu(x) y = Add(a, zero)", zero, x="float[2,4] x", y="float[2,4] y")
        model.graph[0].outputs[0].dtype = DataType.FLOAT
        assert model.graph[0].outputs[0].shape is None
        return rewrite(FOLD, model).ops

    assert left("float zero = {0.0}") == ["Relu"]
    assert left("float[1] zero = {0.0}") == ["Relu", "Add"]


@pytest.mark.parametrize(
    ("body", "y"),
    [
        ("y = Add(x, zero)", "2,4"),  # an input cannot take the output's name
        ("n = Neg(x) y = Add(n, rank3)", "1,2,4"),  # one axis more
        ("n = Neg(x) y = Add(n, least)", "2,4"),
        ("n = Neg(x) y = Sub(zero, n)", "2,4"),
    ],
)
def test_near_misses_of_zero_stay(body: str, y: str) -> None:
    weights = "float zero = {0.0}, float[1,1,1] rank3 = {0.0}, float least = {1e-45}"
    model = model_of(body, weights, x="float[2,4] x", y=f"float[{y}] y")
    assert body.count("=") == len(rewrite((InferShapes(), FOLD), model).ops)
