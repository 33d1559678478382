# SPDX-License-Identifier: Apache-2.0
"""Softmax over channels as over rows."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.layout.softmax import SoftmaxByRows
from tests.support.rewriting import declined, model_of, rewrite

PASS = SoftmaxByRows()
MOVED = ["Reshape", "Transpose", "Reshape", "Softmax", "Reshape", "Transpose", "Reshape"]
PICTURE, Y = "float[N,20,8,9] x", "float[N,20,8,9] y"
OVER = "y = Softmax<axis = 1>(x)"
BETWEEN = "a = Transpose<perm = [0,2,3,1]>(x) b = Softmax<axis = -1>(a) y = Transpose<perm = [0,3,1,2]>(b)"


def made(body: str, x: str = PICTURE, y: str = Y, opset: int = 13, weights: str = "") -> Model:
    model = model_of(body, weights, x=x, y=y, opset=opset)
    infer_shapes(model)
    return model


def test_text_in_text_out() -> None:
    done = rewrite(PASS, made(OVER), N=2)
    assert done.ops == MOVED
    for shape in ("{-1, 20, 72}", "{-1, 20}", "{-1, 72, 20}", "{-1, 20, 8, 9}"):
        assert shape in done.text
    assert done.text.count("perm=[0, 2, 1]") == 2


@pytest.mark.parametrize(
    ("body", "x"),
    [
        (OVER.replace("axis = 1", "axis = -3"), PICTURE),
        (OVER.replace("axis = 1", "axis = 2"), PICTURE),
        (OVER.replace("axis = 1", "axis = 0"), "float[40,8,9] x"),
        (BETWEEN, PICTURE),
        (BETWEEN.replace("0,2,3,1", "0,3,2,1").replace("0,3,1,2", "0,3,2,1"), PICTURE),
    ],
)
def test_axes(body: str, x: str) -> None:
    assert rewrite(PASS, made(body, x, x.replace("x", "y")), N=2).ops == MOVED


def test_log_softmax() -> None:
    done = rewrite(PASS, made(OVER.replace("Softmax", "LogSoftmax")), N=2)
    assert done.ops == [op.replace("Softmax", "LogSoftmax") for op in MOVED]


def test_between_transposes_below_opset_13() -> None:
    body = BETWEEN.replace("axis = -1", "axis = 3")
    assert rewrite(PASS, made(body, opset=11), N=2).ops == MOVED


def test_codes_behind_the_transpose() -> None:
    body = BETWEEN.replace("(a)", "(d)").replace(
        "b = ", "q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) b = "
    )
    weights = "float s = {0.05}, uint8 z = {128}"
    done = rewrite(PASS, made(body, weights=weights, opset=21), N=2)
    assert done.ops == ["QuantizeLinear", "DequantizeLinear", *MOVED]


@pytest.mark.parametrize(
    ("body", "x", "reasons"),
    [
        (OVER.replace("axis = 1", "axis = 3"), PICTURE, {"over the last axis already"}),
        (OVER, "float[N,20,2,9] x", {"few elements"}),
        (OVER, "float[N,20,H,9] x", {"sizes from the axis on are not known"}),
        (OVER.replace("= 1", "= 2"), "float[N,M,40,90] x", {"more than one size is not known"}),
        (
            BETWEEN.replace("0,3,1,2", "0,3,2,1"),
            PICTURE,
            {"the transposes do not cancel", "over the last axis already"},
        ),
        (
            BETWEEN.replace("axis = -1", "axis = 1"),
            "float[N,20,8,2] x",
            {"not over the last axis", "few elements"},
        ),
    ],
)
def test_near_misses(body: str, x: str, reasons: set[str]) -> None:
    assert declined(PASS, made(body, x, "float[a,b,c,d] y")) == reasons


def test_over_channels_below_opset_13() -> None:
    assert declined(PASS, made(OVER, opset=11)) == {"rank is not known, or opset below 13"}


def test_a_softmax_that_others_read_stays_between_its_transposes() -> None:
    model = made(BETWEEN + " z = Relu(b)", y=f"{Y}, float[N,8,9,20] z")
    assert declined(PASS, model) == {"over the last axis already"}


def test_in_a_body() -> None:
    model = made(
        "y = If (flag) <then_branch = yes () => (float[N,20,8,9] u) { u = Softmax<axis = 1>(x) },"
        " else_branch = no () => (float[N,20,8,9] v) { v = Relu(x) }>",
        f"{PICTURE}, bool flag",
    )
    assert sorted(rewrite(PASS, model, N=2).ops) == sorted([*MOVED, "If", "Relu"])
