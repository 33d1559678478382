# SPDX-License-Identifier: Apache-2.0
"""Shape inference through If, Loop, Scan and the model's own functions."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes, refined_shape
from tersor.graph_ir import Model, Value, parse, to_proto
from tersor.graph_ir.ops import dims, walk_graphs
from tests.support.shape_truth import check

HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'


def values(model: Model) -> dict[str, Value]:
    found = {o.name or "": o for graph in walk_graphs(model) for node in graph for o in node.outputs}
    return found | {v.name or "": v for graph in walk_graphs(model) for v in graph.inputs}


def inferred(text: str) -> dict[str, Value]:
    model = parse(text)
    infer_shapes(model)
    return values(model)


def test_branches_agree_on_what_they_share() -> None:
    text = (
        HEAD
        + """g (bool c, float[N,4] x) => (float[A,B] y) {
        y = If (c) <then_branch = t () => (float[A,B] p) { k = Abs(x)  p = Relu(k) },
                    else_branch = e () => (float[A,B] q) { q = Concat<axis=1>(x, x) }>
        z = Identity(y) }"""
    )
    found = inferred(text)
    assert dims(found["k"]) == ("N", 4)
    assert refined_shape(found["q"]) == ["N", 8]
    assert dims(found["z"]) == ("N", "?y.1")
    for flag in (True, False):
        feed = {"c": np.array(flag), "x": np.zeros((3, 4), np.float32)}
        check(to_proto(parse(text)), feed, {"N": 3})


def test_carried_value_that_grows_has_an_open_dim() -> None:
    text = (
        HEAD
        + """g (int64 m, bool c, float[N,2] x, float[N] v) => (float[A,B] y, float[A] u, float[P,Q] s) {
        y, u, s = Loop (m, c, x, v) <body = b (int64 i, bool k, float[G,H] a, float[J] w)
            => (bool k2, float[G2,H2] a2, float[J2] w2, float[K2] o) {
              k2 = Identity(k)  a2 = Concat<axis=1>(a, x)  w2 = Relu(w)  o = Abs(w2) }>
        yy = Neg(y)  uu = Neg(u)  ss = Neg(s) }"""
    )
    found = inferred(text)
    assert dims(found["yy"]) == ("N", "?y.1")
    assert dims(found["uu"]) == ("N",)
    assert dims(found["ss"]) == ("?s.0", "N")
    assert refined_shape(found["a2"]) == ["N", None]
    feed = {
        "m": np.array(3),
        "c": np.array(True),
        "x": np.zeros((5, 2), np.float32),
        "v": np.zeros(5, np.float32),
    }
    check(to_proto(parse(text)), feed, {"N": 5})


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_scan_stacks_what_its_body_gives(domain: str) -> None:
    text = (
        HEAD.replace('""', f'"{domain}"')
        + """g (float[4] s, float[T,4] x) => (float[4] e, float[T,8] y) {
        e, y = Scan <num_scan_inputs=1, body = b (float[4] a, float[4] r) => (float[4] n, float[8] o) {
            n = Add(a, r)  o = Concat<axis=0>(n, r) }> (s, x)
        yy = Neg(y) }"""
    )
    found = inferred(text)
    assert dims(found["yy"]) == ("T", 8)
    feed = {"s": np.zeros(4, np.float32), "x": np.zeros((3, 4), np.float32)}
    check(to_proto(parse(text)), feed, {"T": 3})


FUNCTIONS = """<ir_version: 9, opset_import: ["" : 17, "f" : 1]>
g (float[N,4] x, float[M,6] z) => (float[A,B] y) {
    a = f.half<axis=1>(x)  b = f.half<axis=0>(z)  y = Neg(a)  w = Neg(b) }
<domain: "f", opset_import: ["" : 17]>
half <axis> (p) => (r) { q = Relu(p)  r = Concat<axis : int = @axis>(q, q) }"""


def test_function_is_typed_per_call_with_its_attributes() -> None:
    found = inferred(FUNCTIONS)
    assert dims(found["a"]) == ("N", 8)
    assert dims(found["b"]) == ("2*M", 6)


def test_values_inside_a_function_hold_for_all_calls() -> None:
    found = inferred(FUNCTIONS)
    assert dims(found["q"]) == (None, None)
    once = inferred(FUNCTIONS.replace("b = f.half<axis=0>(z)", "b = Relu(z)"))
    assert dims(once["q"]) == ("N", 4)


def test_function_that_computes_a_shape_is_followed() -> None:
    found = inferred("""<ir_version: 9, opset_import: ["" : 17, "f" : 1]>
    g (float[N,4] x) => (float[A,B] y) { s = f.rows(x)  y = Reshape(x, s)  w = Neg(y) }
    <domain: "f", opset_import: ["" : 17]>
    rows (p) => (r) {
        n = Shape<start=0, end=1>(p)  e = Constant<value_ints=[-1]>()  r = Concat<axis=0>(n, e) }""")
    assert dims(found["w"]) == ("N", 4)


def test_condition_that_is_always_true_leaves_one_branch() -> None:
    found = inferred(
        HEAD
        + """g (float[N,4] x) => (float[A,B] y) {
        s = Shape<start=1>(x)  f = Constant<value_ints=[4]>()  c = Equal(s, f)
        y = If (c) <then_branch = t () => (float[A,B] p) { p = Relu(x) },
                    else_branch = e () => (float[A,B] q) { q = Concat<axis=1>(x, x) }>
        z = Identity(y) }"""
    )
    assert dims(found["z"]) == ("N", 4)
    assert refined_shape(found["q"]) == ["N", 8]
