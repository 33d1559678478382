# SPDX-License-Identifier: Apache-2.0
"""Dead code, identities, equal expressions and equal weights: what goes, and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from tersor import run
from tersor.graph_ir import INFERRED, Model, parse, to_proto
from tersor.passes.base import Context
from tersor.passes.clean.cse import EliminateCommonSubexpressions
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.dedup_weights import DeduplicateWeights
from tersor.passes.clean.freeze import FreezeDefaultInputs
from tersor.passes.clean.identity import EliminateIdentity
from tests.support.rewriting import declined, model_of, rewrite, with_array

X = "float[2] x, bool c"
Y = "float[2] y"
DEAD, CSE, SHARE, SAME = (
    EliminateDeadCode(), EliminateCommonSubexpressions(), DeduplicateWeights(), EliminateIdentity(),
)  # fmt: skip
BOTH = """i = If(c) <then_branch = a () => (float[2] p) {{ {then} }},
    else_branch = b () => (float[2] q) {{ {other} }}>
    y = Floor(i)"""


def branches(then: str, other: str = "q = Abs(x)") -> str:
    return BOTH.format(then=then, other=other)


def test_dead_chains_weights_and_bodies_go() -> None:
    nodes = "a = Neg(x)\n b = Add(a, w)\n n = RandomNormal<shape = [2]>()\n" + branches(
        "u = Neg(x)\n p = Abs(x)"
    )
    result = rewrite(DEAD, model_of(nodes, "float[2] w = {1, 2}", x=X, y=Y))
    assert result.ops == ["If", "Floor", "Abs", "Abs"]
    assert not result.model.graph.initializers


def test_what_only_a_dead_body_read_is_dead_too() -> None:
    nodes = "h = Neg(x)\n" + branches("p = Abs(h)") + "\n z = Relu(x)"
    assert rewrite(DEAD, model_of(nodes, x=X, y="float[2] z")).ops == ["Relu"]


def test_inputs_defaults_and_used_outputs_stay() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, float[2] idle, float[2] d) => (float[2] y, float[2] k)
        <float[2] d = {1, 2}, float[2] k = {3, 4}> { y, m = Dropout(x) }"""
    assert declined(DEAD, parse(text)) == set()


def test_effects_of_unknown_operators_are_kept_also_in_functions_and_bodies() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1, "their" : 1]>
        g (float[2] x, bool c) => (float[2] y) {
            a = their.Log(x)
            b = local.f(x)
            d = local.pure(x)
            i = If(c) <then_branch = t () => (float[2] p) { p = their.Log(x) },
                else_branch = e () => (float[2] q) { q = Neg(x) }>
            y = Neg(x)
        }
        <domain: "local", opset_import: ["" : 17, "their" : 1]> f (u) => (v) { v = their.Log(u) }
        <domain: "local", opset_import: ["" : 17]> pure (u) => (v) { v = Neg(u) }"""
    result = rewrite(DEAD, parse(text), numbers=False)
    assert [n.op_type for n in result.model.graph] == ["Log", "f", "If", "Neg"]
    assert [name for _, name, _ in result.model.functions] == ["f"]


@pytest.mark.parametrize(
    ("nodes", "y", "ops"),
    [
        ("h = Identity(x)\n y = Neg(h)", Y, ["Neg"]),
        ("h = Neg(x)\n y = Identity(h)", Y, ["Neg"]),
        ("h = Neg(x)\n i = Identity(h)\n y = Identity(i)\n z = Abs(i)", Y + ", float[2] z", ["Neg", "Abs"]),
        ("h = Identity(w)\n y = Neg(h)", Y, ["Neg"]),
        (branches("u = Identity(x)\n p = Neg(u)"), Y, ["If", "Floor", "Neg", "Abs"]),
    ],
)
def test_identities_go(nodes: str, y: str, ops: list[str]) -> None:
    assert rewrite(SAME, model_of(nodes, "float[2] w = {1, 2}", x=X, y=y)).ops == ops


@pytest.mark.parametrize(
    ("nodes", "y"),
    [
        ("y = Identity(x)", Y),
        ("y = Identity(w)", Y),
        ("h = Neg(x)\n y = Identity(h)", Y + ", float[2] h"),
        ("h = Neg(x)\n" + branches("p = Identity(h)", "q = Identity(x)"), Y),
    ],
)
def test_identities_that_name_an_output_stay(nodes: str, y: str) -> None:
    reasons = declined(SAME, model_of(nodes, "float[2] w = {1, 2}", x=X, y=y))
    assert reasons == {"names a graph output"}


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_equal_expressions_merge_along_a_chain(opset: int) -> None:
    nodes = "\n".join(f"a{k} = Neg(x)\n b{k} = Elu<alpha = 0.5>(a{k})" for k in "12") + "\n y = Add(b1, b2)"
    assert rewrite(CSE, model_of(nodes, x=X, y=Y, opset=opset)).ops == ["Neg", "Elu", "Add"]


@pytest.mark.parametrize(
    ("then", "other", "ops"),
    [
        ("u = Neg(x)\n p = Abs(u)", "v = Neg(x)\n q = Abs(v)", ["Neg", "If", "Floor", "Add", "Abs", "Abs"]),
        ("p = Neg(x)", "q = Neg(x)", ["Neg", "If", "Floor", "Add", "Neg", "Neg"]),
    ],
)
def test_bodies_reuse_what_is_outside_but_not_each_other(then: str, other: str, ops: list[str]) -> None:
    nodes = "h = Neg(x)\n" + branches(then, other).replace("y =", "z =") + "\n y = Add(z, h)"
    model = model_of(nodes, x=X, y=Y)
    assert rewrite(CSE, model).ops == ops if then.startswith("u") else not rewrite(CSE, model).changed


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Elu<alpha = 0.5>(x)\n b = Elu<alpha = 0.25>(x)\n y = Add(a, b)",
        "a = Sub(x, w)\n b = Sub(w, x)\n y = Add(a, b)",
        "a = RandomNormalLike(x)\n b = RandomNormalLike(x)\n d = Add(a, b)\n y = Sub(d, d)",
        "a = Dropout(x, r, t)\n b = Dropout(x, r, t)\n d = Sub(a, b)\n y = Sub(d, d)",
        "a = Constant<value_float = 0.0>()\n b = Constant<value_float = -0.0>()\n y = Div(a, b)",
        "a = Constant<value_int = 1>()\n b = Constant<value_float = 1.0>()\n y = Cast<to = 1>(a)",
    ],
)
def test_different_expressions_stay(nodes: str) -> None:
    model = model_of(nodes, "float[2] w = {1, 2}, float r = {0.5}, bool t = {1}", x=X, y=Y)
    assert not rewrite(CSE, model, numbers=False).changed


def test_two_equal_outputs_keep_two_producers() -> None:
    assert declined(CSE, model_of("y = Neg(x)\n z = Neg(x)", x=X, y=Y + ", float[2] z")) == set()


@pytest.mark.parametrize(
    "nodes", ["b = Neg(x)\n y = Neg(x)\n d = Neg(x)", "y = Neg(x)\n b = Identity(y)\n d = Neg(y)"]
)
def test_an_output_without_a_shape_is_given_none(nodes: str) -> None:
    model = parse(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[] y, float[2] z) {{ {nodes}\n z = Add(b, d) }}""")
    run(model, "infer-shapes,cse,eliminate-identity")
    assert model.graph.outputs[0].shape is None


def test_unknown_domains_and_calls_are_not_merged() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "their" : 1]>
        g (float[2] x) => (float[2] y) { a = their.Draw(x)\n b = their.Draw(x)\n y = Add(a, b) }"""
    assert not rewrite(CSE, parse(text), numbers=False).changed


def test_equal_expressions_in_a_function_merge_and_references_do_not() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2] x) => (float[2] y) { y = local.f<s = 0.5>(x) }
        <domain: "local", opset_import: ["" : 17]> f <s> (u) => (v) {
            a = Neg(u)\n b = Neg(u)\n d = Elu<alpha: float = @s>(a)\n e = Elu<alpha: float = @s>(b)
            v = Add(d, e) }"""
    assert rewrite(CSE, parse(text)).ops == ["f", "Neg", "Elu", "Elu", "Add"]


def test_equal_weights_are_stored_once() -> None:
    weights = "float[2] v = {1, 2}, float[2] w = {1, 2}, float[1,2] r = {1, 2}, int64[2] i = {1, 2}"
    nodes = "a = Add(x, v)\n b = Add(a, w)\n d = Cast<to = 1>(i)\n e = Add(b, d)\n"
    nodes += "f = Add(e, r)\n y = Reshape(f, s)"
    model = model_of(nodes, weights + ", int64[1] s = {2}", x=X, y=Y)
    result = rewrite(SHARE, model)
    assert sorted(result.model.graph.initializers) == ["i", "r", "s", "v"]


def test_a_weight_of_a_body_gives_way_to_an_outer_one_only() -> None:
    inner = "<float[2] k = {{1, 2}}> {{ {} = Add(x, k) }}"
    body = f"""i = If(c) <then_branch = a () => (float[2] p) {inner.format("p")},
        else_branch = b () => (float[2] q) {inner.format("q")}>"""
    outside = model_of(body + "\n y = Add(i, w)", "float[2] w = {1, 2}", x=X, y=Y)
    assert rewrite(SHARE, outside).context.counters["shared"] == 2
    assert not rewrite(SHARE, model_of(body + "\n y = Neg(i)", x=X, y=Y)).changed


@pytest.mark.parametrize("bits", [0x80000000, 0x7FC00001])
def test_weights_that_differ_in_a_bit_stay(bits: int) -> None:
    """-0.0 equals 0.0, and no NaN equals another: only bits count."""
    model = model_of("a = Add(x, v)\n y = Add(a, w)", "float[1] v = {0}, float[1] w = {0}", x=X, y=Y)
    odd = with_array(model, "w", np.array([bits], np.uint32).view(np.float32))
    assert not rewrite(SHARE, odd, numbers=False).changed


def default_model() -> Model:
    return parse("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, float[2] v) => (float[2] y, float[2] o)
        <float[2] v = {1, 2}, float[2] w = {1, 2}, float[2] o = {1, 2}> { a = Add(x, v)\n y = Add(a, w) }""")


def test_defaults_and_outputs_are_not_shared() -> None:
    assert declined(SHARE, default_model()) == set()


def test_frozen_defaults_can_be_shared() -> None:
    model, context = default_model(), Context()
    assert FreezeDefaultInputs().run(model, context)
    assert [i.name for i in to_proto(model).graph.input] == ["x"]
    assert "1 inputs with defaults were frozen" in context.notes[0]
    assert rewrite(SHARE, model).context.counters["shared"] == 1
    assert not FreezeDefaultInputs().run(model, context)


def test_the_outputs_of_bodies_stay_declared() -> None:
    """Scan needs their shapes, whatever takes their place."""
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[3,2] x) => (float[3,2] y) {
        y = Scan<num_scan_inputs = 1, body = b (float[2] v) => (float[2] w) {
            h = Relu(v) w = Identity(h) }>(x) }"""
    )
    assert run(model, "infer-shapes,eliminate-identity")
    body = model.graph[0].attributes["body"].as_graph()
    assert [node.op_type for node in body] == ["Relu"]
    assert INFERRED not in body.outputs[0].meta, "or the next inference would take it back"
