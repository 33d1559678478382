# SPDX-License-Identifier: Apache-2.0
"""Attention from its parts, and what is left alone."""

from __future__ import annotations

import pytest

from tersor import run
from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.attention import FuseAttention
from tersor.pipeline.presets import RAISED
from tests.support.numerics import snapshot
from tests.support.rewriting import Rewritten, declined, model_of, rewrite

FUSE = FuseAttention()
WEIGHTS = (
    "int64[4] cut = {0, 0, 3, 4}, int64[3] flat = {0, 0, 12}, float root = {2}, float half = {0.7}, "
    "float less = {-1}, int64[5] packed = {0, 0, 3, 3, 4}, int64[1] none = {0}"
)
ROWS = "float[N,T,12] q, float[N,L,12] k, float[N,L,12] v"
CUTS = "q1 = Reshape(q, cut) k1 = Reshape(k, cut) v1 = Reshape(v, cut) "
TURNS = (
    "q2 = Transpose<perm = [0,2,1,3]>(q1) k2 = Transpose<perm = [0,2,3,1]>(k1) "
    "v2 = Transpose<perm = [0,2,1,3]>(v1) "
)
HEADS = CUTS + TURNS
SCORES = "s = MatMul(q2, k2) f = Div(s, root) "
END = "a = MatMul(p, v2) t = Transpose<perm = [0,2,1,3]>(a) y = Reshape(t, flat)"
MIX = "p = Softmax<axis = -1>(f) " + END
PLAIN = HEADS + SCORES + MIX
Y = "float[N,T,12] y"


def made(body: str, x: str = ROWS, y: str = Y, opset: int = 23, weights: str = WEIGHTS) -> Model:
    model = model_of(body, weights, x=x, y=y, opset=opset)
    infer_shapes(model)
    return model


def fused(model: Model) -> Rewritten:
    return rewrite((FUSE, EliminateDeadCode()), model, N=2, T=5, L=7)


def test_text_in_text_out() -> None:
    done = fused(made(PLAIN))
    assert done.ops == ["Attention"]
    assert "Attention" in done.text
    assert "(q, k, v)" in done.text
    assert "kv_num_heads=3" in done.text
    assert "q_num_heads=3" in done.text
    assert "scale=0.5" in done.text


FACTORS = "q3 = Mul(q2, half) k3 = Div(k2, root) f = MatMul(q3, k3) "
LATER = "kh = Transpose<perm = [0,2,1,3]>(k1) kf = Mul(kh, half) k4 = Transpose<perm = [0,1,3,2]>(kf) "


@pytest.mark.parametrize(
    "body",
    [
        PLAIN.replace("f = Div(s, root)", "f = Mul(half, s)"),
        HEADS + SCORES.replace("f = Div(s, root)", "") + MIX.replace("(f)", "(s)"),
        PLAIN.replace("<axis = -1>", "<axis = 3>"),
        HEADS + FACTORS + MIX,
        HEADS + LATER + SCORES.replace("k2", "k4") + MIX,
    ],
    ids=["times", "no factor", "axis from the front", "factors of the operands", "keys turned later"],
)
def test_every_spelling(body: str) -> None:
    assert fused(made(body)).ops == ["Attention"]


MASKED = HEADS + SCORES + "g = Add(f, m) " + MIX.replace("(f)", "(g)")


def test_a_result_of_flat_rows() -> None:
    body = PLAIN.replace("y = Reshape(t, flat)", "u = Reshape(t, rows) y = Relu(u)")
    model = made(body, y="float[M,12] y", weights=f"{WEIGHTS}, int64[2] rows = {{-1, 12}}")
    done = fused(model)
    assert done.ops == ["Attention", "Reshape", "Relu"]


@pytest.mark.parametrize("mask", ["T,L", "1,1,T,L", "N,1,T,L", "3,T,L", "N,3,T,L"])
def test_masks_that_fit(mask: str) -> None:
    assert fused(made(MASKED, f"{ROWS}, float[{mask}] m")).ops == ["Equal", "Where", "Attention"]


def test_a_mask_of_one_row_is_expanded_by_its_own_length() -> None:
    rows = ROWS.replace("L", "T")
    done = fused(made(MASKED.replace("Add(f, m)", "Add(m, f)"), f"{rows}, float[N,1,1,T] m"))
    assert done.ops == ["Equal", "Where", "Shape", "Concat", "Expand", "Attention"]


def test_a_mask_of_one_row_is_expanded_to_a_known_length() -> None:
    rows = ROWS.replace("T", "5")
    done = fused(made(MASKED, f"{rows}, float[N,1,1,L] m", Y.replace("T", "5")))
    assert done.ops == ["Equal", "Where", "Expand", "Attention"]


def test_a_constant_mask_is_expanded_beforehand() -> None:
    """What the preset makes is not changed by making it again."""
    x, y = ROWS.replace("T", "5").replace("L", "7"), Y.replace("T", "5")
    model = made(MASKED, x, y, weights=f"{WEIGHTS}, float[1,1,1,7] m = {{1, 2, 3, 4, 5, 6, 7}}")
    run(model, RAISED)
    assert [node.op_type for node in walk_nodes(model)] == ["Attention"]
    once = snapshot(model)
    run(model, RAISED)
    assert snapshot(model) == once


PACKED = "r = Reshape(x, packed) h = Transpose<perm = [2,0,3,1,4]>(r) "
SPLIT = PACKED + (
    "a0, a1, a2 = Split<axis = 0, num_outputs = 3>(h) q2 = Squeeze(a0, none) k1 = Squeeze(a1, none) "
    "v2 = Squeeze(a2, none) k2 = Transpose<perm = [0,1,3,2]>(k1) "
)
GATHER = PACKED + (
    "q2 = Gather(h, i0) k1 = Gather(h, i1) v2 = Gather(h, i2) k2 = Transpose<perm = [0,1,3,2]>(k1) "
)
INDICES = WEIGHTS + ", int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {-1}"


@pytest.mark.parametrize("take", [SPLIT, GATHER])
def test_rows_side_by_side(take: str) -> None:
    done = fused(made(take + SCORES + MIX, "float[N,T,36] x", weights=INDICES))
    assert done.ops == ["Split", "Attention"]
    assert "axis=2" in done.text


NEGATIVE, INVERSE = SCORES.replace("root", "less"), SCORES.replace("s, root", "root, s")
HUGE = "large = Constant<value = float {1e30}>() q3 = Mul(q2, large) k3 = Mul(large, k2) f = MatMul(q3, k3) "
WEIGHED = "v3 = Mul(v2, half) " + END.replace("v2", "v3")
CLAMPED = "q3 = Relu(q2) " + SCORES.replace("q2", "q3")


@pytest.mark.parametrize(
    ("body", "x", "reason"),
    [
        (HEADS + NEGATIVE + MIX, ROWS, "the factor is not a positive number"),
        (HEADS + HUGE + MIX, ROWS, "the factor is not a positive number"),
        (HEADS + INVERSE + MIX, ROWS, None),
        (PLAIN.replace("<axis = -1>", "<axis = 2>"), ROWS, "not a softmax over keys"),
        (PLAIN, ROWS.replace("N", "A", 1), "batches are not known to be equal"),
        (PLAIN, ROWS.replace("N,L,12] v", "1,L,12] v"), "batches are not known to be equal"),
        (MASKED, f"{ROWS}, float[N,3,T,1] m", "the mask is not known to fit the products"),
        (MASKED, f"{ROWS}, float[N,1,1,L] m", "the mask is not known to fit the queries"),
        (MASKED, f"{ROWS}, float[L] m", "rank of the mask is not 2 to 4"),
        (HEADS + SCORES + MIX.replace(END, WEIGHED), ROWS, "the result is not rows again"),
        (HEADS + CLAMPED + MIX, ROWS, "not known to be rows cut into heads"),
    ],
)
def test_near_misses(body: str, x: str, reason: str | None) -> None:
    y = Y.replace("N", "A") if "A" in x else Y
    reasons = declined(FUSE, made(body, x, y))
    assert reasons == (set() if reason is None else {reason})


def test_other_heads_behind() -> None:
    body = PLAIN.replace("t = Transpose<perm = [0,2,1,3]>(a)", "t = Transpose<perm = [0,2,3,1]>(a)")
    assert "heads are not put side by side" in declined(FUSE, made(body, y="float[N,T,12] y"))


def test_scores_that_are_read_elsewhere_stay() -> None:
    model = made(PLAIN + " z = Relu(p)", y=f"{Y}, float[N,3,T,L] z")
    assert declined(FUSE, model) == set()


def test_an_order_of_parts_that_is_not_heads() -> None:
    body = SPLIT.replace("[2,0,3,1,4]", "[3,0,2,1,4]") + SCORES + MIX
    assert "not known to be rows cut into heads" in declined(FUSE, made(body, "float[N,T,36] x"))


def test_doubles_stay() -> None:
    weights = WEIGHTS.replace("float root", "double root").replace("float half", "double half")
    x = ROWS.replace("float", "double")
    assert "not for double" in declined(FUSE, made(PLAIN, x, Y.replace("float", "double"), weights=weights))


def test_below_opset_23() -> None:
    assert "needs opset 23" in declined(FUSE, made(PLAIN, opset=17))


def test_raising_the_opset() -> None:
    done = rewrite(
        (FuseAttention(raise_opset=True), EliminateDeadCode()), made(PLAIN, opset=17), N=2, T=5, L=7
    )
    assert done.ops == ["Attention"]
    assert done.model.opset_imports[""] == 23


def test_no_match_raises_nothing() -> None:
    model = made(PLAIN.replace("(s, root)", "(s, less)"), opset=17)
    assert not rewrite(FuseAttention(raise_opset=True), model).changed
    assert model.opset_imports[""] == 17


def test_in_a_body() -> None:
    body = PLAIN.replace("y = Reshape(t, flat)", "u = Reshape(t, flat)")
    model = made(
        "y = If (b) <then_branch = yes () => (float[N,T,12] u) { " + body + " },"
        " else_branch = no () => (float[N,T,12] w) { w = Relu(q) }>",
        f"{ROWS}, bool b",
    )
    done = fused(model)
    assert sorted(done.ops) == ["Attention", "If", "Relu"]
    assert [n.op_type for n in walk_nodes(done.model)].count("Attention") == 1
