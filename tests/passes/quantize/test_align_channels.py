# SPDX-License-Identifier: Apache-2.0
"""Channels of zeros beside those of depthwise convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, UsageError
from tersor.passes.quantize.align_channels import AlignChannels
from tests.support.int8 import optimised, quantised
from tests.support.prune_build import build
from tests.support.rewriting import declined, rewrite

PASS = AlignChannels(to=8)
X, Y = "float[N,4,8,8] x", "float[N,5,8,8] y"
WEIGHTS = "w 6,4,1,1; b 6; d 6,1,3,3; e 6; p 5,6,1,1; q 5"
EXPAND = "a = Conv(x, w, b) r = Relu(a) "
DEPTHWISE = "c = Conv<group = 6, pads = [1,1,1,1]>(r, d, e) "
PROJECT = "y = Conv(h, p, q)"
BLOCK = EXPAND + DEPTHWISE + "h = HardSwish(c) " + PROJECT


def made(body: str, weights: str = WEIGHTS, y: str = Y, x: str = X, constants: str = "") -> Model:
    model = build(body, weights, x=x, y=y, constants=constants)
    infer_shapes(model)
    return model


def test_text_in_text_out() -> None:
    done = rewrite(PASS, made(BLOCK))
    assert done.ops == ["Conv", "Relu", "Conv", "HardSwish", "Conv"]
    for part in ("float[8,4,1,1] w", "float[8] b", "float[8,1,3,3] d", "float[5,8,1,1] p", "group=8"):
        assert part in done.text
    assert "float[5] q" in done.text


SQUEEZE = (
    "g = GlobalAveragePool(c) s = Conv(g, f, k) t = Relu(s) u = Conv(t, l, m) z = HardSigmoid(u) "
    "h = Mul(c, z) "
)


@pytest.mark.parametrize(
    ("body", "weights", "constants"),
    [
        (EXPAND + DEPTHWISE + SQUEEZE + PROJECT, "; f 2,6,1,1; k 2; l 6,2,1,1; m 6", ""),
        (EXPAND + DEPTHWISE + "h = Sigmoid(c) " + PROJECT, "", ""),
        (EXPAND + DEPTHWISE + "h = PRelu(c, o) " + PROJECT, "; o 6,1,1", ""),
        (EXPAND + DEPTHWISE + "i = Add(c, o) h = Mul(i, v) " + PROJECT, "; o 1,6,1,1", "float v = {0.5}"),
        (EXPAND + DEPTHWISE + "h = Add(r, c) " + PROJECT, "", ""),
        (BLOCK.replace("Conv<group = 6, ", "Conv<group = 6, strides = [1,1], "), "", ""),
    ],
)
def test_blocks(body: str, weights: str, constants: str) -> None:
    assert "group=8" in rewrite(PASS, made(body, WEIGHTS + weights, constants=constants)).text


POOLED = EXPAND + "h = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r) " + PROJECT
HALF = "float[N,5,4,4] y"


def test_those_of_a_first_convolution_that_a_pool_reads() -> None:
    text = rewrite(PASS, made(POOLED, y=HALF)).text
    assert "float[8,4,1,1] w" in text
    assert "float[5,8,1,1] p" in text


def test_of_a_first_convolution_not_twice_as_many_and_of_a_later_one_none() -> None:
    few = made(POOLED, WEIGHTS.replace("6", "4"), HALF)
    assert declined(PASS, few) == {"too few channels"}
    later = made(POOLED, WEIGHTS.replace("w 6,4", "w 6,5"), HALF, "float[N,5,8,8] x")
    assert declined(PASS, later) == set()
    residual = POOLED.replace("y = Conv(h", "z = Conv<pads = [1,1,1,1]>(h, f) g = Add(h, z) y = Conv(g")
    assert declined(PASS, made(residual, WEIGHTS + "; f 6,6,3,3", HALF)) == set()


@pytest.mark.parametrize("channels", [2, 5, 7])
def test_depthwise_ones_however_few(channels: int) -> None:
    body = BLOCK.replace("group = 6", f"group = {channels}")
    assert "group=8" in rewrite(PASS, made(body, WEIGHTS.replace("6", str(channels)))).text


def test_two_layers_in_a_row() -> None:
    body = BLOCK.replace("y =", "j =") + " a2 = Conv(j, w2) c2 = Conv<group = 7>(a2, d2) y = Conv(c2, p2)"
    weights = WEIGHTS + "; w2 7,5,1,1; d2 7,1,3,3; p2 5,7,1,1"
    text = rewrite(PASS, made(body, weights, "float[N,5,6,6] y")).text
    assert "float[8,5,1,1] w2" in text
    assert "float[5,8,1,1] p2" in text


@pytest.mark.parametrize(
    ("body", "weights", "y", "reason"),
    [
        (
            EXPAND + DEPTHWISE + "k = Concat<axis = 1>(c, r) y = Conv(k, v)",
            WEIGHTS + "; v 5,12,1,1",
            Y,
            "channels stand in another order or number somewhere",
        ),
        (
            EXPAND + DEPTHWISE + "h = Exp(c) " + PROJECT,
            WEIGHTS,
            Y,
            "reads or makes them: Exp",
        ),
        (
            EXPAND + DEPTHWISE + "h = Mul(c, o) " + PROJECT,
            WEIGHTS + "; o 8,8",
            Y,
            "another operand of Mul",
        ),
    ],
)
def test_near_misses(body: str, weights: str, y: str, reason: str) -> None:
    assert declined(PASS, made(body, weights, y)) == {reason}


@pytest.mark.parametrize(
    ("body", "y"),
    [
        (EXPAND + "y = Relu(r)", "float[N,6,8,8] y"),
        (EXPAND + "y = Conv<group = 6>(r, d)", "float[N,6,6,6] y"),
        (EXPAND + "y = Conv<group = 2>(r, v)", "float[N,6,8,8] y"),
    ],
)
def test_channels_without_a_depthwise_convolution_or_that_leave(body: str, y: str) -> None:
    assert declined(PASS, made(body, WEIGHTS + "; v 6,3,1,1", y)) == set()


def test_it_makes_the_runtime_take_its_fast_kernel_with_the_same_numbers(tmp_path: Path) -> None:
    weights = "w 24,4,1,1; b 24; d 24,1,3,3; e 24; p 5,24,1,1; q 5"
    model = made(BLOCK.replace("group = 6", "group = 24"), weights)
    rewrite(AlignChannels(), model)
    _, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert found.float_linear == 0
    assert found.constant_dqs == 0
    assert found.ops["QLinearConv"] == 3


EVERY = AlignChannels(to=8, every=True)
DENSE = "a = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(a) y = Conv<pads = [1,1,1,1]>(r, p, q)"


def dense(channels: int, kernel: int = 3) -> Model:
    body = DENSE if kernel == 3 else DENSE.replace("y = Conv<pads = [1,1,1,1]>", "y = Conv")
    return made(
        body,
        f"w {channels},4,3,3; b {channels}; p 5,{channels},{kernel},{kernel}; q 5",
    )


@pytest.mark.parametrize(
    ("model", "width"),
    [
        (dense(7), 8),
        (dense(13), 16),
        (dense(12), 16),
        (dense(4, kernel=1), 8),
        (made(BLOCK.replace("group = 6", "group = 4"), WEIGHTS.replace("6", "4")), 8),
    ],
)
def test_convolutions_of_every_kind(model: Model, width: int) -> None:
    done = rewrite(EVERY, model)
    assert done.changed
    assert f"float[5,{width}," in done.text


def test_whole_groups_are_added() -> None:
    body = EXPAND + "c = Conv<group = 3, pads = [1,1,1,1]>(r, d, e) " + SQUEEZE + PROJECT
    weights = "w 12,4,1,1; b 12; d 12,4,3,3; e 12; p 5,12,1,1; q 5; f 8,12,1,1; k 8; l 12,8,1,1; m 12"
    done = rewrite(EVERY, made(body, weights))
    assert "group=4" in done.text
    for part in ("float[16,4,1,1] w", "float[16,4,3,3] d", "float[8,16,1,1] f", "float[5,16,1,1] p"):
        assert part in done.text


def test_groups_that_make_more_channels_than_they_read_are_left() -> None:
    body = EXPAND + "c = Conv<group = 3, pads = [1,1,1,1]>(r, d, e) h = Relu(c) " + PROJECT
    weights = "w 12,4,1,1; b 12; d 24,4,3,3; e 24; p 5,24,1,1; q 5"
    assert declined(EVERY, made(body, weights)) == {"channels stand in another order or number somewhere"}


def test_few_channels_of_one_pixel_are_padded_whatever_their_number() -> None:
    weights = WEIGHTS.replace("6", "8") + "; f 3,8,1,1; k 3; l 8,3,1,1; m 8"
    model = made((EXPAND + DEPTHWISE + SQUEEZE + PROJECT).replace("group = 6", "group = 8"), weights)
    text = rewrite(EVERY, model).text
    assert "float[8,8,1,1] f" in text
    assert "float[8] k" in text
    assert "float[8,8,1,1] l" in text


@pytest.mark.parametrize("model", [dense(8), dense(9), dense(4), dense(3, kernel=1)])
def test_where_more_channels_cost_more(model: Model) -> None:
    assert declined(EVERY, model) <= {"too few channels"}


@pytest.mark.parametrize(
    ("body", "weights", "x", "y"),
    [
        ("a = Conv(x, w) y = Conv(a, p)", "w 7,4,3; p 5,7,1", "float[N,4,9] x", "float[N,5,h] y"),
        ("a = Gemm(x, w) r = Relu(a) y = Gemm(r, p)", "w 4,7; p 7,5", "float[N,4] x", "float[N,5] y"),
    ],
)
def test_what_is_no_convolution_of_pictures(body: str, weights: str, x: str, y: str) -> None:
    assert declined(EVERY, made(body, weights, y, x)) == set()


def test_without_being_asked_only_depthwise_ones_are_padded() -> None:
    assert declined(PASS, dense(7)) == set()


def test_the_width_is_checked() -> None:
    with pytest.raises(UsageError, match="to must be at least 2, not 1"):
        AlignChannels(to=1)
