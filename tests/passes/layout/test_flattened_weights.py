# SPDX-License-Identifier: Apache-2.0
"""A Transpose before a flattened product goes into the rows of the weight."""

from __future__ import annotations

import pytest

from tersor.passes.base import Context
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.layout.flattened_weights import PermuteFlattenedWeights
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import preset
from tests.support.layouts import TO_FIRST, TO_LAST
from tests.support.numerics import assert_rounding, feeds_for, snapshot
from tests.support.rewriting import declined, model_of, rewrite

PASSES = (InferShapes(), PermuteFlattenedWeights())
WEIGHT = "float[60,4] w = {seed}, float[4] b = {seed}, int64[2] flat = {-1, 60}"
X = "float[N,5,3,4] x"
Y = "float[N,4] y"


@pytest.mark.parametrize("flatten", ["Reshape(v, flat)", "Flatten(v)", "Flatten<axis = -3>(v)"])
@pytest.mark.parametrize("product", ["MatMul(f, w)", "Gemm(f, w, b)", "Gemm<alpha = 0.5>(f, w)"])
def test_rows_are_moved(flatten: str, product: str) -> None:
    result = rewrite(
        PASSES, model_of(f"v = {TO_LAST}(x)\nf = {flatten}\ny = {product}", WEIGHT, x=X, y=Y), N=3
    )
    assert result.ops == ["Reshape", product.split("(", maxsplit=1)[0].split("<", maxsplit=1)[0]]


def test_columns_of_a_turned_weight_are_moved() -> None:
    body = f"v = {TO_LAST}(x)\nf = Flatten(v)\ny = Gemm<transB = 1>(f, w)"
    assert rewrite(PASSES, model_of(body, "float[4,60] w = {seed}", x=X, y=Y)).ops == ["Reshape", "Gemm"]


def test_any_permutation_behind_the_batch_axis() -> None:
    body = "v = Transpose<perm = [0, 3, 1, 2]>(x)\nf = Flatten(v)\ny = MatMul(f, w)"
    assert rewrite(PASSES, model_of(body, WEIGHT, x=X, y=Y)).ops == ["Reshape", "MatMul"]


KEPT = [
    ("v = Transpose<perm = [1, 0, 2, 3]>(x)\nf = Flatten(v)\ny = MatMul(f, w)", "float[2,5,3,4] x"),
    (f"v = {TO_LAST}(x)\nf = Flatten(v)\ny = MatMul(f, w)", "float[N,5,H,4] x"),
    (f"v = {TO_LAST}(x)\nf = Flatten(v)\ny = MatMul(f, u)", "float[N,5,3,4] x, float[60,4] u"),
    (f"v = {TO_LAST}(x)\nf = Flatten(v)\ng = MatMul(f, w)\nh = ReduceSum(w)\ny = Add(g, h)", X),
    (f"v = {TO_LAST}(x)\nf = Flatten<axis = 2>(v)\ny = MatMul(f, n)", X),
    (f"v = {TO_LAST}(x)\nf = Flatten(v)\ng = MatMul(f, w)\nh = ReduceSum(f)\ny = Add(g, h)", X),
]


@pytest.mark.parametrize(("body", "x"), KEPT)
def test_where_it_does_not_hold_or_pay(body: str, x: str) -> None:
    batch_moved = "float[24,4] w = {seed}"
    weights = batch_moved if "1, 0, 2" in body else WEIGHT + ", float[20,4] n = {seed}"
    model = model_of(body, weights, x=x, y="float[A,4] y")
    InferShapes().run(model, Context())
    declined(PermuteFlattenedWeights(), model)


def test_the_preset_leaves_no_transpose_inside() -> None:
    """Conv, bias, ReLU, flatten and dense as a channel-last exporter writes them."""
    body = f"""
        t = {TO_FIRST}(x)
        c = Conv(t, k)
        v = {TO_LAST}(c)
        a = Add(v, s)
        r = Relu(a)
        f = Reshape(r, flat)
        m = MatMul(f, w)
        y = Add(m, b)"""
    weights = f"{WEIGHT}, float[5,2,1,1] k = {{seed}}, float[5] s = {{seed}}"
    model = model_of(body, weights, x="float[N,3,4,2] x", y=Y)
    before = snapshot(model)
    manager.run(spec.parse(preset("lossless")), model)
    assert_rounding(before, snapshot(model), feeds_for(before))
    assert [n.op_type for n in model.graph] == ["Transpose", "Conv", "Relu", "Reshape", "Gemm"]
