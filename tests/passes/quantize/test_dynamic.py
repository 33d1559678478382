# SPDX-License-Identifier: Apache-2.0
"""Dynamic quantization runs on one kernel, close to float, and leaves near misses alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import Model, UsageError, parse, to_proto, verify
from tersor.graph_ir.ops import walk_graphs
from tersor.graph_ir.provenance import left_float, note_left_float
from tersor.passes.base import Context
from tersor.passes.clean.sink_constants import SinkConstants
from tersor.passes.quantize.dynamic import QuantizeDynamic
from tersor.passes.quantize.weight_only import WeightOnly
from tests.support.int8 import feeds_of, graph, optimised, run, sqnr

W = "float[24,32] w = {seed}, float[32] b = {seed}"


def apply(model: Model, options: QuantizeDynamic | None = None) -> Context:
    ctx = Context()
    (options or QuantizeDynamic()).run(model, ctx)
    verify(model)
    return ctx


@pytest.mark.parametrize(
    ("body", "weights", "x"),
    [
        ("y = MatMul(x, w)", W, "2,5,24"),
        ("t = MatMul(x, w) y = Add(t, b)", W, "n,5,24"),
        ("y = Gemm(x, w, b)", W, "7,24"),
        ("y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", W.replace("24,32", "32,24"), "7,24"),
    ],
)
def test_runs_as_one_kernel(body: str, weights: str, x: str, tmp_path: Path) -> None:
    model = graph(body, weights, x=x)
    before, feed = to_proto(model), feeds_of(model)[0]
    apply(model)
    after = to_proto(model)
    assert dict(optimised(after, tmp_path).ops) == {"DynamicQuantizeMatMul": 1}
    want = run(before, feed, off=True)[0]
    assert sqnr(want, run(after, feed)[0]) > 35
    assert sqnr(want, run(after, feed, off=True)[0]) > 35


def test_readers_of_one_value_share_its_quantisation(tmp_path: Path) -> None:
    model = graph(
        "q = MatMul(x, w) k = MatMul(x, v) s = Add(k, b) y = Mul(q, s)",
        W + ", float[24,32] v = {seed}",
        x="2,5,24",
    )
    before, feed = to_proto(model), feeds_of(model)[0]
    apply(model)
    after = to_proto(model)
    found = optimised(after, tmp_path).ops
    assert dict(found) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 2, "Mul": 1}
    assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 30


def test_weights_used_twice_are_stored_once() -> None:
    model = graph("t = MatMul(x, w) y = MatMul(t, w)", "float[8,8] w = {seed}", x="3,8")
    apply(model)
    assert sorted(model.graph.initializers) == ["w_quantized", "w_scale", "w_zero_point"]


def test_a_weight_read_both_ways_has_codes_for_each() -> None:
    # Its rows and its columns have one grid.
    body = "g = Gemm<transB=1>(x, w) h = MatMul(x, w) y = Add(g, h)"
    model = graph(body, "float[4,4] w = {1,2,3,4,4,1,2,3,3,4,1,2,2,3,4,1}", x="4,4")
    before, feed = to_proto(model), feeds_of(model)[0]
    apply(model)
    assert sqnr(run(before, feed, off=True)[0], run(to_proto(model), feed)[0]) > 30


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("y = MatMul(x, x)", "", "both operands are activations"),
        ("y = MatMul(w, x)", "float[4,8] w = {seed}", "its data input is a constant"),
        ("y = Gemm<transA=1>(x, w)", "float[8,4] w = {seed}", "it transposes its data input"),
        ("y = Gemm<alpha=-1.0>(x, w)", "float[8,4] w = {seed}", "its alpha is not positive"),
        ("y = Gemm(x, w, c)", "float[8,4] w = {seed}, float[8,1] c = {seed}", "not one value per channel"),
    ],
)
def test_near_misses(body: str, weights: str, reason: str) -> None:
    model = graph(body, weights, x="8,8")
    before = to_proto(model)
    ctx = apply(model)
    assert to_proto(model).graph.node == before.graph.node
    assert any(reason in text for _, text in ctx.misses)


def test_options() -> None:
    model = graph("t = MatMul(x, w) y = Gemm(t, w)", "float[8,8] w = {seed}", x="3,8")
    apply(model, QuantizeDynamic(op_types=("MatMul",)))
    assert [n.op_type for n in model.graph].count("Gemm") == 1
    model = graph("y = MatMul(x, w)", "float[8,8] w = {seed}", x="3,8")
    assert not QuantizeDynamic(exclude=("MatMul(y)",)).run(model, Context())
    with pytest.raises(UsageError, match="cannot quantise Conv"):
        QuantizeDynamic(op_types=("Conv",))
    with pytest.raises(UsageError, match="7 or 8"):
        QuantizeDynamic(bits=4)


def test_bodies_and_functions_are_rewritten_too() -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[3,8] x, bool c) => (float[3,8] y) <float[8,8] w = {seed}> {
      z = own.f(x)
      y = If (c) <then_branch = a () => (float[3,8] p) { p = MatMul(z, w) },
                  else_branch = b () => (float[3,8] q) { q = MatMul(x, w) }>
    }
    <domain: "own", opset_import: ["" : 17]>
    f (x) => (y) { k = Constant<value = float[8,1] {1., 2., 3., -4., 5., 6., 7., 8.}>()
      t = MatMul(x, k) y = Add(x, t) }""")
    feed = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32), "c": np.array(True)}
    before = to_proto(model)
    ctx = apply(model)
    after = to_proto(model)
    assert ctx.counters["quantize-dynamic"] == 3
    assert not [n for n in after.functions[0].node if n.op_type == "MatMul"]
    for value in (True, False):
        feed["c"] = np.array(value)
        assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 30


def test_what_stays_float_is_noted_with_its_reason() -> None:
    body = "c = Conv(x, f) t = MatMul(c, w) u = MatMul(t, t) y = Relu(u)"
    model = graph(body, "float[4,4,1] f = {seed}, float[24,24] w = {seed}", x="1,4,24")
    note_left_float(model, {"Conv(c)": "it is the stem"})
    apply(model)
    assert left_float(to_proto(model)) == {
        "Conv(c)": "it is the stem",
        "MatMul(u)": "both operands are activations",
    }
    apply(again := graph(body, "float[4,4,1] f = {seed}, float[24,24] w = {seed}", x="1,4,24"))
    assert left_float(to_proto(again))["Conv(c)"] == "dynamic int8 is not made of Conv"


LSTM = "float[{d},{g},6] w = {{seed}}, float[{d},{g},8] r = {{seed}}, float[{d},{b}] b = {{seed}}"


@pytest.mark.parametrize(
    ("body", "directions", "outputs"),
    [
        ("s, y = LSTM<hidden_size=8>(x, w, r, b)", 1, "1,2,8"),
        ('y, h, c = LSTM<hidden_size=8, direction="bidirectional">(x, w, r, b)', 2, "5,2,2,8"),
        ("y = LSTM<hidden_size=8, layout=0>(x, w, r)", 1, "5,1,2,8"),
    ],
)
def test_a_recurrent_layer_runs_on_codes(body: str, directions: int, outputs: str, tmp_path: Path) -> None:
    model = graph(body, LSTM.format(d=directions, g=32, b=64), x="5,2,6")
    before, feed = to_proto(model), feeds_of(model)[0]
    assert apply(model).counters["quantize-dynamic"] == 1
    after = to_proto(model)
    assert dict(optimised(after, tmp_path).ops) == {"DynamicQuantizeLSTM": 1}
    want, got = run(before, feed, off=True)[0], run(after, feed)[0]
    assert got.shape == want.shape == tuple(int(size) for size in outputs.split(","))
    assert sqnr(want, got) > 28


def test_recurrent_weights_can_have_one_scale_per_tensor(tmp_path: Path) -> None:
    body = 'y, h, c = LSTM<hidden_size=8, direction="bidirectional">(x, w, r, b)'
    model = graph(body, LSTM.format(d=2, g=32, b=64), x="5,2,6")
    before, feed = to_proto(model), feeds_of(model)[0]
    apply(model, QuantizeDynamic(per_tensor=True))
    after = to_proto(model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in after.graph.initializer}
    assert (shapes["w_scale"], shapes["r_scale"], shapes["r_zero_point"]) == ((2, 32), (2,), (2,))
    assert dict(optimised(after, tmp_path).ops) == {"DynamicQuantizeLSTM": 1}
    assert sqnr(run(before, feed, off=True)[0], run(after, feed)[0]) > 28


def test_matrices_can_have_one_scale(tmp_path: Path) -> None:
    model = graph(
        "t = MatMul(x, w) y = Gemm<transB=1>(t, w, b)", "float[8,8] w = {seed}, float[8] b = {seed}", x="3,8"
    )
    before, feed = to_proto(model), feeds_of(model)[0]
    apply(model, QuantizeDynamic(per_tensor=True))
    after = to_proto(model)
    assert {tuple(t.dims) for t in after.graph.initializer if "scale" in t.name or "zero" in t.name} == {()}
    assert "MatMulInteger" not in optimised(after, tmp_path).ops
    assert sqnr(run(before, feed, off=True)[0], run(after, feed)[0]) > 25


def test_recurrent_layers_that_share_weights_share_their_codes() -> None:
    weights = "float[1,32,8] w = {seed}, float[1,32,8] r = {seed}"
    body = "t = LSTM<hidden_size=8>(x, w, r) u = Squeeze<axes=[1]>(t) y = LSTM<hidden_size=8>(u, w, r)"
    model = parse(
        f"""<ir_version: 6, opset_import: ["" : 11]> g (float[5,2,8] x) => (float[5,1,2,8] y) <{weights}>
        {{ {body} }}"""
    )
    apply(model)
    assert len(model.graph.initializers) == 6


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = LSTM<hidden_size=8, layout=1>(x, w, r)", "its layout is 1"),
        ("v = Relu(w) y = LSTM<hidden_size=8>(x, v, r)", "its weights are not constant"),
    ],
)
def test_recurrent_layers_without_a_kernel_stay(body: str, reason: str) -> None:
    model = graph(body, LSTM.format(d=1, g=32, b=64), x="5,2,6")
    before = to_proto(model)
    ctx = apply(model)
    assert to_proto(model).graph.node == before.graph.node
    assert (QuantizeDynamic.name, reason) in ctx.misses


def test_a_recurrent_layer_of_a_function_gets_the_domain_there(tmp_path: Path) -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[5,2,1] x) => (float[1,2,1] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 17]>
    f (x) => (y) { w = Constant<value = float[1,4,1] {1., 2., 3., -4.}>()
      s, y = LSTM<hidden_size=1>(x, w, w) }""")
    before, feed = to_proto(model), feeds_of(model)[0]
    assert apply(model).counters["quantize-dynamic"] == 1
    after = to_proto(model)
    assert dict(optimised(after, tmp_path).ops) == {"DynamicQuantizeLSTM": 1}
    assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 25


@pytest.mark.parametrize("change", [QuantizeDynamic(), WeightOnly()])
def test_no_float_weights_are_left_in_a_body(change: QuantizeDynamic | WeightOnly) -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17]>
    g (float[2,64] x, int64 n) => (float[2,64] y)
    <bool go = {1}, float[64,64] w = {seed}> {
      y = Loop (n, , x) <body = body (int64 i, bool c, float[2,64] h) => (bool d, float[2,64] k)
        { d = Identity(go) k = MatMul(h, w) }> }""")
    assert SinkConstants().run(model, Context())
    assert change.run(model, Context())
    verify(model)
    assert all(w.uses() for graph in walk_graphs(model) for w in graph.initializers.values())
