# SPDX-License-Identifier: Apache-2.0
"""Small networks of convolutions, one for each topology a channel pruner must cut."""

from __future__ import annotations

from collections.abc import Mapping

from tersor.graph_ir import Model
from tests.support.prune_build import P1, Maker, build


def _squeeze_excite() -> Model:
    return build(
        f"""c = Conv<{P1}>(x, w1, b1)  p = GlobalAveragePool(c)  s = Conv(p, w2)  r = Relu(s)
        e = Conv(r, w3)  g = Sigmoid(e)  m = Mul(c, g)  y = Conv(m, w4)""",
        "w1 16,3,3,3; b1 16; w2 6,16,1,1; w3 16,6,1,1; w4 4,16,1,1",
    )


def _pool_resize() -> Model:
    return build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
        b = Conv<{P1}>(p, w2)  u = Resize<mode = "nearest">(b, , , sizes)
        v = Resize<mode = "linear">(p, , scales)  m = Add(u, v)
        q = AveragePool<kernel_shape = [3, 3], {P1}>(m)  y = Conv(q, w3)""",
        "w1 8,3,3,3; w2 8,8,3,3; w3 4,8,1,1",
        constants="int64[4] sizes = {2, 8, 8, 8}, float[4] scales = {1.0, 1.0, 2.0, 2.0}",
    )


def _layer_norm() -> Model:
    return build(
        f"""a = Conv<{P1}>(x, w1)  t = Transpose<perm = [0, 2, 3, 1]>(a)
        n = LayerNormalization(t, gain, beta)  u = Transpose<perm = [0, 3, 1, 2]>(n)  y = Conv(u, w2)""",
        "w1 8,3,3,3; gain 8; beta 8; w2 4,8,1,1",
    )


def _c2f() -> Model:
    return build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  l, m = Split<axis = 1>(r, sizes)  b = Conv<{P1}>(m, w2)
        s = Relu(b)  d = Conv<{P1}>(s, w3)  k = Add(d, m)  c = Concat<axis = 1>(l, m, k)  y = Conv(c, w4)""",
        "w1 16,3,3,3; w2 8,8,3,3; w3 8,8,3,3; w4 4,24,1,1",
        constants="int64[2] sizes = {8, 8}",
    )


def _c2f_uneven() -> Model:
    return build(
        f"""a = Conv<{P1}>(x, w1)  l = Slice(a, start, mid, one)  m = Slice(a, mid, end, one)
        b = Conv<{P1}>(m, w2)  c = Concat<axis = 1>(l, b)  y = Conv(c, w3)""",
        "w1 16,3,3,3; w2 6,10,3,3; w3 4,12,1,1",
        constants="int64[1] start = {0}, int64[1] mid = {6}, int64[1] end = {9223372036854775807},"
        " int64[1] one = {1}",
    )


def _shuffle() -> Model:
    return build(
        f"""a = Conv<{P1}>(x, w1)  s = Reshape(a, split)  t = Transpose<perm = [0, 2, 1, 3, 4]>(s)
        m = Reshape(t, merged)  d = Conv<group = 12, {P1}>(m, w2)  y = Conv(d, w3)""",
        "w1 12,3,3,3; w2 12,1,3,3; w3 4,12,1,1",
        constants="int64[5] split = {2, 2, 6, 8, 8}, int64[4] merged = {2, 12, 8, 8}",
    )


def _shuffle_net() -> Model:
    """A unit of ShuffleNetV2: split, one half convolved, concat, shuffle, twice."""

    def unit(i: int, source: str) -> str:
        return f"""l{i}, m{i} = Split<axis = 1>({source}, halves)  a{i} = Conv(m{i}, w{i}a)  e{i} = Relu(a{i})
        d{i} = Conv<group = 8, {P1}>(e{i}, w{i}b)  k{i} = Conv(d{i}, w{i}c)
        c{i} = Concat<axis = 1>(l{i}, k{i})  s{i} = Reshape(c{i}, split)
        t{i} = Transpose<perm = [0, 2, 1, 3, 4]>(s{i})  u{i} = Reshape(t{i}, merged)"""

    return build(
        f"stem = Conv<{P1}>(x, w0)  {unit(1, 'stem')}  {unit(2, 'u1')}  y = Conv(u2, w3)",
        "w0 16,3,3,3; w1a 8,8,1,1; w1b 8,1,3,3; w1c 8,8,1,1; w2a 8,8,1,1; w2b 8,1,3,3;"
        " w2c 8,8,1,1; w3 4,16,1,1",
        constants="int64[2] halves = {8, 8}, int64[5] split = {0, 2, 8, 8, 8},"
        " int64[4] merged = {0, -1, 8, 8}",
    )


def _detector() -> Model:
    """Two levels, boxes and scores of all anchors joined."""
    return build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  b = Conv<strides = [2, 2], {P1}>(r, w2)  s = Relu(b)
        h1 = Conv<{P1}>(r, w3)  h2 = Conv<{P1}>(s, w4)
        c1 = Conv(h1, wc1)  p1 = Transpose<perm = [0, 2, 3, 1]>(c1)  q1 = Reshape(p1, rows)
        c2 = Conv(h2, wc2)  p2 = Transpose<perm = [0, 2, 3, 1]>(c2)  q2 = Reshape(p2, rows)
        j = Concat<axis = 1>(q1, q2)  y = Sigmoid(j)
        d1 = Conv(h1, wd1)  e1 = Flatten(d1)  d2 = Conv(h2, wd2)  e2 = Flatten(d2)
        z = Concat<axis = 1>(e1, e2)""",
        "w1 8,3,3,3; w2 12,8,3,3; w3 8,8,3,3; w4 8,12,3,3; wc1 6,8,1,1; wc2 6,8,1,1; wd1 4,8,1,1;"
        " wd2 4,8,1,1",
        y="float[2,160,3] y, float[2,320] z",
        constants="int64[3] rows = {2, -1, 3}",
    )


def _convnext() -> Model:
    """Depthwise convolution, normalisation and MLP over the last axis, scaled, added to what came in."""
    return build(
        f"""a = Conv(x, w1)  d = Conv<group = 8, {P1}>(a, w2)  t = Transpose<perm = [0, 2, 3, 1]>(d)
        n = LayerNormalization(t, gain, beta)  h = MatMul(n, w3)  i = Add(h, b3)  e = Erf(i)  j = Mul(i, e)
        m = MatMul(j, w4)  s = Mul(m, scale)  u = Transpose<perm = [0, 3, 1, 2]>(s)  r = Add(u, a)
        y = Conv(r, w5)""",
        "w1 8,3,1,1; w2 8,1,3,3; gain 8; beta 8; w3 8,16; b3 16; w4 16,8; scale 8; w5 4,8,1,1",
    )


CONV_BLOCKS: Mapping[str, Maker] = {
    "conv relu conv": lambda: build(
        f"a = Conv<{P1}>(x, w1, b1)  r = Relu(a)  y = Conv<{P1}>(r, w2, b2)",
        "w1 8,3,3,3; b1 8; w2 4,8,3,3; b2 4",
    ),
    "silu chain": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  s = Sigmoid(a)  m = Mul(a, s)  b = Conv<{P1}>(m, w2)  t = Sigmoid(b)
        n = Mul(b, t)  y = Conv(n, w3)""",
        "w1 8,3,3,3; w2 6,8,3,3; w3 4,6,1,1",
    ),
    "conv bn relu conv": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  n = BatchNormalization(a, gain, beta, mean, var)  r = Relu(n)
        y = Conv(r, w2)""",
        "w1 8,3,3,3; gain 8; beta 8; mean 8; var 8; w2 4,8,1,1",
    ),
    "residual add": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  b = Conv<{P1}>(r, w2)  s = Relu(b)  c = Conv<{P1}>(s, w3)
        d = Add(c, r)  e = Relu(d)  y = Conv(e, w4)""",
        "w1 8,3,3,3; w2 6,8,3,3; w3 8,6,3,3; w4 4,8,1,1",
    ),
    "concat": lambda: build(
        f"a = Conv<{P1}>(x, w1)  b = Conv<{P1}>(x, w2)  c = Concat<axis = 1>(a, x, b)  y = Conv(c, w3)",
        "w1 8,3,3,3; w2 6,3,3,3; w3 4,17,1,1",
    ),
    "depthwise": lambda: build(
        f"""a = Conv(x, w1)  r = Relu(a)  d = Conv<group = 8, {P1}>(r, w2, b2)  s = Clip(d, lo, hi)
        y = Conv(s, w3)""",
        "w1 8,3,1,1; w2 8,1,3,3; b2 8; w3 4,8,1,1",
        constants="float lo = {0}, float hi = {6}",
    ),
    "grouped conv": lambda: build(
        f"a = Conv(x, w1)  b = Conv<group = 4, {P1}>(a, w2, b2)  r = Relu(b)  y = Conv(r, w3)",
        "w1 16,3,1,1; w2 16,4,3,3; b2 16; w3 4,16,1,1",
    ),
    "squeeze excite": _squeeze_excite,
    "global pool flatten gemm": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  p = GlobalAveragePool(r)  f = Flatten(p)
        y = Gemm<transB = 1>(f, w2, b2)""",
        "w1 8,3,3,3; w2 5,8; b2 5",
        y="float[2,5] y",
    ),
    "pool resize": _pool_resize,
    "layer norm": _layer_norm,
    "c2f split": _c2f,
    "flatten HxW gemm": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  f = Flatten(r)  g = Gemm(f, w2, b2)  s = Relu(g)
        y = Gemm(s, w3)""",
        "w1 8,3,3,3; w2 512,6; b2 6; w3 6,5",
        y="float[2,5] y",
        seed=2,
    ),
    "constant reshape gemm": lambda: build(
        f"a = Conv<{P1}>(x, w1)  r = Relu(a)  f = Reshape(r, flat)  y = Gemm(f, w2)",
        "w1 8,3,3,3; w2 512,5",
        y="float[2,5] y",
        constants="int64[2] flat = {2, 512}",
    ),
    "channel shuffle": _shuffle,
    "one producer two convs": lambda: build(
        f"a = Conv<{P1}>(x, w1)  r = Relu(a)  y = Conv(r, w2)  z = Conv<{P1}>(r, w3)",
        "w1 8,3,3,3; w2 4,8,1,1; w3 5,8,3,3",
        y="float[2,4,8,8] y, float[2,5,8,8] z",
    ),
    "repeated concat": lambda: build(
        f"a = Conv<{P1}>(x, w1)  r = Relu(a)  c = Concat<axis = 1>(r, a, r)  y = Conv(c, w2)",
        "w1 8,3,3,3; w2 4,24,1,1",
    ),
    "c2f uneven slices": _c2f_uneven,
    "shuffle net unit": _shuffle_net,
    "grouped conv of unequal groups": lambda: build(
        f"a = Conv(x, w1)  b = Conv<group = 3, {P1}>(a, w2)  r = Relu(b)  y = Conv(r, w3)",
        "w1 6,3,1,1; w2 12,2,3,3; w3 4,12,1,1",
    ),
    "grouped conv behind a shuffle": lambda: build(
        f"""a = Conv<group = 3>(x, w1)  s = Reshape(a, split)  t = Transpose<perm = [0, 2, 1, 3, 4]>(s)
        m = Reshape(t, merged)  b = Conv<group = 3, {P1}>(m, w2)  y = Conv(b, w3)""",
        "w1 24,1,1,1; w2 12,8,3,3; w3 4,12,1,1",
        constants="int64[5] split = {2, 3, 8, 8, 8}, int64[4] merged = {2, 24, 8, 8}",
    ),
    "pixel shuffle head": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  u = DepthToSpace<blocksize = 2>(r)  b = Conv<{P1}>(u, w2)
        d = DepthToSpace<blocksize = 2, mode = "CRD">(b)  e = Conv<{P1}>(d, w3)
        y = DepthToSpace<blocksize = 2>(e)""",
        "w1 16,3,3,3; w2 12,4,3,3; w3 4,3,3,3",
        y="float[2,1,64,64] y",
    ),
    "detection heads": _detector,
    "residual over concat": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  b = Conv<{P1}>(x, w2)  c = Concat<axis = 1>(a, b)  d = Conv<{P1}>(x, w3)
        s = Add(c, d)  r = Relu(s)  y = Conv(r, w4)""",
        "w1 8,3,3,3; w2 6,3,3,3; w3 14,3,3,3; w4 4,14,1,1",
    ),
    "u-net": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
        b = Conv<{P1}>(p, w2)  s = Relu(b)  u = ConvTranspose<strides = [2, 2]>(s, w3, b3)
        c = Concat<axis = 1>(u, r)  d = Conv<{P1}>(c, w4)  t = Relu(d)  y = Conv(t, w5)""",
        "w1 6,3,3,3; w2 10,6,3,3; w3 10,6,2,2; b3 6; w4 8,12,3,3; w5 4,8,1,1",
    ),
    "convnext block": _convnext,
    "weight shared in two roles": lambda: build(
        """a = Conv(x, w1)  r = Relu(a)  b = Conv(r, w2)  s = Relu(b)  c = ConvTranspose(s, w2)
        y = Conv(c, w3)""",
        "w1 8,3,1,1; w2 6,8,1,1; w3 4,8,1,1",
    ),
    "shared weights": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  b = Conv<{P1}>(r, w2)  s = Relu(b)  c = Conv<{P1}>(s, w2)
        d = Mul(c, gain)  e = Mul(b, gain)  y = Conv(d, w3)  z = Conv(e, w3)""",
        "w1 8,3,3,3; w2 8,8,3,3; gain 8,1,1; w3 4,8,1,1",
        y="float[2,4,8,8] y, float[2,4,8,8] z",
    ),
    "group norm": lambda: build(
        f"a = Conv<{P1}>(x, w1)  n = GroupNormalization<num_groups = 3>(a, gain, beta)  y = Conv(n, w2)",
        "w1 12,3,3,3; gain 12; beta 12; w2 4,12,1,1",
        opset=21,
    ),
    "instance norm and prelu": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  n = InstanceNormalization(a, gain, beta)  r = PRelu(n, slope)
        u = ConvTranspose<strides = [2, 2]>(r, w2, b2)  y = Conv<strides = [2, 2]>(u, w3)""",
        "w1 8,3,3,3; gain 8; beta 8; slope 8,1,1; w2 8,6,2,2; b2 6; w3 4,6,1,1",
    ),
    "grouped transposed conv": lambda: build(
        "a = Conv(x, w1)  b = ConvTranspose<group = 4>(a, w2, b2)  y = Conv(b, w3)",
        "w1 8,3,1,1; w2 8,3,1,1; b2 12; w3 4,12,1,1",
    ),
    "conv 1d and 3d": lambda: build(
        """a = Conv<pads = [1, 1]>(x, w1)  u = Unsqueeze(a, axes)  v = Unsqueeze(u, axes)  b = Conv(v, w2)
        s = Squeeze(b, axes)  t = Squeeze(s, axes)  y = Conv(t, w3)""",
        "w1 8,3,3; w2 6,8,1,1,1; w3 4,6,1",
        x="float[2,3,8] x",
        y="float[2,4,8] y",
        constants="int64[1] axes = {2}",
    ),
}
