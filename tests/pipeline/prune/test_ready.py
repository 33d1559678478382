# SPDX-License-Identifier: Apache-2.0
"""What a model goes through before channels are removed, so that as much is found as after `tersor opt`."""

from __future__ import annotations

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model
from tersor.passes.base import Context
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import LOSSLESS, PRUNE_READY
from tests.support.coupled import between, sizes
from tests.support.prune_build import build
from tests.support.prune_cuts import halve

ONES = "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] eight = {8}"


def ready(model: Model, passes: str = PRUNE_READY) -> Model:
    manager.run(spec.parse(passes), model, Context())
    return model


def test_weights_sliced_by_sizes_of_tensors_are_weights_of_their_own() -> None:
    """Queries of one sequence, keys of another, from one packed weight."""

    def model() -> Model:
        return build(
            """h = MatMul(x, w1)  g = MatMul(z, w2)  s = Shape(h)  n = Gather(s, i2)
            wq = Slice(w, i0, n, i0)  t = Add(n, n)  wk = Slice(w, n, t, i0)
            q = MatMul(h, wq)  k = MatMul(g, wk)  y = MatMul(q, wo)  u = MatMul(k, wo2)""",
            "w1 5,8; w2 5,8; w 16,8; wo 8,3; wo2 8,3",
            x="float[B,4,5] x, float[B,6,5] z",
            y="float[B,4,3] y, float[B,6,3] u",
            constants=ONES,
        )

    found = halve(ready(model()))
    assert sizes(found) == {"h:2": 8, "g:2": 8, "q:2": 8, "k:2": 8}
    assert sizes(couple(ready(model(), f"{LOSSLESS},{PRUNE_READY}"))) == sizes(found)


def test_keys_turned_as_one_stack_keep_their_heads() -> None:
    """As torch's exporter writes attention over a sequence of any length."""

    def model() -> Model:
        return build(
            """n = Shape<start = 0, end = 1>(x)  t = Shape<start = 1, end = 2>(x)
            to = Concat<axis = 0>(n, t, rest, five)  merged = Concat<axis = 0>(n, t, rest)
            q1 = MatMul(x, wq)  q2 = Reshape(q1, to)  q = Transpose<perm = [0, 2, 1, 3]>(q2)
            k1 = MatMul(x, wk)  k2 = Reshape(k1, to)  k = Transpose<perm = [0, 2, 1, 3]>(k2)
            v1 = MatMul(x, wv)  v2 = Reshape(v1, to)  v = Transpose<perm = [0, 2, 1, 3]>(v2)
            ks = Shape(k)  rows = Slice(ks, i2, i3)  columns = Slice(ks, i3, i4)  lead = Slice(ks, i0, i2)
            stack = Concat<axis = 0>(rest, rows, columns)  back = Concat<axis = 0>(lead, columns, rows)
            k3 = Reshape(k, stack)  k4 = Transpose<perm = [0, 2, 1]>(k3)  k5 = Reshape(k4, back)
            s = MatMul(q, k5)  p = Softmax(s)  c = MatMul(p, v)
            o = Transpose<perm = [0, 2, 1, 3]>(c)  m = Reshape(o, merged)  y = MatMul(m, wo)""",
            "wq 6,20; wk 6,20; wv 6,20; wo 20,3",
            x="float[B,T,6] x",
            y="float[B,T,3] y",
            constants="int64[1] i0 = {0}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] i4 = {4},"
            " int64[1] rest = {-1}, int64[1] five = {5}",
        )

    found = halve(ready(model()))
    assert sizes(found) == {"q1:2": 4}
    assert sizes(couple(ready(model(), f"{LOSSLESS},{PRUNE_READY}"))) == sizes(found)


def test_an_image_resized_to_the_size_of_another_keeps_its_channels_free() -> None:
    model = between(
        """p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)  s = Shape(p)  f = Slice(s, i0, i2, i0)
        t = Shape(x)  l = Slice(t, i2, four, i0)  k = Concat<axis = 0>(f, l)  r = Resize(p, , , k)""",
        constants=f"{ONES}, int64[1] four = {{4}}",
    )
    assert sizes(halve(ready(model))) == {"a:1": 8}


def test_copies_of_a_weight_are_cut_as_one_as_they_are_once_simplified() -> None:
    """An exporter writes a layer that is called twice with two copies of its weight."""

    def model() -> Model:
        made = build(
            "h = MatMul(x, w1)  a = Relu(h)  y = MatMul(a, v1)"
            "  g = MatMul(z, w2)  b = Relu(g)  u = MatMul(b, v2)",
            "w1 5,8; w2 5,8; v1 8,3; v2 8,3",
            x="float[4,5] x, float[6,5] z",
            y="float[4,3] y, float[6,3] u",
        )
        held = made.graph.initializers
        for first, second in (("w1", "w2"), ("v1", "v2")):
            held[second].const_value = held[first].const_value
        return made

    found = halve(ready(model()))
    assert sizes(found) == {"h:1": 8}
    assert sizes(couple(ready(model(), f"{LOSSLESS},{PRUNE_READY}"))) == sizes(found)


def test_attention_by_einsum_loses_the_heads_that_it_loses_once_simplified() -> None:
    """As Keras writes it: weights of three axes, and heads that are never moved."""

    def model() -> Model:
        return build(
            """q = Einsum<equation = "abc,cde->abde">(x, wq)  k = Einsum<equation = "abc,cde->abde">(x, wk)
            v = Einsum<equation = "abc,cde->abde">(x, wv)
            s = Einsum<equation = "btnh,bsnh->bnts">(q, k)  p = Softmax(s)
            c = Einsum<equation = "bnts,bsnh->btnh">(p, v)  y = Einsum<equation = "abcd,cde->abe">(c, wo)""",
            "wq 6,4,5; wk 6,4,5; wv 6,4,5; wo 4,5,3",
            x="float[B,7,6] x",
            y="float[B,7,3] y",
        )

    found = halve(ready(model()))
    assert list(sizes(found).values()) == [4]
    assert sizes(couple(ready(model(), f"{LOSSLESS},{PRUNE_READY}"))) == sizes(found)
