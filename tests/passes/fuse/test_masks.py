# SPDX-License-Identifier: Apache-2.0
"""Two constants added to scores, in two shapes, as one."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.attention import FuseAttention
from tests.support.rewriting import declined, model_of, rewrite, with_array

FUSE = FuseAttention()
WEIGHTS = (
    "float[1,3,5,5] a = {seed}, float[1,4,1,5,5] b = {seed}, int64[5] out = {2, 4, 3, 5, 5}, "
    "int64[4] back = {8, 3, 5, 5}"
)
SCORES = "float[8,3,5,5]"
BODY = "s = Add(x, a) r = Reshape(s, out) t = Add(r, b) y = Reshape(t, back)"


def made(body: str = BODY, weights: str = WEIGHTS, x: str = SCORES, y: str = f"{SCORES} y") -> Model:
    model = model_of(body, weights, x=f"{x} x", y=y, opset=23)
    infer_shapes(model)
    return model


def test_text_in_text_out() -> None:
    done = rewrite(FUSE, made())
    assert done.ops == ["Add"]
    assert "float[8,3,5,5] a_both" in done.text


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (BODY.replace("x, a", "a, x").replace("r, b", "b, r"), WEIGHTS),
        (BODY, WEIGHTS.replace("float[1,3,5,5] a", "float[3,1,5] a").replace("[1,4,1,5,5] b", "[5,1] b")),
        (BODY, WEIGHTS.replace("float[1,3,5,5] a", "float[8,3,5,5] a")),
    ],
)
def test_orders_and_shapes(body: str, weights: str) -> None:
    assert rewrite(FUSE, made(body, weights)).ops == ["Add"]


def test_infinities() -> None:
    blocked = np.zeros((1, 4, 1, 5, 5), np.float32)
    blocked[:, 1, :, 2:] = -np.inf
    model = with_array(made(), "b", blocked)
    infer_shapes(model)
    assert rewrite(FUSE, model).ops == ["Add"]


def test_windows_with_shifted_masks_become_attention() -> None:
    head = (
        "p = Reshape(x, packed) h = Transpose<perm = [2,0,3,1,4]>(p) q = Gather(h, i0) k = Gather(h, i1) "
        "v = Gather(h, i2) u = Transpose<perm = [0,1,3,2]>(k) m = MatMul(q, u) "
    )
    tail = (
        " e = Softmax<axis = -1>(z) o = MatMul(e, v) n = Transpose<perm = [0,2,1,3]>(o) y = Reshape(n, flat)"
    )
    weights = f"{WEIGHTS}, int64[5] packed = {{0, 0, 3, 3, 2}}, int64[3] flat = {{0, 0, 6}}, " + ", ".join(
        f"int64 i{i} = {{{i}}}" for i in range(3)
    )
    body = head + BODY.replace("Add(x,", "Add(m,").replace("y =", "z =") + tail
    model = made(body, weights, "float[8,5,18]", "float[8,5,6] y")
    assert rewrite((FUSE, EliminateDeadCode()), model).ops == ["Split", "Attention"]


FREE = WEIGHTS.replace("{2, 4", "{-1, 4").replace("{8,", "{-1,")
LONGER = WEIGHTS.replace("float[1,3,5,5] a", "float[1,1,3,5,5] a")
WIDER = WEIGHTS.replace("float[1,3,5,5] a", "float[8,3,5,5] a")
TURNED = WEIGHTS.replace("{8, 3, 5, 5}", "{8, 5, 3, 5}")


@pytest.mark.parametrize(
    ("weights", "x", "y", "reason"),
    [
        (FREE, "float[N,3,5,5]", "float[N,3,5,5]", "shapes are not known"),
        (TURNED, SCORES, "float[8,5,3,5]", "the shape does not come back"),
        (WIDER, "float[1,3,5,5]", SCORES, "the shape does not come back"),
        (LONGER, SCORES, SCORES, "a constant enlarges the sum"),
    ],
)
def test_near_misses(weights: str, x: str, y: str, reason: str) -> None:
    assert declined(FUSE, made(BODY, weights, x, f"{y} y")) == {reason}


def test_parts_that_are_read_elsewhere() -> None:
    model = made(BODY + " z = Neg(s)", y=f"{SCORES} y, {SCORES} z")
    assert declined(FUSE, model) == set()


def test_types_other_than_float() -> None:
    body = BODY.replace("Add(x,", "Add(c,").replace("s = ", "c = Cast<to = 11>(x) s = ")
    weights = WEIGHTS.replace("float[", "double[")
    assert declined(FUSE, made(body, weights, y="double[8,3,5,5] y")) == {"not of float"}


def test_too_many_elements() -> None:
    weights = WEIGHTS.replace("5,5]", "300,300]").replace("5, 5}", "300, 300}")
    weights = weights.replace("[1,3,300", "[1,1,300")
    shape = SCORES.replace("5,5", "300,300")
    assert declined(FUSE, made(BODY, weights, shape, f"{shape} y")) == {"too many elements"}
