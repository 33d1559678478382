# SPDX-License-Identifier: Apache-2.0
"""Constant folding: what is computed, what must never be, and within which budget."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tersor.graph_ir import Model, constant, from_proto, parse
from tersor.passes.base import Context
from tersor.passes.clean import fold_constants
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.fold_constants import FoldConstants
from tersor.passes.clean.fold_shapes import FoldShapes
from tersor.passes.clean.infer_shapes import InferShapes
from tests.support.features import port
from tests.support.numerics import assert_bitwise, feeds_for
from tests.support.rewriting import Rewritten, declined, model_of, rewrite

FOLD = FoldConstants()
W = "float[2] w = {1, 2}, float[2] v = {3, 4}"
X = "float[2] x, bool c"
Y = "float[2] y"


def same_bits(model: Model) -> Rewritten:
    """`rewrite` held to equal bits: ONNX's reference evaluator fails on some of these."""
    result = rewrite(FOLD, model, numbers=False)
    assert_bitwise(result.before, result.model, feeds_for(result.before))
    return result


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_a_tree_of_constants_becomes_a_weight(opset: int) -> None:
    nodes = (
        "a = Mul(w, v)\n k = Constant<value = float[2] {1, 1}>()\n b = Add(a, k)\n d = Neg(b)\n y = Add(x, d)"
    )
    result = rewrite(FOLD, model_of(nodes, W, x=X, y=Y, opset=opset))
    assert result.ops == ["Add"]
    held = constant(result.model.graph[0].inputs[1])
    assert held is not None
    assert held.tolist() == [-4, -9]
    assert not FOLD.run(result.model, Context())


def test_constants_in_bodies_fold_and_names_may_repeat_there() -> None:
    nodes = """i = If(c) <then_branch = a () => (float[2] p) { k = Mul(w, v)\n p = Add(x, k) },
            else_branch = b () => (float[2] q) { k = Add(w, v)\n q = Add(x, k) }>
        n = Constant<value_int = 2>()
        y = Loop(n, , i) <body = l (int64 at, bool go, float[2] s) => (bool on, float[2] t) {
            on = Identity(go)\n m = Neg(w)\n t = Add(s, m) }>"""
    result = same_bits(model_of(nodes, W, x=X, y=Y))
    assert sorted(result.ops) == ["Add", "Add", "Add", "Identity", "If", "Loop"]


def test_constants_in_functions_stay_constants_there() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f<s = 0.5>(x) }
        <domain: "local", opset_import: ["" : 17]> f <s> (u) => (v) {
            a = Constant<value_float = 2.0>()\n b = Neg(a)\n d = Elu<alpha: float = @s>(b)
            e = Mul(u, b)\n v = Add(e, d) }"""
    result = same_bits(parse(text))
    assert result.ops == ["f", "Elu", "Mul", "Add"]
    assert not result.model.graph.initializers


@pytest.mark.parametrize(
    "nodes",
    [
        "a = RandomNormalLike(w)\n b = Mul(a, z)\n y = Add(x, b)",
        "a = Bernoulli(half)\n b = Mul(a, z)\n y = Add(x, b)",
        "a, m = Dropout(w, r, t)\n b = Mul(a, z)\n y = Add(x, b)",
        "a = Mul(w, free)\n y = Add(x, a)",
        "y = Mul(w, v)",
        "a = DequantizeLinear(q, s, o)\n y = Mul(x, a)",
    ],
)
def test_what_is_random_overridable_an_output_or_dequantized_stays(nodes: str) -> None:
    weights = W + ", float[2] z = {0, 0}, float[2] half = {0.5, 0.5}, float r = {0.5}, bool t = {1}"
    weights += ", int8[2] q = {1, 2}, float s = {0.5}, int8 o = {0}, float[2] free = {1, 2}"
    model = model_of(nodes, weights, x=X + ", float[2] free", y=Y)
    assert not rewrite(FOLD, model, numbers=False).changed


def test_what_leads_to_a_constant_output_is_folded_up_to_its_last_node() -> None:
    result = same_bits(model_of("a = Mul(w, v)\n b = Add(a, w)\n y = Neg(b)", W, x=X, y=Y))
    assert result.ops == ["Neg"]
    assert not rewrite(FOLD, result.model, numbers=False).changed


@pytest.mark.parametrize(
    "nodes",
    [
        "a = ConstantOfShape(huge)",
        "a = Expand(one, huge)",
        "a = Tile(ones, huge)",
        "a = Range(zero, many, step)",
        "t = Reshape(row, tall)\n a = Add(row, t)",
        "t = Reshape(row, tall)\n a = MatMul(t, wide)",
        "p = Pad(one1, amounts)\n a = Expand(p, two)",
        "b = Mul(huge, unit)\n a = ConstantOfShape(b)",
        "a = OneHot(index, depth, onoff)",
        "a = Resize(row3, , s3)",
    ],
)
def test_blow_ups_are_never_computed(nodes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take gigabytes; the sizes are told before anything runs."""
    ran: list[int] = []
    evaluator = fold_constants.Evaluator

    def watched(proto: onnx.ModelProto) -> object:
        ran.append(sum(n.op_type in nodes.split("a = ")[1] for n in proto.graph.node))
        return evaluator(proto)

    monkeypatch.setattr(fold_constants, "Evaluator", watched)
    weights = """
        int64[2] huge = {100000, 100000}, int64[2] unit = {1, 1}, int64[2] tall = {20000, 1},
        float[1,1] one = {1}, float[1,1] ones = {1}, float zero = {0}, float many = {1e9}, float step = {1},
        float[1,20000] row = {seed}, float[1,20000] wide = {seed}, float[1,1,20000] row3 = {seed},
        float[1] one1 = {1}, int64[2] amounts = {0, 500000000}, int64[1] two = {1},
        float[3] s3 = {1, 20000, 1},
        int64[2] index = {0, 1}, int64 depth = {1000000000}, float[2] onoff = {0, 1}"""
    shrink = "s = ReduceSum<keepdims = 0>(a)\n y = Add(x, s)"
    model = model_of(f"{nodes}\n {shrink}", weights, x="float x", y="float y")
    context = Context()
    FOLD.run(model, context)
    assert "ReduceSum" in [n.op_type for n in model.graph]
    assert context.misses["fold-constants", "larger than the budget"] > 0


def test_the_budget_is_an_option_and_counts_on_top_of_the_inputs() -> None:
    nodes = "a = Expand(w, s)\n y = Add(x, a)"
    weights = "float[1,2] w = {1, 2}, int64[2] s = {1000, 2}"
    model = model_of(nodes, weights, x="float[1000,2] x", y="float[1000,2] y")
    assert declined(FoldConstants(budget_kib=4), model) == {"larger than the budget"}
    assert rewrite(FoldConstants(budget_kib=8), model).ops == ["Add"]


def test_a_weight_of_any_size_may_be_turned_around() -> None:
    nodes = "t = Transpose<perm = [1, 0]>(w)\n n = Neg(t)\n y = MatMul(x, n)"
    model = model_of(nodes, "float[700,500] w = {seed}", x="float[1,500] x", y="float[1,700] y")
    assert rewrite(FoldConstants(budget_kib=1), model).ops == ["MatMul"]


@pytest.mark.parametrize("nodes", ["a = NonZero(w)", "a, = Unique(w)", "a = Compress(w, m)"])
def test_sizes_that_hang_on_data_are_bounded(nodes: str) -> None:
    model = model_of(
        f"{nodes}\n b = Cast<to = 1>(a)\n s = ReduceSum<keepdims = 0>(b)\n y = Add(x, s)",
        W + ", bool[2] m = {0, 1}", x="float x", y="float y",
    )  # fmt: skip
    assert rewrite(FOLD, model).ops == ["Add"]


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4])
def test_types_that_onnxruntime_does_not_hand_over_are_left(kind: int) -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["narrow"], to=kind),
        helper.make_node("Cast", ["narrow"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "wide"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.array([1.1, 2.2], np.float32), "w")]
    graph = helper.make_graph(nodes, "g", [port("x", dims=(2,))], [port("y", dims=(2,))], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    result = rewrite(FOLD, from_proto(proto), numbers=False)
    assert "Cast" in result.ops
    held = [v.const_value for v in result.model.graph.initializers.values()]
    assert all(t is not None and t.numpy().dtype not in (np.uint8, ml_dtypes.bfloat16) for t in held)


def test_strings_and_sequences_are_left() -> None:
    nodes = [
        helper.make_node("Constant", [], ["text"], value_strings=["a", "b"]),
        helper.make_node("Concat", ["text", "text"], ["twice"], axis=0),
        helper.make_node("Identity", ["twice"], ["y"]),
        helper.make_node("SequenceConstruct", ["w", "w"], ["seq"]),
        helper.make_node("ConcatFromSequence", ["seq"], ["joined"], axis=0),
        helper.make_node("Add", ["x", "joined"], ["z"]),
    ]
    weights = [numpy_helper.from_array(np.array([1, 2], np.float32), "w")]
    outputs = [port("y", TensorProto.STRING, (4,)), port("z", dims=(4,))]
    graph = helper.make_graph(nodes, "g", [port("x", dims=(4,))], outputs, weights)
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert not rewrite(FOLD, model, numbers=False).changed


def test_a_node_without_a_kernel_is_noted_and_the_rest_is_folded() -> None:
    """onnxruntime has no Hardmax of doubles; what stands beside it must not pay for that."""
    nodes = "\n".join(
        [
            "a = Cast<to = 11>(w2)\n b = Hardmax(a)\n d = Cast<to = 1>(b)",
            *(f"e{i} = Neg(w2)\n f{i} = Add({'x' if i == 0 else f'f{i - 1}'}, e{i})" for i in range(20)),
            "y = Add(f19, d)",
        ]
    )
    model = model_of(nodes, "float[2,2] w2 = {1, 2, 3, 4}", x="float[2,2] x", y="float[2,2] y")
    result = rewrite(FOLD, model, numbers=False)
    assert result.ops == ["Hardmax", "Cast"] + ["Add"] * 21
    assert len(result.context.notes) == 1
    assert "Hardmax(b)' was not folded" in result.context.notes[0]


def test_sessions_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    evaluator = fold_constants.Evaluator

    def watched(proto: onnx.ModelProto) -> object:
        made.append(proto)
        return evaluator(proto)

    monkeypatch.setattr(fold_constants, "Evaluator", watched)
    lines = "\n".join(
        f"e{i} = Neg(w)\n f{i} = Add({'x' if i == 0 else f'f{i - 1}'}, e{i})" for i in range(300)
    )
    result = rewrite(FOLD, model_of(f"{lines}\n y = Neg(f299)", W, x=X, y=Y))
    assert result.ops == ["Add"] * 300 + ["Neg"]
    assert len(made) == 1


def test_a_size_computed_in_floats_is_known_to_what_follows() -> None:
    weights = "int64 zero = {0}, int64 one = {1}, int64[1] at = {0}, int64[1] two = {2}, float half = {0.5}"
    model = model_of(
        """s = Shape(x) n = Gather(s, zero) c = Gather(s, one) f = Cast<to = 1>(c) h = Mul(f, half)
        r = Floor(h) k = Cast<to = 7>(r) n1 = Unsqueeze(n, at) k1 = Unsqueeze(k, at)
        t = Concat<axis = 0>(n1, k1, two) y = Reshape(x, t)""",
        weights,
        x="float[N,8] x",
        y="float[N,4,2] y",
    )
    passes = (InferShapes(), FoldShapes(), FoldConstants(), FoldShapes(), EliminateDeadCode())
    assert rewrite(passes, model).ops == ["Reshape"]
