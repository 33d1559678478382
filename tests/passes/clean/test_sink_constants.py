# SPDX-License-Identifier: Apache-2.0
"""Weights of one body move into it; what others read, too, stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import Model, load, parse, save, to_proto, verify
from tersor.graph_ir.ops import walk_graphs
from tersor.passes.base import Context
from tersor.passes.clean.sink_constants import SinkConstants
from tests.support.int8 import run

LOOP = """<ir_version: 9, opset_import: ["" : 17]>
g (float[2,4] x, int64 n) => (float[2,4] y)
<float[4,4] w = {seed}, float[4] b = {seed}, bool go = {1}, float[4,4] u = {seed}> {
  s = MatMul(x, u)
  y = Loop (n, , s) <body = body (int64 i, bool c, float[2,4] h) => (bool d, float[2,4] k) {
    d = Identity(go) t = MatMul(h, w)
    k = If (c) <then_branch = a () => (float[2,4] p) { p = Add(t, b) },
                else_branch = e () => (float[2,4] q) { q = MatMul(t, u) }> }>
}"""
BRANCHES = """<ir_version: 9, opset_import: ["" : 17]>
g (float[2,4] x, bool c) => (float[2,4] y)
<float[4,4] w = {seed}, float[4] a = {seed}, float[4] b = {seed}> {
  y = If (c) <then_branch = t () => (float[2,4] p) { m = MatMul(x, w) p = Add(m, a) },
              else_branch = e () => (float[2,4] q) { k = MatMul(x, w) q = Add(k, b) }>
}"""


def where(model: Model) -> dict[str, list[str]]:
    return {graph.name or "": sorted(graph.initializers) for graph in walk_graphs(model)}


def test_weights_of_a_body_move_into_the_innermost_that_holds_all_readers(tmp_path: Path) -> None:
    model = parse(LOOP)
    before = to_proto(model)
    assert SinkConstants().run(model, ctx := Context())
    verify(model)
    assert ctx.counters["sunk"] == 4  # b goes through two bodies
    assert where(model) == {"g": ["u"], "body": ["go", "w"], "a": ["b"], "e": []}
    save(model, tmp_path / "m.onnx", external_data=True)
    feed = {"x": np.ones((2, 4), np.float32), "n": np.array(3)}
    for after in (to_proto(model), to_proto(load(tmp_path / "m.onnx"))):
        np.testing.assert_array_equal(run(after, feed, off=True)[0], run(before, feed, off=True)[0])
    assert not SinkConstants().run(model, Context())


@pytest.mark.parametrize("value", [True, False])
def test_what_two_branches_read_stays(value: bool) -> None:
    model = parse(BRANCHES)
    before = to_proto(model)
    assert SinkConstants().run(model, Context())
    verify(model)
    assert where(model) == {"g": ["w"], "t": ["a"], "e": ["b"]}
    feed = {"x": np.ones((2, 4), np.float32), "c": np.array(value)}
    np.testing.assert_array_equal(run(to_proto(model), feed)[0], run(before, feed)[0])


def test_what_a_caller_may_override_stays() -> None:
    model = parse(BRANCHES.replace("bool c)", "bool c, float[4] a, float[4] b)"))
    assert not SinkConstants().run(model, Context())


def test_large_weights_stay() -> None:
    text = BRANCHES.replace("float[4,4] w", "float[4,4] w = {seed}, float[512,512] l")
    model = parse(text.replace("k = MatMul(x, w)", "h = Shape(l) k = MatMul(x, w)"))
    assert SinkConstants().run(model, Context())
    assert where(model) == {"g": ["l", "w"], "t": ["a"], "e": ["b"]}


def test_what_an_operator_with_a_body_of_its_own_meaning_reads_stays() -> None:
    body = "body (float[2,4] h) => (float[2,4] k) { k = MatMul(h, w) }"
    model = parse(f"""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[2,4] x) => (float[2,4] y) <float[4,4] w = {{seed}}> {{ y = own.Search (x) <body = {body}> }}""")
    assert not SinkConstants().run(model, Context())
