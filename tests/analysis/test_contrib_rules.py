# SPDX-License-Identifier: Apache-2.0
"""Shapes of onnxruntime's own operators are those it computes."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, from_proto, to_proto
from tersor.graph_ir.ops import static_shape
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_build import build

ROWS, IMAGE = "float[2,5,12] x", "float[2,3,8,8] x"
PIXELS = "QLinearConv<channels_last = 1>(x, scale, zero, pixels, scale, none, scale, zero)"
CASES = {
    "Gelu": ("Gelu(x)", "", ROWS),
    "QuickGelu": ("QuickGelu(x)", "", ROWS),
    "FastGelu": ("FastGelu(x, b)", "b 12", ROWS),
    "BiasGelu": ("BiasGelu(x, b)", "b 12", ROWS),
    "FusedConv": ('FusedConv<activation = "Relu", strides = [2, 2]>(x, w)', "w 4,3,3,3", IMAGE),
    "FusedGemm": ('FusedGemm<activation = "Relu", transB = 1>(x, w)', "w 5,12", "float[7,12] x"),
    "FusedMatMul": ("FusedMatMul<transB = 1>(x, w)", "w 7,12", ROWS),
    "FusedMatMul of stacks": ("FusedMatMul<transA = 1>(x, w)", "w 2,5,7", ROWS),
    "MatMulIntegerToFloat": (
        "MatMulIntegerToFloat(x, codes, scale, scale, , , b)",
        "b 7",
        "uint8[2,5,12] x",
    ),
    "MultiHeadAttention": ("MultiHeadAttention<num_heads = 3>(x, k, v)", "k 2,4,12; v 2,4,6", ROWS),
    "MultiHeadAttention by head": (
        "MultiHeadAttention<num_heads = 3>(x, k, v)",
        "k 2,3,7,4; v 2,3,7,4",
        ROWS,
    ),
    "DynamicQuantizeLSTM": (
        "DynamicQuantizeLSTM<hidden_size = 4>(x, gates, back, , , , , , steps, nil, steps, nil)",
        "steps 1,16",
        "float[5,2,3] x",
    ),
    "EmbedLayerNormalization": (
        "EmbedLayerNormalization(x, , words, places, , gain, e)",
        "words 6,12; places 9,12; gain 12; e 12",
        "int32[2,5] x",
    ),
    "GroupQueryAttention": (
        "GroupQueryAttention<num_heads = 6, kv_num_heads = 3>(x, k, v, , , seq, total)",
        "k 2,5,24; v 2,5,24",
        "float[2,5,48] x",
    ),
    "GroupQueryAttention, packed": (
        "GroupQueryAttention<num_heads = 2, kv_num_heads = 1>(x, , , , , seq, total)",
        "",
        "float[2,5,32] x",
    ),
    "QLinearConv": (
        "QLinearConv<strides = [2, 2]>(x, scale, zero, filters, scale, none, scale, zero)",
        "",
        "uint8[2,3,9,7] x",
    ),
    "QLinearConv, channels last": (PIXELS, "", "uint8[2,9,7,3] x"),
    "RotaryEmbedding": ("RotaryEmbedding<num_heads = 3>(x, place, c, s)", "c 5,2; s 5,2", ROWS),
    "Attention": ("Attention<num_heads = 3>(x, w, b)", "w 12,27; b 27", ROWS),
    "SkipLayerNormalization": ("SkipLayerNormalization(x, x, g)", "g 12", ROWS),
}


def inferred(call: str, weights: str, x: str) -> Model:
    lengths = "int32[2] seq = {4, 4}, int32 total = {5}, int64[1] place = {0}"
    lengths += f", float scale = {{0.5}}, int8[12,7] codes = {{{', '.join('3' * 84)}}}"
    lengths += f", int8[4,3,3,3] filters = {{{', '.join('3' * 108)}}}, uint8 zero = {{7}}, int8 none = {{0}}"
    lengths += f", int8[4,3,1,1] pixels = {{{', '.join('3' * 12)}}}"
    lengths += f", int8[1,3,16] gates = {{{', '.join('3' * 48)}}}"
    lengths += f", int8[1,4,16] back = {{{', '.join('3' * 64)}}}"
    lengths += f", int8[1,16] nil = {{{', '.join('0' * 16)}}}"
    wanted = {"GroupQueryAttention": "h, keys, values", "EmbedLayerNormalization": "h, lengths"}
    outputs = next((o for op, o in wanted.items() if call.startswith(op)), "h")  # onnxruntime takes no fewer
    last = "DequantizeLinear(h, scale, zero)" if call.startswith("QLinear") else "Relu(h)"
    body = f"{outputs} = com.microsoft.{call}  y = {last}"
    made = build(body, weights, x=x, y="float y", constants=lengths)
    proto = to_proto(made)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = from_proto(proto)
    infer_shapes(model)
    return model


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_those_of_the_runtime(name: str) -> None:
    model = inferred(*CASES[name])
    first = next(iter(model.graph))
    computed = run_onnxruntime(model, feeds_for(model))
    assert computed is not None
    assert static_shape(first.outputs[0]) == computed[0].shape


@pytest.mark.parametrize(
    "case",
    [
        ("Attention<num_heads = 3>(x, w, b)", "w 12,28; b 28", ROWS),
        ("MultiHeadAttention<num_heads = 3>(x, k)", "k 2,5,12", ROWS),
        ("GroupQueryAttention<num_heads = 3>(x)", "", ROWS),
        ("FusedMatMul<transBatchA = 1>(x, w)", "w 5,12,7", ROWS),
        ("FusedMatMul(x, w)", "w 1,12,7", ROWS),
        (PIXELS.replace("pixels", "filters"), "", "uint8[2,9,7,3] x"),
        (PIXELS.replace("= 1>", "= 1, strides = [2, 2]>"), "", "uint8[2,9,7,3] x"),
        (PIXELS.replace("= 1>", "= 1, pads = [0, 1, 0, 1]>"), "", "uint8[2,9,7,3] x"),
        ("NotAnOperator(x)", "", ROWS),
    ],
    ids=lambda case: case[0],
)
def test_what_is_not_known_stays_open(case: tuple[str, str, str]) -> None:
    (first, _) = inferred(*case).graph
    assert first.outputs[0].shape is None
