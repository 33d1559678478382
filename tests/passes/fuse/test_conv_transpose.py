# SPDX-License-Identifier: Apache-2.0
"""ConvTranspose as a convolution whose channels become pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.base import Context
from tersor.passes.fuse.conv_transpose import ConvTransposeToConv
from tests.support.int8 import feeds_of, optimised, quantised, run, sqnr
from tests.support.prune_build import build
from tests.support.rewriting import declined, retyped, rewrite

X, Y = "float[N,6,5,7] x", "float[N,4,h,w] y"
MOVE = ["Transpose", "Reshape", "Transpose", "Reshape", "Transpose"]


def up(attributes: str, behind: str = "y = Conv(t, v)", bias: str = ", b") -> str:
    return f"t = ConvTranspose<{attributes}>(x, w{bias}) {behind}"


def made(
    body: str, kernel: str = "2,2", *, x: str = X, out: int = 8, more: str = "", opset: int = 17
) -> Model:
    model = build(
        body, f"w 6,{out},{kernel}; b {out}; v 4,{out},1,1{more}", x=x, y=Y, opset=opset,
        constants="float low = {-0.5}, float high = {0.5}",
    )  # fmt: skip
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("strides = [2, 2]", "2,2"),
        ("strides = [2, 2], pads = [1, 1, 1, 1]", "4,4"),
        ("strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]", "3,3"),
        ("strides = [2, 2], pads = [4, 4, 4, 4], output_padding = [1, 1]", "9,9"),
        ("strides = [4, 4], pads = [2, 2, 2, 2]", "8,8"),
        ("strides = [3, 3], pads = [2, 2, 2, 2], output_padding = [2, 2]", "5,5"),
        ("strides = [2, 2], pads = [0, 2, 2, 0]", "4,4"),
        ("strides = [2, 1], pads = [1, 1, 1, 1]", "4,3"),
        ("strides = [3, 2]", "3,2"),
    ],
)
@pytest.mark.parametrize("bias", ["", ", b"])
def test_one_convolution_and_a_move(attributes: str, kernel: str, bias: str) -> None:
    done = rewrite(ConvTransposeToConv(), made(up(attributes, bias=bias), kernel), N=3, h=1, w=1)
    assert done.ops == ["Conv", *MOVE, "Conv"]


@pytest.mark.parametrize("act", ["Relu(t)", "LeakyRelu<alpha = 0.2>(t)", "Clip(t, low, high)"])
def test_what_is_of_each_element_alone_goes_first(act: str) -> None:
    done = rewrite(ConvTransposeToConv(), made(up("strides = [2, 2]", f"r = {act} y = Conv(r, v)")), N=2)
    assert done.ops == ["Conv", act.partition("<")[0].partition("(")[0], *MOVE, "Conv"]


def test_others_that_read_it_keep_it_in_front_of_the_relu() -> None:
    body = up("strides = [2, 2]", "r = Relu(t) s = Add(r, t) y = Conv(s, v)")
    done = rewrite(ConvTransposeToConv(), made(body), N=2)
    assert done.ops == ["Conv", *MOVE, "Relu", "Add", "Conv"]


def test_one_after_the_other() -> None:
    body = up("strides = [2, 2]", "r = ConvTranspose<strides = [2, 2]>(t, u) y = Conv(r, v)")
    done = rewrite(ConvTransposeToConv(), made(body, more="; u 8,8,2,2"), N=2)
    assert done.ops == ["Conv", *MOVE, "Conv", *MOVE, "Conv"]


def test_one_that_makes_few_channels_is_left_behind_others() -> None:
    body = up("strides = [2, 2]", "y = ConvTranspose<strides = [2, 2]>(t, u)")
    done = rewrite(ConvTransposeToConv(), made(body, more="; u 8,4,2,2"), N=2)
    assert done.ops == ["Conv", *MOVE, "ConvTranspose"]


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("strides = [2]", "2"),
        ("strides = [2], pads = [3, 3]", "8"),
        ("strides = [4], pads = [2, 1], output_padding = [1]", "6"),
    ],
)
def test_rows(attributes: str, kernel: str) -> None:
    body = f"t = ConvTranspose<{attributes}>(x, w, b) r = Relu(t) y = Conv(r, v)"
    model = build(body, f"w 6,8,{kernel}; b 8; v 4,8,1", x="float[N,6,7] x", y="float[N,4,h] y", opset=17)
    infer_shapes(model)
    done = rewrite(ConvTransposeToConv(), model, N=3, h=1)
    assert done.ops == ["Conv", "Relu", "Transpose", "Reshape", "Transpose", "Conv"]


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("strides = [1, 1]", "4,4"),
        ("strides = [2, 1], pads = [1, 0, 0, 0]", "4,3"),
        ("strides = [3, 3], output_padding = [1, 1]", "2,2"),
    ],
)
def test_one_pixel_makes_all_as_its_phases(attributes: str, kernel: str) -> None:
    done = rewrite(ConvTransposeToConv(), made(up(attributes), kernel, x="float[N,6,1,1] x"), N=3, h=1, w=1)
    assert done.ops == ["Conv", *MOVE, "Conv"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (made(up("strides = [2, 2]", "y = Identity(t)")), "leads to no linear layer"),
        (made(up("strides = [2, 2], group = 2")), "groups or dilations"),
        (made(up("strides = [2, 2], dilations = [2, 2], pads = [0, 0, 1, 1]")), "groups or dilations"),
        (made(up('strides = [2, 2], auto_pad = "SAME_UPPER"')), "automatic padding"),
        (made(up("strides = [2, 2], output_shape = [10, 14]")), "automatic padding"),
        (made(up("strides = [2, 2]"), "3,3"), "the result is not s times as large"),
        (made(up("strides = [2, 2], output_padding = [1, 1]"), "1,1"), "most taps would be zeros"),
        (made(up("strides = [1, 1], pads = [1, 1, 1, 1]"), "3,3"), "no strides"),
        (made(up("strides = [2, 2]"), x="float[N,6,H,7] x"), "its size is not known"),
        (made(up("strides = [2, 2]"), out=4), "few channels are made"),
        (made(up("strides = [2, 2]"), opset=12), "not float32 of opset 13 or later"),
        (
            retyped(made(up("strides = [2, 2]")), onnx.TensorProto.DOUBLE),
            "not float32 of opset 13 or later",
        ),
        (
            made(
                "c = Relu(w0) t = ConvTranspose<strides = [2, 2]>(x, c) y = Conv(t, v)",
                x="float[N,6,5,7] x, float[6,8,2,2] w0",
            ),
            "weights or biases are no constants",
        ),
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    infer_shapes(model)
    assert reason in declined(ConvTransposeToConv(), model)


def test_it_runs_in_int8(tmp_path: Path) -> None:
    body = "a = Relu(x) " + up("strides = [2, 2]", "r = Relu(t) y = Conv(r, v)").replace("(x,", "(a,")
    model = made(body, x="float[1,6,5,7] x")
    assert ConvTransposeToConv().run(model, Context())
    infer_shapes(model)
    before, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert found.float_linear == 0
    assert (found.ops["QLinearConv"], found.ops["ConvTranspose"]) == (2, 0)
    for feed in feeds_of(model):
        (real,), (got,) = run(before, feed), run(after, feed)
        assert np.isfinite(got).all()
        assert sqnr(real, got) > 25
