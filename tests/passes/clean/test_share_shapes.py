# SPDX-License-Identifier: Apache-2.0
"""Shapes that are known to be equal are computed once, and targets of Expand lose what they need not say."""

from __future__ import annotations

import numpy as np

from tersor.graph_ir import Model, constant, from_proto
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.fold_constants import FoldConstants
from tersor.passes.clean.fold_shapes import FoldShapes
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.clean.no_ops import EliminateNoOps
from tersor.passes.clean.share_shapes import ShareShapes
from tests.support.numerics import assert_bitwise, snapshot
from tests.support.rewriting import Rewritten, model_of, rewrite

SHARE = (InferShapes(), ShareShapes(), EliminateDeadCode())
FOLD = (InferShapes(), FoldConstants(), FoldShapes(), EliminateNoOps(), ShareShapes(), EliminateDeadCode())
ONE = "int64[1] one = {1}, int64 zero = {0}, int64[1] zero1 = {0}, int64 two = {2}, int64[1] three = {3}"
CACHES = "float[N,P,3] a, float[N,P,3] b, float[N,S,3] x"


def shared(model: Model, *steps: object) -> Rewritten:
    """Run the steps; numbers hold for sizes of 0, too."""
    before = snapshot(model)
    result = rewrite(steps or SHARE, model, N=2, P=4, S=3)  # pyright: ignore[reportArgumentType]
    for sizes in ({"N": 0, "P": 2, "S": 1}, {"N": 1, "P": 0, "S": 1}, {"N": 3, "P": 2, "S": 0}):
        feed = {
            port.name: np.ones(
                [d.dim_value or sizes[d.dim_param] for d in port.type.tensor_type.shape.dim], np.float32
            )
            for port in before.graph.input
        }
        assert_bitwise(before, result.model, feed)
    return result


LENGTHS = """ka = Concat<axis = 1>(a, x) kb = Concat<axis = 1>(b, x)
    sa = Shape(ka) sb = Shape(kb)
    na = Gather(sa, zero) nb = Gather(sb, zero)
    ta = Unsqueeze(na, zero1) tb = Unsqueeze(nb, zero1)
    ra = Concat<axis = 0>(ta, three, minus) rb = Concat<axis = 0>(tb, three, minus)
    ya = Reshape(ka, ra) yb = Reshape(kb, rb)"""


def test_lengths_of_two_caches_are_asked_once() -> None:
    model = model_of(
        LENGTHS,
        ONE + ", int64[1] minus = {-1}",
        x=CACHES.replace("float[N,S,3]", "float[N,2,3]"),
        y="float[N,3,K] ya, float[N,3,L] yb",
    )
    result = rewrite(SHARE, model, N=2, P=4)
    assert sorted(result.ops) == [
        *("Concat", "Concat", "Concat", "Gather", "Reshape", "Reshape", "Shape", "Unsqueeze")
    ]


SUM = """sa = Shape(a) sx = Shape(x) p = Gather(sa, one0) s = Gather(sx, one0) t = Add(s, p)
    k = Concat<axis = 1>(a, x) sk = Shape(k) u = Gather(sk, one0)
    ft = Cast<to = 1>(t) fu = Cast<to = 1>(u) y = Sub(ft, fu)"""


def test_a_length_that_is_a_sum_is_found_by_its_polynomial() -> None:
    weights = "int64 one0 = {1}"
    result = shared(model_of(SUM, weights, x="float[N,P,3] a, float[N,S,3] x", y="float y"))
    assert result.ops.count("Shape") == 2
    assert result.ops.count("Gather") == 2


def test_lengths_of_other_names_stay() -> None:
    body = "sa = Shape(a) sb = Shape(b) fa = Cast<to = 1>(sa) fb = Cast<to = 1>(sb) y = Sub(fa, fb)"
    model = model_of(body, x="float[N,P] a, float[N,S] b", y="float[2] y")
    assert not rewrite((InferShapes(), ShareShapes()), model, N=2, P=3, S=4).ops.count("Shape") < 2


def test_ranks_and_types_are_told_apart() -> None:
    body = """s = Shape(a) v = Gather(s, zero1) n = Gather(s, zero) i = Cast<to = 6>(n)
        fv = Cast<to = 1>(v) fn = Cast<to = 1>(n) fi = Cast<to = 1>(i) z = Add(fv, fn) y = Add(z, fi)"""
    result = rewrite(
        (InferShapes(), ShareShapes()), model_of(body, ONE, x="float[N,3] a", y="float[1] y"), N=2
    )
    assert not result.changed


def test_outputs_keep_their_nodes() -> None:
    body = "y = Shape(a) z = Shape(b)"
    model = model_of(body, x="float[N,3] a, float[N,3] b", y="int64[2] y, int64[2] z")
    assert not rewrite((InferShapes(), ShareShapes()), model, N=2).changed


def test_bodies_share_within_themselves_only() -> None:
    body = """i = If(c) <then_branch = f () => (float[2] p) { s = Shape(x) p = Cast<to = 1>(s) },
        else_branch = g () => (float[2] q) { t = Shape(x) q = Cast<to = 1>(t) }>
        y = Neg(i)"""
    result = rewrite(
        (InferShapes(), ShareShapes()), model_of(body, x="float[N,3] x, bool c", y="float[2] y"), N=2
    )
    assert not result.changed


REPEAT = """k = Concat<axis = 1>(a, x) u = Unsqueeze(k, two1) s = Shape(k)
    n = Gather(s, zero1) l = Gather(s, one)
    t = Concat<axis = 0>(n, l, two1, three)
    e = Equal(t, minus) w = Where(e, ones, t) g = Expand(u, w) y = Relu(g)"""
REPEATED = ONE + ", int64[1] two1 = {2}, int64[4] minus = {-1,-1,-1,-1}, int64[4] ones = {1,1,1,1}"


def test_heads_repeated_by_expand_need_no_sizes() -> None:
    model = model_of(REPEAT, REPEATED, x="float[N,P,3] a, float[N,S,3] x", y="float[N,L,2,3] y")
    result = shared(model, *FOLD)
    assert result.ops == ["Concat", "Unsqueeze", "Expand", "Relu"]
    target = constant(result.model.graph[2].inputs[1])
    assert target is not None
    assert target.tolist() == [1, 1, 2, 1]


def test_an_expand_to_its_own_shape_goes() -> None:
    body = "s = Shape(x) e = Expand(x, s) y = Relu(e)"
    assert shared(model_of(body, x="float[N,S,3] x", y="float[N,S,3] y"), *FOLD).ops == ["Relu"]


def test_an_expand_to_another_length_stays() -> None:
    body = "s = Shape(b) e = Expand(x, s) y = Relu(e)"
    model = model_of(body, x="float[N,1,3] x, float[N,S,3] b", y="float[N,S,3] y")
    assert shared(model, *FOLD).ops == ["Shape", "Expand", "Relu"]


def test_a_name_that_looks_like_a_sum_is_told_apart_from_the_sum() -> None:
    """Nobody vouches for what a declared size is called; the sums themselves are still known to be equal."""
    body = """k = Concat<axis = 1>(a, x) l = Concat<axis = 1>(b, x) sk = Shape(k) sl = Shape(l) sm = Shape(m)
        fk = Cast<to = 1>(sk) fl = Cast<to = 1>(sl) fm = Cast<to = 1>(sm) d = Sub(fk, fl) y = Sub(d, fm)"""
    x = "float[N,P,3] a, float[N,P,3] b, float[N,S,3] x, float[N,T,3] m"
    model = model_of(body, x=x, y="float[3] y")
    proto = snapshot(model)
    proto.graph.input[3].type.tensor_type.shape.dim[1].dim_param = "P + S"
    model = from_proto(proto)
    result = rewrite(SHARE, model, numbers=False)
    assert result.ops.count("Shape") == 2
    assert result.ops.count("Concat") == 1
