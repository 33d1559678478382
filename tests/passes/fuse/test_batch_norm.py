# SPDX-License-Identifier: Apache-2.0
"""Folding of BatchNormalization: what it does, and where it must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tersor.graph_ir import Model, constant
from tersor.graph_ir.origins import originals, origins
from tersor.passes.fuse.batch_norm import FoldBatchNorm
from tests.support.rewriting import declined, model_of, retyped, rewrite

FOLD = FoldBatchNorm()


def parameters(count: int) -> str:
    variance = ", ".join(str(0.5 + i) for i in range(count))
    names = ", ".join(f"float[{count}] {n} = {{seed}}" for n in ("s", "b", "m"))
    return f"{names}, float[{count}] v = {{{variance}}}"


def conv_norm(
    norm: str = "", conv: str = "", weights: str = "float[6,4,3,3] w = {seed}", opset: int = 17
) -> Model:
    return model_of(
        f"c = Conv<{conv}>(x, w) y = BatchNormalization<{norm}>(c, s, b, m, v)".replace("<>", ""),
        f"{weights}, {parameters(6)}",
        x="float[N,4,7,7] x",
        y="float[N,6,P,Q] y",
        opset=opset,
    )


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 17, 20])
def test_into_conv_before(opset: int) -> None:
    done = rewrite(FOLD, conv_norm("epsilon = 0.01", "pads = [1, 1, 1, 1], strides = [2, 1]", opset=opset))
    assert done.ops == ["Conv"]
    assert "y = Conv<pads=[1, 1, 1, 1], strides=[2, 1]>(x, w, w_bias)" in done.text


def test_old_weights_are_dropped_and_provenance_is_kept() -> None:
    done = rewrite(FOLD, conv_norm())
    assert sorted(done.model.graph.initializers) == ["w", "w_bias"]
    (node,) = done.model.graph
    assert originals(node) == {"BatchNormalization(y)": "BatchNormalization", "Conv(c)": "Conv"}


@pytest.mark.parametrize(
    ("body", "weights", "x", "y"),
    [
        ("c = Conv<group = 2>(x, w, k)", "float[6,2,3] w = {seed}, float[6] k = {seed}", "1,4,9", "1,6,7"),
        ("c = Conv<group = 6>(x, w)", "float[6,1,3,3] w = {seed}", "1,6,5,5", "1,6,3,3"),
        ("c = Conv(x, w, k)", "float[6,2,2,2,2] w = {seed}, float[6] k = {seed}", "1,2,3,3,3", "1,6,2,2,2"),
        ("c = ConvTranspose(x, w)", "float[4,6,3,3] w = {seed}", "1,4,5,5", "1,6,7,7"),
        (
            "c = ConvTranspose<group = 2, strides = [2, 2]>(x, w, k)",
            "float[4,3,3,3] w = {seed}, float[6] k = {seed}",
            "1,4,5,5",
            "1,6,11,11",
        ),
        ("c = Gemm(x, w, k)", "float[4,6] w = {seed}, float[6] k = {seed}", "3,4", "3,6"),
        ("c = Gemm<transB = 1>(x, w)", "float[6,4] w = {seed}", "3,4", "3,6"),
        (
            "c = Gemm<transA = 1, alpha = 0.5, beta = 3.0>(x, w, k)",
            "float[4,6] w = {seed}, float[1,1] k = {2}",
            "4,3",
            "3,6",
        ),
        ("c = Gemm<beta = 0.5>(x, w, k)", "float[4,6] w = {seed}, float[1,6] k = {seed}", "3,4", "3,6"),
    ],
)
def test_one_node_is_left(body: str, weights: str, x: str, y: str) -> None:
    model = model_of(
        f"{body} y = BatchNormalization(c, s, b, m, v)",
        f"{weights}, {parameters(6)}",
        x=f"float[{x}] x",
        y=f"float[{y}] y",
    )
    assert len(rewrite(FOLD, model).ops) == 1


@pytest.mark.parametrize(
    ("body", "weights", "x", "y"),
    [
        ("c = MatMul(x, w)", "float[4,6] w = {seed}", "3,4", "3,6"),
        ("p = MatMul(x, w) c = Add(k, p)", "float[4,6] w = {seed}, float[1,6] k = {seed}", "3,4", "3,6"),
        ("c = MatMul(w, x)", "float[6,4] w = {seed}", "2,4,5", "2,6,5"),
        (
            "p = MatMul(w, x) c = Add(p, k)",
            "float[2,6,4] w = {seed}, float[6,1] k = {seed}",
            "2,4,5",
            "2,6,5",
        ),
    ],
)
def test_matmul_keeps_its_bias_behind_it(body: str, weights: str, x: str, y: str) -> None:
    model = model_of(
        f"{body} y = BatchNormalization(c, s, b, m, v)",
        f"{weights}, {parameters(6)}",
        x=f"float[{x}] x",
        y=f"float[{y}] y",
    )
    assert rewrite(FOLD, model).ops == ["MatMul", "Add"]


@pytest.mark.parametrize(
    ("body", "weights", "x", "y"),
    [
        ("y = Conv(n, w)", "float[6,4,3,3] w = {seed}", "1,4,5,5", "1,6,3,3"),
        (
            "y = Conv<group = 2>(n, w, k)",
            "float[6,2,3,3] w = {seed}, float[6] k = {seed}",
            "1,4,5,5",
            "1,6,3,3",
        ),
        ('y = Conv<auto_pad = "VALID">(n, w)', "float[6,4,3,3] w = {seed}", "1,4,5,5", "1,6,3,3"),
        ('y = Conv<auto_pad = "SAME_UPPER">(n, w)', "float[6,4,1,1] w = {seed}", "1,4,5,5", "1,6,5,5"),
        ("y = Gemm<alpha = 2.0>(n, w)", "float[4,6] w = {seed}", "3,4", "3,6"),
        (
            "y = Gemm<transB = 1, beta = 0.5>(n, w, k)",
            "float[6,4] w = {seed}, float[6] k = {seed}",
            "3,4",
            "3,6",
        ),
    ],
)
def test_into_the_operator_behind(body: str, weights: str, x: str, y: str) -> None:
    model = model_of(
        f"n = BatchNormalization(x, s, b, m, v) {body}",
        f"{weights}, {parameters(4)}",
        x=f"float[{x}] x",
        y=f"float[{y}] y",
    )
    assert len(rewrite(FOLD, model).ops) == 1


@pytest.mark.parametrize(
    ("body", "weight", "x", "y"),
    [
        ("y = MatMul(n, w)", "float[4,6] w = {seed}", "3,4", "3,6"),
        ("y = MatMul(w, n)", "float[6,4] w = {seed}", "2,4,5", "2,6,5"),
    ],
)
def test_into_the_matmul_behind(body: str, weight: str, x: str, y: str) -> None:
    model = model_of(
        f"n = BatchNormalization(x, s, b, m, v) {body}",
        f"{weight}, {parameters(4)}",
        x=f"float[{x}] x",
        y=f"float[{y}] y",
    )
    assert rewrite(FOLD, model).ops == ["MatMul", "Add"]


UNSHIFTED = (
    "float[4] s = {seed}, float[4] b = {0, 0, 0, 0}, float[4] m = {0, 0, 0, 0}, float[4] v = {1, 2, 3, 4}"
)


@pytest.mark.parametrize(
    ("body", "weight", "y"),
    [
        ("y = Conv<pads = [1, 1, 1, 1]>(n, w)", "float[6,4,3,3] w = {seed}", "1,6,5,5"),
        ("y = ConvTranspose<group = 2>(n, w)", "float[4,3,3,3] w = {seed}", "1,6,7,7"),
    ],
)
def test_padding_needs_a_zero_shift(body: str, weight: str, y: str) -> None:
    def made(norm: str) -> Model:
        return model_of(
            f"n = BatchNormalization(x, s, b, m, v) {body}",
            f"{weight}, {norm}",
            x="float[1,4,5,5] x",
            y=f"float[{y}] y",
        )

    assert len(rewrite(FOLD, made(UNSHIFTED)).ops) == 1
    assert declined(FOLD, made(parameters(4))) == {"padding: a shift before it would not reach the border"}


def test_between_two_convs_goes_to_the_first() -> None:
    model = model_of(
        "c = Conv(x, w) n = BatchNormalization(c, s, b, m, v) y = Conv<pads = [1,1,1,1]>(n, u)",
        f"float[4,4,3,3] w = {{seed}}, float[4,4,3,3] u = {{seed}}, {parameters(4)}",
        x="float[1,4,7,7] x",
        y="float[1,4,5,5] y",
    )
    assert rewrite(FOLD, model).ops == ["Conv", "Conv"]


@pytest.mark.parametrize("dtype", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE])
def test_other_floats_round_once(dtype: onnx.TensorProto.DataType) -> None:
    done = rewrite(FOLD, retyped(conv_norm(), dtype))
    assert done.ops == ["Conv"]
    assert done.model.graph.initializers["w_bias"].dtype == dtype


def test_bfloat16() -> None:
    done = rewrite(FOLD, retyped(conv_norm(opset=22), onnx.TensorProto.BFLOAT16), numbers=False)
    wide = rewrite(FOLD, conv_norm(opset=22))
    assert done.ops == ["Conv"]
    for name in ("w", "w_bias"):
        narrow, exact = (constant(m.graph.initializers[name]) for m in (done.model, wide.model))
        assert narrow is not None
        assert exact is not None
        np.testing.assert_allclose(narrow.astype(np.float32), exact, rtol=2.0**-5, atol=2.0**-5)


def test_weights_of_another_reader_are_copied() -> None:
    model = model_of(
        "c = Conv(x, w, k) n = BatchNormalization(c, s, b, m, v) d = Conv(x, w, k) y = Add(n, d)",
        f"float[6,4,3,3] w = {{seed}}, float[6] k = {{seed}}, {parameters(6)}",
        x="float[1,4,7,7] x",
        y="float[1,6,5,5] y",
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["Conv", "Conv", "Add"]
    assert {"w", "w_1", "k", "k_1"} == set(done.model.graph.initializers)


def test_weights_from_constant_nodes() -> None:
    model = model_of(
        "w = Constant<value = float[2,1,1,1] {2.0, 3.0}>() c = Conv(x, w)"
        " y = BatchNormalization(c, s, b, m, v)",
        parameters(2),
        x="float[1,1,3,3] x",
        y="float[1,2,3,3] y",
    )
    done = rewrite(FOLD, model)
    assert [n.op_type for n in done.model.graph] == ["Conv"]


def test_the_operator_and_weights_it_alone_reads_keep_their_names() -> None:
    model = model_of(
        "[first] c = Conv(x, w, k) [second] n = BatchNormalization(c, s, b, m, v) y = Relu(n)",
        f"float[6,4,3,3] w = {{seed}}, float[6] k = {{seed}}, {parameters(6)}",
        x="float[1,4,7,7] x",
        y="float[1,6,5,5] y",
    )
    before = model.graph[0]
    done = rewrite(FOLD, model)
    node, relu = done.model.graph
    assert node.name == before.name == "first"
    assert set(done.model.graph.initializers) == {"w", "k"}
    assert [v.name for v in (*node.outputs, *relu.inputs) if v is not None] == ["n", "n"]
    assert origins(node) == ("second", "first")


def test_a_weight_that_is_an_output_is_copied() -> None:
    model = model_of(
        "c = Conv(x, w) y = BatchNormalization(c, s, b, m, v)",
        f"float[6,4,3,3] w = {{seed}}, {parameters(6)}",
        x="float[1,4,7,7] x",
        y="float[1,6,5,5] y, float[6,4,3,3] w",
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["Conv"]
    assert {"w", "w_1"} <= set(done.model.graph.initializers)
