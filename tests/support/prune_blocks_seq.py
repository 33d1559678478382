# SPDX-License-Identifier: Apache-2.0
"""Small networks over sequences, one for each topology that a channel pruner must cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tersor.graph_ir import Model, from_proto
from tests.support.prune_build import Maker, build

ROWS = "float[2,5,12] x"
OUT = "float[2,5,6] y"


def _attention() -> Model:
    """Heads decomposed; keys transposed in one step with the split into heads."""
    return build(
        """q0 = MatMul(x, wq)  q1 = Add(q0, bq)  q2 = Reshape(q1, split)
        q = Transpose<perm = [0, 2, 1, 3]>(q2)
        k0 = MatMul(x, wk)  k1 = Add(bk, k0)  k2 = Reshape(k1, split)  k = Transpose<perm = [0, 2, 3, 1]>(k2)
        v0 = MatMul(x, wv)  v1 = Add(v0, bv)  v2 = Reshape(v1, split)  v = Transpose<perm = [0, 2, 1, 3]>(v2)
        s = MatMul(q, k)  t = Div(s, scale)  p = Softmax<axis = -1>(t)  o = MatMul(p, v)
        m = Transpose<perm = [0, 2, 1, 3]>(o)  j = Reshape(m, join)  y = MatMul(j, wo)""",
        "wq 12,12; bq 12; wk 12,12; bk 12; wv 12,12; bv 12; wo 12,6",
        x=ROWS,
        y=OUT,
        constants="int64[4] split = {0, 0, 4, 3}, int64[3] join = {0, 0, 12}, float scale = {1.75}",
    )


def _attention_residual() -> Model:
    """A whole layer: normalised input, attention, MLP, residuals; sizes read from the input."""
    return build(
        """e = MatMul(x, we)  n = LayerNormalization(e, gain1, beta1)  d = Shape(e)  b = Gather(d, i0)
        l = Gather(d, i1)  split = Concat<axis = 0>(b, l, heads)  join = Concat<axis = 0>(b, l, rest)
        q0 = MatMul(n, wq)  q1 = Reshape(q0, split)  q = Transpose<perm = [0, 2, 1, 3]>(q1)
        k0 = MatMul(n, wk)  k1 = Reshape(k0, split)  k = Transpose<perm = [0, 2, 3, 1]>(k1)
        v0 = MatMul(n, wv)  v1 = Reshape(v0, split)  v = Transpose<perm = [0, 2, 1, 3]>(v1)
        s = MatMul(q, k)  dq = Shape(q)  w = Gather(dq, i3)  wf = Cast<to = 1>(w)  wr = Sqrt(wf)
        t = Div(s, wr)
        p = Softmax(t)  o = MatMul(p, v)  m = Transpose<perm = [0, 2, 1, 3]>(o)  j = Reshape(m, join)
        a = MatMul(j, wo)  r = Add(a, e)  g = LayerNormalization(r, gain2, beta2)  u0 = MatMul(g, w1)
        u1 = Add(u0, b1)  u = Relu(u1)  z = MatMul(u, w2)  f = Add(z, r)  y = MatMul(f, w3)""",
        "we 12,12; gain1 12; beta1 12; wq 12,12; wk 12,12; wv 12,12; wo 12,12; gain2 12; beta2 12; w1 12,20;"
        " b1 20; w2 20,12; w3 12,6",
        x="float[N,L,12] x",
        y="float[N,L,6] y",
        constants="int64[1] i0 = {0}, int64[1] i1 = {1}, int64 i3 = {3}, int64[2] heads = {4, 3},"
        " int64[1] rest = {-1}",
    )


def _single_head() -> Model:
    """One head, without Reshape: queries and keys become narrower, so do values; the scale must stay."""
    return build(
        """q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  kt = Transpose<perm = [0, 2, 1]>(k)
        s = MatMul(q, kt)  d = Shape(q)  w = Gather(d, last)  f = Cast<to = 1>(w)  r = Sqrt(f)  t = Div(s, r)
        p = Softmax(t)  o = MatMul(p, v)  y = MatMul(o, wo)""",
        "wq 12,8; wk 12,8; wv 12,10; wo 10,6",
        x=ROWS,
        y=OUT,
        constants="int64 last = {-1}",
    )


def _fused_qkv(by: str) -> Model:
    """One projection for queries, keys and values."""
    head = "h0 = MatMul(x, wqkv)  h = Add(h0, b)"
    parts = {
        "gather": """r = Reshape(h, split)  g = Transpose<perm = [2, 0, 3, 1, 4]>(r)  q = Gather(g, i0)
            k = Gather(g, i1)  v = Gather(g, i2)""",
        "split": """q0, k0, v0 = Split<axis = 2>(h, thirds)  q1 = Reshape(q0, rows)  k1 = Reshape(k0, rows)
            v1 = Reshape(v0, rows)  q = Transpose<perm = [0, 2, 1, 3]>(q1)
            k = Transpose<perm = [0, 2, 1, 3]>(k1)
            v = Transpose<perm = [0, 2, 1, 3]>(v1)""",
        "slice": """r = Reshape(h, split)  g = Transpose<perm = [2, 0, 3, 1, 4]>(r)
            q0 = Slice(g, n0, n1, n0)  k0 = Slice(g, n1, n2, n0)  v0 = Slice(g, n2, n3, n0)
            q = Squeeze(q0, n0)  k = Squeeze(k0, n0)  v = Squeeze(v0, n0)""",
        "head": """r = Reshape(h, by_head)  g = Transpose<perm = [0, 2, 1, 3]>(r)
            q, k, v = Split<axis = 3>(g, widths)""",
    }[by]
    return build(
        f"""{head} {parts} kt = Transpose<perm = [0, 1, 3, 2]>(k)  s = MatMul(q, kt)  t = Mul(s, scale)
        p = Softmax(t)  o = MatMul(p, v)  m = Transpose<perm = [0, 2, 1, 3]>(o)  j = Reshape(m, join)
        y = MatMul(j, wo)""",
        "wqkv 12,36; b 36; wo 12,6",
        x=ROWS,
        y=OUT,
        constants="int64[5] split = {2, 5, 3, 4, 3}, int64[4] rows = {2, 5, 4, 3},"
        " int64[3] thirds = {12, 12, 12}, int64[3] join = {2, 5, -1}, int64 i0 = {0}, int64 i1 = {1},"
        " int64 i2 = {2}, float scale = {0.6}, int64[1] n0 = {0}, int64[1] n1 = {1}, int64[1] n2 = {2},"
        " int64[1] n3 = {3}, int64[4] by_head = {2, 5, 4, 9}, int64[3] widths = {3, 3, 3}",
    )


def _windows() -> Model:
    """Attention inside shifted windows of an image, with a bias for each head."""
    return build(
        """e = MatMul(x, we)  g = Reshape(e, grid)  top = Slice(g, zero, one, one)
        rest = Slice(g, one, end, one)  rolled = Concat<axis = 1>(rest, top)  w = Reshape(rolled, windows)
        t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(w)  f = Reshape(t, rows)  h = MatMul(f, wqkv)
        r = Reshape(h, split)  u = Transpose<perm = [2, 0, 3, 1, 4]>(r)  q0, k0, v0 = Split<axis = 0>(u, ones)
        q = Squeeze(q0, zero)  k = Squeeze(k0, zero)  v = Squeeze(v0, zero)
        kt = Transpose<perm = [0, 1, 3, 2]>(k)  s = MatMul(q, kt)  b = Add(s, bias)  p = Softmax(b)
        o = MatMul(p, v)  m = Transpose<perm = [0, 2, 1, 3]>(o)  j = Reshape(m, rows)  z = MatMul(j, wo)
        c = Reshape(z, back)  d = Transpose<perm = [0, 1, 3, 2, 4, 5]>(c)  a = Reshape(d, flat)  n = Add(a, e)
        y = MatMul(n, wy)""",
        "we 6,12; wqkv 12,36; bias 1,4,4,4; wo 12,12; wy 12,5",
        x="float[2,16,6] x",
        y="float[2,16,5] y",
        constants="int64[4] grid = {2, 4, 4, 12}, int64[6] windows = {2, 2, 2, 2, 2, 12},"
        " int64[3] rows = {-1, 4, 12}, int64[5] split = {8, 4, 3, 4, 3}, int64[6] back = {2, 2, 2, 2, 2, -1},"
        " int64[3] flat = {2, 16, 12}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {4},"
        " int64[3] ones = {1, 1, 1}",
    )


def _multi_head() -> Model:
    return build(
        """q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
        a = com.microsoft.MultiHeadAttention<num_heads = 4>(q, k, v, b)  y = MatMul(a, wo)""",
        "wq 12,12; wk 12,12; wv 12,12; b 36; wo 12,6",
        x=ROWS,
        y=OUT,
        constants="float[2,5,12] a",  # not a constant: onnx cannot infer it, so it is declared
    )


def _multi_head_by_head() -> Model:
    """Keys and values by head, as cross attention gets them from a cache."""
    return build(
        """q = MatMul(x, wq)  k0 = MatMul(x, wk)  k1 = Reshape(k0, split)
        k = Transpose<perm = [0, 2, 1, 3]>(k1)  v0 = MatMul(x, wv)  v1 = Reshape(v0, split)
        v = Transpose<perm = [0, 2, 1, 3]>(v1)
        a = com.microsoft.MultiHeadAttention<num_heads = 4>(q, k, v)  y = MatMul(a, wo)""",
        "wq 12,12; wk 12,12; wv 12,12; wo 12,6",
        x=ROWS,
        y=OUT,
        constants="int64[4] split = {2, 5, 4, 3}, float[2,5,12] a",
    )


def _one_weight(past: str) -> Model:
    """Attention with its projections inside; its states may start from constants."""
    more, given, out = (f"; {past}", ", , past", "a, now") if past else ("", "", "a")
    return build(
        f"""h = MatMul(x, wh)  {out} = com.microsoft.Attention<num_heads = 4>(h, wqkv, b{given})
        y = MatMul(a, wo)""",
        f"wh 12,10; wqkv 10,36; b 36; wo 12,6{more}",
        x=ROWS,
        y=OUT,
        constants="float[2,5,12] a",
    )


def _group_query(packed: bool, rotary: bool = False) -> Model:
    """Six heads of queries over three of keys, causal; angles inside the operator or in front of it."""
    wide = 96 if packed else 48  # the operator turns heads of 16, 32...
    declared = f"float[1,5,{wide}] a, int32[1] seq = {{4}}, int32 total = {{5}}"
    places = ", int64[1,5] place = {0, 1, 2, 3, 4}" if rotary else ""
    kinds = "num_heads = 6, kv_num_heads = 3"
    if packed:
        body = f"""p0 = MatMul(x, wqkv)  p = Add(p0, b)
            a, ak, av = com.microsoft.GroupQueryAttention<{kinds}, do_rotary = 1>
                (p, , , , , seq, total, cos, sin)"""
        weights = "wqkv 12,192; b 192; cos 8,8; sin 8,8"
    else:
        turn = "com.microsoft.RotaryEmbedding"
        turned = f"""r = {turn}<num_heads = 6>(q, place, cos, sin)
            s = {turn}<num_heads = 3>(k, place, cos, sin)"""
        pair = "r, s" if rotary else "q, k"
        body = f"""q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)  {turned if rotary else ""}
            a, ak, av = com.microsoft.GroupQueryAttention<{kinds}>({pair}, v, , , seq, total)"""
        weights = f"wq 12,48; wk 12,24; wv 12,24{'; cos 8,4; sin 8,4' if rotary else ''}"
    return build(
        f"{body}  y = MatMul(a, wo)",
        f"{weights}; wo {wide},6",
        x="float[1,5,12] x",
        y="float[1,5,6] y",
        constants=f"{declared}{places}",
    )


def _tied() -> Model:
    """An embedding whose table is also the matrix of the last layer."""
    return build(
        """e = Gather(table, x)  h = MatMul(e, w1)  r = Relu(h)  g = MatMul(r, w2)  s = Add(g, e)
        t = Transpose<perm = [1, 0]>(table)  y = MatMul(s, t)""",
        "table 20,8; w1 8,12; w2 12,8",
        x="int64[2,5] x",
        y="float[2,5,20] y",
    )


def _recurrent(op: str, gates: int, directions: int = 1) -> Model:
    """Two layers, the second reads the first; the initial state is made from the batch."""
    way = '"bidirectional"' if directions == 2 else '"forward"'
    state = "h0, h0" if op == "LSTM" else "h0"
    width = 8 * directions
    return build(
        f"""d = Shape(x)  n = Gather(d, i1)  hs = Concat<axis = 0>(dirs, n, hidden)  h0 = ConstantOfShape(hs)
        f0 = {op}<hidden_size = 8, direction = {way}>(x, wa, ra, ba, , {state})
        f1 = Transpose<perm = [0, 2, 1, 3]>(f0)  f = Reshape(f1, flat)
        , z = {op}<hidden_size = 6>(f, wb, rb, bb)  s = Squeeze(z, i0)  y = Gemm(s, wo)""",
        f"wa {directions},{8 * gates},12; ra {directions},{8 * gates},8; ba {directions},{16 * gates};"
        f" wb 1,{6 * gates},{width}; rb 1,{6 * gates},6; bb 1,{12 * gates}; wo 6,5",
        x="float[5,N,12] x",
        y="float[N,5] y",
        constants=f"int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[1] dirs = {{{directions}}},"
        f" int64[1] hidden = {{8}}, int64[3] flat = {{5, -1, {width}}}",
    )


def _quantized() -> Model:
    """Int8 weights with a scale for each channel, Q/DQ of activations, an int32 bias."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.integers(-90, 90, (8, 3, 3, 3)).astype(np.int8),
        "s1": rng.uniform(0.002, 0.004, 8).astype(np.float32),
        "z1": np.zeros(8, np.int8),
        "b1": rng.integers(-2000, 2000, 8).astype(np.int32),
        "sb": np.full(8, 1e-4, np.float32),
        "w2": rng.integers(-90, 90, (4, 8, 1, 1)).astype(np.int8),
        "s2": rng.uniform(0.002, 0.004, 4).astype(np.float32),
        "sa": np.asarray(0.03, np.float32),
        "za": np.asarray(7, np.uint8),
    }
    node = helper.make_node
    nodes = [
        node("DequantizeLinear", ["w1", "s1", "z1"], ["w1f"], axis=0),
        node("DequantizeLinear", ["b1", "sb"], ["b1f"], axis=0),
        node("Conv", ["x", "w1f", "b1f"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("QuantizeLinear", ["r", "sa", "za"], ["q"]),
        node("DequantizeLinear", ["q", "sa", "za"], ["p"]),
        node("DequantizeLinear", ["w2", "s2"], ["w2f"], axis=0),
        node("Conv", ["p", "w2f"], ["y"]),
    ]
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "block",
        [port("x", onnx.TensorProto.FLOAT, [2, 3, 8, 8])],
        [port("y", onnx.TensorProto.FLOAT, [2, 4, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


SEQUENCE_BLOCKS: Mapping[str, Maker] = {
    "mlp 3d": lambda: build(
        "h = MatMul(x, w1)  b = Add(h, b1)  r = Relu(b)  z = MatMul(r, w2)  y = Add(z, b2)",
        "w1 12,20; b1 20; w2 20,6; b2 6",
        x=ROWS,
        y=OUT,
    ),
    "attention": _attention,
    "attention layer": _attention_residual,
    "attention of one head": _single_head,
    "fused qkv by gather": lambda: _fused_qkv("gather"),
    "fused qkv by split": lambda: _fused_qkv("split"),
    "fused qkv by slice": lambda: _fused_qkv("slice"),
    "fused qkv by head": lambda: _fused_qkv("head"),
    "attention in windows": _windows,
    "multi head attention": _multi_head,
    "multi head attention by head": _multi_head_by_head,
    "attention of one weight": lambda: _one_weight(""),
    "attention with a past": lambda: _one_weight("past 2,2,4,3,3"),
    "group query attention": lambda: _group_query(packed=False),
    "group query attention, packed": lambda: _group_query(packed=True),
    "group query attention, turned": lambda: _group_query(packed=False, rotary=True),
    "tied embedding": _tied,
    "lstm": lambda: _recurrent("LSTM", 4),
    "lstm both ways": lambda: _recurrent("LSTM", 4, 2),
    "gru": lambda: _recurrent("GRU", 3),
    "gru both ways": lambda: _recurrent("GRU", 3, 2),
    "rnn": lambda: _recurrent("RNN", 1),
    "einsum mlp": lambda: build(
        """h = Einsum<equation = "btc,cd->btd">(x, w1)  r = Relu(h)
        y = Einsum<equation = "btd,de->bte">(r, w2)""",
        "w1 12,20; w2 20,6",
        x=ROWS,
        y=OUT,
    ),
    "patches": lambda: build(
        """a = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w1)  f = Reshape(a, rows)
        t = Transpose<perm = [0, 2, 1]>(f)  p = Add(t, position)  c = Expand(token, one)
        j = Concat<axis = 1>(c, p)  n = LayerNormalization(j, gain, beta)  h = MatMul(n, w2)
        z = Gather<axis = 1>(h, first)  y = Gemm(z, w3)""",
        "w1 8,3,2,2; position 1,16,8; token 1,1,8; gain 8; beta 8; w2 8,12; w3 12,5",
        y="float[2,5] y",
        constants="int64[3] rows = {0, 8, -1}, int64[3] one = {2, 1, 1}, int64 first = {0}",
    ),
    "quantized": _quantized,
}
