# SPDX-License-Identifier: Apache-2.0
"""Folding of shape arithmetic: static parts become constants, open ones stay, an empty batch works."""

from __future__ import annotations

import numpy as np

from tersor.graph_ir import Model, constant
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.fold_shapes import FoldShapes
from tersor.passes.clean.infer_shapes import InferShapes
from tests.support.numerics import assert_bitwise, snapshot
from tests.support.rewriting import Rewritten, model_of, rewrite

STEPS = (InferShapes(), FoldShapes(), EliminateDeadCode())
ONE = "int64[1] one = {1}, int64[1] minus = {-1}, int64 zero = {0}, int64[1] zero1 = {0}, int64[1] two = {2}"


def folded(model: Model, *sizes: int) -> Rewritten:
    """Run the steps; numbers hold for each size of N, 0 among them."""
    before = snapshot(model)
    result = rewrite(STEPS, model, N=2)
    for size in (*sizes, 1, 3):
        feed = {
            port.name: np.ones([d.dim_value or size for d in port.type.tensor_type.shape.dim], np.float32)
            for port in before.graph.input
        }
        assert_bitwise(before, result.model, feed)
    return result


FLATTEN = """s = Shape(x)
    n = Gather(s, zero)
    n1 = Unsqueeze(n, zero1)
    t = Concat<axis = 0>(n1, minus)
    y = Reshape(x, t)"""


def test_a_static_shape_becomes_a_constant() -> None:
    result = folded(model_of(FLATTEN, ONE, x="float[2,3,4] x", y="float[2,12] y"))
    assert result.ops == ["Reshape"]


def test_a_symbolic_batch_is_copied_and_may_be_empty() -> None:
    nodes = FLATTEN.replace("minus)", "twelve)")
    result = folded(
        model_of(nodes, ONE + ", int64[1] twelve = {12}", x="float[N,3,4] x", y="float[N,12] y"), 0
    )
    assert result.ops == ["Reshape"]
    target = constant(result.model.graph[0].inputs[1])
    assert target is not None
    assert target.tolist() == [0, 12]


def test_minus_one_beside_a_symbolic_batch_is_kept() -> None:
    """[N, -1] and [0, -1] are one and the same target: also for an empty batch, where both fail."""
    result = rewrite(STEPS, model_of(FLATTEN, ONE, x="float[N,3,4] x", y="float[N,12] y"), N=2)
    target = constant(result.model.graph[0].inputs[1])
    assert target is not None
    assert target.tolist() == [0, -1]


def test_a_moved_batch_becomes_minus_one() -> None:
    nodes = "s = Shape(x)\n n = Gather(s, zero1)\n t = Concat<axis = 0>(four, n)\n y = Reshape(x, t)"
    result = folded(model_of(nodes, ONE + ", int64[1] four = {4}", x="float[N,4] x", y="float[4,N] y"))
    target = constant(result.model.graph[0].inputs[1])
    assert target is not None
    assert target.tolist() == [4, -1]


def test_two_open_dims_stay_computed() -> None:
    nodes = "s = Shape(x)\n n = Slice(s, one, three)\n t = Concat<axis = 0>(n, minus)\n y = Reshape(x, t)"
    weights = ONE + ", int64[1] three = {3}"
    model = model_of(nodes, weights, x="float[2,N,M] x", y="float[N,M,K] y")
    assert "Shape" in rewrite(STEPS, model, N=2, M=3, K=2).ops


def test_scalars_keep_their_rank_and_int32_its_type() -> None:
    nodes = """s = Shape(x)
        a = Gather(s, zero)
        b = Cast<to = 6>(a)
        d = Cast<to = 1>(b)
        y = Mul(x, d)"""
    result = folded(model_of(nodes, ONE, x="float[2,3] x", y="float[2,3] y"))
    assert result.ops == ["Cast", "Mul"]
    value = result.model.graph[0].inputs[0]
    held = constant(value)
    assert held is not None
    assert held.dtype == np.int32
    assert held.shape == ()


def test_open_dims_and_outputs_stay() -> None:
    model = model_of("s = Shape(x)\n y = Cast<to = 1>(s)", x="float[N] x", y="float[1] y")
    assert rewrite(STEPS, model, N=2).ops == ["Shape", "Cast"]
    model = model_of("y = Shape(x)", x="float[2] x", y="int64[1] y")
    assert rewrite(STEPS, model).ops == ["Shape"]


def test_an_overridable_target_stays() -> None:
    model = model_of("y = Reshape(x, t)", "int64[1] t = {6}", x="float[2,3] x, int64[1] t", y="float[K] y")
    assert not rewrite(STEPS, model, numbers=False).changed


def test_range_operands_seen_to_be_vectors_are_squeezed() -> None:
    """onnxruntime takes [1]-shaped operands until it can see the shape; folding must not show it."""
    nodes = """n = Size(x)
        small = Equal(n, four)
        limit = If(small) <then_branch = a () => (int64[1] p) { p = Identity(one) },
            else_branch = b () => (int64[0] q) { q = Identity(none) }>
        r = Range(zero, limit, step)
        f = Cast<to = 1>(r)
        y = Add(x, f)"""
    weights = ONE + ", int64 four = {4}, int64[0] none = {}, int64 step = {1}"
    result = rewrite(STEPS, model_of(nodes, weights, x="float[4] x", y="float[4] y"))
    assert "Squeeze" in result.ops
    assert not rewrite(STEPS, result.model).changed


def test_bodies() -> None:
    body = """i = If(c) <then_branch = a () => (float[2,3] p) {{ {} }},
        else_branch = b () => (float[2,3] q) {{ q = Neg(x) }}>"""
    inner = "s = Shape(x)\n f = Cast<to = 1>(s)\n g = ReduceSum<keepdims = 0>(f)\n p = Mul(x, g)"
    nodes = body.format(inner) + "\n y = Neg(i)"
    result = rewrite(STEPS, model_of(nodes, ONE, x="float[2,3] x, bool c", y="float[2,3] y"))
    assert "Shape" not in result.ops


SAME = "s = Shape(z)\n r = Reshape(x, s)\n y = Relu(r)"


def test_a_reshape_to_its_own_shape_goes() -> None:
    nodes = "z = Sigmoid(x)\n " + SAME.replace("(x,", "(z,")
    result = folded(model_of(nodes, x="float[N,3] x", y="float[N,3] y"), 0)
    assert result.ops == ["Sigmoid", "Relu"]


def test_a_reshape_to_another_shape_of_as_many_elements_stays() -> None:
    model = model_of(SAME, x="float[N,3] x, float[3,N] z", y="float[3,N] y")
    assert folded(model).ops == ["Reshape", "Relu"]


def test_a_reshape_to_its_own_shape_that_is_an_output_stays() -> None:
    model = model_of("s = Shape(x)\n y = Reshape(x, s)", x="float[N,3] x", y="float[N,3] y")
    assert folded(model, 0).ops == ["Reshape"]


def test_allowzero_goes_where_a_size_is_copied() -> None:
    nodes = """s = Shape(x) n = Gather(s, zero1) t = Concat<axis = 0>(n, twelve)
        y = Reshape<allowzero = 1>(x, t)"""
    weights = ONE + ", int64[1] twelve = {12}"
    result = folded(model_of(nodes, weights, x="float[N,3,4] x", y="float[N,12] y"), 0)
    assert result.ops == ["Reshape"]
    assert "allowzero" not in result.text
    target = constant(result.model.graph[0].inputs[1])
    assert target is not None
    assert target.tolist() == [0, 12]


def test_allowzero_stays_beside_the_number_zero() -> None:
    nodes = (
        "s = Shape(x) n = Gather(s, zero1) t = Concat<axis = 0>(n, zero1) y = Reshape<allowzero = 1>(x, t)"
    )
    result = rewrite(STEPS, model_of(nodes, ONE, x="float[N,0] x", y="float[N,0] y"), N=2)
    assert "allowzero" in result.text


def test_allowzero_stays_beside_minus_one() -> None:
    """With it newer versions of onnxruntime take an empty batch, which none does for a copied size."""
    nodes = """s = Shape(x) n = Gather(s, zero1) t = Concat<axis = 0>(n, minus)
        y = Reshape<allowzero = 1>(x, t)"""
    result = folded(model_of(nodes, ONE, x="float[N,3,4] x", y="float[N,M] y"), 2)
    assert "allowzero" in result.text


def test_whether_a_size_is_minus_one_is_known() -> None:
    """As torch repeats a class token for each picture: -1 stands for the sizes that stay."""
    body = """s = Shape(x) n = Gather(s, zero1) t = Concat<axis = 0>(n, minus, minus)
        m = Equal(t, negatives) w = Where(m, ones, t) y = Expand(token, w)"""
    weights = (
        ONE + ", float[1,1,3] token = {1, 2, 3}, int64[3] ones = {1, 1, 1}, int64[3] negatives = {-1, -1, -1}"
    )
    result = folded(model_of(body, weights, x="float[N,2] x", y="float[N,1,3] y"))
    assert "Equal" not in result.ops


def test_a_comparison_with_a_size_that_may_be_equal_stays() -> None:
    body = "s = Shape(x) n = Gather(s, zero1) m = Equal(n, two) w = Where(m, one, n) y = Expand(token, w)"
    result = folded(model_of(body, ONE + ", float[1] token = {1}", x="float[N,2] x", y="float[M] y"), 2)
    assert "Equal" in result.ops
