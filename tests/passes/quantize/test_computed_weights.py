# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose weights are computed: int8 with a bias or without, and float where they are kept so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.graph_ir import Model
from tersor.passes.quantize.insert_qdq import InsertQdq
from tests.support.int8 import Span, feeds_of, graph, optimised, quantised, ranges_of, run, sqnr

_WEIGHTS = "float[16,16,3,3] w = {seed}, float[16,16,3,3] v = {seed}, int64[4] s = {16, 1, 3, 3}"
_BIAS = ", float[16] b = {0.5, -1, 2, 0, 1, 1, -3, 4, 0, 0, 1, 2, 3, -1, -2, 0.25}"


def correlation(operands: str = "t, k", more: str = "") -> Model:
    """Two convolutions round one of a pooled picture over the picture itself."""
    pooled = "m = MaxPool<kernel_shape=[4,4], strides=[4,4]>(t) k = Reshape(m, s)"
    ends = "r = Relu(u) y = Conv<pads=[1,1,1,1]>(r, v)"
    body = f"t = Conv<pads=[1,1,1,1]>(x, w) {pooled} u = Conv<group=16>({operands}) {ends}"
    return graph(body, _WEIGHTS + more)


@pytest.mark.parametrize("model", [correlation(), correlation("t, k, b", _BIAS)])
def test_they_run_in_int8(model: Model, tmp_path: Path) -> None:
    before, after, ctx = quantised(model, InsertQdq(float_stem=False))
    found = optimised(after, tmp_path)
    assert found.ops["QLinearConv"] == 3
    assert found.ops["Relu"] == found.constant_dqs == 0
    assert [d.int8 for d in ctx.facts["quant-plan"]] == [True] * 3
    feed = feeds_of(model)[0]
    want, got = run(before, feed)[0], run(after, feed)[0]
    assert sqnr(want, got) > 25
    assert sqnr(run(after, feed, off=True)[0], got) > 35


@pytest.mark.parametrize("model", [correlation(), correlation("t, k, b", _BIAS)])
def test_excluded_they_stay_float(model: Model, tmp_path: Path) -> None:
    """The runtime would make codes of a constant bias by itself, and an int8 kernel of the rest."""
    _, after, ctx = quantised(model, InsertQdq(float_stem=False, exclude=("Conv(u)",)))
    found = optimised(after, tmp_path)
    assert found.ops["QLinearConv"] == 2
    assert found.float_linear == 1
    assert [d.int8 for d in ctx.facts["quant-plan"]] == [True, False, True]


def test_a_bias_beyond_the_sum_keeps_it_float(tmp_path: Path) -> None:
    """In steps of both grids' product it does not fit 32 bits, and the runtime clamps what it makes of it."""
    model = correlation("t, k, b", _BIAS)
    spans = ranges_of(model, feeds_of(model)) | {"t": Span(-1e-6, 1e-6)}
    _, after, ctx = quantised(model, InsertQdq(float_stem=False), spans=spans)
    assert [d.reason[:22] for d in ctx.facts["quant-plan"]] == ["", "its bias is not finite", ""]
    assert optimised(after, tmp_path).float_linear == 1


def test_a_product_of_computed_weights_and_a_bias_stays_float(tmp_path: Path) -> None:
    """The runtime would make a QGemm of it, whatever the plan says."""
    weights = "float[24,20] a = {seed}, float[16,8] w = {seed}, float[16] b = {seed}, float[16,20] c = {seed}"
    body = "t = MatMul(x, a) k = Transpose<perm=[1,0]>(t) z = MatMul(k, w) u = Gemm(t, k, b) v = MatMul(u, c)"
    model = graph(f"{body} y = MatMul(v, z)", weights, x="16,24")
    _, after, ctx = quantised(model, InsertQdq(float_stem=False, float_tail=False))
    assert [d.int8 for d in ctx.facts["quant-plan"]] == [True, True, False, True, False]
    assert optimised(after, tmp_path).float_linear == 2
