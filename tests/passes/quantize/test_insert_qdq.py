# SPDX-License-Identifier: Apache-2.0
"""What is written: the text of a small model, and properties of any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tersor.graph_ir import Model, Node, UsageError, parse, signature_of, to_proto, to_text
from tersor.graph_ir.numerics import QuantParams
from tersor.graph_ir.origins import origins
from tersor.passes.base import Context
from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.passes.quantize.linear_form import least_squares_grids
from tests.support.int8 import Span, feeds_of, graph, optimised, quantised, ranges_of, run, sqnr

W = "float[16,16,3,3] w = {seed}, float[16] b = {seed}"
SPANS = {
    "x": Span(-1.0, 1.55),
    "t": Span(-3.0, 5.1),
    "r": Span(0.0, 5.1),
    "p": Span(0.0, 5.1),
    "y": Span(-2.0, 3.1),
}


def test_text_of_two_convolutions() -> None:
    model = graph("t = Conv(x, w, b) r = Relu(t) p = MaxPool<kernel_shape=[2,2]>(r) y = Conv(p, w)", W)
    signature = signature_of(model)
    ctx = Context(facts={"ranges": SPANS})
    assert InsertQdq(float_stem=False).run(model, ctx)
    lines = [line.strip() for line in to_text(model).splitlines()]
    assert [line for line in lines if " = " in line and "(" in line] == [
        "x_quantized = QuantizeLinear(x, x_scale, x_zero_point)",
        "x_dequantized = DequantizeLinear(x_quantized, x_scale, x_zero_point)",
        "w_dequantized = DequantizeLinear<axis=0>(w_quantized, w_scale, w_zero_point)",
        "t_bias_dequantized = DequantizeLinear<axis=0>(t_bias_quantized, t_bias_scale, t_bias_zero_point)",
        "t_1 = Conv(x_dequantized, w_dequantized, t_bias_dequantized)",
        "r_quantized = QuantizeLinear(t_1, r_scale, r_zero_point)",
        "r = DequantizeLinear(r_quantized, r_scale, r_zero_point)",
        "p_1 = MaxPool<kernel_shape=[2, 2]>(r)",
        "p_quantized = QuantizeLinear(p_1, r_scale, r_zero_point)",
        "p = DequantizeLinear(p_quantized, r_scale, r_zero_point)",
        "w_dequantized_1 = DequantizeLinear<axis=0>(w_quantized, w_scale, w_zero_point)",
        "y_1 = Conv(p, w_dequantized_1)",
        "y_quantized = QuantizeLinear(y_1, y_scale, y_zero_point)",
        "y = DequantizeLinear(y_quantized, y_scale, y_zero_point)",
    ]
    assert "uint8[] r_zero_point = {0}" in lines
    assert "uint8[] x_zero_point = {100}" in lines
    assert signature_of(model) == signature
    assert ctx.counters["insert-qdq"] == 3


def test_a_name_to_exclude_that_fits_no_node_is_noted() -> None:
    model = graph("t = Conv(x, w, b) r = Relu(t) p = MaxPool<kernel_shape=[2,2]>(r) y = Conv(p, w)", W)
    ctx = Context(facts={"ranges": SPANS})
    assert InsertQdq(float_stem=False, exclude=("Conv(t)", "Conv(nope)")).run(model, ctx)
    assert [note for note in ctx.notes if "exclude" in note] == [
        "insert-qdq: exclude has 'Conv(nope)', which is no node of the model"
    ]


def test_a_bias_has_the_exact_scale_of_its_accumulator() -> None:
    _, after, _ = quantised(graph("y = Conv(x, w, b)", W))
    arrays = {i.name: numpy_helper.to_array(i) for i in after.graph.initializer}
    product = arrays["x_scale"] * arrays["w_scale"]
    np.testing.assert_array_equal(arrays["y_bias_scale"], product)


def test_a_bias_too_large_for_int32_raises_the_scale_of_its_channel() -> None:
    model = graph(
        "y = Conv(x, w, b)", W.replace("16,16,3,3", "2,16,3,3").replace("[16] b = {seed}", "[2] b = {1e9, 1}")
    )
    spans = {"x": Span(0, 1), "y": Span(-2, 1e9)}
    _, after, _ = quantised(model, spans=spans)
    arrays = {i.name: numpy_helper.to_array(i) for i in after.graph.initializer}
    real = arrays["y_bias_quantized"] * arrays["y_bias_scale"].astype(np.float64)
    np.testing.assert_allclose(real[:2], [1e9, 1], rtol=1e-5)
    assert arrays["y_bias_quantized"][0] > 2**30


def test_new_nodes_name_their_source() -> None:
    model = graph("t = Conv(x, w, b) r = Relu(t) y = Conv(r, w)", W)
    InsertQdq(float_stem=False).run(model, Context(facts={"ranges": SPANS}))
    found = {n.op_type: origins(n) for n in model.graph if n.outputs[0].name == "t_1"}
    assert found == {"Conv": ("Conv(t)", "Relu(r)")}


def test_node_names_are_unique() -> None:
    model = graph("t = Conv(x, w, b) u = Add(t, x) r = Relu(u) y = Conv(r, w)", W.replace("3,3", "1,1"))
    _, after, _ = quantised(model)
    names = [n.name for n in after.graph.node]
    assert len(set(names)) == len(names)


def test_same_model_same_bytes() -> None:
    def once() -> bytes:
        return quantised(graph("t = Conv(x, w, b) u = Sigmoid(t) y = Conv(u, w)", W))[1].SerializeToString()

    assert once() == once()


def test_refuses_what_it_cannot_do() -> None:
    model = graph("y = Conv(x, w)", W)
    with pytest.raises(UsageError, match="calibrate"):
        InsertQdq().run(model, Context())
    old = parse("""<ir_version: 6, opset_import: ["" : 11]>
    g (float[1,2,3,3] x) => (float[1,2,3,3] y) <float[2,2,1,1] w = {seed}> { y = Conv(x, w) }""")
    with pytest.raises(UsageError, match="raise-opset"):
        InsertQdq().run(old, Context(facts={"ranges": {}}))
    with pytest.raises(UsageError, match="u8s8"):
        InsertQdq(scheme="s4")
    with pytest.raises(UsageError, match="cannot quantise Loop"):
        InsertQdq(op_types=("Loop",))


def test_without_any_range_nothing_changes() -> None:
    model = graph("y = Conv(x, w)", W)
    before = to_text(model)
    ctx = Context(facts={"ranges": {}})
    assert not InsertQdq(float_stem=False).run(model, ctx)
    assert to_text(model) == before
    assert ctx.misses["insert-qdq", "'x' has no range"] == 1


def test_bisection_plans_the_neighbours_anew() -> None:
    model = graph("t = Conv(x, w, b) y = Conv(t, w)", W)

    def allow(rule: str, node: Node) -> bool:
        return rule == "insert-qdq" and node.outputs[0].name != "t"

    ctx = Context(facts={"ranges": SPANS}, allow=allow)
    InsertQdq(float_stem=False).run(model, ctx)
    assert [d.int8 for d in ctx.facts["quant-plan"]] == [False, True]


def test_fewer_bits_and_least_squares_weights() -> None:
    def weights(options: InsertQdq) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
        _, after, _ = quantised(graph("y = Conv(x, w)", W), options)
        return next(numpy_helper.to_array(i) for i in after.graph.initializer if i.name == "w_quantized")

    assert np.abs(weights(InsertQdq(float_stem=False))).max() == 127
    assert np.abs(weights(InsertQdq("u8s8-reduced", float_stem=False))).max() == 63


OPS = st.sampled_from(["conv", "relu", "add", "mul", "concat", "pool", "sigmoid", "silu", "tanh", "reshape"])


def random_net(ops: list[str], skips: list[int]) -> Model:
    """A chain whose operators may also read an earlier value."""
    lines, names = ["t0 = Conv<pads=[1,1,1,1]>(x, w, b)"], ["t0"]
    for i, op in enumerate(ops):
        a, b, name = names[-1], names[skips[i] % len(names)], f"t{i + 1}"
        lines.append({
            "conv": f"{name} = Conv<pads=[1,1,1,1]>({a}, w, b)",
            "relu": f"{name} = Relu({a})",
            "add": f"{name} = Add({a}, {b})",
            "mul": f"{name} = Mul({a}, {b})",
            "concat": f"c{i} = Concat<axis=1>({a}, {b}) {name} = Conv(c{i}, v)",
            "pool": f"{name} = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({a})",
            "sigmoid": f"{name} = Sigmoid({a})",
            "silu": f"s{i} = Sigmoid({a}) {name} = Mul({a}, s{i})",
            "tanh": f"{name} = Tanh({a})",
            "reshape": f"r{i} = Reshape({a}, k) {name} = Reshape(r{i}, l)",
        }[op])  # fmt: skip
        names.append(name)
    lines.append(f"y = Conv({names[-1]}, w)")
    weights = W.replace("16", "8").replace("3,3", "3,3") + ", float[8,16,1,1] v = {seed}"
    return graph(
        " ".join(lines), f"{weights}, int64[3] k = {{1, 8, -1}}, int64[4] l = {{1, 8, 6, 6}}", x="1,8,6,6"
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(OPS, max_size=7),
    st.lists(st.integers(0, 7), min_size=7, max_size=7),
    st.booleans(),
    st.booleans(),
)
def test_random_nets_stay_close(ops: list[str], skips: list[int], stem: bool, tail: bool) -> None:
    model = random_net(ops, skips)
    feeds = feeds_of(model)
    spans = ranges_of(model, feeds)
    before, after, _ = quantised(model, InsertQdq(float_stem=stem, float_tail=tail), spans=spans)
    want = run(before, feeds[0], off=True)[0]
    assert sqnr(want, run(after, feeds[0], off=True)[0]) > 12
    assert sqnr(want, run(after, feeds[0])[0]) > 12
    assert signature_of(model) == signature_of(random_net(ops, skips))
    assert len(to_proto(model).graph.initializer) == len(set(model.graph.initializers))


def test_grids_of_weights_that_are_known_change_nothing() -> None:
    body = """c = Conv(x, w, b) p = GlobalAveragePool(c) f = Flatten(p) e = MatMul(f, w4) h = Add(e, b4)
        y = Gemm<alpha = 0.5, beta = 2.0>(h, w3, b3)"""
    weights = f"""{W}, float[16,32] w4 = {{seed}}, float[32] b4 = {{seed}}, float[32,7] w3 = {{seed}},
        float[7] b3 = {{seed}}"""

    def made(known: dict[str, QuantParams] | None) -> str:
        model = graph(body, weights, y="2,7")
        facts = {"ranges": ranges_of(model, feeds_of(model)), "weight-grids": known}
        assert InsertQdq(mse_weights=True, float_stem=False).run(model, Context(facts=facts))
        return to_text(model)

    model = graph(body, weights, y="2,7")
    grids = least_squares_grids(model)
    assert sorted(grids) == ["c", "e", "y"]
    assert made(grids) == made(None)
    other = {name: QuantParams(grid.scale * 2, grid.zero_point, grid.axis) for name, grid in grids.items()}
    assert made(other) != made(None)


@pytest.mark.parametrize("act", ["Relu(g)", "Clip(g, lo, hi)"])
@pytest.mark.parametrize(
    "linear",
    ["g = Gemm(x, w, b)", "g = Gemm<transB=1>(x, w)", "m = MatMul(x, w) g = Add(m, b)", "g = MatMul(x, w)"],
)
def test_rows_clamped_in_float_run_on_int8(linear: str, act: str, tmp_path: Path) -> None:
    # The runtime looks for a quantizer behind a clamp, and without one leaves the layer before it float.
    weights = "float[16,16] w = {seed}, float[16] b = {seed}, float lo = {0}, float hi = {2}"
    model = graph(f"{linear} z = {act} y = Neg(z)", weights, x="4,16")
    feed = feeds_of(model)[0]
    before, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert found.ops["MatMulIntegerToFloat"] == 1, found.ops
    assert found.float_linear == found.constant_dqs == 0, found.ops
    assert sqnr(run(before, feed, off=True)[0], run(after, feed)[0]) > 30


def test_a_weight_read_both_ways_has_codes_for_each() -> None:
    body = "g = Gemm<transB=1>(x, w) r = Relu(g) h = MatMul(x, w) s = Relu(h) y = Add(r, s)"
    model = graph(body, "float[4,4] w = {1,2,3,4,4,1,2,3,3,4,1,2,2,3,4,1}", x="4,4")
    feed = feeds_of(model)[0]
    before, after, _ = quantised(model)
    assert sqnr(run(before, feed, off=True)[0], run(after, feed)[0]) > 30
