# SPDX-License-Identifier: Apache-2.0
"""Operators that copy their input: each condition met, and each just missed."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import DataType
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.clean.no_ops import EliminateNoOps
from tests.support.numerics import assert_bitwise, snapshot
from tests.support.rewriting import model_of, rewrite

STEPS = (InferShapes(), EliminateNoOps())
WEIGHTS = """float one = {1}, float[1,1] ones = {1}, float[2,3] full = {1, 1, 1, 1, 1, 1}, float zero = {0},
    float negative = {-0.0}, float two = {2}, float[3] mixed = {1, 1, 2},
    float[4,1,1] high = {1, 1, 1, 1},
    float[1,1,1] rank3 = {1}, float[0] none = {}, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2},
    int64[1] im1 = {-1}, int64[1] end = {9223372036854775807}, int64[2] s23 = {2, 3}, int64[2] s11 = {1, 1},
    int64[3] s111 = {1, 1, 1}, int64[2] s43 = {4, 3}, int64[4] p0 = {0, 0, 0, 0}, int64[4] p1 = {0, 0, 1, 0},
    bool t = {1}, bool f = {0}, float ratio = {0.5}, int64 whole0 = {0},
    int64 whole1 = {1}, double wide = {1}"""


def ops(node: str, opset: int = 17, x: str = "float[2,3] x", y: str = "float[K,L] y") -> list[str]:
    """What is left of a node between two Negs."""
    nodes = f"a = Neg(x)\n {node}\n y = Neg(b)"
    return rewrite(STEPS, model_of(nodes, WEIGHTS, x=x, y=y, opset=opset), N=2).ops


GONE = [
    "b = Mul(a, one)", "b = Mul(one, a)", "b = Mul(a, ones)", "b = Mul(full, a)", "b = Div(a, one)",
    "b = Sub(a, zero)", "b = Pow(a, one)", "b = Cast<to = 1>(a)", "b = CastLike(a, x)",
    "b = Transpose<perm = [0, 1]>(a)", "b = Pad(a, p0)", 'b = Pad<mode = "reflect">(a, p0)',
    "b = Slice(a, i0, end)", "b = Slice(a, i0, i2)", "b = Slice(a, i0, end, i1, i1)",
    "b = Slice(a, i0, i2, i0)",
    "b = Concat<axis = 0>(a)", "b = Sum(a)", "b = Max(a)", "b = Min(a)", "b = Mean(a)",
    "b = Expand(a, s23)", "b = Expand(a, s11)", "b = Expand(a, i1)", "b = Tile(a, s11)",
    "b = Dropout(a)", "b, = Dropout(a, ratio)", "b = Dropout(a, ratio, f)",
]  # fmt: skip

STAY = [
    "b = Mul(a, two)", "b = Mul(a, mixed)", "b = Mul(a, rank3)", "b = Mul(a, high)", "b = Div(one, a)",
    "b = Sub(zero, a)", "b = Sub(a, negative)", "b = Add(a, zero)", "b = Add(a, negative)", "b = Pow(one, a)",
    "b = Transpose<perm = [1, 0]>(a)", "b = Transpose(a)", "b = Pad(a, p1)", "b = Slice(a, i1, end)",
    "b = Slice(a, i0, i1)", "b = Slice(a, i0, im1)", "b = Slice(a, i0, i2, i1)",
    "b = Slice(a, im1, end, i0, im1)", "b = Slice(a, i0, end, s11)",
    "b = Concat<axis = 0>(a, a)", "b = Sum(a, a)", "b = Clip(a, negative)", "b = Clip(a, , two)",
    "b = Clip(a)", "b = Clip(a, , )",  # an infinity becomes the greatest finite number
    "b = Tile(a, s23)", "b = Expand(a, s111)",
]  # fmt: skip


@pytest.mark.parametrize("node", GONE)
def test_copies_go(node: str) -> None:
    assert ops(node) == ["Neg", "Neg"]


@pytest.mark.parametrize("node", STAY)
def test_near_misses_stay(node: str) -> None:
    y = "float[K,L,M] y" if any(w in node for w in ("rank3", "high", "s111")) else "float[K,L] y"
    assert len(ops(node, y=y)) == 3


def test_a_clip_of_integers_without_bounds_goes() -> None:
    assert ops("b = Clip(a)", x="int32[2,3] x", y="int32[2,3] y") == ["Neg", "Neg"]


def test_dropout_that_may_train_stays() -> None:
    for node in ("b = Dropout(a, ratio, t)", "b = Dropout(a, ratio, train)"):
        model = model_of(
            f"a = Neg(x)\n {node}\n y = Neg(b)", WEIGHTS + ", bool train = {0}",
            x="float[2,3] x, bool train", y="float[2,3] y",
        )  # fmt: skip
        assert not rewrite(STEPS, model, numbers=False).changed


def test_bounds_of_a_slice_that_are_no_vectors_are_left_alone() -> None:
    model = model_of("y = Slice(x, whole0, whole1)", WEIGHTS, x="float[2,3] x", y="float[K,L] y")
    assert not rewrite(STEPS, model, numbers=False).changed


def test_a_mask_that_is_read_keeps_its_dropout() -> None:
    model = model_of("a = Neg(x)\n b, m = Dropout(a)\n y = Neg(b)", x="float[2] x", y="float[2] y, bool[2] m")
    assert not rewrite(STEPS, model).changed


@pytest.mark.parametrize(
    ("node", "opset", "left"),
    [
        ("b = Pad<pads = [0, 0, 0, 0]>(a)", 9, 2),
        ("b = Pad<pads = [0, 0, 1, 0]>(a)", 9, 3),
        ("b = Slice<starts = [0], ends = [9223372036854775807]>(a)", 9, 2),
        ("b = Slice<starts = [0], ends = [1]>(a)", 9, 3),
        ("b = Slice<axes = [1], starts = [0], ends = [3]>(a)", 9, 2),
        ("b = Slice<axes = [1], starts = [0], ends = [2]>(a)", 9, 3),
        ("b = Clip<min = 0.0>(a)", 9, 3),
        ("b = Dropout<ratio = 0.5>(a)", 9, 2),
        ("b = Dropout(a)", 13, 2),
        ("b = Mul(a, one)", 9, 2),
        ("b = Mul(a, one)", 21, 2),
        ("b = Pad(a, p0, , s01)", 21, 2),
    ],
)
def test_every_opset_s_form(node: str, opset: int, left: int) -> None:
    nodes = f"a = Neg(x)\n {node}\n y = Neg(b)"
    weights = WEIGHTS + ", int64[2] s01 = {0, 1}"
    model = model_of(nodes, weights, x="float[2,3] x", y="float[K,L] y", opset=opset)
    assert len(rewrite(STEPS, model).ops) == left


@pytest.mark.parametrize(
    ("node", "x", "left"),
    [
        ("b = Mul(a, full)", "float[N,3] x", 3),  # N may be 1
        ("b = Mul(a, ones)", "float[N,3] x", 2),
        ("b = Expand(a, s23)", "float[N,3] x", 3),
        ("b = Expand(a, s11)", "float[N,3] x", 2),
        ("b = Slice(a, i0, i2)", "float[N,3] x", 3),
        ("b = Slice(a, i0, end)", "float[N,3] x", 2),
        ("b = Expand(a, s43)", "float[1,3] x", 3),
        ("b = Mul(a, none)", "float[2,1] x", 3),
    ],
)
def test_open_dims_are_not_guessed(node: str, x: str, left: int) -> None:
    assert len(ops(node, x=x)) == left


@pytest.mark.parametrize(
    ("node", "left"), [("b = Add(a, whole0)", 2), ("b = Add(a, whole1)", 3), ("b = Mul(a, whole1)", 2)]
)
def test_integers_have_no_negative_zero(node: str, left: int) -> None:
    assert len(ops(node, x="int64[2,3] x", y="int64[2,3] y")) == left


def test_casts_that_change_the_type_stay() -> None:
    nodes = "a = Neg(x)\n b = Cast<to = 11>(a)\n d = Mul(b, wide)\n e = Cast<to = 1>(d)\n y = Neg(e)"
    result = rewrite(STEPS, model_of(nodes, WEIGHTS, x="float[2] x", y="float[2] y"))
    assert result.ops == ["Neg", "Cast", "Cast", "Neg"]


def test_a_copy_that_names_an_output_stays() -> None:
    model = model_of("y = Mul(x, one)", WEIGHTS, x="float[2] x", y="float[2] y")
    assert rewrite(STEPS, model).ops == ["Mul"]


def test_an_overridable_neutral_stays() -> None:
    model = model_of("a = Neg(x)\n y = Mul(a, k)", "float k = {1}", x="float[2] x, float k", y="float[2] y")
    assert rewrite(STEPS, model).ops == ["Neg", "Mul"]


def test_special_numbers_keep_their_bits() -> None:
    """-0.0, infinities and NaN pass through every removed node unchanged."""
    nodes = "a = Mul(x, one)\n b = Sub(a, zero)\n d = Div(b, one)\n e = Pow(d, one)\n y = Neg(e)"
    model = model_of(nodes, WEIGHTS, x="float[6] x", y="float[6] y")
    before = snapshot(model)
    assert rewrite(STEPS, model).ops == ["Neg"]
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45], np.float32)
    assert_bitwise(before, model, {"x": x})


def test_bodies_are_cleaned() -> None:
    nodes = """i = If(c) <then_branch = a () => (float[2] p) { u = Neg(x)\n v = Mul(u, one)\n p = Abs(v) },
        else_branch = b () => (float[2] q) { q = Mul(x, one) }>
        y = Neg(i)"""
    result = rewrite(STEPS, model_of(nodes, WEIGHTS, x="float[2] x, bool c", y="float[2] y"))
    assert sorted(result.ops) == ["Abs", "If", "Mul", "Neg", "Neg"]


@pytest.mark.parametrize(("neutral", "left"), [("one", ["Relu"]), ("ones1", ["Relu", "Mul"])])
def test_a_scalar_enlarges_nothing_of_whatever_rank(neutral: str, left: list[str]) -> None:
    model = model_of(
        f"a = Relu(x) y = Mul(a, {neutral})",
        WEIGHTS + ", float[1] ones1 = {1}",
        x="float[2,3] x",
        y="float[2,3] y",
    )
    model.graph[0].outputs[0].dtype = DataType.FLOAT
    assert rewrite(EliminateNoOps(), model).ops == left
