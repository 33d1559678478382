# SPDX-License-Identifier: Apache-2.0
"""Channels and filters of zeros, where so few miss the runtime's fast int8 kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, from_proto
from tersor.passes.quantize import emit
from tests.support.int8 import feeds_of, graph, optimised, quantised, run, sqnr

NEXT = "float[16,{0},1,1] v = {{seed}}"
CONV = "t = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(t) y = Conv(r, v)"
ONE = "t = Conv(x, w, b) r = Relu(t) y = Conv(r, v)"


def made(filters: int, kernel: int, channels: int = 8, pixels: str = "12,12") -> Model:
    weights = f"float[{filters},{channels},{kernel},{kernel}] w = {{seed}}, float[{filters}] b = {{seed}}, "
    body = CONV if kernel == 3 else ONE
    return graph(body, weights + NEXT.format(filters), x=f"1,{channels},{pixels}")


@pytest.mark.parametrize(
    ("model", "widths"),
    [
        (made(4, 3), (16, 16)),
        (made(13, 3), (16, 16)),
        (made(27, 3), (28, 16)),
        (made(21, 1), (24, 16)),
        (made(4, 3, pixels="n,m"), (16, 16)),
    ],
)
def test_filters_are_added_and_their_channels_cut(
    model: Model, widths: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, _ = quantised(model)
    assert _filters(after) == widths
    found = optimised(after, tmp_path)
    assert (found.float_linear, found.constant_dqs, found.ops["Slice"]) == (0, 0, 1)
    monkeypatch.setattr(emit, "_FEWEST", 1)
    monkeypatch.setattr(emit, "_FOURS", 1)
    _, plain, _ = quantised(_ready(before))
    assert _filters(plain)[0] < widths[0]
    for feed in feeds_of(model):
        (want,), (got,), (real,) = run(plain, feed, off=True), run(after, feed, off=True), run(before, feed)
        np.testing.assert_array_equal(got, want)
        assert sqnr(real, got) > 25


@pytest.mark.parametrize(
    "model",
    [
        made(16, 3),
        made(20, 3),
        made(4, 1),
        made(21, 1, pixels="n,m"),
        made(4, 3, pixels="7,7"),
        made(4, 3, channels=6),
        graph(
            "t = Conv<group = 2>(x, w) y = Conv(t, v)",
            "float[6,4,3,3] w = {seed}, float[16,6,1,1] v = {seed}",
            x="1,8,12,12",
        ),
        graph(
            "t = Conv(x, w) y = Conv(t, v)",
            "float[6,8,3] w = {seed}, float[16,6,1] v = {seed}",
            x="1,8,99",
        ),
    ],
)
def test_filters_stay_as_they_are(model: Model) -> None:
    _, after, _ = quantised(model)
    assert "Slice" not in {node.op_type for node in after.graph.node}


STEM = "t = Conv<strides = [2,2], pads = [1,1,1,1]>({0}, w, b) r = Relu(t) y = Conv(r, v)"
TURNED = "p = Transpose<perm = [0,3,1,2]>(x) "


def stem(channels: int, x: str, turned: bool = False, kernel: int = 3) -> Model:
    weights = f"float[16,{channels},{kernel},{kernel}] w = {{seed}}, float[16] b = {{seed}}, "
    body = TURNED + STEM.format("p") if turned else STEM.format("x")
    return graph(body, weights + NEXT.format(16), x=x)


@pytest.mark.parametrize(
    ("model", "ops"),
    [
        (stem(1, "n,1,16,16"), {"Pad": 1, "Reshape": 0}),
        (stem(2, "1,2,16,h"), {"Pad": 1, "Reshape": 0}),
        (stem(3, "n,16,14,3", turned=True), {"Pad": 1, "Reshape": 2, "Shape": 0}),
        (stem(3, "n,h,14,3", turned=True), {"Pad": 1, "Reshape": 2, "Shape": 0}),
        (stem(1, "n,h,w,1", turned=True), {"Pad": 1, "Reshape": 2, "Shape": 1}),
        (stem(1, "n,1,16,16", kernel=1), {"Pad": 0}),
        (stem(4, "n,4,16,16"), {"Pad": 0}),
    ],
)
def test_pictures_get_four_channels(model: Model, ops: dict[str, int], tmp_path: Path) -> None:
    before, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert {op: found.ops[op] for op in ops} == ops
    assert (found.float_linear, found.ops["QLinearConv"]) == (0, 2)
    for feed in feeds_of(_ready(before)):
        assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 20


def _ready(proto: onnx.ModelProto) -> Model:
    model = from_proto(proto)
    infer_shapes(model)
    return model


def _filters(proto: onnx.ModelProto) -> tuple[int, ...]:
    codes = [
        i.dims[0] for i in proto.graph.initializer if i.data_type == TensorProto.INT8 and len(i.dims) == 4
    ]
    return tuple(codes)
