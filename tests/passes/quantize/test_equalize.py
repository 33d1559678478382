# SPDX-License-Identifier: Apache-2.0
"""Equalized layers have equal ranges and the same outputs, and what is not homogeneous is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, Node, constant, parse, tensor
from tersor.graph_ir.ops import int_attr
from tersor.passes.quantize.equalize import Equalize
from tests.support.rewriting import declined, model_of, rewrite, with_array

CONVS = "float[8,4,3,3] w1 = {seed}, float[8] b1 = {seed}, float[6,8,3,3] w2 = {seed}, float[6] b2 = {seed}"
X, Y = "float[2,4,9,9] x", "float[2,6,a,b] y"


def uneven(body: str, weights: str, *, x: str = X, y: str = Y, opset: int = 17) -> Model:
    """A model whose weights differ much in range between output channels."""
    model = model_of(body, weights, x=x, y=y, opset=opset)
    rng = np.random.default_rng(7)
    for value in model.graph.initializers.values():
        array = constant(value)
        if array is not None and array.ndim > 1:
            factors = np.exp(rng.uniform(-3, 3, (array.shape[0], *[1] * (array.ndim - 1))))
            value.const_value = tensor(np.asarray(array * factors, array.dtype), name=value.name)
    infer_shapes(model)
    return model


def ranges(node: Node, axis: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The largest weight for each index of an axis."""
    array = constant(node.inputs[1])
    assert array is not None
    return np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis % array.ndim))


def linear(model: Model) -> list[Node]:
    return [n for n in model.graph if n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]


@pytest.mark.parametrize(
    "between",
    [
        "r = Relu(c)",
        "r = LeakyRelu<alpha=0.1>(c)",
        "r = PRelu(c, slope)",
        "r = Clip(c, zero)",
        "m = Relu(c) r = MaxPool<kernel_shape=[2,2]>(m)",
        "m = Relu(c) r = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(m)",
        "r = Identity(c)",
    ],
)
def test_ranges_meet_and_outputs_stay(between: str) -> None:
    extra = ", float[8,1,1] slope = {seed}, float zero = {0.0}"
    body = f"c = Conv(x, w1, b1) {between} y = Conv(r, w2, b2)"
    if "Identity" in between:
        body = "r = Conv(x, w1, b1) y = Conv(r, w2, b2)"
    model = uneven(body, CONVS + extra)
    done = rewrite(Equalize(), model, a=5, b=5)
    assert done.changed
    first, second = linear(done.model)
    np.testing.assert_allclose(ranges(first, 0), ranges(second, 1), rtol=1e-2)


@pytest.mark.parametrize(
    ("body", "weights", "x", "y"),
    [
        (
            "c = Gemm<transB=1, beta=2.0>(x, w1, b1) r = Relu(c) y = Gemm<alpha=0.5>(r, w2, b2)",
            "float[8,4] w1 = {seed}, float[8] b1 = {seed}, float[8,5] w2 = {seed}, float[5] b2 = {seed}",
            "float[3,4] x",
            "float[3,5] y",
        ),
        (
            "p = MatMul(x, w1) c = Add(b1, p) r = Relu(c) y = MatMul(r, w2)",
            "float[4,8] w1 = {seed}, float[8] b1 = {seed}, float[8,5] w2 = {seed}",
            "float[2,3,4] x",
            "float[2,3,5] y",
        ),
        (
            "c = ConvTranspose<group=2>(x, w1) y = ConvTranspose(c, w2)",
            "float[4,3,2,2] w1 = {seed}, float[6,2,2,2] w2 = {seed}",
            "float[1,4,5,5] x",
            "float[1,2,7,7] y",
        ),
        (
            "c = Conv(x, w1) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, w2)",
            "float[8,4,3,3] w1 = {seed}, float[8,5] w2 = {seed}",
            "float[2,4,5,5] x",
            "float[2,5] y",
        ),
        (
            "c = Conv(x, w1) r = Relu(c) l = Conv(r, w2) k = Conv(r, w3) y = Add(l, k)",
            "float[8,4,1,1] w1 = {seed}, float[5,8,1,1] w2 = {seed}, float[5,8,1,1] w3 = {seed}",
            "float[2,4,5,5] x",
            "float[2,5,5,5] y",
        ),
    ],
)
def test_every_kind_of_layer(body: str, weights: str, x: str, y: str) -> None:
    done = rewrite(Equalize(), uneven(body, weights, x=x, y=y))
    assert done.changed
    assert done.context.counters["equalize"] == 1


def test_a_chain_with_a_depthwise_layer_settles() -> None:
    body = """a = Conv(x, w1, b1) r = Relu(a) d = Conv<group=8, pads=[1,1,1,1]>(r, wd) s = PRelu(d, slope)
        y = Conv(s, w2, b2)"""
    weights = CONVS + ", float[8,1,3,3] wd = {seed}, float[8,1,1] slope = {seed}"
    done = rewrite(Equalize(), uneven(body, weights), a=5, b=5)
    assert done.context.counters["equalize"] == 2
    first, depthwise, last = linear(done.model)
    np.testing.assert_allclose(ranges(first, 0), ranges(depthwise, 0), rtol=0.02)
    np.testing.assert_allclose(ranges(depthwise, 0), ranges(last, 1), rtol=0.02)
    assert int_attr(depthwise, "group", 1) == 8
    assert not Equalize().run(done.model, done.context), "it is even now"


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w1, b1) r = Clip(c, zero, six) y = Conv(r, w2, b2)",  # clamps elsewhere when scaled
        "c = Conv(x, w1, b1) r = Clip(c, one) y = Conv(r, w2, b2)",
        "c = Conv(x, w1, b1) r = Sigmoid(c) y = Conv(r, w2, b2)",
        "c = Conv(x, w1, b1) r = Elu(c) y = Conv(r, w2, b2)",
        "c = Conv(x, w1, b1) r = Relu(c) d = Conv(r, w2, b2) e = ReduceMax<keepdims=1>(r) y = Add(d, e)",
        "c = Conv(x, w1, b1) r = Relu(c) t = Transpose<perm=[0,1,3,2]>(r) y = Conv(t, w2, b2)",
        "c = Conv(x, w1, b1) r = Add(c, one) y = Conv(r, w2, b2)",
        "c = Conv(x, w1, b1) r = PRelu(one, c) y = Conv(r, w2, b2)",
    ],
)
def test_others_are_left_alone(body: str) -> None:
    weights = CONVS + ", float zero = {0.0}, float six = {6.0}, float[1] one = {1.0}"
    declined(Equalize(), uneven(body, weights))


def test_an_output_between_is_left_alone() -> None:
    ports = "float[2,6,5,5] y, float[2,8,7,7] r"
    declined(Equalize(), uneven("c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2, b2)", CONVS, y=ports))


def test_weights_a_caller_may_override_and_infinite_ones_are_left_alone() -> None:
    body = "c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2, b2)"
    ports = f"{X}, float[8,4,3,3] w1"
    declined(Equalize(), uneven(body, CONVS, x=ports))
    broken = np.full((8, 4, 3, 3), 1.0, np.float32)
    broken[0, 0] = np.inf
    model = with_array(model_of(body, CONVS, x=X, y=Y), "w1", broken)
    infer_shapes(model)
    assert not rewrite(Equalize(), model, numbers=False).changed


def test_dead_channels_and_shared_weights() -> None:
    body = "c = Conv(x, w1) r = Relu(c) d = Conv(r, w1) s = Relu(d) y = Conv(s, w1)"
    model = model_of(body, "float[4,4,1,1] w1 = {seed}", x="float[1,4,3,3] x", y="float[1,4,3,3] y")
    dead = np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32)
    dead[1] = 0
    dead[:, 2] = 0
    model = with_array(model, "w1", dead * np.array([1, 1, 9, 0.1], np.float32).reshape(4, 1, 1, 1))
    infer_shapes(model)
    assert rewrite(Equalize(), model).changed


def test_bodies_are_equalized_too() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (float[2,4] x, bool c) => (float[2,3] y) <float[4,5] w1 = {seed}, float[5,3] w2 = {seed}> {
        y = If (c) <then_branch = t () => (float[2,3] a) { p = MatMul(x, w1) q = Relu(p) a = MatMul(q, w2) },
                    else_branch = e () => (float[2,3] b) { b = MatMul(x, w3) }>
    }"""
    text = text.replace("{seed}> {", "{seed}, float[4,3] w3 = {seed}> {")
    assert rewrite(Equalize(), parse(text)).context.counters["equalize"] == 1
