# SPDX-License-Identifier: Apache-2.0
"""PRelu as products and a sum."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.fuse.prelu import SplitPRelu
from tests.support.numerics import assert_rounding, feeds_for, snapshot
from tests.support.prune_build import build
from tests.support.rewriting import declined, retyped, rewrite, with_array

X = "float[N,16,5,5] x"


def made(body: str, weights: str, x: str = X, y: str = "float[N,c,h,w] y", opset: int = 17) -> Model:
    model = build(body, weights, x=x, y=y, opset=opset)
    infer_shapes(model)
    return model


def test_between_convolutions_products_are_depthwise() -> None:
    done = rewrite(SplitPRelu(), made("c = Conv(x, w) y = PRelu(c, s)", "w 32,16,1,1; s 32,1,1"))
    assert done.ops == ["Conv", "Relu", "Conv", "Conv", "Add"]
    assert done.text.count("group=32") == 2


@pytest.mark.parametrize(
    ("body", "weights", "x"),
    [
        ("y = PRelu(x, s)", "s 16,1,1", X),
        ("c = Conv(x, w) y = PRelu(c, s)", "w 9,16,1,1; s 9,1,1", X),
        ("c = Conv(x, w) y = PRelu(c, s)", "w 16,16,1,1; s 16,5,5", X),
        ("c = Conv(x, w) y = PRelu(c, s)", "w 16,16,1; s 16,1", "float[N,16,5] x"),
        ("c = Gemm(x, w) y = PRelu(c, s)", "w 16,32; s 32", "float[N,16] x"),
    ],
    ids=["no convolution", "no blocks", "a slope for each element", "sound", "rows"],
)
def test_elsewhere_they_are_products(body: str, weights: str, x: str) -> None:
    y = "float[N,c,h,w] y" if x == X else "float[N,c,h] y" if "5" in x else "float[N,c] y"
    done = rewrite(SplitPRelu(), made(body, weights, x, y))
    assert done.ops[-4:] == ["Relu", "Mul", "Mul", "Add"]


def test_for_int8_every_slope_of_a_channel_is_a_depthwise_filter() -> None:
    done = rewrite(SplitPRelu(int8=True), made("y = PRelu(x, s)", "s 16,1,1"))
    assert done.ops == ["LeakyRelu", "Conv", "Conv", "Add"]
    assert done.text.count("group=16") == 2


def test_slopes_of_every_kind() -> None:
    slopes = np.array([-2, -1, -0.5, -0.0, 0, 1e-30, 0.25, 0.5, 1, 1.5, 2, 3, -3, 0.1, 0.9, 7], np.float32)
    model = with_array(
        made("c = Conv(x, w) y = PRelu(c, s)", "w 16,16,1,1; s 16,1,1"), "s", slopes[:, None, None]
    )
    before = snapshot(model)
    infer_shapes(model)
    rewrite(SplitPRelu(), model, numbers=False)
    assert_rounding(before, snapshot(model), feeds_for(before, dims={"N": 2}))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (made("y = PRelu(x, s)", "s 16,1,1", opset=6), "opset below 7"),
        (retyped(made("y = PRelu(x, s)", "s 16,1,1"), onnx.TensorProto.DOUBLE), "not float32"),
        (
            with_array(made("y = PRelu(x, s)", "s 16,1,1"), "s", np.full((16, 1, 1), np.inf, np.float32)),
            "slopes are not finite, or so steep that the sum would cancel",
        ),
        (
            with_array(
                made("y = PRelu(x, s)", "s 16,1,1"), "s", np.geomspace(1, 1e5, 16, dtype="f4")[:, None, None]
            ),
            "slopes are not finite, or so steep that the sum would cancel",
        ),
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    infer_shapes(model)
    assert declined(SplitPRelu(), model) == {reason}


def test_computed_slopes_are_left() -> None:
    assert declined(SplitPRelu(), made("t = Relu(s) y = PRelu(x, t)", "s 16,1,1")) == set()
