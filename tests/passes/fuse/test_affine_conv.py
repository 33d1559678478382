# SPDX-License-Identifier: Apache-2.0
"""Factors and shifts of channels as depthwise convolutions."""

from __future__ import annotations

import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.fuse.affine_conv import AffineToConv
from tests.support.prune_build import build
from tests.support.rewriting import declined, model_of, retyped, rewrite

X, Y = "float[N,6,5,5] x", "float[N,6,5,5] y"
NORM = "y = BatchNormalization(x, gain, b, m, var)"
PARAMETERS = "gain 6; b 6; m 6; var 6"


def made(body: str, weights: str, x: str = X, y: str = Y) -> Model:
    model = build(body, weights, x=x, y=y)
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        (NORM, PARAMETERS),
        (NORM.replace("BatchNormalization", "BatchNormalization<epsilon = 0.1>"), PARAMETERS),
        ("y = Mul(x, c)", "c 6,1,1"),
        ("y = Mul(c, x)", "c 1,6,1,1"),
    ],
)
def test_one_convolution(body: str, weights: str) -> None:
    done = rewrite(AffineToConv(), made(body, weights))
    assert done.ops == ["Conv"]
    assert "group=6" in done.text


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            made(NORM, PARAMETERS, "float[N,6,5] x", "float[N,6,5] y"),
            "not float32 pictures of known channels",
        ),
        (retyped(made(NORM, PARAMETERS), onnx.TensorProto.DOUBLE), "not float32 pictures of known channels"),
        (
            model_of("y = Mul(x, c)", "float[0,1,1] c = {}", x="float[N,0,5,5] x", y="float[N,0,5,5] y"),
            "not float32 pictures of known channels",
        ),
        (made("y = Mul(x, c)", "c 1"), "not one factor for each channel"),
        (made("y = Mul(x, c)", "c 5"), "not one factor for each channel"),
        (made("y = Mul(x, c)", "c 6,5,5"), "not one factor for each channel"),
        (
            made("y = Mul(x, c)", "c 1,1,1", "float[N,1,5,5] x", "float[N,1,5,5] y"),
            "not one factor for each channel",
        ),
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    infer_shapes(model)
    assert declined(AffineToConv(), model) == {reason}
