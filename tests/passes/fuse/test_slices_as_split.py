# SPDX-License-Identifier: Apache-2.0
"""Slices side by side, as exporters write gated units: one Split, or a layer for each."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.fuse.slice_filters import SliceFilters
from tests.support.rewriting import declined, model_of, rewrite

PASS = SliceFilters()
BOUNDS = (
    "int64[1] zero = {0}, int64[1] four = {4}, int64[1] half = {16}, int64[1] less = {-16},"
    "int64[1] end = {99}, int64[1] axis = {1}, int64[1] same = {-2}, int64[1] two = {2}"
)
GATED = "t = Tanh(p) s = Sigmoid(q) y = Mul(t, s)"
TWO = f"q = Slice(x, half, end, axis) p = Slice(x, zero, less, same) {GATED}"


def made(body: str, x: str = "float[N,32,9] x", weights: str = "", opset: int = 17) -> Model:
    model = model_of(body, BOUNDS + weights, x=x, y="float[A,B,C] y", opset=opset)
    infer_shapes(model)
    return model


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_two_halves_are_a_split(opset: int) -> None:
    done = rewrite(PASS, made(TWO, opset=opset), N=2)
    assert done.ops == ["Split", "Tanh", "Sigmoid", "Mul"]


def test_of_a_layer_they_are_layers() -> None:
    weights = ", float[32,8,3] w = {seed}, float[32] b = {seed}"
    body = f"c = Conv<pads = [1,1]>(x, w, b) {TWO.replace('(x,', '(c,')}"
    done = rewrite(PASS, made(body, "float[N,8,9] x", weights), N=2)
    assert done.ops == ["Conv", "Conv", "Tanh", "Sigmoid", "Mul"]
    assert "float[16,8,3] w_part" in done.text


def test_parts_may_be_of_different_sizes_and_outputs() -> None:
    parts = "p = Slice(x, zero, four, axis) q = Slice(x, four, half, axis) y = Slice(x, half, end, axis)"
    body = f"{parts} z = Concat<axis = 1>(q, p)"
    model = model_of(body, BOUNDS, x="float[N,32,9] x", y="float[A,B,C] y, float[D,E,F] z")
    infer_shapes(model)
    assert rewrite(PASS, model, N=2).ops == ["Split", "Concat"]


@pytest.mark.parametrize(
    ("body", "x"),
    [
        (TWO, "float[N,C,9] x"),  # of an unknown size
        (TWO, "float[N,40,9] x"),  # overlapping, or with a gap
        (TWO.replace("half, end", "four, end"), "float[N,32,9] x"),
        (TWO.replace("half, end, axis", "half, end, axis, two"), "float[N,32,9] x"),  # every second
        ("y = Slice(x, zero, end, axis)", "float[N,32,9] x"),  # all alone
        (TWO.replace("half, end, axis", "half, n, axis"), "float[N,32,9] x, int64[1] n"),
        (
            TWO.replace("(x,", "(i,").replace("q = ", "i = Cast<to = 10>(x) q = ", 1),
            "float[N,32,9] x",
        ),  # float16
    ],
)
def test_near_misses_stay(body: str, x: str) -> None:
    declined(PASS, made(body, x))
