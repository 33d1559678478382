# SPDX-License-Identifier: Apache-2.0
"""Vectors that several nodes read get copies; the channels they stand for come apart."""

from __future__ import annotations

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model
from tersor.graph_ir.ops import constant_tensor, is_op
from tersor.passes.base import Context
from tersor.passes.prune.unshare import UnshareVectors
from tests.support.rewriting import model_of, rewrite

TWO = "c1 = Conv(x, w1, b) r1 = Relu(c1) c2 = Conv(r1, w2, b) r2 = Relu(c2) y = Conv(r2, w3)"
WEIGHTS = "float[6,2,1,1] w1 = {seed}, float[6,6,1,1] w2 = {seed}, float[3,6,1,1] w3 = {seed}"


def two_layers(bias: str) -> Model:
    return model_of(TWO, f"{WEIGHTS}, {bias}", x="float[1,2,4,4] x", y="float[1,3,4,4] y")


def test_layers_with_one_bias_are_cut_apart() -> None:
    model = two_layers("float[6] b = {seed}")
    assert [group.atoms for group in couple(model).groups] == [6]
    done = rewrite(UnshareVectors(), model)
    assert done.changed
    assert done.context.counters["copies"] == 1
    assert [group.atoms for group in couple(done.model).groups] == [6, 6]


def test_the_copies_share_their_data() -> None:
    model = two_layers("float[6] b = {seed}")
    UnshareVectors().run(model, Context())
    first, second = (n.inputs[2] for n in list(model.graph)[:3] if is_op(n, "Conv"))
    assert first is not second
    assert constant_tensor(first) is constant_tensor(second)


def test_a_vector_read_once_and_a_shared_matrix_stay() -> None:
    once = model_of("y = Add(x, b)", "float[6] b = {seed}", x="float[2,6] x", y="float[2,6] y")
    assert not rewrite(UnshareVectors(), once).changed
    matrix = model_of(
        "h = MatMul(x, w) y = MatMul(h, w)", "float[6,6] w = {seed}", x="float[2,6] x", y="float[2,6] y"
    )
    assert not rewrite(UnshareVectors(), matrix).changed


def test_shapes_and_scalars_stay_shared() -> None:
    body = "a = Reshape(x, s) b = Relu(a) c = Reshape(b, s) d = Mul(c, k) y = Mul(d, k)"
    weights = "int64[2] s = {3, 4}, float k = {2.0}"
    assert not rewrite(UnshareVectors(), model_of(body, weights, x="float[2,6] x", y="float[3,4] y")).changed


def test_what_a_body_reads_keeps_the_shared_vector() -> None:
    body = """a = Add(x, b)
    y = If (c) <then_branch = t () => (float[2,6] p) { p = Add(a, b) },
                else_branch = e () => (float[2,6] q) { q = Sub(a, b) }>"""
    model = model_of(body, "float[6] b = {seed}", x="float[2,6] x, bool c", y="float[2,6] y")
    done = rewrite(UnshareVectors(), model)
    assert done.context.counters["copies"] == 1
    assert len(done.model.graph.initializers) == 2
