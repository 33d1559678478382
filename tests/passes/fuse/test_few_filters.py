# SPDX-License-Identifier: Apache-2.0
"""Convolutions of few filters make several pixels at once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.base import Context
from tersor.passes.fuse.few_filters import PixelsToFilters
from tests.support.int8 import feeds_of, optimised, quantised, run, sqnr
from tests.support.prune_build import build
from tests.support.rewriting import declined, retyped, rewrite

SAME = "pads = [1, 1, 1, 1]"


def made(
    body: str, kernel: str = "3,3", *, out: int = 3, x: str = "float[N,8,12,6] x", opset: int = 17
) -> Model:
    model = build(
        body, f"w {out},8,{kernel}; b {out}", x=x, y="float[N,c,h,v] y", opset=opset,
        constants="float low = {-0.5}, float high = {0.5}",
    )  # fmt: skip
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("attributes", "kernel", "out"),
    [
        (SAME, "3,3", 3),
        (SAME, "3,3", 1),
        (SAME, "3,3", 4),
        ("pads = [4, 4, 4, 4]", "9,9", 3),
        ("pads = [0, 3, 1, 0]", "2,4", 2),
        ("pads = [1, 0, 1, 0]", "3,1", 1),
        ("", "3,3", 1),
    ],
)
@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_block_at_once(attributes: str, kernel: str, out: int, bias: str) -> None:
    model = made(f"y = Conv<{attributes}>(x, w{bias})".replace("<>", ""), kernel, out=out)
    assert rewrite(PixelsToFilters(), model, N=3, c=1, h=1, v=1).ops == ["Conv", "DepthToSpace"]


@pytest.mark.parametrize(("size", "side"), [(12, 4), (10, 2), (9, 3)])
def test_the_side_of_the_block_divides_the_size(size: int, side: int) -> None:
    model = made(f"y = Conv<{SAME}>(x, w)", out=1, x=f"float[N,8,{size},{size}] x")
    assert PixelsToFilters().run(model, Context())
    assert [n.attributes["blocksize"].as_int() for n in model.graph if n.op_type == "DepthToSpace"] == [side]


@pytest.mark.parametrize("act", ["Relu(t)", "LeakyRelu<alpha = 0.2>(t)", "Clip(t, low, high)"])
def test_what_is_of_each_element_alone_goes_first(act: str) -> None:
    model = made(f"t = Conv<{SAME}>(x, w, b) y = {act}")
    assert rewrite(PixelsToFilters(), model, N=2, c=1, h=1, v=1).ops == [
        "Conv", act.partition("<")[0].partition("(")[0], "DepthToSpace",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (made(f"y = Conv<{SAME}>(x, w)", out=5), "no block of pixels is cheaper"),
        (made("y = Conv(x, w)", "1,1"), "no block of pixels is cheaper"),
        (made(f"y = Conv<{SAME}>(x, w)", x="float[N,8,7,5] x"), "no block of pixels is cheaper"),
        (made(f"y = Conv<{SAME}>(x, w)", x="float[N,8,H,6] x"), "no block of pixels is cheaper"),
        (made("y = Conv<strides = [2, 2]>(x, w)"), "groups, dilations or strides"),
        (made("y = Conv<dilations = [2, 2]>(x, w)"), "groups, dilations or strides"),
        (made("y = Conv<group = 2>(x, w)", out=2, x="float[N,16,12,6] x"), "groups, dilations or strides"),
        (made('y = Conv<auto_pad = "SAME_UPPER">(x, w)'), "automatic padding"),
        (
            made("y = Conv(x, v)", x="float[N,8,12,6] x, float[3,8,3,3] v"),
            "weights or biases are no constants",
        ),
        (retyped(made(f"y = Conv<{SAME}>(x, w)"), onnx.TensorProto.DOUBLE), "not a float32 picture"),
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    infer_shapes(model)
    assert reason in declined(PixelsToFilters(), model)


def test_few_channels_read() -> None:
    model = build(f"y = Conv<{SAME}>(x, w)", "w 3,4,3,3", x="float[1,4,8,8] x", y="float[1,3,8,8] y")
    infer_shapes(model)
    assert "few channels are read" in declined(PixelsToFilters(), model)


def test_it_runs_in_int8(tmp_path: Path) -> None:
    model = made(f"a = Relu(x) t = Conv<{SAME}>(a, w, b) y = Tanh(t)", x="float[1,8,12,6] x")
    assert PixelsToFilters().run(model, Context())
    infer_shapes(model)
    before, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert found.float_linear == 0
    for feed in feeds_of(model):
        (real,), (got,) = run(before, feed), run(after, feed)
        assert sqnr(real, got) > 25
