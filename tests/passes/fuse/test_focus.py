# SPDX-License-Identifier: Apache-2.0
"""A picture taken apart, and the convolution behind it."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.focus import FoldFocus
from tests.support.rewriting import declined, model_of, rewrite

FOLD = FoldFocus()
CONSTANTS = (
    "int64[2] s00 = {0,0}, int64[2] s10 = {1,0}, int64[2] s01 = {0,1}, int64[2] s11 = {1,1}, "
    "int64[2] end = {9223372036854775807, 2147483647}, int64[2] axes = {2,-1}, int64[2] two = {2,2}, "
    "int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {6}, int64[1] rows = {2}, "
    "int64[1] columns = {3}, int64[1] by = {2}, int64[2] near = {4,4}, "
    "float[5,12,3,3] w = {seed}, float[5] b = {seed}"
)
PARTS = " ".join(f"p{s} = Slice(x, s{s}, end, axes, two)" for s in ("00", "10", "01", "11"))
CONCAT = " c = Concat<axis = 1>(p00, p10, p01, p11) "
OTHER = " z = Relu(x) q11 = Slice(z, s11, end, axes, two)"
PLAIN = "not a plain convolution of pictures"
CONV = "y = Conv<pads = [1,1,1,1]>(c, w, b)"
X, Y = "float[N,3,6,6] x", "float[N,5,3,3] y"


def made(body: str, x: str = X, y: str = Y) -> Model:
    model = model_of(body, CONSTANTS, x=x, y=y)
    infer_shapes(model)
    return model


def test_text_in_text_out() -> None:
    done = rewrite((FOLD, EliminateDeadCode()), made(PARTS + CONCAT + CONV))
    assert done.ops == ["Conv"]
    assert "float[5,3,6,6] w" in done.text
    assert "Conv<kernel_shape=[6, 6], pads=[2, 2, 2, 2], strides=[2, 2]>(x, w" in done.text


@pytest.mark.parametrize(
    "body",
    [
        PARTS + CONCAT.replace("p00, p10, p01, p11", "p11, p01, p00, p10") + CONV,
        PARTS + CONCAT + "y = Conv(c, w)",
        PARTS + CONCAT + "y = Conv<pads = [0,1,2,0]>(c, w)",
        "c = SpaceToDepth<blocksize = 2>(x) " + CONV,
    ],
)
def test_other_forms(body: str) -> None:
    y = "float[N,5,a,b] y"
    assert rewrite((FOLD, EliminateDeadCode()), made(body, y=y), N=2).ops == ["Conv"]


def test_one_slice_for_each_axis() -> None:
    rows = "r0 = Slice(x, zero, last, rows, by) r1 = Slice(x, one, last, rows, by) "
    parts = " ".join(
        f"p{i}{j} = Slice(r{i}, {s}, last, columns, by)" for i in (0, 1) for j, s in ((0, "zero"), (1, "one"))
    )
    done = rewrite((FOLD, EliminateDeadCode()), made(rows + parts + CONCAT + CONV))
    assert done.ops == ["Conv"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (PARTS + CONCAT.replace("p11", "p01") + CONV, "not all parts of one picture"),
        (PARTS + CONCAT + CONV.replace("<pads", "<dilations = [2,2], pads"), PLAIN),
        (PARTS + CONCAT + CONV.replace("<pads", "<strides = [2,2], pads"), PLAIN),
        (PARTS + CONCAT + 'y = Conv<auto_pad = "SAME_UPPER">(c, w)', PLAIN),
        (PARTS + OTHER + CONCAT.replace("p11", "q11") + CONV, "not all parts of one picture"),
        (
            "d = SpaceToDepth<blocksize = 2>(x) c = Concat<axis = 1>(x, x, x, x) " + CONV,
            "not all parts of one picture",
        ),
        ("d = SpaceToDepth<blocksize = 2>(x) c = Relu(x) " + CONV, "reads no parts"),
    ],
)
def test_near_misses(body: str, reason: str) -> None:
    x = "float[N,12,6,6] x" if reason == "reads no parts" else X
    assert declined(FOLD, made(body, x, "float[N,5,a,b] y")) == {reason}


def test_slices_that_end_early() -> None:
    body = PARTS.replace("end", "near") + CONCAT + CONV
    assert declined(FOLD, made(body, y="float[N,5,2,2] y")) == {"not all parts of one picture"}


def test_parts_that_others_read_stay() -> None:
    model = made(PARTS + CONCAT + CONV + " z = Relu(c)", y=f"{Y}, float[N,12,3,3] z")
    assert declined(FOLD, model) == {"others read the parts"}


def test_in_a_body() -> None:
    body = (PARTS + CONCAT + CONV).replace("y = ", "u = ")
    model = made(
        "y = If (flag) <then_branch = yes () => (float[N,5,3,3] u) { " + body + " },"
        " else_branch = no () => (float[N,5,3,3] v) { v = Relu(z) }>",
        f"{X}, float[N,5,3,3] z, bool flag",
    )
    assert sorted(rewrite((FOLD, EliminateDeadCode()), model).ops) == ["Conv", "If", "Relu"]
