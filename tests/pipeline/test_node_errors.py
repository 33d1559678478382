# SPDX-License-Identifier: Apache-2.0
"""Errors at the nodes of the original: found by name, by provenance, and across layouts."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import parse
from tersor.graph_ir.origins import set_origins
from tersor.pipeline.node_errors import node_errors

HEADER = '<ir_version: 8, opset_import: ["": 17]> '
FIRST = HEADER + "g (float[1,2,3,4] x) => (float[1,2,3,4] y) { a = Neg (x)  b = Abs (a)  y = Exp (b) }"
X = np.random.default_rng(1).standard_normal((1, 2, 3, 4)).astype(np.float32)


def errors(second: str, **origins: list[str]) -> dict[str, float]:
    model = parse(HEADER + second)
    for node in model.graph:
        if node.outputs[0].name in origins:
            set_origins(node, dict.fromkeys(origins[node.outputs[0].name], ""))
    found = node_errors(parse(FIRST), model, [{"x": X}])
    return {node: close.sqnr_db for node, close in found.items()}


def test_values_that_kept_their_name_are_compared() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) <float t = {1.1}>"
        " { a = Neg (x)  b = Mul (a, t)  y = Exp (b) }",
        b=["Abs(b)"],
    )
    assert found["Neg(a)"] == np.inf
    assert found["Abs(b)"] < 10


def test_a_node_that_stands_for_two_has_the_result_of_the_last() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) { z = Abs (x)  y = Exp (z) }", z=["Neg(a)", "Abs(b)"]
    )
    assert found == {"Abs(b)": np.inf, "Exp(y)": np.inf}


def test_channels_may_have_moved_to_the_other_end() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) {"
        " t = Transpose <perm: ints = [0, 2, 3, 1]> (x)  a = Neg (t)"
        " u = Transpose <perm: ints = [0, 3, 1, 2]> (a)  b = Abs (u)  y = Exp (b) }"
    )
    assert found["Neg(a)"] == np.inf


def test_values_of_another_shape_are_left_out() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) {"
        " a = Flatten (x)  c = Neg (x)  b = Abs (c)  y = Exp (b) }"
    )
    assert sorted(found) == ["Abs(b)", "Exp(y)"]
    assert found["Exp(y)"] == pytest.approx(np.inf)


def test_a_name_that_was_used_again_is_no_match() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) { b = Neg (x)  z = Abs (b)  y = Exp (z) }",
        b=["Neg(a)"],
        z=["Abs(b)"],
    )
    assert found == {"Neg(a)": np.inf, "Abs(b)": np.inf, "Exp(y)": np.inf}


def test_what_is_quantized_counts_as_its_readers_get_it() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) <float s = {0.5}, uint8 zp = {0}>"
        " { raw = Neg (x)  q = QuantizeLinear (raw, s, zp)  d = DequantizeLinear (q, s, zp)  y = Exp (d) }",
        raw=["Neg(a)", "Abs(b)"],
        q=["Neg(a)", "Abs(b)"],
        d=["Neg(a)", "Abs(b)"],
    )
    got = np.clip(np.rint(-X / np.float32(0.5)), 0, 255) * np.float32(0.5)
    want = np.abs(X)
    expected = 10 * np.log10(float(np.square(want).sum()) / float(np.square(want - got).sum()))
    assert found["Abs(b)"] == pytest.approx(expected, abs=1e-3)


def test_codes_that_nothing_makes_floats_of_are_left_out() -> None:
    found = errors(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) <float s = {0.1}, uint8 z = {0}> {"
        " a = Neg (x)  c = Abs (a)  q = QuantizeLinear (c, s, z)"
        " r = MaxPool <kernel_shape: ints = [1, 1]> (q)  d = DequantizeLinear (r, s, z)  y = Exp (d) }",
        r=["Abs(b)"],
    )
    assert sorted(found) == ["Exp(y)", "Neg(a)"]
