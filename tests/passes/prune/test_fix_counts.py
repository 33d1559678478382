# SPDX-License-Identifier: Apache-2.0
"""Attributes that count groups, heads and hidden units follow a cut."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Model, VerifyError
from tests.support.prune_blocks import BLOCKS
from tests.support.prune_blocks_seq import OUT, ROWS
from tests.support.prune_build import build
from tests.support.prune_cuts import cut
from tests.support.runtime import GROUPS_QUERIES


def grouped(groups: int, ins: int, outs: int, op: str = "Conv") -> Model:
    shape = f"{outs},{ins // groups},1,1" if op == "Conv" else f"{ins},{outs // groups},1,1"
    return build(
        f"a = Conv(x, w1)  b = {op}<group = {groups}>(a, w2, b2)  y = Conv(b, w3)",
        f"w1 {ins},3,1,1; w2 {shape}; b2 {outs}; w3 4,{outs},1,1",
    )


def test_whole_groups_go() -> None:
    text = cut(
        grouped(4, 8, 12),
        {"w1:0 a:1": "11001111", "w2:0 b2:0 b:1 w3:1": "111000111111"},
    )
    assert "b = Conv<group=3>(a, w2, b2)" in text
    assert "float[9,2,1,1] w2" in text


def test_the_same_positions_of_each_group_go() -> None:
    text = cut(
        grouped(2, 8, 6),
        {"w1:0 a:1": "10111011", "w2:1": "1011", "w2:0 b2:0 b:1 w3:1": "110110"},
    )
    assert "b = Conv<group=2>(a, w2, b2)" in text
    assert "float[4,3,1,1] w2" in text


def test_equally_many_of_each_group_go() -> None:
    """Which ones may differ: columns of the weight are put in the order of the first group's."""
    text = cut(
        grouped(2, 8, 6),
        {"w1:0 a:1": "10111110", "w2:1": "1011", "w2:0 b2:0 b:1 w3:1": "110011"},
    )
    assert "b = Conv<group=2>(a, w2, b2)" in text
    assert "float[4,3,1,1] w2" in text


def test_depthwise_channels_go_with_their_outputs() -> None:
    text = cut(
        grouped(4, 4, 8),
        {"w1:0 a:1": "1010", "w2:0 b2:0 b:1 w3:1": "11001100"},
    )
    assert "b = Conv<group=2>(a, w2, b2)" in text


@pytest.mark.parametrize("opset", [9, 17])
def test_a_window_over_channels_sees_zeros_where_they_were(opset: int) -> None:
    model = build(
        """h = MatMul(x, w1)  u = Reshape(h, row)  c = Conv<pads = [1, 1]>(u, k, b)  f = Flatten(c)
        y = MatMul(f, w2)""",
        "w1 12,6; k 1,1,3; b 1; w2 6,5",
        x="float[2,12] x",
        y="float[2,5] y",
        constants="int64[3] row = {0, 1, -1}",
        opset=opset,
    )
    text = cut(model, {"w1:1 h:1 u:2 c:2 f:1 w2:0": "101101"})
    assert "Pad" in text
    assert "{0, 4, 1, 2, 4, 3}" in text
    assert "c = Gather<axis=2>" in text


def test_groups_of_a_transposed_conv() -> None:
    text = cut(
        grouped(4, 8, 12, "ConvTranspose"),
        {"w1:0 a:1 w2:0": "11001111", "b2:0 b:1 w3:1": "111000111111"},
    )
    assert "b = ConvTranspose<group=3>(a, w2, b2)" in text
    text = cut(
        grouped(2, 4, 6, "ConvTranspose"),
        {"w1:0 a:1 w2:0": "1010", "w2:1": "101", "b2:0 b:1 w3:1": "101101"},
    )
    assert "b = ConvTranspose<group=2>(a, w2, b2)" in text
    assert "float[2,2,1,1] w2" in text


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ({"w1:0 a:1": "11001111"}, "do not lose the same groups"),
        ({"w1:0 a:1": "11101111", "w2:0 b2:0 b:1 w3:1": "111000111111"}, "not cut alike"),
        ({"w1:0 a:1": "11001111", "w2:0 b2:0 b:1 w3:1": "111111000111"}, "do not lose the same groups"),
        ({"w1:0 a:1": "10101010"}, "weights are not cut as its input is"),
    ],
)
def test_groups_cut_in_no_known_way_are_refused(masks: dict[str, str], reason: str) -> None:
    with pytest.raises(VerifyError, match=rf"cannot cut channels at Conv 'Conv\(b\)': .*{reason}"):
        cut(grouped(4, 8, 12), masks, compare=False)


def test_groups_of_a_quantized_conv() -> None:
    model = build(
        """xs, s0, z0 = DynamicQuantizeLinear(x)  q = QLinearConv(xs, s0, z0, w1, s1, z1, s2, z2)
        r = QLinearConv<group = 4>(q, s2, z2, w2, s1, z1, s2, z2)
        t = QLinearConv(r, s2, z2, w3, s1, z1, s2, z2)  y = DequantizeLinear(t, s2, z2)""",
        "",
        constants="uint8[8,3,1,1] w1 = {seed}, uint8[8,2,1,1] w2 = {seed}, uint8[4,8,1,1] w3 = {seed},"
        " float s1 = {0.1}, float s2 = {0.1}, uint8 z1 = {2}, uint8 z2 = {0}",
    )
    # The zero points of what is removed are zero, so the original with those weights gone is the same.
    text = cut(model, {"w1:0 q:1 w2:0 r:1 w3:1": "11001111"}, compare=False)
    assert "QLinearConv<group=3>" in text
    assert "uint8[6,2,1,1] w2" in text


def norm(opset: int, size: int) -> Model:
    return build(
        "a = Conv(x, w1)  n = GroupNormalization<num_groups = 3>(a, gain, beta)  y = Conv(n, w2)",
        f"w1 6,3,1,1; gain {size}; beta {size}; w2 4,6,1,1",
        opset=opset,
    )


def test_groups_of_a_normalisation() -> None:
    whole = "110011"
    text = cut(norm(21, 6), {"w1:0 a:1 n:1 gain:0 beta:0 w2:1": whole})
    assert "GroupNormalization<num_groups=2>" in text
    text = cut(norm(18, 3), {"w1:0 a:1 n:1 w2:1": whole, "gain:0 beta:0": "101"})
    assert "GroupNormalization<num_groups=2>" in text
    text = cut(norm(21, 6), {"w1:0 a:1 n:1 gain:0 beta:0 w2:1": "101010"})
    assert "GroupNormalization<num_groups=3>" in text
    with pytest.raises(VerifyError, match="not cut alike"):
        cut(norm(21, 6), {"w1:0 a:1 n:1 gain:0 beta:0 w2:1": "100011"}, compare=False)


def test_hidden_units_of_a_recurrent_layer() -> None:
    model = build(
        """, z = GRU<hidden_size = 4, linear_before_reset = 1>(x, w, r, b)  s = Squeeze(z, zero)
        y = Gemm(s, wo)""",
        "w 1,12,6; r 1,12,4; b 1,24; wo 4,5",
        x="float[3,2,6] x",
        y="float[2,5] y",
        constants="int64[1] zero = {0}",
    )
    unit = "1011"
    text = cut(model, {"r:2 z:2 s:1 wo:0": unit, "w:1 r:1": unit * 3, "b:1": unit * 6})
    assert "GRU<hidden_size=3, linear_before_reset=1>" in text


HEADS = "111000111111"


def test_heads_of_multi_head_attention() -> None:
    text = cut(
        BLOCKS["multi head attention"](),
        {"wq:1 q:2 wk:1 k:2 wv:1 v:2 a:2 wo:0": HEADS, "b:0": HEADS * 3},
    )
    assert "MultiHeadAttention<num_heads=3>" in text
    assert "scale" not in text


def test_narrower_heads_keep_their_scale() -> None:
    text = cut(
        BLOCKS["multi head attention"](),
        {"wq:1 q:2 wk:1 k:2": "110" * 4, "b:0": "110" * 8 + "1" * 12},
    )
    assert "MultiHeadAttention<num_heads=4, scale=0.57735" in text


def test_heads_of_attention() -> None:
    def model() -> Model:
        return build(
            """q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
            a = Attention<q_num_heads = 4, kv_num_heads = 2>(q, k, v)  y = MatMul(a, wo)""",
            "wq 12,12; wk 12,6; wv 12,6; wo 12,6",
            x=ROWS,
            y=OUT,
            opset=23,
        )

    masks = {"wq:1 q:2 wo:0 a:2": "000000111111", "wk:1 k:2 wv:1 v:2": "000111"}
    text = cut(model(), masks, compare=GROUPS_QUERIES)
    assert "Attention<kv_num_heads=1, q_num_heads=2>" in text
    with pytest.raises(VerifyError, match="heads of queries and keys are not cut alike"):
        cut(model(), {"wq:1 q:2 wo:0 a:2": "000000111111"}, compare=False)
    with pytest.raises(VerifyError, match="'v' does not lose the same heads"):
        cut(model(), {"wq:1 q:2 wo:0 a:2": "000000111111", "wk:1 k:2": "000111"}, compare=False)


def packed(attributes: str = "", width: int = 36) -> Model:
    return build(
        f"a = com.microsoft.Attention<num_heads = 4{attributes}>(x, w, b)  y = MatMul(a, wo)",
        f"w 12,{width}; b {width}; wo 12,6",
        x=ROWS,
        y=OUT,
        constants="float[2,5,12] a",
    )


def test_heads_of_packed_attention() -> None:
    text = cut(packed(), {"w:1 b:0": HEADS * 3, "a:2 wo:0": HEADS})
    assert "Attention<num_heads=3>" in text
    uneven = "000011111111"
    text = cut(
        packed(", qkv_hidden_sizes = [8, 8, 12]", 28),
        {"w:1 b:0": "00111111" * 2 + "000111111111", "a:2 wo:0": "000111111111"},
    )
    assert "Attention<num_heads=3, qkv_hidden_sizes=[6, 6, 9]>" in text
    with pytest.raises(VerifyError, match="not cut alike"):
        cut(packed(), {"w:1 b:0": uneven * 3, "a:2 wo:0": uneven}, compare=False)
