# SPDX-License-Identifier: Apache-2.0
"""Attention where masks forbid every key of a query, by -inf or by the lowest float."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.attention import FuseAttention
from tests.support.numerics import run_both, run_onnxruntime
from tests.support.rewriting import Rewritten, declined, model_of, rewrite, with_array

FUSE = FuseAttention()
ROWS = "float[2,5,12] q, float[2,5,12] k, float[2,5,12] v, bool[2,1,5,5] may"
WEIGHTS = (
    "int64[4] cut = {0, 0, 3, 4}, int64[3] flat = {0, 0, 12}, float half = {0.5}, float none = {0}, "
    "float low = {0}, float[1,3,5,5] near = {seed}"
)
SCORES = (
    "q1 = Reshape(q, cut) k1 = Reshape(k, cut) v1 = Reshape(v, cut) q2 = Transpose<perm = [0,2,1,3]>(q1) "
    "k2 = Transpose<perm = [0,2,3,1]>(k1) v2 = Transpose<perm = [0,2,1,3]>(v1) "
    "s = MatMul(q2, k2) f = Mul(s, half) "
)
MASK = "m = Where(may, none, low) g = Add(f, m) p = Softmax<axis = -1>(g) "
MIX = "a = MatMul(p, v2) t = Transpose<perm = [0,2,1,3]>(a) y = Reshape(t, flat)"
GUARD = "n = IsNaN(p) w = Where(n, none, p) " + MIX.replace("(p,", "(w,")
COMPUTED = MASK.replace("m = ", "c = ").replace("g =", "m = Reshape(c, as) g =")
LOWEST = float(np.finfo(np.float32).min)


def made(body: str, low: float = LOWEST, x: str = ROWS) -> Model:
    weights = f"{WEIGHTS}, int64[4] as = {{2, 1, 5, 5}}"
    model = model_of(SCORES + body, weights, x=x, y="float[2,5,12] y", opset=23)
    model = with_array(model, "low", np.array(low, np.float32))
    infer_shapes(model)
    return model


def fused(model: Model) -> Rewritten:
    return rewrite((FUSE, EliminateDeadCode()), model)


def assert_same_where_all_is_forbidden(
    done: Rewritten, value: float | None = None, last: float | None = None
) -> None:
    """Query 1 may attend to no key, query 2 not to the last; a mask of floats may forbid that otherwise."""
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal((2, 5, 12)).astype(np.float32) for name in "qkv"}
    may = np.ones((2, 1, 5, 5), bool)
    may[:, :, 1], may[:, :, 2, -1] = False, False
    feed["may"] = may if value is None else np.where(may, np.float32(0), np.float32(value))
    if last is not None:
        feed["may"][:, :, 1:3, -1] = last
    before, after = run_onnxruntime(done.before, feed), run_onnxruntime(done.model, feed)
    assert before is not None
    assert after is not None
    assert np.isfinite(before[0]).all()
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)


@pytest.mark.parametrize("body", [MASK + MIX, MASK + GUARD, COMPUTED + MIX])
def test_the_lowest_float_throughout_weighs_all_keys_alike(body: str) -> None:
    done = fused(made(body))
    assert "Attention" in done.ops
    assert "Softmax" not in done.ops
    assert_same_where_all_is_forbidden(done)


def test_minus_infinity_throughout_gives_nothing_as_the_guard_does() -> None:
    done = fused(made(MASK + GUARD, -np.inf))
    assert done.ops == ["Where", "Attention", "IsNaN", "Where"]
    assert_same_where_all_is_forbidden(done)


def test_other_numbers_stay_as_they_are() -> None:
    done = fused(made(MASK + MIX, -1e4))
    assert done.ops == ["Where", "Attention"]
    assert_same_where_all_is_forbidden(done)


def test_a_mask_from_the_caller() -> None:
    x = ROWS.replace("bool", "float")
    done = fused(made("g = Add(f, may) p = Softmax<axis = -1>(g) " + MIX, x=x))
    assert done.ops == ["Equal", "Where", "Attention"]
    assert_same_where_all_is_forbidden(done, LOWEST)
    assert_same_where_all_is_forbidden(done, LOWEST, -np.inf)


def test_a_constant_mask() -> None:
    table = np.zeros((1, 3, 5, 5), np.float32)
    table[:, 0, 1], table[:, 1, 2, -1] = LOWEST, -np.inf
    body = "g = Add(f, near) p = Softmax<axis = -1>(g) "
    for end in (MIX, GUARD):
        model = with_array(made(body + end), "near", table)
        infer_shapes(model)
        done = fused(model)
        assert done.ops == (["Attention"] if end is MIX else ["Attention", "IsNaN", "Where"])
        assert_same_where_all_is_forbidden(done)


@pytest.mark.parametrize("end", [MIX, GUARD])
def test_two_sums(end: str) -> None:
    done = fused(made("b = Add(near, f) " + MASK.replace("(f,", "(b,") + end))
    assert done.ops == ["Where", "Add", "Attention"]
    assert_same_where_all_is_forbidden(done)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (MASK + GUARD.replace("Where(n, none, p)", "Where(n, half, p)"), None),
        (MASK + GUARD.replace("IsNaN(p)", "IsNaN(g)"), None),
        ((MASK + GUARD).replace("axis = -1", "axis = 1"), "not a softmax over keys"),
    ],
)
def test_guards_that_stay(body: str, reason: str | None) -> None:
    assert declined(FUSE, made(body)) == (set() if reason is None else {reason})


ALONE = "q2 = Relu(q) k2 = Sin(k) v2 = Cos(v) s = MatMul(q2, k2) f = Mul(s, half) " + MASK + GUARD
HEADS = "float[2,3,5,4] q, float[2,3,4,5] k, float[2,3,5,4] v, bool[2,1,5,5] may"
CUT = ("t = Transpose<perm = [0,2,1,3]>(a) y = Reshape(t, flat)", "y = Relu(a)")


@pytest.mark.parametrize(
    ("low", "mask", "behind"),
    [
        (LOWEST, "m = Where(may, none, low)", []),
        (-np.inf, "m = Where(may, none, low)", ["IsNaN", "Where"]),
        (LOWEST, "c = Where(may, none, low) m = Abs(c)", ["IsNaN", "Where"]),
        (-np.inf, "c = Where(may, none, low) d = Add(s, c) m = Where(may, none, none)", ["IsNaN", "Where"]),
    ],
)
def test_a_guard_beside_heads_goes_behind_the_product_or_away(
    low: float, mask: str, behind: list[str]
) -> None:
    body = ALONE.replace(*CUT).replace("m = Where(may, none, low)", mask)
    if "d = " in mask:
        body = body.replace("Add(f, m)", "Add(d, m)").replace("f = Mul(s, half) ", "")
    model = model_of(body, WEIGHTS, x=HEADS, y="float[2,3,5,4] y", opset=17)
    model = with_array(model, "low", np.array(low, np.float32))
    infer_shapes(model)
    done = fused(model)
    assert done.ops[done.ops.index("Softmax") :] == ["Softmax", "MatMul", *behind, "Relu"]
    assert done.reasons == {"needs opset 23"} or not done.reasons


def test_a_mask_of_unknown_origin_keeps_its_guard_behind() -> None:
    done = fused(made(COMPUTED + GUARD))
    assert done.ops[-6:] == ["Reshape", "Equal", "Where", "Attention", "IsNaN", "Where"]
    assert_same_where_all_is_forbidden(done)


TWICE = "m = Where(may, none, low) d = Add(f, m) g = Add(d, m) p = Softmax<axis = -1>(g) "


def test_masks_beyond_the_largest_float_are_counted_without_a_warning() -> None:
    assert "IsNaN" in rewrite(FUSE, made(TWICE + GUARD), numbers=False).ops


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the float64 reference
def test_masks_that_forbid_together_by_more_than_the_lowest_float_keep_the_guard() -> None:
    done = fused(made(TWICE + GUARD))
    assert done.ops[-3:] == ["Attention", "IsNaN", "Where"]
    assert_same_where_all_is_forbidden(done)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the float64 reference
@pytest.mark.parametrize(
    ("low", "masks", "dtype"),
    [
        (LOWEST, TWICE, np.float32),
        (np.inf, MASK, np.float32),
        (np.nan, MASK, np.float32),
        (0.0, "g = Div(f, low) p = Softmax<axis = -1>(g) ", np.float32),
        (-np.inf, MASK, np.float64),
    ],
)
def test_a_guard_that_may_be_needed_beside_heads(low: float, masks: str, dtype: type) -> None:
    name = "float" if dtype is np.float32 else "double"
    body = (ALONE.replace(MASK, "") + masks).replace(GUARD, "") + GUARD
    weights, x = WEIGHTS.replace("float", name), HEADS.replace("float", name)
    model = model_of(body.replace(*CUT), weights, x=x, y=f"{name}[2,3,5,4] y", opset=17)
    model = with_array(model, "low", np.array(low, dtype))
    infer_shapes(model)
    done = fused(model)
    assert done.ops[-5:] == ["Softmax", "MatMul", "IsNaN", "Where", "Relu"]
    rng = np.random.default_rng(0)
    feed = {
        v.name or "": rng.standard_normal(v.shape.numpy()).astype(dtype)
        for v in model.graph.inputs[:3]
        if v.shape
    }
    feed["may"] = np.ones((2, 1, 5, 5), bool)
    feed["may"][:, :, 1] = False
    before, after = run_both(done.before, done.model, feed)
    assert np.isfinite(before[0]).all()
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
