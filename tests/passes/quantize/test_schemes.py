# SPDX-License-Identifier: Apache-2.0
"""Grids other runtimes ask for: one scale for each weight, activations with the same range on both sides."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tersor.passes.quantize.insert_qdq import InsertQdq
from tests.support.int8 import feeds_of, graph, optimised, quantised, ranges_of, run, sqnr

PER_TENSOR = InsertQdq(float_stem=False, per_tensor=True)
SYMMETRIC = InsertQdq(float_stem=False, symmetric=True)
BOTH = InsertQdq(float_stem=False, per_tensor=True, symmetric=True, mse_weights=True)
WEIGHTS = (
    "float[16,16,3,3] w = {seed}, float[16] b = {seed}, float[16,3,3,3] s = {seed}, "
    "float[10,16,3,3] h = {seed}, float[16,24] m = {seed}, float[24] n = {seed}, "
    "float[24,16] g = {seed}, float[16] k = {seed}, float[16,24] turned = {seed}"
)
CONV = "Conv<pads=[1,1,1,1]>"
NETS = {
    "a residual": (f"t = {CONV}(x, w, b) r = Relu(t) u = Add(r, x) y = {CONV}(u, w, b)", "1,16,12,12"),
    "a picture and few filters": (f"t = {CONV}(x, s, b) y = {CONV}(t, h)", "2,3,12,12"),
    "a gate": (f"t = {CONV}(x, w, b) a = HardSwish(t) y = {CONV}(a, w)", "1,16,12,12"),
    "rows that end in codes": (
        "p = MatMul(x, m) t = Add(p, n) r = Relu(t) q = MatMul(r, g) y = Add(q, k)",
        "2,9,16",
    ),
    "rows": ("p = MatMul(x, m) y = Add(p, n)", "4,9,16"),
    "matrices": ("t = Gemm(x, m, n) y = Gemm<transB=1>(t, turned, k)", "9,16"),
    "a clamped matrix": ("t = Gemm<transB=1>(x, g, n) r = Relu(t) y = Neg(r)", "9,16"),
}


def constants(proto: onnx.ModelProto) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    return {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}


def weight_scales(proto: onnx.ModelProto) -> list[int]:
    """How many scales the codes of each weight have."""
    found, arrays = list[int](), constants(proto)
    for node in proto.graph.node:
        for codes, scale in pairwise(node.input):
            if codes in arrays and arrays[codes].dtype == np.int8 and arrays[codes].ndim > 1:
                # MatMulIntegerToFloat: A, B, scale of A, scale of B; others have the scale behind the codes.
                name = node.input[3] if node.op_type == "MatMulIntegerToFloat" else scale
                found.append(arrays[name].size)
    return found


@pytest.mark.parametrize("options", [PER_TENSOR, SYMMETRIC, BOTH], ids=["per tensor", "symmetric", "both"])
@pytest.mark.parametrize("name", NETS)
def test_runs_on_int8_kernels_and_stays_close(name: str, options: InsertQdq, tmp_path: Path) -> None:
    body, x = NETS[name]
    model = graph(body, WEIGHTS, x=x, opset=20)
    feed = feeds_of(model)[0]
    before, after, _ = quantised(model, options)
    found = optimised(after, tmp_path)
    assert found.float_linear == found.constant_dqs == 0, found.ops
    want = run(before, feed, off=True)[0]
    assert sqnr(want, run(after, feed)[0]) > 27
    assert sqnr(want, run(after, feed, off=True)[0]) > 27
    one_each = set(weight_scales(after)) == {1}
    assert one_each == options.per_tensor


@pytest.mark.parametrize("name", NETS)
def test_symmetric_ranges_have_their_zero_in_the_middle(name: str) -> None:
    body, x = NETS[name]
    model = graph(body, WEIGHTS, x=x, opset=20)
    spans = ranges_of(model, feeds_of(model))
    _, after, _ = quantised(model, SYMMETRIC, spans=spans)
    arrays = constants(after)
    quantizers = [node for node in after.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    for node in quantizers:
        zero, scale = arrays[node.input[2]], float(arrays[node.input[1]].reshape(-1)[0])
        assert set(zero.reshape(-1).tolist()) <= {0, 128}
        if node.input[0] in spans and zero.reshape(-1)[0] == 128:
            span = spans[node.input[0]]
            assert scale == pytest.approx(max(-span.lo, span.hi) / 127, rel=1e-6)


def test_one_scale_is_that_of_the_largest_weight() -> None:
    body, x = NETS["matrices"]
    _, after, _ = quantised(graph(body, WEIGHTS, x=x), PER_TENSOR)
    arrays = constants(after)
    model = graph(body, WEIGHTS, x=x)
    weight = model.graph.initializers["m"].const_value
    assert weight is not None
    assert float(arrays["m_scale"]) == pytest.approx(float(np.abs(weight.numpy()).max()) / 127, rel=1e-6)
    assert int(np.abs(arrays["m_quantized"].astype(np.int32)).max()) == 127
