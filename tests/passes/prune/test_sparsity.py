# SPDX-License-Identifier: Apache-2.0
"""The magnitude masks in models: counts, layouts, shared weights, and what stays dense with which reason."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.graph_ir import Model, UsageError, constant, from_proto, parse, signature_of, to_proto, verify
from tersor.passes.base import Context
from tersor.passes.prune.sparsity import Sparsify
from tests.support.int8 import feeds_of, graph, run


def apply(model: Model, options: Sparsify) -> Context:
    """Run the pass; the signature, the names of the weights and the nodes must stay."""
    ctx, signature, names = Context(), signature_of(model), sorted(model.graph.initializers)
    nodes = to_proto(model).graph.node
    options.run(model, ctx)
    verify(model, signature)
    assert sorted(model.graph.initializers) == names
    assert to_proto(model).graph.node == nodes
    return ctx


def weights(model: Model, name: str = "w") -> NDArray[np.float32]:
    found = constant(model.graph.initializers[name])
    assert found is not None
    return np.array(found, np.float32)


CONV = "float[12,8,3,3] w = {seed}, float[12] b = {seed}"


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_the_smallest_weights_become_zero_and_the_rest_stay(share: float) -> None:
    model = graph("y = Conv(x, w, b)", CONV, x="1,8,6,6")
    before = weights(model)
    bias = weights(model, "b")
    apply(model, Sparsify(sparsity=share))
    after = weights(model)
    gone = after == 0
    assert gone.sum() == round(share * before.size)
    assert np.abs(before[gone]).max() <= np.abs(before[~gone]).min()
    np.testing.assert_array_equal(after[~gone], before[~gone])
    np.testing.assert_array_equal(weights(model, "b"), bias)


def test_the_model_computes_with_the_zeros() -> None:
    model = graph(
        "t = Conv(x, w, b) u = Flatten(t) y = Gemm(u, v)", CONV + ", float[192,5] v = {seed}", "1,8,6,6"
    )
    apply(model, Sparsify(sparsity=0.5))
    proto, feed = to_proto(model), feeds_of(model)[0]
    for tensor in proto.graph.initializer:
        if tensor.name == "v":
            tensor.raw_data = np.where(weights(model, "v") == 0, 0, weights(model, "v")).tobytes()
    np.testing.assert_array_equal(run(proto, feed)[0], run(to_proto(model), feed)[0])
    assert (weights(model, "v") == 0).sum() == 480


LAYOUTS = [
    # body, shape of w, axis of the input channels
    ("y = Conv(x, w)", "6,8,3,3", "1,8,6,6", 1),
    ("y = Conv<group=2>(x, w)", "6,4,3,3", "1,8,6,6", 1),
    ("y = ConvTranspose(x, w)", "8,5,2,2", "1,8,6,6", 0),
    ("y = Gemm(x, w)", "8,5", "3,8", 0),
    ("y = Gemm<transB=1>(x, w)", "5,8", "3,8", 1),
    ("y = MatMul(x, w)", "8,5", "2,3,8", 0),
    ("y = MatMul(x, w)", "2,8,5", "2,3,8", 1),
    ("y = MatMul(w, x)", "5,8", "8,3", 1),
    ("t = Transpose<perm=[3,2,0,1]>(w) y = Conv(x, t)", "3,3,8,6", "1,8,6,6", 2),
]


@pytest.mark.parametrize(("body", "shape", "x", "axis"), LAYOUTS)
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "1:2"])
def test_a_pattern_lies_along_the_input_channels(
    body: str, shape: str, x: str, axis: int, pattern: str
) -> None:
    model = graph(body, f"float[{shape}] w = {{seed}}", x=x)
    before = weights(model)
    apply(model, Sparsify(pattern=pattern))
    kept, of = map(int, pattern.split(":"))
    runs = np.moveaxis(weights(model), axis, -1).reshape(-1, of)
    assert (np.count_nonzero(runs, axis=1) == kept).all()
    sizes = np.abs(np.moveaxis(before, axis, -1).reshape(-1, of))
    largest = np.sort(sizes, axis=1)[:, -kept:].sum(axis=1)
    np.testing.assert_allclose(np.abs(runs).sum(axis=1), largest, rtol=1e-6)


def test_what_the_pattern_does_not_divide_stays_dense_with_the_reason() -> None:
    model = graph(
        "t = Conv(x, w) y = Conv<group=6>(t, d)",
        "float[6,3,1,1] w = {seed}, float[6,1,1,1] d = {seed}",
        "1,3,4,4",
    )
    ctx = apply(model, Sparsify(pattern="2:4"))
    assert np.count_nonzero(weights(model)) == 18
    assert ctx.notes == [
        "'w' stays dense: its 3 input channels are no multiple of 4",
        "'d' stays dense: its 1 input channels are no multiple of 4",
    ]
    assert not ctx.counters


def test_one_threshold_for_all() -> None:
    model = graph(
        "t = MatMul(x, w) y = MatMul(t, v)", "float[8,8] w = {seed}, float[8,8] v = {seed}", x="2,8"
    )
    small = weights(model) * np.float32(0.01)
    proto = to_proto(model)
    next(t for t in proto.graph.initializer if t.name == "w").raw_data = small.tobytes()
    model = from_proto(proto)
    apply(model, Sparsify(sparsity=0.25, scope="global"))
    zeros = [int((weights(model, name) == 0).sum()) for name in "wv"]
    assert sum(zeros) == 32
    assert zeros[0] >= 30


def test_a_weight_read_twice_is_masked_once() -> None:
    model = graph("t = MatMul(x, w) y = MatMul(t, w)", "float[8,8] w = {seed}", x="2,8")
    ctx = apply(model, Sparsify(pattern="2:4"))
    assert ctx.counters["sparsify"] == 1
    assert np.count_nonzero(weights(model)) == 32


def test_readers_that_sum_over_other_axes_share_no_pattern_but_a_share() -> None:
    def made() -> Model:
        return graph("t = MatMul(x, w) y = Gemm<transB=1>(t, w)", "float[8,8] w = {seed}", x="2,8")

    model = made()
    ctx = apply(model, Sparsify(pattern="2:4"))
    assert np.count_nonzero(weights(model)) == 64
    assert "in different ways" in ctx.notes[0]
    apply(model := made(), Sparsify(sparsity=0.5))
    assert np.count_nonzero(weights(model)) == 32


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("t = MatMul(x, w) u = Add(t, w) y = Relu(u)", "(Add) reads it, too"),
        ("t = Transpose(w) u = MatMul(x, t) y = Add(u, w)", "(Add) reads it, too"),
        ("v = Mul(w, s) y = MatMul(x, v)", "it is computed by"),
        ("v = DequantizeLinear(q, s) y = MatMul(x, v)", "it is quantised"),
        ("y = Gemm(x, w, w)", "also the bias"),
        ('y = Einsum<equation="ij,jk->ik">(x, w)', "Einsum is not made sparse"),
    ],
)
def test_near_misses_stay_dense(body: str, reason: str) -> None:
    model = graph(body, "float[2,2] w = {seed}, int8[2,2] q = {1, 2, 3, 4}, float s = {2}", x="2,2")
    before = to_proto(model)
    ctx = apply(model, Sparsify(sparsity=0.5))
    assert to_proto(model) == before
    assert any(reason in note for note in ctx.notes), ctx.notes


def test_weights_a_caller_may_override_and_outputs_stay_dense() -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17]>
    g (float[2,8] x, float[8,8] w) => (float[2,8] y, float[8,8] v)
    <float[8,8] w = {seed}, float[8,8] v = {seed}> {
      t = MatMul(x, w)
      y = MatMul(t, v)
    }""")
    before = to_proto(model)
    ctx = apply(model, Sparsify())
    assert to_proto(model) == before
    assert ["may override" in ctx.notes[0], "output of the model" in ctx.notes[1]] == [True, True]


def test_products_of_activations_are_no_ones_business() -> None:
    model = graph("y = MatMul(x, x)", x="8,8")
    assert not Sparsify().run(model, ctx := Context())
    assert not ctx.notes


def test_excluded_by_name_weight_and_operator() -> None:
    for exclude in ("MatMul(y)", "w", "Mat*", "op:MatMul"):
        model = graph("y = MatMul(x, w)", "float[8,8] w = {seed}", x="2,8")
        ctx = apply(model, Sparsify(exclude=(exclude,)))
        assert f"excluded by {exclude!r}" in ctx.notes[0]
        assert np.count_nonzero(weights(model)) == 64
    with pytest.raises(UsageError, match="exclude 'v' fits no"):
        apply(graph("y = MatMul(x, w)", "float[8,8] w = {seed}", x="2,8"), Sparsify(exclude=("v",)))


def test_nan_is_not_ranked() -> None:
    model = graph("y = MatMul(x, w)", "float[2,2] w = {seed}", x="2,2")
    proto = to_proto(model)
    proto.graph.initializer[0].raw_data = np.array([[1, np.nan], [2, 3]], np.float32).tobytes()
    ctx = apply(from_proto(proto), Sparsify())
    assert ctx.notes == ["'w' stays dense: it holds NaN or infinity"]


def test_what_was_measured_holds_no_longer() -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 17]>
    g (float[2,4] x) => (float[2,4] y) <float[4,4] w = {seed}> { y = MatMul(x, w) }""")
    ctx = Context(facts={"ranges": {"y": (-1.0, 1.0)}})
    assert Sparsify(sparsity=0.5).run(model, ctx)
    assert "ranges" not in ctx.facts


def test_twice_is_once() -> None:
    model = graph("y = Conv(x, w, b)", CONV, x="1,8,6,6")
    assert Sparsify(pattern="2:4").run(model, Context())
    once = to_proto(model).SerializeToString(deterministic=True)
    assert not Sparsify(pattern="2:4").run(model, Context())
    assert not Sparsify(sparsity=0.5).run(model, Context())
    assert to_proto(model).SerializeToString(deterministic=True) == once


def test_bodies_and_functions_are_masked_too() -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[3,8] x, bool c) => (float[3,8] y) <float[8,8] w = {seed}> {
      z = own.f(x)
      y = If (c) <then_branch = a () => (float[3,8] p) { p = MatMul(z, w) },
                  else_branch = b () => (float[3,8] q) { q = MatMul(x, w) }>
    }
    <domain: "own", opset_import: ["" : 17]>
    f (x) => (y) { k = Constant<value = float[8,1] {1., 2., 3., -4., 5., 6., 7., 8.}>()
      t = MatMul(x, k) y = Add(x, t) }""")
    ctx = Context()
    Sparsify(sparsity=0.5).run(model, ctx)
    verify(model)
    assert np.count_nonzero(weights(model)) == 32
    body = to_proto(model).functions[0]
    assert [n.op_type for n in body.node] == ["Constant", "MatMul", "Add"]
    assert ctx.counters["sparsify"] == 2


def test_options_are_checked() -> None:
    for options, words in [
        ({"sparsity": 1.5}, "no share"),
        ({"pattern": "4:2"}, "less than M"),
        ({"pattern": "2:4", "sparsity": 0.5}, "not both"),
        ({"pattern": "2:4", "scope": "global"}, "no global scope"),
    ]:
        with pytest.raises(UsageError, match=words):
            Sparsify(**options)  # pyright: ignore[reportArgumentType]
