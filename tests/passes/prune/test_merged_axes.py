# SPDX-License-Identifier: Apache-2.0
"""Axes that are merged for a Transpose only are kept apart."""

from __future__ import annotations

import pytest

from tersor.passes.base import Context
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.prune.merged_axes import PartMergedAxes
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import PRUNE_READY
from tests.support.prune_build import build
from tests.support.prune_cuts import halve
from tests.support.rewriting import Rewritten, model_of, rewrite

HEADS = "int64[3] s = {5, -1, 3}, int64[4] t = {-1, 4, 5, 3}"
MERGED = "a = Reshape(x, s) b = Transpose<perm = [1, 0, 2]>(a) y = Reshape(b, t)"
X, Y = "float[5,N,12] x", "float[N,4,5,3] y"


def done(body: str = MERGED, constants: str = HEADS, x: str = X, y: str = Y) -> Rewritten:
    model = model_of(body, constants, x=x, y=y)
    InferShapes().run(model, Context())
    return rewrite(PartMergedAxes(), model)


def test_batch_and_heads_stay_apart() -> None:
    found = done()
    assert found.changed
    assert "{5, -1, 4, 3}" in found.text
    assert "Transpose<perm=[1, 2, 0, 3]>" in found.text


def test_what_is_merged_otherwise_behind_is_merged_there() -> None:
    found = done(
        "a = Reshape(x, s) b = Transpose<perm = [0, 2, 1, 3]>(a) y = Reshape(b, t)",
        "int64[4] s = {-1, 2, 3, 2}, int64[4] t = {-1, 6, 6, 4}",
        "float[N,6,4,6] x",
        "float[N,6,6,4] y",
    )
    assert "{-1, 6, 2, 2, 3, 2}" in found.text
    assert "Transpose<perm=[0, 1, 2, 4, 3, 5]>" in found.text


def test_computed_targets() -> None:
    body = f"""z = Shape(x) n = Gather(z, i) u = Concat<axis = 0>(n, rest)
    {MERGED.replace("(b, t)", "(b, u)")}"""
    assert done(body, f"{HEADS}, int64[1] i = {{1}}, int64[3] rest = {{4, 5, 3}}").changed
    # 0 copies a size of what is reshaped, and the batch may be empty.
    swapped = body.replace("(n, rest)", "(five, n, rest)").replace("[1, 0, 2]", "[0, 1, 2]")
    extra = "int64[1] i = {1}, int64[1] five = {5}, int64[2] rest = {4, 3}"
    assert done(swapped, f"{HEADS}, {extra}", y="float[5,N,4,3] y").changed
    turned = "z = Shape(x) n = Gather(z, i) u = Concat<axis = 0>(four, five, n, three)"
    body = f"{turned} a = Reshape(x, s) b = Transpose<perm = [2, 0, 1]>(a) y = Reshape(b, u)"
    extra = "int64[1] i = {1}, int64[1] five = {5}, int64[1] four = {3}, int64[1] three = {4}"
    assert done(body, f"{HEADS}, {extra}", y="float[3,5,N,4] y").changed
    other = "z = Shape(x) n = Gather(z, i) u = Concat<axis = 0>(fifteen, n, four)"
    body = f"{other} a = Reshape(x, s) b = Transpose<perm = [2, 0, 1]>(a) y = Reshape(b, u)"
    extra = "int64[1] i = {1}, int64[1] fifteen = {15}, int64[1] four = {4}"
    assert not done(body, f"{HEADS}, {extra}", y="float[15,N,4] y").changed


@pytest.mark.parametrize(
    ("body", "x", "y"),
    [
        (MERGED, "float[5,2,12] x", "float[2,4,5,3] y"),  # all sizes are known
        (MERGED.replace("(b, t)", "(b, zero)"), X, "float[N,4,5,3] y"),
        (f"{MERGED} z = Relu(a)", X, f"{Y}, float[5,M,3] z"),
        (f"{MERGED} z = Relu(b)", X, f"{Y}, float[M,5,3] z"),
        (MERGED, "float[5,N,K] x", "float[M,4,5,3] y"),  # no factor can be told
    ],
)
def test_what_is_left_alone(body: str, x: str, y: str) -> None:
    assert not done(body, f"{HEADS}, int64[5] zero = {{-1, 4, 0, 3, 1}}", x, y).changed


def test_heads_go_as_a_whole_also_where_the_batch_is_not_known() -> None:
    model = build(
        """h = MatMul(x, w1)  q = Reshape(h, s)  u = Transpose<perm = [1, 0, 2]>(q)  p = Reshape(u, t)
        k = Transpose<perm = [0, 1, 3, 2]>(p)  e = MatMul(p, k)  m = Softmax(e)  v = MatMul(m, p)
        c = Transpose<perm = [2, 0, 1, 3]>(v)  r = Reshape(c, back)  y = MatMul(r, w2)""",
        "w1 7,12; w2 12,6",
        x="float[5,B,7] x",
        y="float[5,B,6] y",
        constants="int64[3] s = {5, -1, 3}, int64[4] t = {-1, 4, 5, 3}, int64[3] back = {5, -1, 12}",
    )
    manager.run(spec.parse(PRUNE_READY), model, Context())
    assert [group.atoms for group in halve(model).groups] == [4]
