# SPDX-License-Identifier: Apache-2.0
"""PRelu as products and a sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.fuse.prelu import SplitPRelu
from tests.support.prune_build import build
from tests.support.rewriting import declined, model_of, retyped, rewrite, with_array

X = "float[N,16,5,5] x"


SLOPES = [-16, -2, -1, -0.5, -0.0, 0, 1e-30, 1e-3, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1]


def made(
    body: str,
    weights: str,
    x: str = X,
    y: str = "float[N,c,h,w] y",
    opset: int = 17,
    slopes: Sequence[float] = SLOPES,
) -> Model:
    """A model whose constant `s` has these slopes, repeated as often as it has places."""
    model = build(body, weights, x=x, y=y, opset=opset)
    shape = next(
        tuple(map(int, item.split()[1].split(","))) for item in weights.split("; ") if item[0] == "s"
    )
    model = with_array(model, "s", np.resize(np.array(slopes, np.float32), shape))
    infer_shapes(model)
    return model


def test_behind_a_convolution_the_product_is_depthwise() -> None:
    done = rewrite(SplitPRelu(), made("c = Conv(x, w) y = PRelu(c, s)", "w 32,16,1,1; s 32,1,1"))
    assert done.ops == ["Conv", "Conv", "Relu", "Add"]
    assert done.text.count("group=32") == 1


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
def test_elsewhere_it_is_a_product(body: str, weights: str, x: str) -> None:
    y = "float[N,c,h,w] y" if x == X else "float[N,c,h] y" if "5" in x else "float[N,c] y"
    done = rewrite(SplitPRelu(), made(body, weights, x, y))
    assert done.ops[-3:] == ["Mul", "Relu", "Add"]


def test_for_int8_every_slope_of_a_channel_is_a_depthwise_filter() -> None:
    done = rewrite(SplitPRelu(int8=True), made("y = PRelu(x, s)", "s 16,1,1"))
    assert done.ops == ["Conv", "Relu", "Add"]
    assert done.text.count("group=16") == 1


def test_no_channels_are_no_filters() -> None:
    model = model_of("y = PRelu(x, s)", "float[0,1,1] s = {}", x="float[N,0,5,5] x", y="float[N,0,5,5] y")
    done = rewrite(SplitPRelu(int8=True), model)
    assert done.ops == ["Mul", "Relu", "Add"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (made("y = PRelu(x, s)", "s 16,1,1", opset=6), "opset below 7"),
        (retyped(made("y = PRelu(x, s)", "s 16,1,1"), onnx.TensorProto.DOUBLE), "not float32"),
        *(
            (made("y = PRelu(x, s)", "s 16,1,1", slopes=(0.5, wrong)), "a slope is steeper than 1 or -16")
            for wrong in (np.inf, -np.inf, np.nan, 1.001, -17)
        ),
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    infer_shapes(model)
    assert declined(SplitPRelu(), model) == {reason}


def test_computed_slopes_are_left() -> None:
    assert declined(SplitPRelu(), made("t = Relu(s) y = PRelu(x, t)", "s 16,1,1")) == set()
