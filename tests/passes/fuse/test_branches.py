# SPDX-License-Identifier: Apache-2.0
"""Convolutions of one tensor that are added up."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.graph_ir import Model, from_proto
from tersor.graph_ir.ops import constant
from tersor.passes.base import Context
from tersor.passes.fuse.branches import FoldBranches
from tests.support.rewriting import declined, model_of, rewrite, snapshot, with_array

X, Y = "float[N,2,7,8] x", "float[N,c,h,w] y"
NORM = "float[2] s = {0.5,-2}, float[2] t = {1,0.25}, float[2] m = {0.1,3}, float[2] v = {1.5,0.7}"
GRID = "the kernels do not lie on one grid"
STRIDES = "the branches have other strides or groups"
CHANNELS = "the branches have other channels"


def filled(model: Model) -> Model:
    """The model with random data in weights whose names end in an underscore."""
    proto, random = snapshot(model), np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("_"):
            data = random.normal(size=tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(data, tensor.name))
    return from_proto(proto)


def weight(name: str, *shape: int) -> str:
    sizes = ",".join(map(str, shape))
    return f"float[{sizes}] {name}_ = {{{','.join(['0'] * int(np.prod(shape)))}}}"


def two(first: str, second: str, *shapes: tuple[int, ...], op: str = "Add", x: str = X, y: str = Y) -> Model:
    weights = ", ".join(weight(name, *shape) for name, shape in zip("ab", shapes, strict=True))
    body = f"p = Conv{first}(x, a_) q = Conv{second}(x, b_) y = {op}(p, q)"
    return filled(model_of(body, weights, x=x, y=y))


def test_text_in_text_out() -> None:
    done = rewrite(FoldBranches(), two("<pads=[1,1,1,1]>", "", (3, 2, 3, 3), (3, 2, 1, 1)), N=2, c=3)
    assert done.ops == ["Conv"]
    assert "kernel_shape=[3, 3], pads=[1, 1, 1, 1]" in done.text


@pytest.mark.parametrize(
    ("first", "second", "shapes"),
    [
        ("<strides=[2,1], pads=[1,1,1,1]>", "<strides=[2,1]>", ((3, 2, 3, 3), (3, 2, 1, 1))),
        ("<pads=[2,1,2,1]>", "<pads=[0,1,0,1]>", ((3, 2, 5, 3), (3, 2, 1, 3))),
        ("<pads=[0,1,2,1]>", "", ((3, 2, 3, 3), (3, 2, 1, 1))),
        ("<group=2, pads=[1,1,1,1]>", "<group=2>", ((4, 1, 3, 3), (4, 1, 1, 1))),
        ("<dilations=[2,2], pads=[2,2,2,2]>", "", ((3, 2, 3, 3), (3, 2, 1, 1))),
        ("<dilations=[2,1], pads=[2,1,2,1]>", "<pads=[0,1,0,1]>", ((3, 2, 3, 3), (3, 2, 1, 3))),
        ('<auto_pad="VALID">', "", ((3, 2, 1, 1), (3, 2, 1, 1))),
        ("<pads=[1,1,1,1]>", "<pads=[2,2,2,2]>", ((3, 2, 3, 3), (3, 2, 5, 5))),
    ],
)
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_kernels_on_one_grid(first: str, second: str, shapes: tuple[tuple[int, ...], ...], op: str) -> None:
    assert rewrite(FoldBranches(), two(first, second, *shapes, op=op), N=2).ops == ["Conv"]
    turned = two(second, first, *shapes[::-1], op=op)
    assert rewrite(FoldBranches(), turned, N=2).ops == ["Conv"]


@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3))
def test_any_padding_gives_the_same_or_is_left(before: int, behind: int, rows: int) -> None:
    first = two(f"<pads=[{before},0,{behind},0]>", "<pads=[1,0,1,0]>", (2, 2, rows, 1), (2, 2, 3, 1))
    if before + behind + 1 != rows:
        assert not FoldBranches().run(first, Context()), "results of other sizes"
        return
    small_enough = max(before, 1) + max(behind, 1) + 1 <= rows + 3
    assert rewrite(FoldBranches(), first, N=1).ops == (["Conv"] if small_enough else ["Conv", "Conv", "Add"])


@pytest.mark.parametrize(
    ("first", "second", "shapes", "reason"),
    [
        ("<pads=[1,1,1,1]>", "<strides=[1,2]>", ((3, 2, 3, 3), (3, 2, 1, 1)), STRIDES),
        ("<group=2, pads=[1,1,1,1]>", "", ((4, 1, 3, 3), (4, 2, 1, 1)), STRIDES),
        ("<dilations=[2,2], pads=[2,2,2,2]>", "<pads=[1,1,1,1]>", ((3, 2, 3, 3), (3, 2, 3, 3)), GRID),
        ("<dilations=[2,2], pads=[1,1,3,3]>", "", ((3, 2, 3, 3), (3, 2, 1, 1)), GRID),
        (
            "<pads=[1,0,1,0]>",
            "<pads=[0,1,0,1]>",
            ((3, 2, 3, 1), (3, 2, 1, 3)),
            "one kernel for both would be larger than the two",
        ),
        ('<auto_pad="SAME_UPPER">', "", ((3, 2, 3, 3), (3, 2, 1, 1)), "the padding is not written down"),
    ],
)
def test_near_misses(first: str, second: str, shapes: tuple[tuple[int, ...], ...], reason: str) -> None:
    assert declined(FoldBranches(), two(first, second, *shapes)) == {reason}


def test_one_convolution_on_both_sides() -> None:
    body = "p = Conv<pads=[1,1,1,1]>(x, a_) y = Add(p, p)"
    model = filled(model_of(body, weight("a", 3, 2, 3, 3), x=X, y=Y))
    assert rewrite(FoldBranches(), model, N=2).ops == ["Conv"]


def test_results_that_the_sum_repeats() -> None:
    model = two("<pads=[1,1,1,1]>", "", (3, 2, 3, 3), (1, 2, 1, 1))
    assert declined(FoldBranches(), model) == {CHANNELS}
    column = two("<pads=[0,1,0,1]>", "", (3, 2, 7, 3), (3, 2, 7, 8), y="float[N,3,1,8] y")
    assert declined(FoldBranches(), column) == {GRID}


@pytest.mark.parametrize(
    "body",
    [
        "p = Conv<pads=[1,1,1,1]>(x, a_) q = Conv(z, b_) y = Add(p, q)",
        "p = Conv<pads=[1,1,1,1]>(x, a_) q = Conv(x, b_) y = Mul(p, q)",
        "p = Conv<pads=[1,1,1,1]>(x, a_) q = Conv(x, b_) u = Add(p, q) y = Mul(u, q)",
    ],
)
def test_other_tensors_and_readers(body: str) -> None:
    weights = f"{weight('a', 3, 2, 3, 3)}, {weight('b', 3, 2, 1, 1)}"
    model = filled(model_of(body, weights, x=f"{X}, float[N,2,7,8] z", y=Y))
    assert not rewrite(FoldBranches(), model).changed


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        ("Conv<pads=[1,1,1,1]>(x, a_, b_)", (2, 2, 3, 3)),
        ("Conv<pads=[1,1,1,1], group=2>(x, a_, b_)", (2, 1, 3, 3)),
        ("Conv(x, a_, b_)", (2, 2, 1, 1)),
    ],
)
@pytest.mark.parametrize("sum_", ["Add(p, q)", "Sub(p, q)", "Sub(q, p)", "Add(q, p)"])
def test_norm_beside(conv: str, shape: tuple[int, ...], sum_: str) -> None:
    body = f"p = {conv} q = BatchNormalization(x, s, t, m, v) y = {sum_}"
    weights = f"{weight('a', *shape)}, {weight('b', 2)}, {NORM}"
    done = rewrite(FoldBranches(), filled(model_of(body, weights, x=X, y=Y)), N=2)
    assert done.ops == ["Conv"]


@pytest.mark.parametrize(
    ("conv", "shape", "reason"),
    [
        ("Conv<pads=[0,0,0,0]>(x, a_)", (2, 2, 3, 3), GRID),
        ("Conv<pads=[1,1,1,1], strides=[2,2]>(x, a_)", (2, 2, 3, 3), STRIDES),
        ("Conv<pads=[1,1,1,1]>(x, a_)", (1, 2, 3, 3), CHANNELS),
        ("Conv<pads=[1,1,1,1]>(x, a_)", (4, 2, 3, 3), CHANNELS),
    ],
)
def test_norm_beside_that_does_not_fit(conv: str, shape: tuple[int, ...], reason: str) -> None:
    model = model_of(
        f"p = {conv} q = BatchNormalization(x, s, t, m, v) y = Add(p, q)",
        f"{weight('a', *shape)}, {NORM}",
        x=X,
        y=Y,
    )
    context = Context()
    assert not FoldBranches().run(filled(model), context)
    assert {reason_ for _, reason_ in context.misses} == {reason}


def test_three_branches_of_a_training_block() -> None:
    body = (
        "p = Conv<pads=[1,1,1,1]>(x, a_, c_) q = Conv(x, b_) r = BatchNormalization(x, s, t, m, v) "
        "u = Add(p, q) y = Add(u, r)"
    )
    weights = f"{weight('a', 2, 2, 3, 3)}, {weight('b', 2, 2, 1, 1)}, {weight('c', 2)}, {NORM}"
    done = rewrite(FoldBranches(), filled(model_of(body, weights, x=X, y=Y)), N=1)
    assert done.ops == ["Conv"]
    assert len(done.model.graph.initializers) == 2, "weights and bias; what they came of is gone"


def test_weights_that_overflow_together() -> None:
    model = two("", "", (3, 2, 1, 1), (3, 2, 1, 1))
    for name in ("a_", "b_"):
        model = with_array(model, name, np.full((3, 2, 1, 1), 3e38, np.float32))
    assert "overflow" in "".join(declined(FoldBranches(), model))


def test_same_numbers_as_one_kernel() -> None:
    done = rewrite(FoldBranches(), two("<pads=[1,1,1,1]>", "", (3, 2, 3, 3), (3, 2, 1, 1)), N=2)
    expected, b = (np.array(onnx.numpy_helper.to_array(t)) for t in done.before.graph.initializer)
    (made,) = (constant(v) for v in done.model.graph.initializers.values())
    assert made is not None
    expected[:, :, 1, 1] += b[:, :, 0, 0]
    np.testing.assert_allclose(made, expected, rtol=1e-6)
