# SPDX-License-Identifier: Apache-2.0
"""What is planned, and why a node is left float."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import Model, parse, tensor
from tersor.passes.quantize.candidates import EXCLUDED
from tersor.passes.quantize.plan import PlanOptions, plan, tensors_to_observe
from tests.support.int8 import Span, feeds_of, graph, ranges_of

W = "float[16,16,3,3] w = {seed}, float[16] b = {seed}"
ONE = W.replace("3,3]", "1,1]")
TWO = "t = Conv(x, w, b) y = Conv(t, w, b)"
INT8 = PlanOptions(float_stem=False)


def reasons(model: Model, options: PlanOptions = INT8, **spans: Span) -> list[str]:
    found = ranges_of(model, feeds_of(model)) | spans
    return [d.reason for d in plan(model, found, options).decisions]


def test_observes_what_it_asks_for() -> None:
    model = graph("t = Conv(x, w, b) r = Relu(t) p = MaxPool<kernel_shape=[2,2]>(r) y = Conv(p, w)", W)
    assert tensors_to_observe(model) == ["x", "t", "r", "p", "y"]


def test_observes_weights_that_are_computed() -> None:
    model = graph("k = Relu(x) y = Conv(x, k)")
    assert tensors_to_observe(model) == ["x", "k", "y"]
    assert reasons(model) == [""]
    assert "unsafe: seen NaN" in reasons(model, k=Span(0, 1, "seen NaN"))[0]


def test_does_not_observe_integers() -> None:
    model = graph("s = Shape(x) u = Concat<axis=0>(s, s) v = Mul(u, u) y = Cast<to=1>(v)")
    assert tensors_to_observe(model) == []


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("y = ConvTranspose(x, w)", W, "no int8 kernel for ConvTranspose"),
        ("y = MatMul(x, x)", "", "both operands are activations"),
        ("y = MatMul(w, x)", "float[12,12] w = {seed}", "its data input is a constant"),
        (
            "k = Relu(x) r = ReduceMean<axes=[1,2,3], keepdims=0>(x) y = Conv(x, k, r)",
            "",
            "its weights are not constant",
        ),
        ("r = ReduceMean<axes=[0,2,3], keepdims=0>(x) y = Conv(x, w, r)", W, "its bias is not constant"),
    ],
)
def test_reasons_of_a_single_node(body: str, weights: str, reason: str) -> None:
    assert reason in reasons(graph(body, weights))[0]


@pytest.mark.parametrize(("factor", "role"), [("1e15", True), ("1e30", False), ("inf", False)])
def test_a_constant_operand_without_a_grid_stays_float(factor: str, role: bool) -> None:
    model = graph("t = Conv(x, w, b) u = Mul(t, k) y = Conv(u, w, b)", ONE + ", float[1] k = {1}")
    model.graph.initializers["k"].const_value = tensor(np.array([float(factor)], np.float32), name="k")
    found = plan(model, ranges_of(model, feeds_of(model)) | {"u": Span(-1, 1)}, INT8).nodes
    assert any(node.op_type == "Mul" for node in found) is role


def test_reasons_of_ranges() -> None:
    model = graph(TWO, W)
    assert reasons(model) == ["", ""]
    assert "unsafe: seen NaN" in reasons(model, x=Span(0, 1, "seen NaN"))[0]
    assert "not finite" in reasons(model, y=Span(0, float("inf")))[1]
    spans = ranges_of(model, feeds_of(model))
    del spans["y"]
    assert plan(model, spans, INT8).decisions[1].reason == "'y' has no range"


def test_weights_that_are_not_finite_stay_float() -> None:
    model = graph(TWO, W)
    value = model.graph.initializers["w"]
    array = np.array(value.const_value.numpy() if value.const_value is not None else [])
    array[0, 0, 0, 0] = np.nan
    value.const_value = tensor(array, name="w")
    spans = {name: Span(-1, 1) for name in ["x", "t", "y"]}
    assert {d.reason for d in plan(model, spans, INT8).decisions} == {"its weights are empty or not finite"}


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_weights_that_no_scale_fits_stay_float(factor: float) -> None:
    model = graph(f"y = Gemm<alpha = {factor}>(x, w)", "float[8,6] w = {seed}", x="4,8")
    assert plan(model, {"x": Span(-3, 3)}, INT8).decisions[0].reason == "no scale fits its weights"


@pytest.mark.parametrize(("shape", "int8"), [("4,1", False), ("1,4", True), ("4", True), ("1,1", True)])
def test_a_bias_of_each_row_is_none_of_each_column(shape: str, int8: bool) -> None:
    model = graph("y = Gemm(x, w, b)", f"float[8,4] w = {{seed}}, float[{shape}] b = {{seed}}", x="4,8")
    assert reasons(model) == ["" if int8 else "its bias is not one value per channel"]


def test_options() -> None:
    model = graph(TWO, W)
    assert reasons(model, PlanOptions(exclude=frozenset({"Conv(t)"}))) == [EXCLUDED, ""]
    kinds = PlanOptions(op_types=frozenset({"Gemm"}))
    assert reasons(model, kinds) == ["Conv is not among the op types asked for"] * 2
    stem = graph("y = Conv(x, w)", "float[8,3,3,3] w = {seed}", x="1,3,8,8")
    assert "stem" in reasons(stem, PlanOptions())[0]


def test_bodies_stay_float() -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17]>
    g (float[1,4,5,5] x, bool c) => (float[1,4,5,5] y) <float[4,4,1,1] w = {seed}> {
      y = If (c) <then_branch = a () => (float[1,4,5,5] p) { p = Conv(x, w) },
                  else_branch = b () => (float[1,4,5,5] q) { q = Relu(x) }>
    }""")
    found = plan(model, {"x": Span(-1, 1)}, INT8)
    assert [d.reason for d in found.decisions] == ["it is inside a body or function"]


def tail_of(body: str, weights: str, **spans: Span) -> bool:
    """Whether the node behind the first convolution is absorbed."""
    model = graph(body, W + weights)
    found = plan(model, ranges_of(model, feeds_of(model)) | spans, INT8)
    return found.nodes[model.graph.node(0)].tail is not None


def test_a_clamp_is_absorbed_only_where_the_grid_does_it() -> None:
    clip = "t = Conv(x, w, b) r = Clip(t, lo, hi) y = Conv(r, w)"
    six = ", float lo = {0}, float hi = {6}"
    assert tail_of("t = Conv(x, w, b) r = Relu(t) y = Conv(r, w)", "")
    assert tail_of(clip, six)
    assert not tail_of(clip, six, r=Span(0, 7))
    assert not tail_of(clip, ", float lo = {1}, float hi = {6}", r=Span(1, 6))
    assert not tail_of("t = Conv(x, w, b) r = Relu(t) s = Conv(r, w) u = Conv(t, w) y = Add(s, u)", "")
    assert not tail_of("t = Conv(x, w, b) r = Relu(t) y = Conv(r, w)", "", r=Span(-1, 1))


def test_followers_behind_the_last_linear_node_stay_float() -> None:
    model = graph(
        "t = Conv(x, w, b) u = Add(t, x) y = Reshape(u, k)", W.replace("3,3]", "1,1]") + ", int64[1] k = {-1}"
    )
    spans = ranges_of(model, feeds_of(model))
    assert [n.op_type for n in plan(model, spans, INT8).nodes] == ["Conv"]
    tail = PlanOptions(float_stem=False, float_tail=False)
    assert [n.op_type for n in plan(model, spans, tail).nodes] == ["Conv", "Add", "Reshape"]


@pytest.mark.parametrize(
    ("body", "adds"),
    [
        ("l = LeakyRelu(r) c = Conv(l, w, b) u = Add(r, t) v = Add(u, c)", ["u", "v"]),  # a trunk
        ("c = Conv(t, w, b) p = Add(r, t) q = Add(r, c) v = Add(p, q)", ["p", "q", "v"]),
        ("v = Add(r, t)", []),  # nobody else reads it
        ("u = Add(r, t) n = Sqrt(r) v = Sub(u, n)", []),  # nobody else reads its codes
    ],
)
def test_a_wide_float_operand_gets_codes_where_several_followers_read_them(
    body: str, adds: list[str]
) -> None:
    model = graph(f"r = Exp(x) z = Neg(x) t = Conv(z, w, b) {body} y = Conv(v, w, b)", ONE)
    found = plan(model, ranges_of(model, feeds_of(model)), INT8)
    assert [n.outputs[0].name for n in found.nodes if n.op_type == "Add"] == adds


def test_passing_nodes_keep_the_grid_of_their_input() -> None:
    model = graph("t = Conv(x, w, b) u = Transpose(t) y = Squeeze(u)", W)
    found = plan(model, ranges_of(model, feeds_of(model)), INT8)
    assert [n.op_type for n in found.nodes] == ["Conv", "Transpose", "Squeeze"]
    grids = {v.name: grid for v, grid in found.params.items()}
    assert grids["t"] is grids["u"] is grids["y"]
