# SPDX-License-Identifier: Apache-2.0
"""Where a Transpose must stay, because the algebra does not hold or nothing would be won."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Model, constant
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.base import Context
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.layout.sink_transpose import SinkTransposes
from tests.support.layouts import TO_FIRST, TO_LAST, X, Y, between, sink, transposes
from tests.support.rewriting import model_of


def _moves(model: Model) -> bool:
    InferShapes().run(model, Context())
    return SinkTransposes().run(model, Context())


INVALID = [
    ("w = Softmax<axis = 3>(v)", "", 12),
    ("w = Slice(v, s, e, a)", "", 17),
    ("w = Pad(v, p)", "", 17),
    ("w = ReduceSum<noop_with_empty_axes = 1>(v)", "", 13),
    ('w = Resize<mode = "nearest">(v, , scales)', "float[4] scales = {1,2,2,2}", 13),
    ("w = Tile(v, r)", "", 13),
    ("w = LayerNormalization(v, c)", "float[6] c = {seed}", 17),
    ("w = LpNormalization<axis = 3>(v)", "", 17),
    ("w = Dropout(v, half, train)", "float half = {0.5}", 13),
]


@pytest.mark.parametrize(("body", "weights", "opset"), INVALID)
def test_forms_that_are_not_known_to_carry_it(body: str, weights: str, opset: int) -> None:
    inputs = "float[2,6,4,5] x, int64[1] s, int64[1] e, int64[1] a, int64[8] p, int64[4] r, bool train"
    model = between(body, weights, x=inputs, opset=opset)
    assert not _moves(model)
    assert transposes(model) == 2


def test_an_unknown_rank() -> None:
    body = f"r = Reshape(z, shape)\nv = {TO_LAST}(x)\na = Add(v, r)\ny = {TO_FIRST}(a)"
    model = model_of(body, x="float[2,6,4,5] x, float[Z] z, int64[R] shape", y=Y)
    assert not _moves(model)


def test_a_permutation_of_another_rank_through_the_same_operator() -> None:
    """The two operands come through different permutations: one of them would need a new Transpose."""
    body = f"v = {TO_LAST}(x)\nu = Transpose<perm = [2, 1, 0, 3]>(z)\na = Add(v, u)\ny = Identity(a)"
    assert not sink(model_of(body, x="float[2,6,4,5] x, float[5,4,2,6] z", y=Y)).changed


def test_nothing_to_win_between_the_ends_of_a_graph() -> None:
    assert not sink(model_of(f"v = {TO_LAST}(x)\ny = Relu(v)", x=X, y=Y)).changed
    assert not sink(model_of(f"r = Relu(x)\ny = {TO_LAST}(r)", x=X, y=Y)).changed


def test_a_fork_into_two_outputs_stays_above_it() -> None:
    body = f"v = {TO_LAST}(x)\ny = Relu(v)\nz = Neg(v)"
    assert not sink(model_of(body, x=X, y=f"{Y}, float[A,B,C,D] z")).changed


def test_a_long_branch_that_would_cost_one_more() -> None:
    """The Transposes meet on one branch; on the other the first of them is needed still."""
    body = f"v = {TO_LAST}(x)\na = Relu(v)\ny = {TO_FIRST}(a)\nb = Neg(v)\nz = Exp(b)"
    result = sink(model_of(body, x=X, y=f"{Y}, float[A,B,C,D] z"))
    assert transposes(result.model) == 1


def test_a_graph_output_inside_the_region_keeps_its_name_and_layout() -> None:
    body = f"v = {TO_LAST}(x)\nz = Relu(v)\nw = Neg(z)\ny = {TO_FIRST}(w)"
    result = sink(model_of(body, x=X, y=f"{Y}, float[A,B,C,D] z"))
    assert result.ops.count("Transpose") == 1
    assert "z = Transpose<perm=[0, 2, 3, 1]>" in result.text


def test_a_transpose_that_is_itself_an_output_stays() -> None:
    body = f"v = {TO_LAST}(x)\nw = Neg(v)\ny = {TO_FIRST}(w)"
    result = sink(model_of(body, x=X, y=f"{Y}, float[A,B,C,D] v"))
    assert sorted(result.ops) == ["Neg", "Transpose"]
    assert "v = Transpose<perm=[0, 2, 3, 1]>(x)" in result.text


def test_a_shared_transpose_stays_for_those_that_need_it() -> None:
    body = f"""
        v = {TO_LAST}(x)
        m = MatMul(v, k)
        w = Neg(v)
        y = {TO_FIRST}(w)"""
    result = sink(model_of(body, "float[6,3] k = {seed}", x=X, y=f"{Y}, float[A,B,C,E] m"))
    assert sorted(result.ops) == ["MatMul", "Neg", "Transpose"]


def test_what_a_body_captures_is_not_moved_into_it() -> None:
    """A Transpose for a captured value would be run once an iteration."""
    nodes = f"""
        r = Relu(x)
        z = Loop(trips, go, x) <
            body = g (int64 i, bool c, float[2,6,4,5] s) => (bool d, float[2,6,4,5] t) {{
                d = Identity(c)
                a = {TO_LAST}(s)
                b = Add(a, last)
                t = {TO_FIRST}(b)
            }}
        >
        y = Add(z, r)"""
    inputs = "float[2,6,4,5] x, float[2,4,5,6] last, int64 trips, bool go"
    result = sink(model_of(nodes, x=inputs, y=Y))
    assert not result.changed


def test_what_a_body_reads_is_kept_outside() -> None:
    nodes = f"""
        v = {TO_LAST}(x)
        r = Relu(v)
        w = {TO_FIRST}(r)
        z = If(go) <
            then_branch = g () => (float[A,B,C,D] t) {{ t = Neg(r) }},
            else_branch = h () => (float[A,B,C,D] u) {{ u = Exp(r) }}
        >
        y = Neg(w)"""
    result = sink(model_of(nodes, x="float[2,6,4,5] x, bool go", y=f"{Y}, float[A,B,C,D] z"))
    assert transposes(result.model) == 1


def test_a_body_reads_through_a_transpose_outside() -> None:
    nodes = f"""
        v = {TO_LAST}(x)
        z = If(go) <
            then_branch = g () => (float[A,B,C,D] t) {{ n = Neg(v)
                t = {TO_FIRST}(n) }},
            else_branch = h () => (float[A,B,C,D] u) {{ m = Exp(v)
                u = {TO_FIRST}(m) }}
        >"""
    model = model_of(nodes, x="float[2,6,4,5] x, bool go", y="float[A,B,C,D] z")
    assert transposes(sink(model).model) == 0


def test_operators_of_other_domains_are_not_ours_whatever_their_name() -> None:
    function = """<domain: "local", opset_import: ["" : 17]> Relu (a) => (b) { b = Neg(a) }"""
    body = f"v = {TO_LAST}(x)\nw = local.Relu(v)\ny = {TO_FIRST}(w)"
    assert not _moves(model_of(body, x=X, y=Y, functions=function))


def test_bisection_leaves_regions_out() -> None:
    model = between("w = Relu(v)")
    InferShapes().run(model, Context())
    asked: list[str] = []

    def refuse(rule: str, _node: object) -> bool:
        asked.append(rule)
        return rule != "SinkTranspose"

    assert not SinkTransposes().run(model, Context(allow=refuse))
    assert asked == ["SinkTranspose"]
    assert transposes(model) == 2


def test_constants_are_shared_not_changed() -> None:
    """Another reader of the constant still sees it in its own shape."""
    body = f"v = {TO_LAST}(x)\na = Add(v, c)\ny = {TO_FIRST}(a)\nz = Mul(u, c)"
    model = model_of(body, "float[6] c = {seed}", x="float[2,6,4,5] x, float[3,6] u", y=f"{Y}, float[3,6] z")
    before = constant(model.graph.initializers["c"])
    result = sink(model)
    mul = next(n for n in walk_nodes(result.model) if n.op_type == "Mul")
    assert constant(mul.inputs[1]) is before or (constant(mul.inputs[1]) == before).all()
    assert transposes(result.model) == 0
