# SPDX-License-Identifier: Apache-2.0
"""The audit's totals, sources and claims about wrong numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.backends.base import BackendError
from tersor.backends.onnxruntime.audit import audit
from tersor.backends.onnxruntime.optimized import optimized_with_sources
from tersor.backends.onnxruntime.session import OrtSession
from tersor.graph_ir import ModelError, to_proto
from tersor.passes.base import Context
from tersor.pipeline import manager
from tersor.pipeline.spec import parse
from tests.support.int8 import graph
from tests.support.qdq_models import ACT_SCALE, Qdq
from tests.support.runtime import MATMUL_MISREAD


def residual() -> onnx.ModelProto:
    """Two int8 convolutions with a residual sum, then one left in float."""
    g = Qdq([1, 16, 8, 8])
    stem = g.qdq(g.op("Relu", g.conv(g.qdq("x"), 16, 16, name="stem"), name="relu"))
    body = g.qdq(g.conv(stem, 16, 16, name="body"), zero=128)
    total = g.qdq(g.op("Add", body, stem, name="sum"))
    return g.model(g.conv(total, 16, 16, name="head"))


def test_totals_count_nodes_and_macs() -> None:
    report = audit(residual(), macs={"stem": 10, "body": 20, "head": 70, "sum": 1000})
    assert (report.linear_int8, report.linear_total) == (2, 3)
    assert report.macs_share == pytest.approx(0.3)
    assert [row.node for row in report.misses] == ["head"]
    assert sorted(leftover.elements for leftover in report.leftovers) == [16, 16 * 16 * 9]
    assert {leftover.readers for leftover in report.leftovers} == {("head",)}


def test_rows_follow_the_graph_and_skip_q_and_dq() -> None:
    assert [row.node for row in audit(residual()).rows] == ["stem", "relu", "body", "sum", "head"]


def test_a_float_model_has_rows_for_linear_nodes_only() -> None:
    g = Qdq([1, 16, 8, 8])
    weight = g.const(np.ones((16, 16, 1, 1), np.float32))
    report = audit(g.model(g.op("Tanh", g.op("Conv", "x", weight, name="c", kernel_shape=[1, 1]))))
    assert [(row.node, row.precision, row.code) for row in report.rows] == [("c", "float", "not-quantized")]
    assert (report.leftovers, report.macs_share) == ((), 1.0)


def test_unnamed_nodes_are_called_by_their_output() -> None:
    model = residual()
    for node in model.graph.node:
        node.name = ""
    rows = {row.node: row.kernel for row in audit(model).rows}
    assert rows["Conv(stem.out)"] == "QLinearConv"
    assert all(not node.name for node in model.graph.node)


def test_path_bytes_and_external_weights_give_the_same_report(tmp_path: Path) -> None:
    model = residual()
    expected = audit(model)
    plain, outside = tmp_path / "plain.onnx", tmp_path / "outside.onnx"
    onnx.save(model, str(plain))
    onnx.save(model, str(outside), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 16 * 16 * 9
    assert audit(plain) == expected
    assert audit(plain.read_bytes()) == expected
    assert audit(outside) == expected


def test_nodes_in_a_branch_are_audited() -> None:
    g = Qdq([1, 16, 8, 8])
    tensor = g.qdq("x")
    inner = Qdq([1, 16, 8, 8], seed=1)
    out = inner.qdq(inner.conv(tensor, 16, 16, name="inside"))
    info = onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None)
    branch = onnx.helper.make_graph(inner.nodes, "then", [], [info], inner.constants)
    for name in (*(t.name for t in inner.constants), *(o for n in inner.nodes for o in n.output)):
        _rename(branch, name, f"inner_{name}")
    plain_info = onnx.helper.make_tensor_value_info("plain", onnx.TensorProto.FLOAT, None)
    other = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [tensor], ["plain"])], "else", [], [plain_info]
    )
    total = g.op("ReduceSum", tensor, keepdims=0, name="total")
    flag = g.op("Greater", total, g.const(np.float32(0)), name="flag")
    chosen = g.op("If", flag, name="choice", then_branch=branch, else_branch=other)
    rows = {row.node: row for row in audit(g.model(chosen)).rows}
    # The DequantizeLinear lies outside the branch, where the fusion does not look.
    assert rows["inside"].op_type == "Conv"
    assert rows["inside"].precision == "float"


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for tensor in graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    for value in graph.output:
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_called_misread_computes_other_numbers(axis: int) -> None:
    g = Qdq([4, 16])
    values = np.random.default_rng(3).integers(-60, 60, (16, 16)).astype(np.int8)
    scales = g.const(np.linspace(0.001, 0.03, 16).astype(np.float32))
    zeros = g.const(np.zeros(16, np.int8))
    weight = g.op("DequantizeLinear", g.const(values), scales, zeros, axis=axis)
    model = g.model(g.qdq(g.op("MatMul", g.qdq("x"), weight, name="n"), zero=128, scale=0.2))
    feed = {"x": np.random.default_rng(0).uniform(0, 5, (4, 16)).astype(np.float32)}
    with OrtSession(model, threads=1, level="off") as plain, OrtSession(model, threads=1) as fused:
        error = float(np.max(np.abs(plain.run(feed)[0] - fused.run(feed)[0])))
    (row,) = audit(model).rows
    assert row.misread == (axis == 0 and MATMUL_MISREAD)
    assert (error > 10 * 0.2) == row.misread
    assert row.code == ("wrong-axis" if axis == 0 else "")


def test_bias_in_the_scale_that_the_kernel_uses_is_not_misread() -> None:
    g = Qdq([4, 16])
    bias = g.bias(16, scale=ACT_SCALE * 0.01)
    product = g.op("Gemm", g.qdq("x"), g.weight((16, 16), axis=1), bias, name="n")
    assert not audit(g.model(g.qdq(product, zero=128))).misread


def test_a_fused_kernel_stands_for_all_its_nodes() -> None:
    g = Qdq([1, 16, 8, 8])
    weight = g.const(np.ones((16, 16, 1, 1), np.float32))
    conv = g.op("Conv", "x", weight, name="conv", kernel_shape=[1, 1])
    model = g.model(g.op("HardSwish", g.op("Tanh", conv, name="tanh"), name="swish"))
    with optimized_with_sources(model) as found:
        names = {index: item.label for index, item in enumerate(found.sources)}
        by_kernel = {k.node.op_type: {names[i] for i in k.sources} for k in found.kernels}
    # The blocked convolution takes Tanh in, and HardSwish is spelled as two nodes without names.
    assert by_kernel["HardSigmoid"] == {"swish"}
    assert by_kernel["Mul"] == {"swish"}
    assert by_kernel["Conv"] == {"conv", "tanh"}
    assert by_kernel["ReorderOutput"] == set()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        audit(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not an ONNX model"):
        audit(b"\xff\xff\xff\xff")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20, "my": 1]> '
        "g (float[2] x) => (float[2] y) { [lost] y = my.Foo(x) }"
    )
    with pytest.raises(BackendError, match=r"my:Foo.*not a registered"):
        audit(model)


def test_a_refused_node_is_called_by_its_own_name() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> '
        "g (double[2] x) => (double[2] y) { [lost] y = HardSigmoid(x) }"
    )
    with pytest.raises(BackendError, match="node with name 'lost'"):
        audit(model)


def test_recurrent_layers_and_weights_in_blocks_are_counted() -> None:
    model = graph(
        """h = LSTM<hidden_size=24>(x, w, r) t = Squeeze(h, one)
        u = GRU<hidden_size=24>(t, v, q) y = MatMul(u, p)""",
        """float[1,96,16] w = {seed}, float[1,96,24] r = {seed}, int64[1] one = {1},
        float[1,72,24] v = {seed}, float[1,72,24] q = {seed}, float[24,24] p = {seed}""",
        x="6,1,16",
    )
    before = audit(to_proto(model))
    assert (before.linear_int8, before.linear_total) == (0, 3)
    ready, context = parse("quantize-dynamic{op-types=LSTM},weight-only{bits=8}"), Context()
    assert manager.run(ready, model, context).changed == 2
    found = audit(to_proto(model))
    kinds = {row.op_type: row.precision for row in found.rows}
    assert kinds == {"DynamicQuantizeLSTM": "dynamic", "GRU": "float", "MatMulNBits": "dynamic"}
    assert (found.linear_int8, found.linear_total) == (2, 3)
