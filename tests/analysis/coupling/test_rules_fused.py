# SPDX-License-Identifier: Apache-2.0
"""Coupling of operators that are whole layers: attention, recurrent networks, quantization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks
from tests.support.coupled import cut, dense, places, reason, sizes
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_build import build

FUSED = "a = com.microsoft.MultiHeadAttention<num_heads = 4>"
THREE = "q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)"
WEIGHTS = "wq 12,12; wk 12,12; wv 12,12; wo 12,6"


def attend(body: str, weights: str = WEIGHTS, *, declared: str = "float[2,5,12] a", opset: int = 17) -> Model:
    """Three projections, attention `a`, a product with `wo`; onnx cannot infer com.microsoft's operators."""
    return build(
        f"{THREE}  {body}  y = MatMul(a, wo)",
        weights,
        x="float[2,5,12] x",
        y="float[2,5,6] y",
        constants=declared,
        opset=opset,
    )


def test_heads_of_queries_keys_values_and_bias_go_together() -> None:
    model = attend(f"{FUSED}(q, k, v, b)", f"{WEIGHTS}; b 36")
    assert cut(model) == {"q:2": 4}
    assert places(model, "q:2") == [
        "a:2*3",
        "b:0*9",
        "k:2*3",
        "q:2*3",
        "v:2*3",
        "wk:1*3",
        "wo:0*3",
        "wq:1*3",
        "wv:1*3",
    ]


def test_values_may_be_wider_than_keys() -> None:
    model = attend(
        f"{FUSED}(q, k, v, b)",
        "wq 12,12; wk 12,12; wv 12,20; wo 20,6; b 44",
        declared="float[2,5,20] a",
    )
    assert sizes(couple(model)) == {"q:2": 4}
    (bias,) = [a for a in couple(model).group("q:2").axes if a.value.name == "b"]
    rows = [i for i in range(4) for _ in range(3)]
    assert bias.atom_of.tolist() == [*rows, *rows, *(i for i in range(4) for _ in range(5))]


def test_a_mask_for_each_head_goes_with_it() -> None:
    model = attend(f"{FUSED}(q, k, v, , , m)", f"{WEIGHTS}; m 1,4,5,5")
    assert "m:1" in places(model, "q:2")
    shared = attend(f"{FUSED}(q, k, v, , , m)", f"{WEIGHTS}; m 1,1,5,5")
    assert not any(place.startswith("m:") for place in places(shared, "q:2"))


def test_heads_that_do_not_divide_are_pinned() -> None:
    model = attend("a = com.microsoft.MultiHeadAttention<num_heads = 5>(q, k, v)")
    assert "do not divide" in reason(model, "q")


def test_attention_with_its_projections_inside() -> None:
    def model(attribute: str, wide: int, out: int) -> Model:
        return build(
            f"""h = MatMul(x, w0)  a = com.microsoft.Attention<num_heads = 4{attribute}>(h, w, b)
            y = MatMul(a, wo)""",
            f"w0 7,12; w 12,{wide}; b {wide}; wo {out},6",
            x="float[2,5,7] x",
            y="float[2,5,6] y",
            constants=f"float[2,5,{out}] a",
        )

    assert sizes(couple(model("", 36, 12))) == {"h:2": 12, "a:2": 4}
    uneven = model(", qkv_hidden_sizes = [12, 12, 20]", 44, 20)
    assert sizes(couple(uneven)) == {"h:2": 12, "a:2": 4}
    assert places(uneven, "a:2") == ["a:2*5", "b:0*11", "w:1*11", "wo:0*5"]
    assert "does not fit its heads" in reason(model(", qkv_hidden_sizes = [12, 12, 24]", 44, 20), "h")


ROWS = "q_num_heads = 4, kv_num_heads = {}"
APART = """r = Reshape(q, split)  s = Reshape(k, split)  t = Reshape(v, split)
    q4 = Transpose<perm = [0, 2, 1, 3]>(r)  k4 = Transpose<perm = [0, 2, 1, 3]>(s)
    v4 = Transpose<perm = [0, 2, 1, 3]>(t)  a4 = Attention(q4, k4, v4)
    a0 = Transpose<perm = [0, 2, 1, 3]>(a4)  a = Reshape(a0, join)"""


def test_standard_attention_loses_whole_heads() -> None:
    model = attend(f"a = Attention<{ROWS.format(4)}>(q, k, v)", opset=23)
    assert sizes(couple(model)) == {"q:2": 4}
    apart = attend(APART, declared="int64[4] split = {2, 5, 4, 3}, int64[3] join = {2, 5, 12}", opset=23)
    assert sizes(couple(apart)) == {"q:2": 4}


def test_a_single_head_of_keys_serves_what_heads_of_queries_stay() -> None:
    model = attend(
        f"a = Attention<{ROWS.format(1)}>(q, k, v)", "wq 12,12; wk 12,3; wv 12,3; wo 12,6", opset=23
    )
    assert sizes(couple(model)) == {"q:2": 4}
    assert places(model, "q:2") == ["a:2*3", "q:2*3", "wo:0*3", "wq:1*3"]


def test_a_head_of_keys_goes_with_all_heads_of_queries_that_share_it() -> None:
    weights = "wq 12,12; wk 12,6; wv 12,6; wo 12,6"
    model = attend(f"a = Attention<{ROWS.format(2)}>(q, k, v)", weights, opset=23)
    assert sizes(couple(model)) == {"q:2": 2}
    assert places(model, "q:2") == [
        "a:2*6",
        "k:2*3",
        "q:2*6",
        "v:2*3",
        "wk:1*3",
        "wo:0*6",
        "wq:1*6",
        "wv:1*3",
    ]


def test_with_a_head_axis_widths_can_be_cut() -> None:
    """One head for each of two samples' rows: keys and values are [2, 1, 5, 12]."""
    model = attend(
        """q4 = Unsqueeze(q, one)  k4 = Unsqueeze(k, one)  v4 = Unsqueeze(v, one)
        a4 = Attention<scale = 0.25>(q4, k4, v4)  a = Squeeze(a4, one)""",
        declared="int64[1] one = {1}",
        opset=23,
    )
    assert sizes(couple(model)) == {"q:2": 12, "v:2": 12}
    assert places(model, "q:2") == ["k4:3", "k:2", "q4:3", "q:2", "wk:1", "wq:1"]


def recurrent(op: str, gates: int, *, hidden: int = 6, attributes: str = "", inputs: str = "") -> Model:
    return build(
        f"""a = MatMul(x, w1)  h, last = {op}<hidden_size = {hidden}{attributes}>(a, w, r, b{inputs})
        s = Squeeze(h, one)  y = MatMul(s, w2)""",
        f"w1 4,7; w 1,{6 * gates},7; r 1,{6 * gates},6; b 1,{12 * gates}; w2 6,3; c 1,2,6; p 1,18",
        x="float[5,2,4] x",
        y="float[5,2,3] y",
        constants="int64[1] one = {1}, int32[2] lengths = {5, 3}",
    )


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_hidden_units_go_with_their_gates(op: str, gates: int) -> None:
    model = recurrent(op, gates)
    assert cut(model) == {"a:2": 7, "h:3": 6}
    rows = "" if gates == 1 else f"*{gates}"
    expected = [
        f"b:1*{2 * gates}",
        "h:3",
        f"r:1{rows}",
        "r:2",
        "s:2",
        f"w:1{rows}",
        "w2:0",
    ]
    assert places(model, "h:3") == sorted(expected)
    group = couple(model).group("h:3")
    assert [n.op_type for n in group.producers] == [op]
    assert [n.op_type for n in group.consumers] == [op, "MatMul"]


def test_states_and_peepholes_go_with_the_hidden_units() -> None:
    model = recurrent("LSTM", 4, inputs=", lengths, c, c, p")
    assert {"c:2", "p:1*3"} <= set(places(model, "h:3"))
    assert cut(model) == {"a:2": 7, "h:3": 6}


def test_a_hidden_size_that_does_not_fit_is_pinned() -> None:
    assert "do not fit its hidden size" in reason(recurrent("GRU", 3, hidden=5), "a")


def test_scales_go_with_the_axis_they_are_for() -> None:
    model = dense(
        "b = QuantizeLinear<axis = -1>(a, gain, z)  r = DequantizeLinear<axis = 2>(b, gain, z)",
        "gain 12",
        constants="int8[12] z = {seed}",
    )
    assert cut(model) == {"a:2": 12}
    assert {"gain:0", "z:0"} <= set(places(model, "a:2"))


def test_one_scale_for_all_ties_nothing() -> None:
    model = dense("b = QuantizeLinear(a, s)  r = DequantizeLinear(b, s)", constants="float s = {0.05}")
    assert cut(model) == {"a:2": 12}


def test_blocks_of_scales_pin_their_axis() -> None:
    blocked = "r = DequantizeLinear<axis = {}, block_size = {}>(b, s)"
    model = dense(f"b = Cast<to = 3>(a)  {blocked.format(2, 4)}", "s 2,5,3", opset=21)
    assert "quantized in blocks" in reason(model, "a")
    other = dense(f"b = Cast<to = 3>(a)  {blocked.format(1, 5)}", "s 2,1,12", opset=21)
    assert sizes(couple(other)) == {"a:2": 12}
    assert "s:2" in places(other, "a:2")


def test_dynamic_quantization_carries_channels() -> None:
    model = dense("b, s, z = DynamicQuantizeLinear(a)  r = DequantizeLinear(b, s, z)")
    assert sizes(couple(model)) == {"a:2": 12}


def test_integer_products() -> None:
    model = dense(
        """b, s, z = DynamicQuantizeLinear(a)  c = MatMulInteger(b, m, z, mz)  d = Cast<to = 1>(c)
        r = Mul(d, s)""",
        constants="uint8[12,20] m = {seed}, uint8[20] mz = {seed}",
        w2="20,6",
    )
    assert sizes(couple(model)) == {"a:2": 12, "c:2": 20}
    assert places(model, "c:2") == ["c:2", "d:2", "m:1", "mz:0", "r:2", "w2:0"]


def test_a_norm_of_embeddings_is_cut_as_its_parts_are() -> None:
    tables, x, y = "words 9,12; places 7,12; gain 12; e 12; w2 12,6", "int32[2,5] x", "float[2,5,6] y"
    names = (
        "r, lengths = com.microsoft.EmbedLayerNormalization<epsilon = 0.001>(x, , words, places, , gain, e)"
    )
    parts = "a = Gather(words, x)  b = Add(a, first)  r = LayerNormalization<epsilon = 0.001>(b, gain, e)"
    rows = "int64[1] none = {0}, int64[1] five = {5}"
    fused = build(f"{names}  y = MatMul(r, w2)", tables, x=x, y=y)
    apart = build(
        f"first = Slice(places, none, five)  {parts}  y = MatMul(r, w2)", tables, x=x, y=y, constants=rows
    )
    assert places(fused, "r:2") == ["e:0", "gain:0", "places:1", "r:2", "w2:0", "words:1"]
    assert [n.op_type for n in couple(fused).group("r:2").normalised] == ["EmbedLayerNormalization"]
    feeds = feeds_for(fused)
    found: list[Sequence[NDArray[np.float32]] | None] = []
    for model in (fused, apart):
        (group,) = couple(model).groups
        apply_masks(model, couple(model).masks({group.name: np.arange(12) % 3 != 1}), Context())
        found.append(run_onnxruntime(model, feeds))
    assert found[0] is not None
    assert found[1] is not None
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
