# SPDX-License-Identifier: Apache-2.0
"""Merged reshapes in bodies and functions and before graph outputs."""

from __future__ import annotations

import numpy as np

from tersor.graph_ir import parse
from tersor.passes.fuse.merge_reshape import MergeReshapes
from tests.support.numerics import assert_bitwise
from tests.support.rewriting import declined, model_of, rewrite

MERGE = MergeReshapes()


def test_inside_bodies_and_functions() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[2,3] x, bool c) => (float[3,2] y, float[3,2] z) <int64[1] p = {6}, int64[2] q = {3,2}> {
      p0 = Constant <value_ints = [0]> ()
      y = If (c) <
        then_branch = t () => (float[3,2] o) { a = Reshape(x, p) o = Reshape(a, q) },
        else_branch = e () => (float[3,2] o2) {
          b = Unsqueeze(x, p0) d = Flatten<axis=3>(b) o2 = Reshape(d, q) }
      >
      z = local.twice (x)
    }
    <domain: "local", opset_import: ["" : 17]> twice (x) => (z) {
      p = Constant <value_ints = [6]> () q = Constant <value_ints = [3, 2]> ()
      a = Reshape(x, p) z = Reshape(a, q)
    }"""
    done = rewrite(MERGE, parse(text), numbers=False)
    assert done.ops.count("Reshape") == 3
    assert len(done.ops) == 5  # with If and the call
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_bitwise(done.before, done.model, [{"x": x, "c": np.array(c)} for c in (True, False)])


def test_axes_that_the_caller_gives_are_not_known() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[2,3,4] x) => (float[6,4] y) { y = local.flat <a = 2> (x) }
    <domain: "local", opset_import: ["" : 17]> flat <a> (x) => (z) {
      p = Constant <value_ints = [2, 3, 4]> () q = Constant <value_ints = [6, 4]> ()
      u = Reshape(x, p) v = Flatten <axis: int = @a> (u) z = Reshape(v, q)
    }"""
    assert not rewrite(MERGE, parse(text)).changed


def test_loop_body() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64 n, float[2,3] x) => (float[2,3] y) <int64[1] p = {6}, int64[2] q = {2,3}> {
      y = Loop (n, , x) <body = b (int64 i, bool c, float[2,3] v) => (bool d, float[2,3] w) {
        d = Identity(c) a = Reshape(v, p) w = Reshape(a, q) }>
    }"""
    done = rewrite(MERGE, parse(text), numbers=False)
    assert done.ops == ["Loop", "Identity", "Identity"]
    assert_bitwise(done.before, done.model, {"n": np.array(2), "x": np.ones((2, 3), np.float32)})


def test_graph_output_between_stays() -> None:
    model = model_of(
        "a = Reshape(x, p) y = Reshape(a, q)",
        "int64[1] p = {6}, int64[2] q = {3,2}",
        x="float[2,3] x",
        y="float[6] a, float[3,2] y",
    )
    assert "the first is read by others" in declined(MERGE, model)
