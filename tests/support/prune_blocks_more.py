# SPDX-License-Identifier: Apache-2.0
"""Topologies that users bring: gates, weighted fusion, diffusion, heads without anchors, lookups."""

from __future__ import annotations

from collections.abc import Mapping

from tersor.graph_ir import Model
from tests.support.prune_build import P1, Maker, build

ROWS, OUT = "float[2,5,12] x", "float[2,5,6] y"


def _wavenet() -> Model:
    """Two gated, dilated convolutions with a residual and a sum of what both skip."""
    return build(
        """a = Conv<pads = [1, 1]>(x, w1)  z = Conv<pads = [2, 2], dilations = [2]>(a, w2)
        p = Slice(z, zero, mid, one)  q = Slice(z, half, end, one)  t = Tanh(p)  s = Sigmoid(q)  g = Mul(t, s)
        r = Conv(g, w3)  n = Add(r, a)  k = Conv(g, w4)  z2 = Conv<pads = [4, 4], dilations = [4]>(n, w5)
        p2, q2 = Split<axis = 1>(z2)  t2 = Tanh(p2)  s2 = Sigmoid(q2)  g2 = Mul(t2, s2)  k2 = Conv(g2, w6)
        sum = Add(k, k2)  u = Relu(sum)  y = Conv(u, w7)""",
        "w1 6,3,3; w2 16,6,3; w3 6,8,1; w4 10,8,1; w5 16,6,3; w6 10,8,1; w7 4,10,1",
        x="float[2,3,16] x",
        y="float[2,4,16] y",
        constants="int64[1] zero = {0}, int64[1] mid = {8}, int64[1] one = {1}, int64[1] half = {-8},"
        " int64[1] end = {9223372036854775807}",
    )


def _fusion() -> Model:
    """Two levels added by learned weights, normalised to a sum of one."""
    return build(
        f"""a = Conv<{P1}>(x, w1)  c = Conv<{P1}, strides = [2, 2]>(a, w2)
        u = Resize<mode = "nearest">(c, , scales)  l = Conv(a, w3)  r = Relu(fw)  s = ReduceSum(r, first)
        e = Add(s, small)  n = Div(r, e)  f0, f1 = Split<axis = 0>(n)  m0 = Mul(l, f0)  m1 = Mul(u, f1)
        f = Add(m0, m1)  t = Sigmoid(f)  v = Mul(f, t)  d = Conv<group = 8, {P1}>(v, w4)  p = Conv(d, w5)
        y = Conv(p, w6)""",
        "w1 6,3,3,3; w2 8,6,3,3; w3 8,6,1,1; w4 8,1,3,3; w5 8,8,1,1; w6 4,8,1,1",
        constants="float[4] scales = {1.0, 1.0, 2.0, 2.0}, float small = {0.0001}, int64[1] first = {0},"
        " float[2] fw = {0.7, 0.4}",
    )


def _diffusion() -> Model:
    """Decomposed GroupNorm and SiLU, a time embedding added to the channels, a residual."""
    return build(
        f"""a = Conv<{P1}>(x, w0)  s = Reshape(a, rows)  n = InstanceNormalization(s, one, zero)
        m = Reshape(n, back)  gm = Mul(m, gain)  k = Add(gm, beta)  si = Sigmoid(k)  h = Mul(k, si)
        c = Conv<{P1}>(h, w1)  t0 = Gemm<transB = 1>(t, wt, bt)  t1 = Unsqueeze(t0, i2)
        t2 = Unsqueeze(t1, i3)  ca = Add(c, t2)  v = Relu(ca)  d = Conv<{P1}>(v, w2)  r = Add(d, a)
        y = Conv(r, w3)""",
        "w0 16,3,3,3; gain 16,1,1; beta 16,1,1; w1 24,16,3,3; wt 24,7; bt 24; w2 16,24,3,3; w3 4,16,1,1",
        x="float[2,3,8,8] x, float[2,7] t",
        constants="int64[3] rows = {0, 4, -1}, int64[4] back = {2, 16, 8, 8}, int64[1] i2 = {2},"
        " int64[1] i3 = {3}, float[4] one = {1, 1, 1, 1}, float[4] zero = {0, 0, 0, 0}",
    )


def _distribution_head() -> Model:
    """Two levels as [N, C, cells], joined; boxes are means of distributions over four bins."""
    return build(
        f"""a = Conv<{P1}>(x, w0)  r = Relu(a)  q = Conv<{P1}, strides = [2, 2]>(r, w1)  s = Relu(q)
        b1 = Conv(r, wb1)  c1 = Conv(r, wc1)  k1 = Concat<axis = 1>(b1, c1)  b2 = Conv(s, wb2)
        c2 = Conv(s, wc2)  k2 = Concat<axis = 1>(b2, c2)  f1 = Reshape(k1, rows)  f2 = Reshape(k2, rows)
        j = Concat<axis = 2>(f1, f2)  boxes, scores = Split<axis = 1>(j, sizes)  d0 = Reshape(boxes, bins)
        d1 = Transpose<perm = [0, 2, 1, 3]>(d0)  d2 = Softmax<axis = 1>(d1)  d3 = Conv(d2, wd)
        d4 = Reshape(d3, four)  g = Sigmoid(scores)  y = Concat<axis = 1>(d4, g)""",
        "w0 8,3,3,3; w1 12,8,3,3; wb1 16,8,1,1; wc1 5,8,1,1; wb2 16,12,1,1; wc2 5,12,1,1; wd 1,4,1,1",
        y="float[2,9,80] y",
        constants="int64[3] rows = {2, 21, -1}, int64[2] sizes = {16, 5}, int64[4] bins = {2, 4, 4, 80},"
        " int64[3] four = {2, 4, 80}",
    )


def _attention_of_places() -> Model:
    """Channels weighted by a map made of their largest and their mean."""
    return build(
        f"""a = Conv<{P1}>(x, w0)  top = ReduceMax<axes = [1]>(a)  mean = ReduceMean<axes = [1]>(a)
        low = ReduceMin<axes = [1]>(a)  c = Concat<axis = 1>(top, mean, low)
        s = Conv<pads = [3, 3, 3, 3]>(c, w1)  g = Sigmoid(s)  m = Mul(a, g)  y = Conv(m, w2)""",
        "w0 8,3,3,3; w1 1,3,7,7; w2 4,8,1,1",
    )


def _efficient_channel_attention() -> Model:
    """ECA: each channel's gate is a sum over its neighbours, which are the zeros of those that went, too."""
    return build(
        f"""a = Conv<{P1}>(x, w1)  p = GlobalAveragePool(a)  q = Squeeze(p, last)
        t = Transpose<perm = [0, 2, 1]>(q)  k = Conv<pads = [2, 2]>(t, w2)  u = Transpose<perm = [0, 2, 1]>(k)
        v = Unsqueeze(u, last)  s = Sigmoid(v)  m = Mul(a, s)  y = Conv(m, w3)""",
        "w1 16,3,3,3; w2 1,1,5; w3 4,16,1,1",
        constants="int64[1] last = {3}",
    )


def grouped_queries(heads: int, shared: int) -> Model:
    """Attention in which heads of queries share one of keys and values, which is repeated for each."""
    each = heads // shared
    return build(
        """q0 = MatMul(x, wq)  q1 = Reshape(q0, by)  q = Transpose<perm = [0, 2, 1, 3]>(q1)
        k0 = MatMul(x, wk)  k1 = Reshape(k0, by_shared)  k2 = Transpose<perm = [0, 2, 1, 3]>(k1)
        k3 = Unsqueeze(k2, two)  k4 = Expand(k3, often)  k5 = Reshape(k4, whole)
        k = Transpose<perm = [0, 1, 3, 2]>(k5)
        v0 = MatMul(x, wv)  v1 = Reshape(v0, by_shared)  v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
        v3 = Unsqueeze(v2, two)  v4 = Expand(v3, often)  v = Reshape(v4, whole)
        s = MatMul(q, k)  p = Softmax<axis = -1>(s)  o = MatMul(p, v)  t = Transpose<perm = [0, 2, 1, 3]>(o)
        r = Reshape(t, rows)  y = MatMul(r, wo)""",
        f"wq 12,{4 * heads}; wk 12,{4 * shared}; wv 12,{4 * shared}; wo {4 * heads},6",
        x=ROWS,
        y=OUT,
        constants=f"int64[4] by = {{0, 0, {heads}, 4}}, int64[4] by_shared = {{0, 0, {shared}, 4}},"
        f" int64[1] two = {{2}}, int64[5] often = {{1, {shared}, {each}, 5, 4}},"
        f" int64[4] whole = {{0, {heads}, 5, 4}}, int64[3] rows = {{0, 0, -1}}",
    )


def _looked_up() -> Model:
    """Features at a few places of each picture."""
    return build(
        f"""a = Conv<{P1}>(x, w0)  t = Transpose<perm = [0, 2, 3, 1]>(a)
        g = GatherND<batch_dims = 1>(t, places)  h = MatMul(g, w1)  r = Relu(h)  y = MatMul(r, w2)""",
        "w0 8,3,3,3; w1 8,10; w2 10,6",
        y="float[2,3,6] y",
        constants="int64[2,3,2] places = {0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 1, 1}",
    )


def sampled_by_head() -> Model:
    """Deformable attention: each of four heads reads its values at places of its own."""
    return build(
        """v0 = MatMul(x, wv)  v1 = Transpose<perm = [0, 2, 1]>(v0)  v = Reshape(v1, pictures)
        p0 = MatMul(x, wp)  p1 = Tanh(p0)  p2 = Reshape(p1, by)  p3 = Transpose<perm = [0, 2, 1, 3]>(p2)
        p = Reshape(p3, places)  s = GridSample(v, p)  o0 = Reshape(s, flat)
        o = Transpose<perm = [0, 2, 1]>(o0)  y = MatMul(o, wo)""",
        "wv 6,12; wp 6,8; wo 12,5",
        x="float[2,16,6] x",
        y="float[2,16,5] y",
        constants="int64[4] pictures = {8, 3, 4, 4}, int64[4] by = {2, 16, 4, 2},"
        " int64[4] places = {8, 4, 4, 2}, int64[3] flat = {2, 12, 16}",
    )


MORE_BLOCKS: Mapping[str, Maker] = {
    "gated mlp": lambda: build(
        """h = MatMul(x, w1)  g, u = Split<axis = -1>(h, halves)  s = Sigmoid(g)  t = Mul(g, s)  m = Mul(t, u)
        y = MatMul(m, w2)""",
        "w1 12,16; w2 8,6",
        x=ROWS,
        y=OUT,
        constants="int64[2] halves = {8, 8}",
    ),
    "wavenet": _wavenet,
    "weighted fusion": _fusion,
    "diffusion block": _diffusion,
    "distribution head": _distribution_head,
    "spatial attention": _attention_of_places,
    "features looked up": _looked_up,
    "window over channels": _efficient_channel_attention,
    "sampled by head": sampled_by_head,
    "grouped queries": lambda: grouped_queries(8, 4),
    "deformable conv": lambda: build(
        f"""a = Conv<{P1}>(x, w0)  o = Conv<{P1}>(x, wo)  d = DeformConv<{P1}>(a, w1, o, b1)  r = Relu(d)
        y = Conv(r, w2)""",
        "w0 8,3,3,3; wo 18,3,3,3; w1 6,8,3,3; b1 6; w2 4,6,1,1",
        opset=19,
    ),
    "rms norm": lambda: build(
        "h = MatMul(x, w1)  n = RMSNormalization(h, gain)  y = MatMul(n, w2)",
        "w1 12,8; gain 8; w2 8,6",
        x=ROWS,
        y=OUT,
        opset=23,
    ),
    "unit vectors": lambda: build(
        f"""a = Conv<{P1}>(x, w0)  p = GlobalAveragePool(a)  f = Flatten(p)  n = LpNormalization<axis = 1>(f)
        y = Gemm(n, w1)""",
        "w0 8,3,3,3; w1 8,5",
        y="float[2,5] y",
    ),
}
