# SPDX-License-Identifier: Apache-2.0
"""Small networks that say sizes: reshape, expand, pad, read shapes and compute with them."""

from __future__ import annotations

from collections.abc import Mapping

from tersor.graph_ir import Model
from tests.support.prune_build import P1, Maker, build


def _group_norm() -> Model:
    return build(
        f"""a = Conv<{P1}>(x, w1)  s = Reshape(a, groups)  n = InstanceNormalization(s, one, zero)
        d = Shape(a)  m = Reshape(n, d)  g = Mul(m, gain)  k = Add(g, beta)  y = Conv(k, w2)""",
        "w1 12,3,3,3; gain 12,1,1; beta 12,1,1; w2 4,12,1,1",
        constants="int64[3] groups = {0, 4, -1}, float[4] one = {1, 1, 1, 1}, float[4] zero = {0, 0, 0, 0}",
    )


def _dynamic(body: str, weights: str = "w1 8,3,3,3; b1 8; w2 512,5") -> Model:
    constants = (
        "int64[1] i0 = {0}, int64[1] i1 = {1}, int64 s0 = {0}, int64[1] rest = {-1}, int64[1] flat = {512},"
        " int64[2] image = {8, 8}, int64[1] last = {9223372036854775807}, int64[1] two = {2}"
    )
    return build(body, weights, x="float[N,3,8,8] x", y="float[N,5] y", constants=constants)


SHAPE_BLOCKS: Mapping[str, Maker] = {
    "group norm decomposed": _group_norm,
    "batch from shape": lambda: _dynamic(
        f"""a = Conv<{P1}>(x, w1, b1)  r = Relu(a)  d = Shape(r)  n = Gather(d, i0)
        t = Concat<axis = 0>(n, flat)  f = Reshape(r, t)  y = Gemm(f, w2)"""
    ),
    "channels from shape": lambda: _dynamic(
        f"""a = Conv<{P1}>(x, w1, b1)  r = Relu(a)  d = Shape(r)  n = Gather(d, i0)  c = Gather(d, i1)
        t = Concat<axis = 0>(n, c, rest)  f = Reshape(r, t)  m = ReduceMean<axes = [2]>(f)
        q = Concat<axis = 0>(n, c)  g = Reshape(m, q)  y = Gemm(g, w2)""",
        "w1 8,3,3,3; b1 8; w2 8,5",
    ),
    "halves from shape": lambda: _dynamic(
        f"""a = Conv<{P1}>(x, w1, b1)  d = Shape(a)  n = Gather(d, i0)  c = Gather(d, i1)  h = Div(c, two)
        l = Slice(a, i0, h, i1)  m = Slice(a, h, c, i1)  t = Concat<axis = 0>(n, h, image)  e = Expand(l, t)
        k = Mul(e, m)  p = GlobalAveragePool(k)  f = Flatten(p)  y = Gemm(f, w2)""",
        "w1 8,3,3,3; b1 8; w2 4,5",
    ),
    "expand and tile": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  p = GlobalAveragePool(a)  e = Expand(p, shape)  t = Tile(a, twice)
        q = Concat<axis = 1>(e, t)  f = Expand(half, wide)  s = Add(q, f)  y = Conv(s, w2)""",
        "w1 8,3,3,3; w2 4,24,1,1",
        constants="int64[4] shape = {2, 8, 8, 8}, int64[4] twice = {1, 2, 1, 1}, float[1] half = {0.5},"
        " int64[4] wide = {1, 24, 1, 1}",
    ),
    "zero padded shortcut": lambda: build(
        f"""a = Conv<{P1}>(x, w1)  r = Relu(a)  p = Pad(r, pads)  b = Conv<{P1}>(r, w2)  s = Add(p, b)
        y = Conv(s, w3)""",
        "w1 8,3,3,3; w2 14,8,3,3; w3 4,14,1,1",
        constants="int64[8] pads = {0, 2, 0, 0, 0, 4, 0, 0}",
    ),
    "gather of channels": lambda: build(
        f"a = Conv<{P1}>(x, w1)  g = Gather<axis = 1>(a, order)  s = Mul(g, g)  y = Conv(s, w2)",
        "w1 8,3,3,3; w2 4,6,1,1",
        constants="int64[6] order = {7, 0, -5, 2, 0, 1}",
    ),
}
