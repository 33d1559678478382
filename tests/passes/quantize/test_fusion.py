# SPDX-License-Identifier: Apache-2.0
"""Each form that is emitted runs on int8 kernels of a default session, close to the float model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.graph_ir import Model
from tersor.passes.quantize.insert_qdq import InsertQdq
from tests.support.int8 import feeds_of, graph, optimised, quantised, run, sqnr
from tests.support.runtime import RUNS_OPSET_24

W = "float[16,16,3,3] w = {seed}, float[16] b = {seed}, float[16,16,3,3] v = {seed}, float[16] c = {seed}"
CONV = "<pads=[1,1,1,1]>"
IN = f"t = Conv{CONV}(x, w, b)"


def out(name: str = "u") -> str:
    return f"y = Conv{CONV}({name}, v, c)"


CASES: dict[str, tuple[Model, dict[str, int]]] = {
    "conv": (graph(f"{IN} {out('t')}", W), {"QLinearConv": 2}),
    "conv without bias": (graph(f"t = Conv{CONV}(x, w) {out('t')}", W), {"QLinearConv": 2}),
    "relu": (graph(f"{IN} u = Relu(t) {out()}", W), {"QLinearConv": 2, "Relu": 0}),
    "relu6": (
        graph(f"{IN} u = Clip(t, lo, hi) {out()}", W + ", float lo = {0}, float hi = {6}"),
        {"QLinearConv": 2, "Clip": 0},
    ),
    "residual": (graph(f"{IN} u = Add(t, x) r = Relu(u) {out('r')}", W), {"QLinearAdd": 1, "Relu": 0}),
    "mul": (graph(f"{IN} u = Mul(t, t) {out()}", W), {"QLinearMul": 1}),
    "add constant": (
        graph(f"{IN} u = Add(t, k) {out()}", W + ", float[1,16,1,1] k = {seed}"),
        {"QLinearAdd": 1},
    ),
    "concat": (
        graph(f"{IN} u = Concat<axis=1>(t, x) y = Conv{CONV}(u, q)", W + ", float[16,32,3,3] q = {seed}"),
        {"QLinearConcat": 1},
    ),
    "average": (graph(f"{IN} u = AveragePool<kernel_shape=[3,3]>(t) {out()}", W), {"QLinearConv": 3}),
    "padded average": (
        graph(f"{IN} u = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(t) {out()}", W),
        {"QLinearConv": 2, "QLinearAveragePool": 1},
    ),
    "global average": (graph(f"{IN} u = GlobalAveragePool(t) {out()}", W), {"QLinearGlobalAveragePool": 1}),
    "leaky": (graph(f"{IN} u = LeakyRelu<alpha=0.1>(t) {out()}", W), {"QLinearLeakyRelu": 1}),
    "sigmoid": (graph(f"{IN} u = Sigmoid(t) {out()}", W), {"QLinearSigmoid": 1}),
    "silu": (graph(f"{IN} s = Sigmoid(t) u = Mul(t, s) {out()}", W), {"QuickGelu": 1, "QLinearConv": 2}),
    "hard swish": (
        graph(f"{IN} s = HardSigmoid<alpha=0.16666667, beta=0.5>(t) u = Mul(s, t) {out()}", W),
        {"QLinearAdd": 1, "QLinearMul": 1, "QLinearConv": 2, "HardSigmoid": 0, "Mul": 0},
    ),
    "hard swish in one": (
        graph(f"{IN} u = HardSwish(t) {out()}", W),
        {"QLinearAdd": 1, "QLinearMul": 1, "QLinearConv": 2, "HardSigmoid": 0, "Mul": 0},
    ),
    "hard squeeze-excite": (
        graph(
            f"{IN} p = GlobalAveragePool(t) s = Conv(p, e) g = HardSigmoid(s) u = Mul(t, g) {out()}",
            W + ", float[16,16,1,1] e = {seed}",
        ),
        {"QLinearAdd": 1, "QLinearMul": 1, "QLinearConv": 3, "HardSigmoid": 0},
    ),
    "a hard gate that falls": (
        graph(f"{IN} s = HardSigmoid<alpha=-0.2>(t) u = Mul(s, t) {out()}", W),
        {"HardSigmoid": 1, "QLinearConv": 2},
    ),
    "pictures": (
        graph(
            "t = Conv<strides=[2,2]>(x, k) y = Conv(t, w)",
            "float[16,3,3,3] k = {seed}, float[16,16,3,3] w = {seed}",
            x="n,3,16,16",
        ),
        {"QLinearConv": 2, "Pad": 1},
    ),
    "swish": (
        graph(f"{IN} u = Swish<alpha=1.5>(t) {out()}", W, opset=24),
        {"QuickGelu": 1, "QLinearConv": 2, "Sigmoid": 0},
    ),
    "prelu": (
        graph(f"{IN} u = PRelu(t, s) {out()}", W + ", float[16,1,1] s = {seed}"),
        {"PRelu": 1, "QLinearConv": 2},
    ),
    "squeeze-excite": (
        graph(
            f"{IN} p = GlobalAveragePool(t) s = Conv(p, e) g = Sigmoid(s) u = Mul(t, g) {out()}",
            W + ", float[16,16,1,1] e = {seed}",
        ),
        {"QLinearMul": 1, "QLinearSigmoid": 1, "QLinearConv": 3},
    ),
    "where": (
        graph(
            f"{IN} u = Where(k, t, x) {out()}", W + ", bool[1,16,1,1] k = {1,0,1,1,0,1,0,1,1,0,1,1,1,1,0,1}"
        ),
        {"QLinearWhere": 1},
    ),
    "max pool": (
        graph(f"{IN} u = MaxPool<kernel_shape=[3,3]>(t) {out()}", W),
        {"QLinearConv": 2, "QuantizeLinear": 1},
    ),
    "transpose": (
        graph(f"{IN} u = Transpose<perm=[0,1,3,2]>(t) {out()}", W),
        {"QLinearConv": 2, "QuantizeLinear": 1},
    ),
    "split": (
        graph(
            f"{IN} a, d = Split<axis=1>(t, k) u = Concat<axis=1>(d, a) {out()}", W + ", int64[2] k = {8, 8}"
        ),
        {"Split": 1, "QuantizeLinear": 1, "QLinearConcat": 1},
    ),
    "resize": (
        graph(f'{IN} u = Resize<mode="nearest">(t, , k) {out()}', W + ", float[4] k = {1, 1, 2, 2}"),
        {"Resize": 1, "QuantizeLinear": 1},
    ),
    "shuffle": (
        graph(
            f"{IN} a = Reshape(t, k) d = Transpose<perm=[0,2,1,3,4]>(a) u = Reshape(d, l) {out()}",
            W + ", int64[5] k = {1, 2, 8, 12, 12}, int64[4] l = {1, 16, 12, 12}",
        ),
        {"QuantizeLinear": 1, "QLinearConv": 2},
    ),
    "pad": (
        graph(f"{IN} u = Pad(t, k) {out()}", W + ", int64[8] k = {0, 0, 1, 0, 0, 0, 0, 2}"),
        {"Pad": 1, "QuantizeLinear": 1, "QLinearConv": 2},
    ),
    "depthwise": (
        graph(f"{IN} u = Conv<group=16>(t, d) {out()}", W + ", float[16,1,3,3] d = {seed}"),
        {"QLinearConv": 3},
    ),
    "grouped": (
        graph(f"{IN} u = Conv<group=4>(t, d) {out()}", W + ", float[16,4,3,3] d = {seed}"),
        {"QLinearConv": 3},
    ),
    "shared weights": (graph(f"{IN} y = Conv{CONV}(t, w, b)", W), {"QLinearConv": 2}),
    "gemm ends in float": (
        graph(
            "t = Gemm(x, w, b) u = Relu(t) y = Gemm<transB=1, alpha=0.5, beta=2.0>(u, v)",
            "float[24,32] w = {seed}, float[32] b = {seed}, float[8,32] v = {seed}",
            x="4,24",
        ),
        {"QGemm": 2, "Relu": 0, "DequantizeLinear": 0},
    ),
    "matmul and bias": (
        graph("t = MatMul(x, w) y = Add(b, t)", "float[24,32] w = {seed}, float[32] b = {seed}", x="4,24"),
        {"QGemm": 1, "Add": 0},
    ),
    "n-d matmul and bias": (
        graph("t = MatMul(x, w) y = Add(t, b)", "float[24,32] w = {seed}, float[32] b = {seed}", x="2,4,24"),
        {"MatMulIntegerToFloat": 1, "Add": 0, "Sub": 0, "DequantizeLinear": 0},
    ),
    "a sum of products": (
        graph(
            "s = Tanh(x) t = MatMul(x, w) u = MatMul(s, w) y = Add(t, u)", "float[24,32] w = {seed}", x="4,24"
        ),
        {"MatMulIntegerToFloat": 2, "Add": 1},
    ),
    "a residual behind the last product": (
        graph(
            "t = MatMul(x, w) r = Relu(t) u = MatMul(r, v) y = Add(u, r)",
            "float[24,32] w = {seed}, float[32,32] v = {seed}",
            x="4,24",
        ),
        {"QLinearMatMul": 1, "MatMulIntegerToFloat": 1, "Add": 1},
    ),
    "matmul and one bias a row": (
        graph("t = MatMul(x, w) y = Add(t, c)", "float[24,32] w = {seed}, float[4,1] c = {seed}", x="4,24"),
        {"MatMulIntegerToFloat": 1, "Add": 1},
    ),
    "n-d matmul and bias into int8": (
        graph(
            "t = MatMul(x, w) u = Add(t, b) v = Gelu(u) p = MatMul(v, z) y = Add(p, k)",
            "float[24,32] w = {seed}, float[32] b = {seed}, float[32,24] z = {seed}, float[24] k = {seed}",
            x="2,4,24",
            opset=20,
        ),
        {"MatMulIntegerToFloat": 2, "Gelu": 1, "QuantizeLinear": 2, "DequantizeLinear": 0},
    ),
    "gated products of rows": (
        graph(
            "g = MatMul(x, w) s = Sigmoid(g) a = Mul(g, s) u = MatMul(x, v) h = Mul(a, u) y = MatMul(h, z)",
            "float[24,32] w = {seed}, float[24,32] v = {seed}, float[32,24] z = {seed}",
            x="2,4,24",
        ),
        {"MatMulIntegerToFloat": 3, "QLinearMatMul": 0, "QLinearMul": 0, "QuantizeLinear": 2},
    ),
    "n-d matmul, bias and relu into int8": (
        graph(
            "t = MatMul(x, w) u = Add(t, b) r = Relu(u) p = MatMul(r, z) y = Add(p, k)",
            "float[24,32] w = {seed}, float[32] b = {seed}, float[32,24] z = {seed}, float[24] k = {seed}",
            x="2,4,24",
        ),
        {"QLinearConv": 1, "MatMulIntegerToFloat": 1, "Relu": 0, "QuantizeLinear": 1, "DequantizeLinear": 0},
    ),
    "1-d conv": (
        graph("t = Conv(x, w) y = Conv(t, w)", "float[16,16,3] w = {seed}", x="1,16,20"),
        {"QLinearConv": 2},
    ),
    "dynamic batch": (graph(f"{IN} u = Relu(t) {out()}", W, x="n,16,12,12"), {"QLinearConv": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_runs_on_int8_kernels(name: str, tmp_path: Path) -> None:
    if name == "swish" and not RUNS_OPSET_24:
        pytest.skip("onnxruntime before 1.24 does not load opset 24")
    model, expected = CASES[name]
    feed = feeds_of(model)[0]
    before, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert {op: found.ops[op] for op in expected} == expected, found.ops
    assert found.float_linear == 0, found.ops
    assert found.constant_dqs == 0, found.ops
    want = run(before, feed, off=True)[0]
    assert sqnr(want, run(after, feed)[0]) > 28
    assert sqnr(want, run(after, feed, off=True)[0]) > 28


def test_a_float_stem_feeds_int8(tmp_path: Path) -> None:
    model = graph(
        f"s = Conv<strides=[2,2]>(x, k) r = Relu(s) p = MaxPool<kernel_shape=[2,2]>(r) {out('p')}",
        W + ", float[16,3,3,3] k = {seed}",
        x="1,3,32,32",
    )
    before, after, ctx = quantised(model, InsertQdq(float_stem=True))
    found = optimised(after, tmp_path)
    assert found.ops["Conv"] == found.ops["QLinearConv"] == 1
    assert [d.reason[:14] for d in ctx.facts["quant-plan"]] == ["it is the stem", ""]
    # The Q stays behind the pool: moved in front of it, the pool would run on NCHW uint8.
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.index("MaxPool") < kinds.index("QuantizeLinear")
    feed = {"x": np.random.default_rng(5).standard_normal((1, 3, 32, 32)).astype(np.float32)}
    assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 25


def test_an_excluded_follower_stays_float(tmp_path: Path) -> None:
    model = graph(f"{IN} u = Add(t, x) {out()}", W)
    before, after, _ = quantised(model, InsertQdq(float_stem=False, exclude=("Add(u)",)))
    found = optimised(after, tmp_path)
    assert found.ops["Add"] == 1
    assert found.ops["QLinearAdd"] == found.constant_dqs == 0
    feed = feeds_of(model)[0]
    assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 28


def test_softmax_only_by_name(tmp_path: Path) -> None:
    def kinds(options: InsertQdq) -> set[str]:
        model = graph(f"{IN} u = Softmax<axis=1>(t) s = Mul(u, u) {out('s')}", W)
        return set(optimised(quantised(model, options)[1], tmp_path).ops)

    assert "QLinearMul" not in kinds(InsertQdq(float_stem=False))
    assert "QLinearMul" in kinds(InsertQdq(float_stem=False, op_types=("Conv", "Mul", "Softmax")))


@pytest.mark.parametrize("middle", ["Conv<pads=[1,1,1,1]>(t, m)", "ConvTranspose<pads=[1,1,1,1]>(t, m)"])
@pytest.mark.parametrize(
    "behind", ["Relu(f)", "Transpose<perm=[0,1,3,2]>(f)", "MaxPool<kernel_shape=[1,1]>(f)"]
)
def test_an_excluded_node_between_int8_nodes_stays_float(middle: str, behind: str, tmp_path: Path) -> None:
    """Also where the runtime may move the Q in front of what only moves elements."""
    body = f"{IN} f = {middle} u = {behind} {out()}"
    model = graph(body, W + ", float[16,16,3,3] m = {seed}")
    _, after, ctx = quantised(model, InsertQdq(float_stem=False, exclude=("Conv(f)",)))
    found = optimised(after, tmp_path)
    assert found.ops["QLinearConv"] == 2
    assert found.ops["Conv"] + found.ops["ConvTranspose"] == 1
    assert found.constant_dqs == 0
    assert [d.int8 for d in ctx.facts["quant-plan"]] == [True, False, True]


def test_a_float_gemm_that_transposes_its_data_between_int8_nodes_stays_valid() -> None:
    """One scale for each index of the axis it sums over, which is the first."""
    weights = "float[24,20] a = {seed}, float[16,8] m = {seed}, float[8,20] b = {seed}"
    body = (
        "t = MatMul(x, a) f = Gemm<transA=1>(t, m) u = Gemm(f, b) v = MatMul(t, c) y = Concat<axis=0>(u, v)"
    )
    model = graph(body, f"{weights}, float[20,20] c = {{seed}}", x="16,24")
    before, after, ctx = quantised(model, InsertQdq(float_stem=False))
    assert [d.int8 for d in ctx.facts["quant-plan"]] == [True, False, True, True]
    feed = feeds_of(model)[0]
    assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 28
