# SPDX-License-Identifier: Apache-2.0
"""Narrow groups of convolutions, several at a time."""

from __future__ import annotations

import onnx
import pytest

from tersor.graph_ir import Model, constant
from tersor.passes.fuse.groups import MergeGroups
from tests.support.prune_build import build
from tests.support.rewriting import declined, retyped, rewrite


def grouped(groups: int, channels: int, made: int, kernel: str = "3,3", more: str = "") -> Model:
    body = f"y = Conv<group = {groups}{more}>(x, w, b)"
    weights = f"w {groups * made},{channels},{kernel}; b {groups * made}"
    size = ",9" * (kernel.count(",") + 1)
    y = f"float[N,{groups * made}" + "".join(f",o{i}" for i in range(kernel.count(",") + 1)) + "] y"
    return build(body, weights, x=f"float[N,{groups * channels}{size}] x", y=y)


def groups_after(int8: bool, model: Model) -> tuple[int, tuple[int, ...]]:
    done = rewrite(MergeGroups(int8=int8), model, N=2)
    (conv,) = done.model.graph
    weights = constant(conv.inputs[1])
    assert done.changed
    assert weights is not None
    return conv.attributes["group"].as_int(), weights.shape


@pytest.mark.parametrize(
    ("model", "groups", "width"),
    [
        (grouped(8, 4, 4), 2, 16),
        (grouped(6, 8, 8), 3, 16),
        (grouped(24, 2, 2), 3, 16),
        (grouped(4, 8, 16, "5,1", ", strides = [2,1], dilations = [2,1]"), 2, 16),
    ],
)
def test_whole_blocks_in_float(model: Model, groups: int, width: int) -> None:
    found, shape = groups_after(False, model)
    assert (found, shape[1]) == (groups, width)


@pytest.mark.parametrize(
    ("model", "groups", "width"),
    [
        (grouped(8, 4, 4), 1, 32),
        (grouped(6, 8, 5), 1, 48),
        (grouped(13, 8, 8), 1, 104),
        (grouped(16, 8, 8), 4, 32),
        (grouped(15, 8, 8), 5, 24),
        (grouped(8, 16, 16, "1,1"), 4, 32),
        (grouped(4, 4, 4, "3"), 1, 16),
        (grouped(2, 3, 2, "2,2,2"), 1, 6),
    ],
)
def test_as_many_as_are_fast_in_int8(model: Model, groups: int, width: int) -> None:
    found, shape = groups_after(True, model)
    assert (found, shape[1]) == (groups, width)


@pytest.mark.parametrize(
    ("model", "int8", "reason"),
    [
        (grouped(1, 8, 8), False, "no groups"),
        (grouped(16, 1, 1), True, "a depthwise convolution"),
        (grouped(16, 1, 2), False, "a depthwise convolution"),
        (grouped(7, 8, 8), False, "no groups that are faster together"),
        (grouped(4, 8, 3), False, "no groups that are faster together"),
        (grouped(4, 16, 16), False, "no groups that are faster together"),
        (grouped(4, 4, 4, "3"), False, "no groups that are faster together"),
        (grouped(17, 8, 8), True, "no groups that are faster together"),
        (grouped(4, 32, 32, "1,1"), True, "no groups that are faster together"),
        (retyped(grouped(8, 4, 4), onnx.TensorProto.DOUBLE), False, "not float32"),
    ],
)
def test_near_misses(model: Model, int8: bool, reason: str) -> None:
    assert declined(MergeGroups(int8=int8), model) == {reason}


def test_weights_of_two_convolutions() -> None:
    body = "a = Conv<group = 8>(x, w) y = Conv<group = 8>(a, w)"
    model = build(body, "w 32,4,1,1", x="float[N,32,3,3] x", y="float[N,32,3,3] y")
    assert rewrite(MergeGroups(), model, N=1).text.count("group=2") == 2
