# SPDX-License-Identifier: Apache-2.0
"""MatMul and Add as Gemm: what is rewritten, and what stays."""

from __future__ import annotations

import onnx
import pytest

from tersor.passes.fuse.matmul_add import MatMulAddToGemm
from tests.support.rewriting import declined, model_of, retyped, rewrite

FUSE = MatMulAddToGemm()
FLATTEN = MatMulAddToGemm(flatten=True)
W = "float[4,6] w = {seed}"


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 20])
@pytest.mark.parametrize("c", ["6", "1", "1,6", "1,1"])
@pytest.mark.parametrize("add", ["Add(p, c)", "Add(c, p)"])
def test_constant_bias(add: str, c: str, opset: int) -> None:
    model = model_of(
        f"p = MatMul(x, w) y = {add}",
        f"{W}, float[{c}] c = {{seed}}",
        x="float[N,4] x",
        y="float[N,6] y",
        opset=opset,
    )
    done = rewrite(FUSE, model, N=3)
    assert done.ops == ["Gemm"]
    assert "y = Gemm(x, w, c)" in done.text


@pytest.mark.parametrize("c", ["N,1", "N,6", "1,1"])
def test_a_sum_with_an_activation_stays(c: str) -> None:
    model = model_of(
        "p = MatMul(x, w) y = Add(p, c)", x=f"float[N,4] x, float[4,6] w, float[{c}] c", y="float[N,6] y"
    )
    assert declined(FUSE, model) == {"the bias is not constant"}


def test_a_product_of_activations_stays_open_to_a_constant_bias() -> None:
    model = model_of(
        "p = MatMul(x, w) y = Add(p, c)",
        "float[6] c = {seed}",
        x="float[N,4] x, float[4,6] w",
        y="float[N,6] y",
    )
    assert rewrite(FUSE, model, N=3).ops == ["Gemm"]


@pytest.mark.parametrize("dtype", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_other_floats(dtype: onnx.TensorProto.DataType) -> None:
    model = model_of(
        "p = MatMul(x, w) y = Add(p, c)", f"{W}, float[6] c = {{seed}}", x="float[3,4] x", y="float[3,6] y"
    )
    assert rewrite(FUSE, retyped(model, dtype)).ops == ["Gemm"]


@pytest.mark.parametrize(
    ("a", "b", "c", "y", "reason"),
    [
        ("2,3,4", "4,6", "6", "2,3,6", "the left operand is not known to be a matrix"),
        ("4", "4,6", "6", "6", "the left operand is not known to be a matrix"),
        ("3,4", "2,4,6", "6", "2,3,6", "the right operand is not known to be a matrix"),
        ("3,4", "4", "3", "3", "the right operand is not known to be a matrix"),
        ("3,4", "4,6", "2,3,6", "2,3,6", "bias may enlarge the result"),
        ("1,4", "4,6", "5,6", "5,6", "bias may enlarge the result"),
        ("3,4", "4,1", "6", "3,6", "bias may enlarge the result"),
        ("N,4", "4,6", "M,6", "P,6", "bias may enlarge the result"),
        ("N,4", "4,6", "2,6", "2,6", "bias may enlarge the result"),
    ],
)
def test_shapes_that_must_stay(a: str, b: str, c: str, y: str, reason: str) -> None:
    model = model_of(
        "p = MatMul(a, b) y = Add(p, c)", x=f"float[{a}] a, float[{b}] b, float[{c}] c", y=f"float[{y}] y"
    )
    assert declined(FUSE, model) == {reason}


def test_integers_and_unknown_ranks_stay() -> None:
    model = model_of(
        "p = MatMul(x, w) y = Add(p, c)",
        "int32[4,6] w = {seed}, int32[6] c = {seed}",
        x="int32[3,4] x",
        y="int32[3,6] y",
    )
    assert declined(FUSE, model) == {"not known to be floats Gemm takes"}
    model = model_of(
        "r = Reshape(x, s) p = MatMul(r, w) y = Add(p, c)",
        f"{W}, float[6] c = {{seed}}",
        x="float[12] x, int64[K] s",
        y="float[P,Q] y",
    )
    assert declined(FUSE, model) == {"the left operand is not known to be a matrix"}


def test_product_is_an_output_or_read_twice() -> None:
    weights, x = f"{W}, float[6] c = {{seed}}", "float[3,4] x"
    declined(FUSE, model_of("p = MatMul(x, w) y = Add(p, c)", weights, x=x, y="float[3,6] y, float[3,6] p"))
    declined(FUSE, model_of("p = MatMul(x, w) q = Add(p, c) y = Mul(q, p)", weights, x=x, y="float[3,6] y"))


@pytest.mark.parametrize(("x", "y"), [("2,3,4", "2,3,6"), ("N,3,4", "N,3,6"), ("2,2,N,4", "2,2,N,6")])
def test_flattened_between_reshapes(x: str, y: str) -> None:
    model = model_of(
        "p = MatMul(x, w) y = Add(p, c)", f"{W}, float[6] c = {{seed}}", x=f"float[{x}] x", y=f"float[{y}] y"
    )
    assert rewrite(FLATTEN, model, N=5).ops == ["Reshape", "Gemm", "Reshape"]


@pytest.mark.parametrize(
    ("x", "c", "y", "reason"),
    [
        ("N,T,4", "6", "N,T,6", "more than one size is unknown"),
        ("2,0,4", "6", "2,0,6", "more than one size is unknown"),
        ("2,3,4", "3,6", "2,3,6", "bias is not one value a column"),
        ("2,3,4", "2,3,6", "2,3,6", "bias is not one value a column"),
        ("4", "6", "6", "the left operand is not known to be a batch of matrices"),
    ],
)
def test_flattening_that_must_not_be(x: str, c: str, y: str, reason: str) -> None:
    model = model_of(
        "p = MatMul(x, w) y = Add(p, c)",
        f"{W}, float[{c}] c = {{seed}}",
        x=f"float[{x}] x",
        y=f"float[{y}] y",
    )
    assert reason in declined(FLATTEN, model)


def test_in_a_loop_body_and_in_a_function() -> None:
    model = model_of(
        "y = Loop (trips, flag, x) <body = again (int64 i, bool go, float[3,4] u) => (bool on, float[3,4] t)"
        " { on = Identity(go) p = MatMul(u, w) t = Add(p, c) }>",
        "float[4,4] w = {seed}, float[4] c = {seed}, int64 trips = {3}",
        x="float[3,4] x, bool flag",
        y="float[3,4] y",
    )
    assert rewrite(FUSE, model).ops == ["Loop", "Identity", "Gemm"]
    function = """<domain: "local", opset_import: ["" : 17]>
    block (a, w, c) => (r) { p = MatMul(a, w) r = Add(p, c) }"""
    model = model_of(
        "y = local.block(x, w, c)",
        f"{W}, float[6] c = {{seed}}",
        x="float[3,4] x",
        y="float[3,6] y",
        functions=function,
    )
    # Inside a function no rank is known: the caller may give any.
    declined(FUSE, model)
