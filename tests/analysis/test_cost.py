# SPDX-License-Identifier: Apache-2.0
"""Costs against numbers worked out by hand."""

from __future__ import annotations

import pytest

from tersor.analysis.cost import CostTable, cost
from tersor.analysis.provenance import by_origin
from tersor.graph_ir import parse


def table(body: str, inputs: str, outputs: str = "float[K] y", extra: str = "") -> CostTable:
    opsets = '"" : 17, "x.y" : 1' if "x.y" in body else '"" : 17'
    return cost(
        parse(f"<ir_version: 9, opset_import: [{opsets}]>\ng ({inputs}) => ({outputs}) {extra} {{ {body} }}")
    )


@pytest.mark.parametrize(
    ("body", "inputs", "macs"),
    [
        (
            "y = Conv<pads=[1,1,1,1], group=2>(x, w)",
            "float[2,4,5,6] x, float[8,2,3,3] w",
            2 * 8 * 5 * 6 * 2 * 9,
        ),
        ("y = Conv<strides=[2]>(x, w)", "float[1,3,9] x, float[5,3,3] w", 5 * 4 * 3 * 3),
        ("y = Conv(x, w)", "float[1,2,4,4,4] x, float[3,2,1,1,1] w", 3 * 64 * 2),
        ("y = ConvTranspose<strides=[2,2]>(x, w)", "float[1,4,3,3] x, float[4,6,2,2] w", 4 * 9 * 6 * 4),
        ("y = Gemm<transA=1>(x, w)", "float[7,3] x, float[7,5] w", 3 * 5 * 7),
        ("y = MatMul(x, w)", "float[2,3,4,5] x, float[3,5,6] w", 2 * 3 * 4 * 6 * 5),
        ("y = MatMul(x, w)", "float[5] x, float[5] w", 5),
        ('y = Einsum<equation="bik,bkj->bij">(x, w)', "float[2,3,4] x, float[2,4,5] w", 2 * 3 * 4 * 5),
        (
            "y = LSTM<hidden_size=8>(x, w, r)",
            "float[6,2,3] x, float[1,32,3] w, float[1,32,8] r",
            12 * 32 * 11,
        ),
        ("y = GRU<hidden_size=8>(x, w, r)", "float[6,2,3] x, float[1,24,3] w, float[1,24,8] r", 12 * 24 * 11),
        ("y = MatMulInteger(x, w)", "uint8[3,4] x, int8[4,5] w", 60),
        ("y = Relu(x)", "float[3,4] x", 0),
    ],
)
def test_counts_multiply_accumulates(body: str, inputs: str, macs: int) -> None:
    found = table(body, inputs)
    assert found.macs == macs
    assert found.notes == ()


FUSED = [
    # Queries [2, 5, 12] of 4 heads, 7 keys of the same width, values 20 wide.
    ("MultiHeadAttention<num_heads=4>(q, k, v)", "float[2,7,20] v", 2 * 5 * 7 * (12 + 20)),
    # 3 keys from before.
    (
        "MultiHeadAttention<num_heads=4>(q, k, v, , , , p, p)",
        "float[2,7,12] v, float[2,4,3,3] p",
        2 * 5 * 10 * 24,
    ),
    ("MultiHeadAttention<num_heads=4>(q, h, h)", "float[2,4,7,3] h", 2 * 5 * 7 * 24),
    ("MultiHeadAttention<num_heads=4>(q, h)", "float[2,7,4,2,3] h", 2 * 5 * 7 * 24),
    ("MultiHeadAttention<num_heads=4>(h)", "float[2,5,4,3,3] h", 2 * 5 * 5 * 24),
    # The projections, then 5 queries with 5 keys, and with 3 from before.
    ("Attention<num_heads=4>(q, w, b)", "float[12,36] w, float[36] b", 2 * 5 * 12 * 36 + 2 * 5 * 5 * 24),
    (
        "Attention<num_heads=4, qkv_hidden_sizes=[12,12,20]>(q, w, b, , p)",
        "float[12,44] w, float[44] b, float[2,2,4,3,5] p",
        2 * 5 * 12 * 44 + 2 * 5 * 8 * 32,
    ),
    # Two heads of keys serve four of queries.
    (
        "GroupQueryAttention<num_heads=4, kv_num_heads=2>(q, g, g, , , n, n)",
        "float[2,5,6] g, int32[1] n",
        2 * 5 * 5 * 24,
    ),
    (
        "GroupQueryAttention<num_heads=2, kv_num_heads=1>(q, , , p, p, n, n)",
        "float[2,1,3,3] p, int32[1] n",
        2 * 5 * 8 * 2 * 6,
    ),
    ("MatMulIntegerToFloat(i, j, s, s)", "uint8[3,4] i, int8[4,5] j, float s", 60),
    (
        "QLinearConv<channels_last=1>(i, s, z, j, s, e, s, z)",
        "uint8[1,2,3,8] i, int8[5,8,1,1] j, float s, uint8 z, int8 e",
        2 * 3 * 8 * 5,
    ),
    ("FusedMatMul<transB=1>(q, t)", "float[6,12] t", 2 * 5 * 6 * 12),
    ("SkipLayerNormalization(q, q, c)", "float[12] c", 0),
    (
        "DynamicQuantizeLSTM<hidden_size=3>(q, w, r, , , , , , s, z, s, z)",
        "int8[1,12,12] w, int8[1,3,12] r, float[1,12] s, int8[1,12] z",
        2 * 5 * 12 * (12 + 3),
    ),
]


@pytest.mark.parametrize(("call", "more", "macs"), FUSED)
def test_operators_of_onnxruntime_are_counted(call: str, more: str, macs: int) -> None:
    found = cost(
        parse(
            f"""<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
            g (float[2,5,12] q, float[2,7,12] k, {more}) => (float[K,L,M] y) {{ y = com.microsoft.{call} }}"""
        )
    )
    assert (found.nodes[0].macs, found.nodes[0].reason) == (macs, "")


def test_attention_counts_what_is_in_the_cache() -> None:
    text = "y, a, b = Attention(q, k, k, , p, p)"
    sizes = "float[2,6,5,4] q, float[2,3,5,4] k, float[2,3,P,4] p"
    model = parse(
        f"""<ir_version: 10, opset_import: ["" : 23]>
        g ({sizes}) => (float[2,6,5,4] y, float[2,3,T,4] a, float[2,3,T,4] b) {{ {text} }}"""
    )
    found = cost(model, bindings={"P": 7, "T": 12})
    assert (found.macs, found.notes) == (2 * 6 * 5 * 12 * (4 + 4), ())


def test_unknown_operator_is_reported_and_not_guessed() -> None:
    found = table("y = x.y.Magic(x)", "float[3] x")
    assert found.nodes[0].macs is None
    assert "nothing is known of operator x.y.Magic" in found.notes[0][1]


def test_names_count_as_one_and_are_listed() -> None:
    text = "y = MatMul(x, w)"
    assert dict(table(text, "float[N,4] x, float[4,5] w").assumed) == {"N": 1}
    model = parse(
        """<ir_version: 9, opset_import: ["" : 17]>
        g (float[N,4] x, float[4,5] w) => (float[N,5] y) { y = MatMul(x, w) }"""
    )
    bound = cost(model, bindings={"N": 3})
    assert (bound.macs, dict(bound.assumed)) == (60, {})


def test_size_below_zero_asks_for_a_binding() -> None:
    found = table("y = Conv(x, w)", "float[1,2,H,9] x, float[3,2,5,5] w")
    assert found.nodes[0].macs is None
    assert found.notes[0][1].endswith("with H=1")
    assert found.uncounted == 1


def test_shared_weight_counts_once_in_the_sum() -> None:
    found = table("a = MatMul(x, w)  y = MatMul(a, w)", "float[2,4] x", extra="<float[4,4] w = {seed}>")
    assert [n.parameters for n in found.nodes] == [16, 16]
    assert (found.parameters, found.parameter_bytes) == (16, 64)
    assert found.bytes_moved == 2 * (64 + 4 * 8 * 2)


def test_peak_memory_is_the_worst_moment() -> None:
    # x lives throughout (40); at "b" the values x, a, b are alive; a dies before y.
    found = table(
        "a = Concat<axis=0>(x, x)  b = Relu(a)  y = ReduceSum<keepdims=0>(b)", "float[10] x", "float y"
    )
    assert (found.peak_activation_bytes, found.peak_node) == (40 + 80 + 80, "Relu(b)")


def test_branches_count_as_the_dearer_one() -> None:
    body = """y = If (c) <then_branch = t () => (float[A,B] p) { p = MatMul(x, w) },
                        else_branch = e () => (float[A,B] q) { q = Relu(x) }>"""
    found = table(body, "bool c, float[4,4] x, float[4,4] w")
    assert found.macs == 64


def test_function_costs_land_on_the_call() -> None:
    text = """<ir_version: 9, opset_import: ["" : 17, "f" : 1]>
    g (float[2,4] x, float[4,4] w) => (float[2,4] y) { a = f.twice(x, w)  y = f.twice(a, w) }
    <domain: "f", opset_import: ["" : 17]>
    twice (p, q) => (s) { r = MatMul(p, q)  s = MatMul(r, q) }"""
    assert [n.macs for n in cost(parse(text)).nodes] == [64, 64]


def test_nodes_of_the_file_are_their_own_origin() -> None:
    model = parse(
        '<ir_version: 9, opset_import: ["" : 17]>\ng (float[2] x) => (float[2] y) { a = Relu(x)  y = Abs(a) }'
    )
    assert {name: [n.op_type for n in nodes] for name, nodes in by_origin(model).items()} == {
        "Relu(a)": ["Relu"],
        "Abs(y)": ["Abs"],
    }
